"""Plots of training runs and trained networks, drawn with matplotlib."""
