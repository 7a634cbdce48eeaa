"""The zoo architectures in torch, written from their papers and independent of the specs.

Modules with parameters run in the order of the layers in the specs.
"""
