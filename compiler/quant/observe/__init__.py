"""Statistics of fp32 models over images, for calibration."""
