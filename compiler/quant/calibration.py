"""Calibration data: ranges, rounded weights and equalization factors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


MAX_ZERO_POINT = 254
"""Leaves a quantized value above 0."""


@dataclass(frozen=True, slots=True)
class Range:
    """Quantization parameters of one tensor: real = scale * q.

    Signed tensors have q in [-128, 127], others in [-zero_point, 255 - zero_point]. `scale` is a
    float32.

    Quantized value 0 is always the number 0, so that zero padding is quantized value 0. Stored
    bytes are q + zero point; targets fold the product of the zero point with the weights into the
    bias (Jacob et al., arXiv 1712.05877, section 2.3). All channels have the same scale, because
    the products of a sum must share one factor.
    """

    scale: float
    signed: bool
    zero_point: int = 0

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest quantized value."""
        # Activations use all 256 values; weights begin at -127 (see `RoundedWeights`).
        return (-128, 127) if self.signed else (-self.zero_point, 255 - self.zero_point)

    @property
    def min_real(self) -> float:
        """The smallest real number that a zero point was chosen for; minus infinity without one."""
        return -self.zero_point * self.scale if self.zero_point else -inf

    def with_scale(self, scale: float) -> "Range":
        """Return the range at another scale.

        With a zero point the smallest real number stays: a search changes the upper end alone.
        """
        if not self.zero_point:
            return replace(self, scale=scale)
        zero_point = round(self.zero_point * self.scale / scale)
        return Range(scale, signed=False, zero_point=min(max(zero_point, 1), MAX_ZERO_POINT))


@dataclass(frozen=True, slots=True, eq=False)
class RoundedWeights:
    """Quantized weights of one convolution: real weight = scale[filter] * weight.

    `weight` is (filters, channels / groups, kernel height, kernel width) in [-127, 127]: a filter
    and its negative round symmetrically. `scale` is (filters,). `bias` is (filters,), in steps of
    input scale * weight scale.
    """

    weight: Int8
    scale: Float32
    bias: Int32


@dataclass(frozen=True)
class Calibration:
    """Quantization parameters of a lowered model.

    Attributes:
        ranges: Range of the graph's input and of every value in the int8 program, by name. Values
            that must share a scale have equal ranges.
        rounded: Quantized weights by convolution. The weights of other convolutions are rounded to
            nearest, at absmax / 127 per filter.
        factors: Equalization factor of each channel (channels,) by value: real = scale * q *
            factor.
        in_float: Nodes that are not quantized.
        float_io: Whether a convolution that only an output reads gives float32 directly. If not,
            its output is quantized to 8 bits, for targets with 8-bit outputs.
    """

    ranges: Mapping[str, Range]
    rounded: Mapping[str, RoundedWeights] = field(default_factory=dict)
    factors: Mapping[str, Float32] = field(default_factory=dict)
    in_float: frozenset[str] = frozenset()
    float_io: bool = True
