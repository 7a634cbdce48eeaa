"""Kernels: what each computes, as plain values that need no TVM, and in `emit` their loops."""
