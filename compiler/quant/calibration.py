"""What calibration finds, and all that the integer program is made from beside the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Range:
    """How one value becomes integers: real = scale * q, zero point 0.

    Unsigned values have q in [0, 255], signed ones in [-128, 127]; `scale` is a float32.

    The zero point is always 0, so that a border of zeros is one of level 0 and a sum of products
    needs no correction by the sums of its weights (Jacob et al., arXiv 1712.05877, section 2.3).
    After a relu nothing is lost by it: such values are unsigned and use all 256 levels. There is
    one scale for all channels, since the products of a sum can share one factor only then.
    """

    scale: float
    signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest q."""
        # All 256 levels for values; weights end at -127 (see `RoundedWeights`).
        return (-128, 127) if self.signed else (0, 255)


@dataclass(frozen=True, slots=True, eq=False)
class RoundedWeights:
    """The integer weights of one convolution: real weight = scale[filter] * weight.

    `weight` is (filters, channels / groups, kernel height, kernel width) in [-127, 127], so that a
    filter and its negative round alike; `scale` is (filters,); `bias` (filters,) counts steps of
    input scale * weight scale, those of the sums that it is added to.
    """

    weight: Int8
    scale: Float32
    bias: Int32


@dataclass(frozen=True)
class Calibration:
    """Ranges of all values of a ready model, and weights of its convolutions.

    `ranges` holds the graph's input and every value that the integer program keeps, by name;
    values that must share a scale have equal ones. A convolution that `rounded` does not name has
    its float weights rounded to nearest, at absmax / 127 per filter. Where channels were equalised,
    `factors` (channels,) says what a channel's real value is: scale * q * factor. The nodes in
    `in_float` stay in float. The sums of a convolution that only an output reads are real numbers
    at once with `float_io`; without, they become 8-bit integers first, for targets whose outputs
    are integers.
    """

    ranges: Mapping[str, Range]
    rounded: Mapping[str, RoundedWeights] = field(default_factory=dict)
    factors: Mapping[str, Float32] = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()
    float_io: bool = True
