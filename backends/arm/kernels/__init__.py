"""Kernels: what each computes, as plain values that need no TVM; their loops are in `loops`."""
