"""From spec text to a graph."""
