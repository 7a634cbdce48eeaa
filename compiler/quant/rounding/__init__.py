"""From float weights to integer ones."""
