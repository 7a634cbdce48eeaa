"""Convolutions by Winograd's method: `c/winograd_floats.h`, `_levels.h`, `_x86.c`."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tcc.backends.arm.micro.records import QUAD, MicroKernel, blocks
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int8 = NDArray[np.int8]

TILE_SIDE = 4
"""Outputs of a side of Winograd's tiles, of levels with four taps a side less."""
MOST_TILES = 64
"""Most tiles that are computed at once: `TILES` of `c/winograd_tiles.h`."""
CHANNELS = 64
"""Whose weights are transformed at once: `CHANNELS` of `c/winograd_levels.h`."""
MOST_SUM = 1 << 25
"""Bound of sums that are computed modulo 2^32, 64 times as large."""
MOST_DEALT_SUM = 1 << 29
"""The same of 3x3 taps of stride 2, four times as large."""


@dataclass(frozen=True, slots=True)
class WinogradTiles(MicroKernel):
    """Tiles of 4x4 outputs."""

    functions: ClassVar[tuple[str, ...]] = ("pixels", "block")
    deals: ClassVar[bool] = True
    """Whether it has points for 3x3 taps of stride 2."""
    area: ClassVar[int]
    """Points of a tile of which sums of as many tiles as there may be have room."""
    lanes: ClassVar[int]
    """Tiles that are written at once: as many as may lie behind the last."""
    near: ClassVar[int]
    """Numbers of tiles' points that a second cache holds."""
    far: ClassVar[int]
    """Most of them that lie in the arena at once, where a few tiles have many."""
    filters: int

    @staticmethod
    def taps(window: MicroWindow) -> Pair:
        """Return a phase's taps, as (height, width)."""
        (height, width), (down, across) = window.kernel, window.stride
        return -(-height // down), -(-width // across)

    def takes(self, window: MicroWindow) -> bool:
        """Whether it computes convolutions with this window."""
        square = self.taps(window) in {(3, 3), (4, 4)} and window.stride in {(1, 1), (2, 2)}
        slides = square or self.dealt(window)
        return slides and window.dilation == (1, 1) and self.fits(window)

    @classmethod
    def dealt(cls, window: MicroWindow) -> bool:
        """Whether phases have points of their own, and none are summed."""
        return cls.deals and window.kernel == (3, 3) and window.stride == (2, 2)

    @classmethod
    def side(cls, _window: MicroWindow) -> int:
        """Return the outputs of a tile's side."""
        return TILE_SIDE

    @classmethod
    def points(cls, window: MicroWindow) -> int:
        """Return the products that a tile and a phase of a channel take."""
        return 81 if cls.dealt(window) else (cls.taps(window)[1] + cls.side(window) - 1) ** 2

    @classmethod
    def weighted(cls, window: MicroWindow) -> int:
        """Return how many of a tile's points have weights of their own."""
        return 36 if cls.dealt(window) else cls.points(window)

    @classmethod
    def phases(cls, window: MicroWindow) -> int:
        """Return the channels of one sum, each counted once for each phase."""
        return window.channels * (1 if cls.dealt(window) else prod(window.stride))

    @classmethod
    def summed(cls, window: MicroWindow) -> int:
        """Return the channels that a sum is multiplied for, with those that fill vectors."""
        return cls.phases(window)

    @classmethod
    def calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one for each channel."""
        return window.channels

    def fits(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles have room."""
        return self.rows(window) * 2 * self.lanes <= self.far

    @classmethod
    def rows(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, with what is read behind them."""
        return cls.points(window) * cls.phases(window)

    def tiles(self, window: MicroWindow) -> int:
        """Return how many tiles cover a map."""
        return prod(-(-n // self.side(window)) for n in window.out)

    @classmethod
    def most(cls, window: MicroWindow) -> int:
        """Return the most tiles of a band: sums are as many for any number of points."""
        return min(MOST_TILES, MOST_TILES * cls.area // cls.points(window) // QUAD * QUAD)

    def band(self, window: MicroWindow) -> int:
        """Return how many tiles are computed at once: as many as a second cache holds."""
        fit = max(QUAD, min(self.most(window), self.near // self.rows(window) // QUAD * QUAD))
        tiles = self.tiles(window)
        each = -(-tiles // -(-tiles // fit))
        return min(tiles, -(-each // QUAD) * QUAD)

    def filled(self, values: "NDArray[Any]") -> "NDArray[Any]":
        """Return biases or factors, one a filter, filled up with zeros to whole blocks."""
        return blocks(values[:, None], self.filters).ravel()

    def packed(self, weight: "NDArray[Any]") -> "NDArray[Any]":
        """Return weights (filters, ...) as blocks, each (taps, filters)."""
        rows = blocks(weight.reshape(len(weight), -1), self.filters)
        return np.ascontiguousarray(rows.transpose(0, 2, 1)).ravel()


@dataclass(frozen=True, slots=True)
class Winograd(WinogradTiles):
    """Of floats; filters of 3x3 or 4x4 taps, or with stride 2 of twice as many."""

    area: ClassVar[int] = 49
    lanes: ClassVar[int] = 4
    near: ClassVar[int] = 21 << 13
    far: ClassVar[int] = 1 << 18


@dataclass(frozen=True, slots=True)
class WideWinograd(Winograd):
    """Of floats, where vectors hold channels: `c/winograd_x86.c`."""

    deals: ClassVar[bool] = False
    lanes: ClassVar[int] = 1
    near: ClassVar[int] = 5 << 15
    group: ClassVar[int] = 16

    @classmethod
    def summed(cls, window: MicroWindow) -> int:
        """Return the channels of whole groups."""
        return cls.calls(window) * cls.group

    @classmethod
    def calls(cls, window: MicroWindow) -> int:
        """Return how many calls write a band's points: one for each group of phases."""
        return -(-cls.phases(window) // cls.group)

    @classmethod
    def rows(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, of whole groups of phases."""
        # With room for a line of a cache between points of four tiles, who else share its sets.
        return cls.points(window) * (cls.summed(window) + QUAD)

    def fits(self, window: MicroWindow) -> bool:
        """Whether the points of a few tiles have room."""
        return self.rows(window) * QUAD <= self.far

    @classmethod
    def most(cls, window: MicroWindow) -> int:
        """Return the most tiles of a band: sums are as many for any number of points."""
        return MOST_TILES * 36 // cls.points(window) // QUAD * QUAD


@dataclass(frozen=True, slots=True)
class LevelWinograd(WinogradTiles):
    """Of levels, exactly; filters of 3x3 or 4x4 taps, or with stride 2 of up to twice as many."""

    area: ClassVar[int] = 36
    lanes: ClassVar[int] = 8
    near: ClassVar[int] = 1 << 18
    far: ClassVar[int] = 1 << 19

    @classmethod
    def side(cls, window: MicroWindow) -> int:
        """Return the outputs of a tile's side."""
        return TILE_SIDE - (cls.taps(window) == (4, 4))

    @classmethod
    def rows(cls, window: MicroWindow) -> int:
        """Return how many numbers a tile's points are, with what is read behind them."""
        # Products of four phases are taken at once, by weights of zero behind the last.
        phases = cls.phases(window)
        return cls.points(window) * phases + -phases % QUAD

    @classmethod
    def part(cls, weight: "Int8", window: MicroWindow) -> int:
        """Return how many phases of channels may be summed at once, whatever their levels are."""
        low, high = (-128, 127) if window.signed else (0, 255)
        rows = weight.reshape(len(weight), window.channels, -1).astype(np.int64)
        up, down = np.maximum(rows, 0).sum(axis=2), np.minimum(rows, 0).sum(axis=2)
        own = cls.phases(window) // window.channels
        starts = np.arange(0, window.channels, CHANNELS // own)
        most = MOST_DEALT_SUM if cls.dealt(window) else MOST_SUM
        # One group alone is always within it: 64 phases of 4x4 taps, 1024 * 127 * 255, are below
        # 2^25.
        for part in range(len(starts) * CHANNELS, CHANNELS, -CHANNELS):
            some = starts[:: part // CHANNELS]
            ups, downs = (np.add.reduceat(each, some, axis=1) for each in (up, down))
            if max((high * ups + low * downs).max(), -(low * ups + high * downs).min()) < most:
                return part
        return CHANNELS
