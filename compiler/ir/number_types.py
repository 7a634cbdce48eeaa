"""What numbers an artifact computes with, as its own file says, whatever is said of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers between the layers of an artifact, and those that its constants are stored as.

    `integers`: 8-bit levels go from layer to layer. `products`: some are multiplied as integers.
    `floats`: some layer computes on floats that no definition of integers has. `stored`: the types,
    by numpy's words, of the constants.
    """

    integers: bool
    products: bool
    floats: bool
    stored: frozenset[str]
