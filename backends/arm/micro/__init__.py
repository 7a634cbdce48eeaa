"""Micro-kernels: the innermost loops of matrix products, in C and assembly.

A micro-kernel is a file in `c`, a record in `records` and an entry in the table of `cores`.
"""
