"""Generates C sources, object files and libraries from kernels."""
