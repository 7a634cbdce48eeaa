"""Convolution and the linear layer: one direct kernel for all their attributes."""

from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import LANES, Kernel, Shape3, Space
from tcc.backends.arm.kernels.epilogue import NO_EPILOGUE, Epilogue
from tcc.backends.arm.kernels.window import MIN_SHARED_BANDS, Band, Layout, Window, compute_layout
from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.generic]

CHANNEL_BLOCK = 16
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


class GatherMode(Enum):
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
    """How output channels are cut into blocks of `width`: `count` full ones, then `remainder`."""

    width: int
    count: int
    remainder: int


@dataclass(frozen=True, slots=True)
class ConvNumbers:
    """The types of numbers in a convolution, and how many of them vectors along pixels hold."""

    source: str = "float32"
    weight: str = "float32"
    gathered: str = "float32"
    total: str = "float32"
    lanes: int = LANES


FLOATS = ConvNumbers()


def get_integer_numbers(source: str) -> ConvNumbers:
    """Return the arithmetic on 8-bit levels: 16 bits hold both kinds of them when gathered."""
    return ConvNumbers(source, "int8", "int16", "int32", 2 * LANES)


@dataclass(frozen=True, slots=True)
class DirectConv(Kernel):
    """A convolution as a sum over taps, in register tiles of channels and pixels.

    `is_flat`: the output's rows count as one; see `flatten`.
    Weights come block by block, each (taps, block); see `pack_weights`. Arguments: map,
    weights, bias, the epilogue's operands, a band of the map (where threads share it) and gathered
    taps (if any), result.
    """

    name: ClassVar[str] = "conv"
    window: Window
    filters: int
    groups: int
    tile: tuple[int, int]
    is_flat: bool = False
    epilogue: Epilogue = NO_EPILOGUE
    numbers: ConvNumbers = FLOATS

    @property
    def plane(self) -> Pair:
        """Height and width of the output as the loops see it."""
        height, width = self.window.out
        return (1, height * width) if self.is_flat else (height, width)

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output as the loops see it."""
        return (self.filters, *self.plane)

    @property
    def band(self) -> Band | None:
        """The rows that are copied with their border, if that is needed."""
        channels, kind = self.window.source[0], self.numbers.source
        parts = MIN_SHARED_BANDS if self.macs >= PARALLEL else 1
        match self.gather_mode:
            case GatherMode.MAP:
                return self.window.choose_band(1, 0.0, kind)
            case GatherMode.TILE:
                return self.window.choose_band(channels, 0.0, kind, parts)
            case GatherMode.NONE if self.groups > 1:
                return self.window.choose_band(self.depth, 0.0, kind)
            case GatherMode.NONE if self.is_weight_major:
                return self.window.choose_band(channels, 0.0, kind, is_shared=True)
            case GatherMode.NONE:
                return self.window.choose_band(channels, 0.0, kind, parts)
            case _:
                assert_never(self.gathered)

    @property
    def layout(self) -> Layout:
        """Where the window's elements lie."""
        return compute_layout(self.window, self.band)

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
        return prod(self.output_shape) * self.taps

    @property
    def uses_channel_vectors(self) -> bool:
        """Whether vectors run along output channels, as the map is too narrow for them."""
        group_filters = self.filters // self.groups
        # A block of several groups would need other inputs for each lane, so that groups must fill
        # whole vectors.
        fits = group_filters >= LANES if self.groups == 1 else group_filters % LANES == 0
        return fits and self.plane[1] < LANES

    @property
    def blocks(self) -> Blocks:
        """The blocks of the output channels; a block never spans groups."""
        group_filters = self.filters // self.groups
        step = LANES if self.uses_channel_vectors else 1
        width = min(
            CHANNEL_BLOCK if self.uses_channel_vectors else self.tile[0],
            group_filters // step * step,
        )
        if self.groups > 1:
            # A block that reached into the next group would read other channels.
            width = next(w for w in range(width, 0, -step) if group_filters % w == 0)
        return Blocks(width, self.filters // width, self.filters % width)

    @property
    def padding(self) -> int:
        """Channels that are added to the last block, so that it has whole vectors."""
        return -self.blocks.remainder % LANES if self.uses_channel_vectors else 0

    @property
    def is_weight_major(self) -> bool:
        """Whether to walk through the weights once and the map often, rather than vice versa."""
        return self.filters * self.taps >= prod(self.window.source)

    @property
    def gather_mode(self) -> GatherMode:
        """Which pixels' taps are gathered."""
        # Floats of a 1x1 window are one loop already; levels are widened to 16 bits while they are
        # gathered.
        is_single_loop = self.window.kernel == (1, 1) and self.numbers == FLOATS
        if self.uses_channel_vectors or self.depth == 1 or is_single_loop:
            return GatherMode.NONE
        all_taps = self.taps * prod(self.plane)
        if self.is_weight_major and self.groups == 1 and all_taps <= MAX_GATHERED:
            return GatherMode.MAP
        fits_panel = self.taps * min(self.tile[1], self.plane[1]) <= MAX_PANEL
        return GatherMode.TILE if fits_panel else GatherMode.NONE

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of a band that threads share and of all taps, as far as they are needed."""
        bands = self.band.spaces if self.band else ()
        gathered_space = Space(self.taps * prod(self.plane), self.numbers.gathered)
        return (*bands, gathered_space) if self.gather_mode is GatherMode.MAP else bands

    def flatten(self) -> "DirectConv":
        """Return the same with the output's rows laid end to end, if it may be written so."""
        if not self.epilogue.can_flatten(self.window.out):
            return self
        flat_kernel = replace(self, is_flat=True, epilogue=self.epilogue.flatten())
        is_pointwise = self.window.kernel == (1, 1)
        is_contiguous = self.window.is_pointwise or self.window.needs_staging
        can_flatten = is_contiguous if is_pointwise else flat_kernel.gather_mode is GatherMode.MAP
        return flat_kernel if can_flatten else self

    def pack_weights(self, weight: "Numbers") -> "Numbers":
        """Return weights (filters, depth, kernel height, kernel width) in the kernel's order."""
        return self._pack_blocks(weight.reshape(self.filters, self.taps))

    def pack_bias(self, bias: "Numbers") -> "Numbers":
        """Return a bias, one a filter, in the kernel's order."""
        return self._pack_blocks(bias.reshape(self.filters, 1))

    def _pack_blocks(self, rows: "Numbers") -> "Numbers":
        """Return (filters, n) as blocks, each (n, block), padded with zeros to whole vectors."""
        blocks = self.blocks
        full_filters = blocks.count * blocks.width
        parts = [rows[:full_filters].reshape(blocks.count, blocks.width, -1).transpose(0, 2, 1)]
        if blocks.remainder:
            # Zeros for channels that are not there: computed with the others and never written.
            parts.append(np.pad(rows[full_filters:], ((0, self.padding), (0, 0))).T)
        return np.concatenate([part.ravel() for part in parts])
