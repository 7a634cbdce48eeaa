"""AXERA's NPUs, whose compilers are Pulsar and Pulsar2: what these take as it is."""
