"""The target-independent compiler: from spec text to a float graph and its lowerings."""
