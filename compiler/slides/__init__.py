"""Whole-slide images: tissue detection, and classification of tissue patches by a network."""
