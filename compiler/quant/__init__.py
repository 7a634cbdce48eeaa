"""Calibration and the integer program."""
