"""From a graph to kernels in order, and the memory they work in."""
