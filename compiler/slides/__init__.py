"""Whole slides: what is tissue, and what a network says of each patch of it."""
