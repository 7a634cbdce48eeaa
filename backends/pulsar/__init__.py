"""Packages for AXERA NPUs, which the vendor compilers Pulsar and Pulsar2 read unchanged."""
