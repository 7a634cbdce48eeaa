"""Calibration data: ranges, rounded weights and equalization factors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Range:
    """Quantization parameters of one tensor: real = scale * q, zero point 0.

    Unsigned tensors have q in [0, 255], signed tensors in [-128, 127]. `scale` is a float32.

    The zero point is always 0: zero padding is then quantized value 0, and a sum of products needs
    no correction by the sums of its weights (Jacob et al., arXiv 1712.05877, section 2.3). After a
    relu this costs nothing: such tensors are unsigned and use all 256 quantized values. All
    channels have the same scale, because the products of a sum must share one factor.
    """

    scale: float
    signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest quantized value."""
        # Activations use all 256 values; weights begin at -127 (see `RoundedWeights`).
        return (-128, 127) if self.signed else (0, 255)


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
