"""Convolutions with Winograd's method."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import MicroConvolution
from tcc.backends.arm.micro.records import QUAD
from tcc.backends.arm.micro.window import MicroWindow
from tcc.backends.arm.micro.winograd import QuantizedWinograd, Winograd, WinogradTiles
from tcc.compiler.ir.types import Pair


class WinogradConvolution(MicroConvolution):
    """A convolution with one group, in bands of tiles."""

    record: WinogradTiles
    epilogue: Epilogue
    """The fused ops, applied in a second pass over the results."""
    numbers: ClassVar[str]
    """The type of the tiles' points, the transformed pixels."""

    @property
    def padded_filters(self) -> int:
        """Filters, padded to full blocks."""
        return -(-self.filters // self.record.filters) * self.record.filters

    @property
    def tile_count(self) -> int:
        """Tiles of the output."""
        return self.record.count_tiles(self.window)

    @property
    def band_tiles(self) -> int:
        """Tiles that are computed at once."""
        return self.record.choose_band(self.window)

    @property
    def pitch(self) -> int:
        """Elements from one row of a band's points to the next; a vector can start at any tile."""
        return -(-(self.band_tiles + self.record.lanes - 1) // QUAD) * QUAD

    @property
    def points_space(self) -> Space:
        """The memory of a band's points."""
        return Space(self.record.count_tile_numbers(self.window) * self.pitch, self.numbers)


@dataclass(frozen=True, slots=True)
class MicroWinograd(WinogradConvolution):
    """Winograd's method for floats.

    With `has_lower_bound` or `has_upper_bound`, the results are clamped first. Arguments: map,
    weights, biases, the window's table, the bounds, the epilogue's operands, the tiles' points,
    result.
    """

    name: ClassVar[str] = "winograd"
    numbers: ClassVar[str] = "float32"
    record: Winograd
    window: MicroWindow
    filters: int
    has_lower_bound: bool
    has_upper_bound: bool
    epilogue: Epilogue

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
        w = self.window
        return (
            Space(w.channels * w.size[0] * w.size[1]),
            Space(self.padded_filters * w.taps),
            Space(self.padded_filters),
            Space(len(w.build_table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.points_space,
            self.epilogue.get_output_space(self.output_shape),
        )


@dataclass(frozen=True, slots=True)
class MicroQuantizedWinograd(WinogradConvolution):
    """Winograd's method for 8-bit quantized values, with results clamped to two bounds.

    `phases_per_sum` is the number of channels that are summed at once. Arguments: map, weights,
    biases, factors, the window's table, the tiles' points, the epilogue's operands, result.
    """

    name: ClassVar[str] = "level_winograd"
    numbers: ClassVar[str] = "int16"
    record: QuantizedWinograd
    window: MicroWindow
    filters: int
    phases_per_sum: int
    dtype: str
    bounds: Pair
    epilogue: Epilogue

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
        w = self.window
        return (
            Space(w.channels * w.size[0] * w.size[1], w.dtype),
            Space(self.padded_filters * w.taps, "int8"),
            Space(self.padded_filters, "int32"),
            Space(self.padded_filters),
            Space(len(w.build_table()), "int32"),
            self.points_space,
            *self.epilogue.spaces,
            self.epilogue.get_output_space(self.output_shape),
        )
