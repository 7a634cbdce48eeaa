"""Packages for Pulsar2, the second version of AXERA's compiler: AX620E, AX630C, AX620Q, AX650."""
