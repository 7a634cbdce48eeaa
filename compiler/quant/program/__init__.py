"""Quantization of a calibrated model to its int8 program, and comparison with fp32."""
