"""Convolutions of floats whose innermost loops are a micro-kernel."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import MIN_TASKS, MicroConvolution
from tcc.backends.arm.micro.records import (
    MAX_FLOAT_PANELS,
    QUAD,
    FloatDepthwise,
    FloatMatrix,
)
from tcc.backends.arm.micro.window import MicroWindow

L1_FLOATS = 1 << 12
"""Floats of weights that stay in a core's first cache beside what they are multiplied with."""
L2_FLOATS = 1 << 16
"""Floats of weights that stay in a second cache, beside much else: more are to be read once."""
MIN_GATHERED_TAPS = 128
"""Taps from which pixels are gathered even where they lie in rows: those of as many planes may fall
on few sets of the cache. At 160 and 56x56, 35 misses in 1,000 products, 8 gathered."""
STREAMED_TILES = 15
"""Tiles that share each reading of weights that no cache holds."""


@dataclass(frozen=True, slots=True)
class MicroFloatMatrix(MicroConvolution):
    """A convolution in tiles of pixels.

    `window` is that of one group; `has_lower_bound` and `has_upper_bound` are what the sums are
    bounded by first.
    Arguments: map, weights, biases, the window's table, the bounds, the epilogue's operands,
    result.
    """

    name: ClassVar[str] = "float_matrix"
    record: FloatMatrix
    window: MicroWindow
    filters: int
    groups: int
    has_lower_bound: bool
    has_upper_bound: bool
    epilogue: Epilogue

    @property
    def group_filters(self) -> int:
        """Filters of a group."""
        return self.filters // self.groups

    @property
    def padded_filters(self) -> int:
        """Filters of a group, filled up to whole blocks."""
        return -(-self.group_filters // self.record.filters) * self.record.filters

    @property
    def tiles(self) -> int:
        """Tiles of the output; the last may be cut off."""
        return -(-self.pixels // self.record.pixels)

    @property
    def weight_floats(self) -> int:
        """Floats of a group's weights."""
        return self.padded_filters * self.window.taps

    @property
    def kernel_area(self) -> int:
        """Taps of a channel."""
        return prod(self.window.kernel)

    @property
    def reads_rows(self) -> bool:
        """Whether whole tiles are read where they lie."""
        w = self.window
        is_flat = w.kernel == (1, 1) and w.size == w.out == (1, self.pixels)
        return is_flat and self.weight_floats <= L1_FLOATS and w.taps < MIN_GATHERED_TAPS

    @property
    def tiles_per_round(self) -> int:
        """Tiles whose panels weights go over before the next are gathered."""
        if self.weight_floats <= L1_FLOATS:
            return 1
        # Weights that no cache holds are read from memory once for fifteen tiles
        # (docs/decisions/0030-float-products.md), instead of once for each.
        if self.weight_floats > L2_FLOATS:
            return min(self.tiles, STREAMED_TILES)
        fitting_tiles = MAX_FLOAT_PANELS // (self.window.taps * self.record.pixels)
        return max(1, min(fitting_tiles, self.tiles // MIN_TASKS))

    @property
    def chunk_channels(self) -> int:
        """Channels that are summed at once: as many as panels have room for."""
        # All channels where they fit; else some after others, with the sums so far read from the
        # result.
        fitting_channels = MAX_FLOAT_PANELS // (
            self.tiles_per_round * self.record.pixels * self.kernel_area
        )
        return max(1, min(self.window.channels, fitting_channels))

    @property
    def panel_floats(self) -> int:
        """Floats of a panel."""
        return self.chunk_channels * self.kernel_area * self.record.pixels

    @property
    def filters_per_share(self) -> int:
        """Filters that a thread takes of some panels, in whole blocks; the last may take fewer."""
        rounds = -(-self.tiles // self.tiles_per_round)
        blocks = self.padded_filters // self.record.filters
        return -(-blocks // min(-(-MIN_TASKS // rounds), blocks)) * self.record.filters

    @property
    def share_count(self) -> int:
        """Parts of the filters that threads share where tiles are too few for them."""
        return -(-self.padded_filters // self.filters_per_share)

    @property
    def chunk_filters(self) -> int:
        """Filters that go over some panels before the next do: as many as a cache holds."""
        fitting_filters = (
            L1_FLOATS
            // (self.chunk_channels * self.kernel_area)
            // self.record.filters
            * self.record.filters
        )
        return min(self.filters_per_share, max(fitting_filters, self.record.filters))

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w, total_filters = self.window, self.groups * self.padded_filters
        return (
            Space(self.groups * w.channels * w.size[0] * w.size[1]),
            Space(self.groups * self.weight_floats),
            Space(total_filters),
            Space(len(w.build_table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.epilogue.get_output_space(self.output_shape),
        )


@dataclass(frozen=True, slots=True)
class MicroFloatDepthwise(MicroConvolution):
    """A depthwise convolution, a plane after another.

    `has_lower_bound` and `has_upper_bound` are what the results are bounded by first. Arguments:
    map, weights, biases, the window's table, the bounds, the epilogue's operands, result.
    """

    name: ClassVar[str] = "depthwise"
    record: FloatDepthwise
    window: MicroWindow
    filters: int
    channels: int
    has_lower_bound: bool
    has_upper_bound: bool
    epilogue: Epilogue

    @property
    def taps(self) -> int:
        """A filter's weights, filled up."""
        return -(-self.window.taps // QUAD) * QUAD

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w = self.window
        return (
            Space(self.channels * w.size[0] * w.size[1]),
            Space(self.filters * self.taps),
            Space(self.filters),
            Space(len(w.build_table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.epilogue.get_output_space(self.output_shape),
        )
