"""Calibration, and quantization to the int8 program."""
