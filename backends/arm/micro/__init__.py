"""Micro-kernels: the innermost loops of matrix products, in C and assembly.

A kernel is a file in `c`, its record in `records` and its word in the table of `cores`.
"""
