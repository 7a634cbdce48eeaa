"""From a graph to other frameworks."""
