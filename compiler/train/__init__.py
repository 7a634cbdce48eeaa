"""Training: from labelled images and a recipe to weights, in PyTorch."""
