"""From kernels to C, objects and libraries."""
