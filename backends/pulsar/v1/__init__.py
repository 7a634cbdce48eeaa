"""Packages for Pulsar, the first version of AXERA's compiler, which the AX620A has."""
