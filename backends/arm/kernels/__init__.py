"""Kernels as plain data, independent of TVM: what each computes. Their loops are in `loops`."""
