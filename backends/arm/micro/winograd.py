"""Convolutions with Winograd's method: `c/winograd_floats.h`, `_levels.h`, `_x86.c`."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tcc.backends.arm.micro.records import QUAD, MicroKernel, pad_blocks
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int8 = NDArray[np.int8]

TILE_SIDE = 4
"""Outputs per side of a Winograd tile; one less for int8 with four taps per side."""
MAX_TILES = 64
"""Largest number of tiles that are computed at once: `TILES` of `c/winograd_tiles.h`."""
MAX_WEIGHT_CHANNELS = 64
"""Channels with weights transformed at once: `CHANNELS` of `c/winograd_levels.h`."""
MAX_SUM = 1 << 25
"""Bound of sums that are computed modulo 2^32, scaled by 64."""
MAX_STRIDED_SUM = 1 << 29
"""The same bound for 3x3 taps with stride 2, where sums are scaled by 4."""


@dataclass(frozen=True, slots=True)
class WinogradTiles(MicroKernel):
    """Tiles of 4x4 outputs."""

    functions: ClassVar[tuple[str, ...]] = ("pixels", "block")
    supports_strided_points: ClassVar[bool] = True
    """Whether it has points for 3x3 taps with stride 2."""
    area: ClassVar[int]
    """Points per tile for which the sums of `MAX_TILES` tiles fit."""
    lanes: ClassVar[int]
    """Tiles that are written at once; this many may be written after the last tile."""
    cache_points: ClassVar[int]
    """Elements of tiles' points that fit in the second-level cache."""
    max_points: ClassVar[int]
    """Largest number of these elements in the arena, for a few tiles with many points."""
    filters: int

    @staticmethod
    def count_phase_taps(window: MicroWindow) -> Pair:
        """Return the taps of a phase, as (height, width)."""
        (height, width), (down, across) = window.kernel, window.stride
        return -(-height // down), -(-width // across)

    def supports_window(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        is_square = self.count_phase_taps(window) in {(3, 3), (4, 4)} and window.stride in {
            (1, 1),
            (2, 2),
        }
        is_supported = is_square or self.has_strided_points(window)
        return is_supported and window.dilation == (1, 1) and self.can_fit(window)

    @classmethod
    def has_strided_points(cls, window: MicroWindow) -> bool:
        """Whether phases have separate points and are not summed."""
        return cls.supports_strided_points and window.kernel == (3, 3) and window.stride == (2, 2)

    @classmethod
    def get_tile_side(cls, _window: MicroWindow) -> int:
        """Return the outputs per side of a tile."""
        return TILE_SIDE

    @classmethod
    def count_points(cls, window: MicroWindow) -> int:
        """Return the products per tile and per phase of a channel."""
        return (
            81
            if cls.has_strided_points(window)
            else (cls.count_phase_taps(window)[1] + cls.get_tile_side(window) - 1) ** 2
        )

    @classmethod
    def count_weighted_points(cls, window: MicroWindow) -> int:
        """Return how many of a tile's points have separate weights."""
        return 36 if cls.has_strided_points(window) else cls.count_points(window)

    @classmethod
    def count_phases(cls, window: MicroWindow) -> int:
        """Return the channels per sum, counted once per phase."""
        return window.channels * (1 if cls.has_strided_points(window) else prod(window.stride))

    @classmethod
    def count_summed_channels(cls, window: MicroWindow) -> int:
        """Return the multiplied channels per sum, including padding to full vectors."""
        return cls.count_phases(window)

    @classmethod
    def count_calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one per channel."""
        return window.channels

    def can_fit(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles fit in the arena."""
        return self.count_tile_numbers(window) * 2 * self.lanes <= self.max_points

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return the number of elements of a tile's points, including padding that is read."""
        return cls.count_points(window) * cls.count_phases(window)

    def count_tiles(self, window: MicroWindow) -> int:
        """Return the number of tiles that cover a map."""
        return prod(-(-n // self.get_tile_side(window)) for n in window.out)

    @classmethod
    def get_max_tiles(cls, window: MicroWindow) -> int:
        """Return the largest number of tiles per band; the buffer for sums has a fixed size."""
        return min(MAX_TILES, MAX_TILES * cls.area // cls.count_points(window) // QUAD * QUAD)

    def choose_band(self, window: MicroWindow) -> int:
        """Return how many tiles are computed at once: as many as fit in the second-level cache."""
        max_tiles = max(
            QUAD,
            min(
                self.get_max_tiles(window),
                self.cache_points // self.count_tile_numbers(window) // QUAD * QUAD,
            ),
        )
        tiles = self.count_tiles(window)
        tiles_per_band = -(-tiles // -(-tiles // max_tiles))
        return min(tiles, -(-tiles_per_band // QUAD) * QUAD)

    def pad_filters(self, per_filter: "NDArray[Any]") -> "NDArray[Any]":
        """Return biases or factors (filters,), padded with zeros to full blocks."""
        return pad_blocks(per_filter[:, None], self.filters).ravel()

    def pack_weights(self, weight: "NDArray[Any]") -> "NDArray[Any]":
        """Return weights (filters, ...) as blocks, each (taps, filters)."""
        rows = pad_blocks(weight.reshape(len(weight), -1), self.filters)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).ravel()


@dataclass(frozen=True, slots=True)
class Winograd(WinogradTiles):
    """For floats; filters of 3x3 or 4x4 taps, or with stride 2 of twice as many per side."""

    area: ClassVar[int] = 49
    lanes: ClassVar[int] = 4
    cache_points: ClassVar[int] = 21 << 13
    max_points: ClassVar[int] = 1 << 18


@dataclass(frozen=True, slots=True)
class WideWinograd(Winograd):
    """For floats, with vectors along channels: `c/winograd_x86.c`."""

    supports_strided_points: ClassVar[bool] = False
    lanes: ClassVar[int] = 1
    cache_points: ClassVar[int] = 5 << 15
    group: ClassVar[int] = 16

    @classmethod
    def count_summed_channels(cls, window: MicroWindow) -> int:
        """Return the channels, padded to full groups."""
        return cls.count_calls(window) * cls.group

    @classmethod
    def count_calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one per group of phases."""
        return -(-cls.count_phases(window) // cls.group)

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return the number of elements of a tile's points, padded to full groups of phases."""
        # A cache line of padding between the points of four tiles, which else share cache sets.
        return cls.count_points(window) * (cls.count_summed_channels(window) + QUAD)

    def can_fit(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles fit in the arena."""
        return self.count_tile_numbers(window) * QUAD <= self.max_points

    @classmethod
    def get_max_tiles(cls, window: MicroWindow) -> int:
        """Return the largest number of tiles per band; the buffer for sums has a fixed size."""
        return MAX_TILES * 36 // cls.count_points(window) // QUAD * QUAD


@dataclass(frozen=True, slots=True)
class QuantizedWinograd(WinogradTiles):
    """For int8, exact; filters of 3x3 or 4x4 taps, with stride 2 up to twice as many per side."""

    area: ClassVar[int] = 36
    lanes: ClassVar[int] = 8
    cache_points: ClassVar[int] = 1 << 18
    max_points: ClassVar[int] = 1 << 19

    @classmethod
    def get_tile_side(cls, window: MicroWindow) -> int:
        """Return the outputs per side of a tile."""
        return TILE_SIDE - (cls.count_phase_taps(window) == (4, 4))

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return the number of elements of a tile's points, including padding that is read."""
        # Four phases are multiplied at once; those after the last have zero weights.
        phases = cls.count_phases(window)
        return cls.count_points(window) * phases + -phases % QUAD

    @classmethod
    def find_phases_per_sum(cls, weight: "Int8", window: MicroWindow) -> int:
        """Return how many phases of channels can be summed at once for all input values."""
        low, high = window.low, window.low + 255
        rows = weight.reshape(len(weight), window.channels, -1).astype(np.int64)
        positive_sums, negative_sums = (
            np.maximum(rows, 0).sum(axis=2),
            np.minimum(rows, 0).sum(axis=2),
        )
        phases_per_channel = cls.count_phases(window) // window.channels
        starts = np.arange(0, window.channels, MAX_WEIGHT_CHANNELS // phases_per_channel)
        max_sum = MAX_STRIDED_SUM if cls.has_strided_points(window) else MAX_SUM
        # A single group is always within the bound: 64 phases of 4x4 taps sum to at most
        # 1024 * 127 * 255, below 2^25.
        for phase_count in range(
            len(starts) * MAX_WEIGHT_CHANNELS, MAX_WEIGHT_CHANNELS, -MAX_WEIGHT_CHANNELS
        ):
            group_starts = starts[:: phase_count // MAX_WEIGHT_CHANNELS]
            positive_totals, negative_totals = (
                np.add.reduceat(channel_sums, group_starts, axis=1)
                for channel_sums in (positive_sums, negative_sums)
            )
            if (
                max(
                    (high * positive_totals + low * negative_totals).max(),
                    -(low * positive_totals + high * negative_totals).min(),
                )
                < max_sum
            ):
                return phase_count
        return MAX_WEIGHT_CHANNELS
