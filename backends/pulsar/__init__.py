"""AXERA's NPUs, whose compiler is Pulsar; this version calibrates for them and builds nothing."""
