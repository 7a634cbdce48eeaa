"""What float models do with images, as far as calibration needs to know."""
