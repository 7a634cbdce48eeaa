"""Convolutions by Winograd's method: `c/winograd_floats.h`, `_levels.h`, `_x86.c`."""

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
"""Outputs of a side of Winograd's tiles, of levels with four taps a side less."""
MAX_TILES = 64
"""Most tiles that are computed at once: `TILES` of `c/winograd_tiles.h`."""
MAX_WEIGHT_CHANNELS = 64
"""Whose weights are transformed at once: `CHANNELS` of `c/winograd_levels.h`."""
MAX_SUM = 1 << 25
"""Bound of sums that are computed modulo 2^32, 64 times as large."""
MAX_STRIDED_SUM = 1 << 29
"""The same of 3x3 taps of stride 2, four times as large."""


@dataclass(frozen=True, slots=True)
class WinogradTiles(MicroKernel):
    """Tiles of 4x4 outputs."""

    functions: ClassVar[tuple[str, ...]] = ("pixels", "block")
    supports_strided_points: ClassVar[bool] = True
    """Whether it has points for 3x3 taps of stride 2."""
    area: ClassVar[int]
    """Points of a tile of which sums of as many tiles as there may be have room."""
    lanes: ClassVar[int]
    """Tiles that are written at once: as many as may lie behind the last."""
    cache_points: ClassVar[int]
    """Numbers of tiles' points that a second cache holds."""
    max_points: ClassVar[int]
    """Most of them that lie in the arena at once, where a few tiles have many."""
    filters: int

    @staticmethod
    def count_phase_taps(window: MicroWindow) -> Pair:
        """Return a phase's taps, as (height, width)."""
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
        """Whether phases have points of their own, and none are summed."""
        return cls.supports_strided_points and window.kernel == (3, 3) and window.stride == (2, 2)

    @classmethod
    def get_tile_side(cls, _window: MicroWindow) -> int:
        """Return the outputs of a tile's side."""
        return TILE_SIDE

    @classmethod
    def count_points(cls, window: MicroWindow) -> int:
        """Return the products that a tile and a phase of a channel take."""
        return (
            81
            if cls.has_strided_points(window)
            else (cls.count_phase_taps(window)[1] + cls.get_tile_side(window) - 1) ** 2
        )

    @classmethod
    def count_weighted_points(cls, window: MicroWindow) -> int:
        """Return how many of a tile's points have weights of their own."""
        return 36 if cls.has_strided_points(window) else cls.count_points(window)

    @classmethod
    def count_phases(cls, window: MicroWindow) -> int:
        """Return the channels of one sum, each counted once for each phase."""
        return window.channels * (1 if cls.has_strided_points(window) else prod(window.stride))

    @classmethod
    def count_summed_channels(cls, window: MicroWindow) -> int:
        """Return the channels that a sum is multiplied for, with those that fill vectors."""
        return cls.count_phases(window)

    @classmethod
    def count_calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one for each channel."""
        return window.channels

    def can_fit(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles have room."""
        return self.count_tile_numbers(window) * 2 * self.lanes <= self.max_points

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, with what is read behind them."""
        return cls.count_points(window) * cls.count_phases(window)

    def count_tiles(self, window: MicroWindow) -> int:
        """Return how many tiles cover a map."""
        return prod(-(-n // self.get_tile_side(window)) for n in window.out)

    @classmethod
    def get_max_tiles(cls, window: MicroWindow) -> int:
        """Return the most tiles of a band: sums are as many for any number of points."""
        return min(MAX_TILES, MAX_TILES * cls.area // cls.count_points(window) // QUAD * QUAD)

    def choose_band(self, window: MicroWindow) -> int:
        """Return how many tiles are computed at once: as many as a second cache holds."""
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
        """Return biases or factors, one a filter, filled up with zeros to whole blocks."""
        return pad_blocks(per_filter[:, None], self.filters).ravel()

    def pack_weights(self, weight: "NDArray[Any]") -> "NDArray[Any]":
        """Return weights (filters, ...) as blocks, each (taps, filters)."""
        rows = pad_blocks(weight.reshape(len(weight), -1), self.filters)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).ravel()


@dataclass(frozen=True, slots=True)
class Winograd(WinogradTiles):
    """Of floats; filters of 3x3 or 4x4 taps, or with stride 2 of twice as many."""

    area: ClassVar[int] = 49
    lanes: ClassVar[int] = 4
    cache_points: ClassVar[int] = 21 << 13
    max_points: ClassVar[int] = 1 << 18


@dataclass(frozen=True, slots=True)
class WideWinograd(Winograd):
    """Of floats, where vectors hold channels: `c/winograd_x86.c`."""

    supports_strided_points: ClassVar[bool] = False
    lanes: ClassVar[int] = 1
    cache_points: ClassVar[int] = 5 << 15
    group: ClassVar[int] = 16

    @classmethod
    def count_summed_channels(cls, window: MicroWindow) -> int:
        """Return the channels of whole groups."""
        return cls.count_calls(window) * cls.group

    @classmethod
    def count_calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one for each group of phases."""
        return -(-cls.count_phases(window) // cls.group)

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, of whole groups of phases."""
        # With room for a line of a cache between points of four tiles, who else share its sets.
        return cls.count_points(window) * (cls.count_summed_channels(window) + QUAD)

    def can_fit(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles have room."""
        return self.count_tile_numbers(window) * QUAD <= self.max_points

    @classmethod
    def get_max_tiles(cls, window: MicroWindow) -> int:
        """Return the most tiles of a band: sums are as many for any number of points."""
        return MAX_TILES * 36 // cls.count_points(window) // QUAD * QUAD


@dataclass(frozen=True, slots=True)
class QuantizedWinograd(WinogradTiles):
    """Of levels, exactly; filters of 3x3 or 4x4 taps, or with stride 2 of up to twice as many."""

    area: ClassVar[int] = 36
    lanes: ClassVar[int] = 8
    cache_points: ClassVar[int] = 1 << 18
    max_points: ClassVar[int] = 1 << 19

    @classmethod
    def get_tile_side(cls, window: MicroWindow) -> int:
        """Return the outputs of a tile's side."""
        return TILE_SIDE - (cls.count_phase_taps(window) == (4, 4))

    @classmethod
    def count_tile_numbers(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, with what is read behind them."""
        # Products of four phases are taken at once, by weights of zero behind the last.
        phases = cls.count_phases(window)
        return cls.count_points(window) * phases + -phases % QUAD

    @classmethod
    def find_phases_per_sum(cls, weight: "Int8", window: MicroWindow) -> int:
        """Return how many phases of channels may be summed at once, whatever their levels are."""
        low, high = (-128, 127) if window.is_signed else (0, 255)
        rows = weight.reshape(len(weight), window.channels, -1).astype(np.int64)
        positive_sums, negative_sums = (
            np.maximum(rows, 0).sum(axis=2),
            np.minimum(rows, 0).sum(axis=2),
        )
        phases_per_channel = cls.count_phases(window) // window.channels
        starts = np.arange(0, window.channels, MAX_WEIGHT_CHANNELS // phases_per_channel)
        max_sum = MAX_STRIDED_SUM if cls.has_strided_points(window) else MAX_SUM
        # One group alone is always within it: 64 phases of 4x4 taps, 1024 * 127 * 255, are below
        # 2^25.
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
