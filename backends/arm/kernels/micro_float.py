"""Float convolutions with micro-kernels as inner loops."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import MIN_TASKS, MicroConvolution
from tcc.backends.arm.micro.records import (
    MAX_PANEL_FLOATS,
    QUAD,
    FloatDepthwise,
    FloatMatrix,
)
from tcc.backends.arm.micro.window import MicroWindow

L1_FLOATS = 1 << 12
"""Floats of weights that stay in the first-level cache, besides the other operand."""
L2_FLOATS = 1 << 16
"""Floats of weights that stay in the second-level cache; more must be read only once."""
MIN_GATHERED_TAPS = 128
"""Taps above which pixels are gathered even if they are consecutive: as many planes may map to few
sets of the cache. With 160 taps at 56x56: 35 misses per 1,000 products, gathered 8."""
STREAMED_TILES = 15
"""Tiles per pass over weights that fit in no cache."""


@dataclass(frozen=True, slots=True)
class MicroFloatMatrix(MicroConvolution):
    """A convolution in tiles of pixels.

    `window` is the window of one group. With `has_lower_bound` or `has_upper_bound`, the sums are
    clamped first. Arguments: map, weights, biases, the window's table, the bounds, the epilogue's
    operands, result.
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
        """Filters per group."""
        return self.filters // self.groups

    @property
    def padded_filters(self) -> int:
        """Filters per group, padded to full blocks."""
        return -(-self.group_filters // self.record.filters) * self.record.filters

    @property
    def tiles(self) -> int:
        """Tiles of the output; the last may be partial."""
        return -(-self.pixels // self.record.pixels)

    @property
    def weight_floats(self) -> int:
        """Floats of one group's weights."""
        return self.padded_filters * self.window.taps

    @property
    def kernel_area(self) -> int:
        """Taps per channel."""
        return prod(self.window.kernel)

    @property
    def reads_rows(self) -> bool:
        """Whether full tiles are read from the map without gathering."""
        w = self.window
        is_flat = w.kernel == (1, 1) and w.size == w.out == (1, self.pixels)
        return is_flat and self.weight_floats <= L1_FLOATS and w.taps < MIN_GATHERED_TAPS

    @property
    def tiles_per_round(self) -> int:
        """Number of tiles whose taps are gathered before they are multiplied by weights."""
        if self.weight_floats <= L1_FLOATS:
            return 1
        # Weights that fit in no cache are read from memory once per fifteen tiles
        # (docs/decisions/0030-float-products.md), not once per tile.
        if self.weight_floats > L2_FLOATS:
            return min(self.tiles, STREAMED_TILES)
        fitting_tiles = MAX_PANEL_FLOATS // (self.window.taps * self.record.pixels)
        return max(1, min(fitting_tiles, self.tiles // MIN_TASKS))

    @property
    def chunk_channels(self) -> int:
        """Channels that are summed at once: as many as the panels can store."""
        # All channels if they fit. Otherwise several passes, which read the partial sums from the
        # result.
        fitting_channels = MAX_PANEL_FLOATS // (
            self.tiles_per_round * self.record.pixels * self.kernel_area
        )
        return max(1, min(self.window.channels, fitting_channels))

    @property
    def panel_floats(self) -> int:
        """Floats per panel."""
        return self.chunk_channels * self.kernel_area * self.record.pixels

    @property
    def filters_per_share(self) -> int:
        """Filters per thread for some panels, in full blocks; the last thread may have fewer."""
        rounds = -(-self.tiles // self.tiles_per_round)
        blocks = self.padded_filters // self.record.filters
        return -(-blocks // min(-(-MIN_TASKS // rounds), blocks)) * self.record.filters

    @property
    def share_count(self) -> int:
        """Parts of the filters for threads, if there are too few tiles."""
        return -(-self.padded_filters // self.filters_per_share)

    @property
    def chunk_filters(self) -> int:
        """Filters that are applied to all panels of a round before the next filters."""
        fitting_filters = (
            L1_FLOATS
            // (self.chunk_channels * self.kernel_area)
            // self.record.filters
            * self.record.filters
        )
        return min(self.filters_per_share, max(fitting_filters, self.record.filters))

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
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
    """A depthwise convolution, one plane at a time.

    With `has_lower_bound` or `has_upper_bound`, the results are clamped first. Arguments: map,
    weights, biases, the window's table, the bounds, the epilogue's operands, result.
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
        """Weights per filter, padded to full quads."""
        return -(-self.window.taps // QUAD) * QUAD

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
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
