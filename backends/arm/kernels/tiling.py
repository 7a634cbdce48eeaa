"""How a row of pixels is covered by vectors: what loops do, and what their costs are counted by."""

LANES = 4
"""Floats in a vector."""


def tile_width(extent: int, most: int, lanes: int = LANES) -> tuple[int, int]:
    """Return the width and the lanes, at most `lanes`, of tiles that cover `extent`."""
    if extent < LANES:
        return 1, 1
    # A map narrower than a vector takes half vectors.
    while lanes > extent:
        lanes //= 2
    return max(lanes, min(most, extent) // lanes * lanes), lanes
