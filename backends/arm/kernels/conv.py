"""Convolution and the linear layer: one direct kernel for all their attributes."""

from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import LANES, Kernel, Shape3, Space
from tcc.backends.arm.kernels.epilogue import NOTHING, Epilogue
from tcc.backends.arm.kernels.window import PARTS, Band, Layout, Window, layout
from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.generic]

WIDE = 16
"""Output channels of a block when vectors run along these: four vectors for each of at most three
pixels, so that the sums take twelve of sixteen registers."""
PARALLEL = 1 << 15
"""Multiply-accumulates from which a loop is worth several threads: some 55 us of a Cortex-A7 at
1 GHz, at the 1.7 cycles that each takes by the model: of the order of what waking threads takes."""
MAX_PANEL = 1 << 15
"""Most numbers that a thread gathers on its stack, 128 KiB of floats; see `POOL_STACK` in
`runtime/pool.h`."""
MAX_GATHERED = 1 << 23
"""Most numbers that are gathered for a whole map, 32 MiB of floats, all of it in the arena."""


class Gathered(Enum):
    """Which pixels' taps are laid one after another before they are summed.

    One loop over all taps then suffices. Loops in each other cost registers: gathered, a 7x7
    convolution of stride 2 took 72 M instructions where nested loops took 157 M. It also lays what
    a tile reads side by side, where rows of a map may fall on few sets of the cache.
    """

    NONE = "none"  # there is one loop anyway, or nothing else fits
    TILE = "tile"  # those of one tile, for all output channels
    MAP = "map"  # all, where weights outweigh the map


@dataclass(frozen=True, slots=True)
class Blocks:
    """How output channels are cut into blocks of `width`: `count` full ones, then `rest`."""

    width: int
    count: int
    rest: int


@dataclass(frozen=True, slots=True)
class ConvNumbers:
    """The types of numbers in a convolution, and how many of them vectors along pixels hold."""

    source: str = "float32"
    weight: str = "float32"
    gathered: str = "float32"
    total: str = "float32"
    lanes: int = LANES


FLOATS = ConvNumbers()


def integers(source: str) -> ConvNumbers:
    """Return the arithmetic on 8-bit levels: 16 bits hold both kinds of them when gathered."""
    return ConvNumbers(source, "int8", "int16", "int32", 2 * LANES)


@dataclass(frozen=True, slots=True)
class DirectConv(Kernel):
    """A convolution as a sum over taps, in register tiles of channels and pixels.

    `flat`: the output's rows count as one; see `flattened`.
    Weights come block by block, each (taps, block); see `packed`. Arguments: map,
    weights, bias, the epilogue's operands, a band of the map (where threads share it) and gathered
    taps (if any), result.
    """

    word: ClassVar[str] = "conv"
    window: Window
    filters: int
    groups: int
    tile: tuple[int, int]
    flat: bool = False
    epilogue: Epilogue = NOTHING
    numbers: ConvNumbers = FLOATS

    @property
    def plane(self) -> Pair:
        """Height and width of the output as the loops see it."""
        height, width = self.window.out
        return (1, height * width) if self.flat else (height, width)

    @property
    def result(self) -> Shape3:
        """The shape of the output as the loops see it."""
        return (self.filters, *self.plane)

    @property
    def band(self) -> Band | None:
        """The rows that are copied with their border, if that is needed."""
        channels, kind = self.window.source[0], self.numbers.source
        parts = PARTS if self.macs >= PARALLEL else 1
        match self.gathered:
            case Gathered.MAP:
                return self.window.band(1, 0.0, kind)
            case Gathered.TILE:
                return self.window.band(channels, 0.0, kind, parts)
            case Gathered.NONE if self.groups > 1:
                return self.window.band(self.depth, 0.0, kind)
            case Gathered.NONE if self.weights_outside:
                return self.window.band(channels, 0.0, kind, shared=True)
            case Gathered.NONE:
                return self.window.band(channels, 0.0, kind, parts)
            case _:
                assert_never(self.gathered)

    @property
    def layout(self) -> Layout:
        """Where the window's elements lie."""
        return layout(self.window, self.band)

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return self.window.source[0] // self.groups

    @property
    def taps(self) -> int:
        """Multiply-accumulates for one output element."""
        return self.depth * prod(self.window.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return prod(self.result) * self.taps

    @property
    def across(self) -> bool:
        """Whether vectors run along output channels, as the map is too narrow for them."""
        own = self.filters // self.groups
        # A block of several groups would need other inputs for each lane, so that groups must fill
        # whole vectors.
        fits = own >= LANES if self.groups == 1 else own % LANES == 0
        return fits and self.plane[1] < LANES

    @property
    def blocks(self) -> Blocks:
        """The blocks of the output channels; a block never spans groups."""
        own = self.filters // self.groups
        step = LANES if self.across else 1
        width = min(WIDE if self.across else self.tile[0], own // step * step)
        if self.groups > 1:
            # A block that reached into the next group would read other channels.
            width = next(w for w in range(width, 0, -step) if own % w == 0)
        return Blocks(width, self.filters // width, self.filters % width)

    @property
    def padding(self) -> int:
        """Channels that are added to the last block, so that it has whole vectors."""
        return -self.blocks.rest % LANES if self.across else 0

    @property
    def weights_outside(self) -> bool:
        """Whether to walk through the weights once and the map often, rather than vice versa."""
        return self.filters * self.taps >= prod(self.window.source)

    @property
    def gathered(self) -> Gathered:
        """Which pixels' taps are gathered."""
        # Floats of a 1x1 window are one loop already; levels are widened to 16 bits while they are
        # gathered.
        alone = self.window.kernel == (1, 1) and self.numbers == FLOATS
        if self.across or self.depth == 1 or alone:
            return Gathered.NONE
        all_taps = self.taps * prod(self.plane)
        if self.weights_outside and self.groups == 1 and all_taps <= MAX_GATHERED:
            return Gathered.MAP
        fits = self.taps * min(self.tile[1], self.plane[1]) <= MAX_PANEL
        return Gathered.TILE if fits else Gathered.NONE

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of a band that threads share and of all taps, as far as they are needed."""
        bands = self.band.spaces if self.band else ()
        gathered = Space(self.taps * prod(self.plane), self.numbers.gathered)
        return (*bands, gathered) if self.gathered is Gathered.MAP else bands

    def flattened(self) -> "DirectConv":
        """Return the same with the output's rows laid end to end, if it may be written so."""
        if not self.epilogue.flat(self.window.out):
            return self
        flat = replace(self, flat=True, epilogue=self.epilogue.flattened())
        one_by_one = self.window.kernel == (1, 1)
        in_a_row = self.window.pointwise or self.window.staged
        fits = in_a_row if one_by_one else flat.gathered is Gathered.MAP
        return flat if fits else self

    def packed(self, weight: "Numbers") -> "Numbers":
        """Return weights (filters, depth, kernel height, kernel width) in the kernel's order."""
        return self._blocked(weight.reshape(self.filters, self.taps))

    def packed_bias(self, bias: "Numbers") -> "Numbers":
        """Return a bias, one a filter, in the kernel's order."""
        return self._blocked(bias.reshape(self.filters, 1))

    def _blocked(self, rows: "Numbers") -> "Numbers":
        """Return (filters, n) as blocks, each (n, block), padded with zeros to whole vectors."""
        blocks = self.blocks
        full = blocks.count * blocks.width
        parts = [rows[:full].reshape(blocks.count, blocks.width, -1).transpose(0, 2, 1)]
        if blocks.rest:
            # Zeros for channels that are not there: computed with the others and never written.
            parts.append(np.pad(rows[full:], ((0, self.padding), (0, 0))).T)
        return np.concatenate([part.ravel() for part in parts])
