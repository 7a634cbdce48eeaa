"""Rounding of float weights to quantized weights."""
