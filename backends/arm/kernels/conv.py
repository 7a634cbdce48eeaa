"""Convolution and linear layer: one direct kernel with all their attributes."""

from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, ClassVar, assert_never

import numpy as np

from tcc.backends.arm.kernels.base import LANES, Kernel, Shape3, Space, get_zero_point
from tcc.backends.arm.kernels.epilogue import NO_EPILOGUE, Epilogue
from tcc.backends.arm.kernels.window import MIN_SHARED_BANDS, Band, Layout, Window, compute_layout
from tcc.compiler.ir.types import Pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.generic]

CHANNEL_BLOCK = 16
"""Output channels per block if vectors run along channels: four vectors for each of up to three
pixels, so the sums need twelve of sixteen registers."""
PARALLEL = 1 << 15
"""Multiply-accumulates above which a loop runs on several threads: about 55 us on a Cortex-A7 at
1 GHz, at 1.7 cycles each by the cycle model. Waking threads costs about as much."""
MAX_PANEL = 1 << 15
"""Largest number of elements that a thread gathers on its stack, 128 KiB of floats; see
`POOL_STACK` in `runtime/pool.h`."""
MAX_GATHERED = 1 << 23
"""Largest number of elements gathered for a map, 32 MiB of floats in the arena."""


class GatherMode(Enum):
    """The pixels whose taps are copied to consecutive memory before they are summed.

    Gathering leaves one loop over all taps. Nested loops need more registers: a 7x7 convolution
    with stride 2 took 157 M instructions, gathered 72 M. It also makes a tile's data consecutive;
    the rows of a map may map to few sets of the cache.
    """

    NONE = "none"  # a single loop is enough, or the other modes need too much memory
    TILE = "tile"  # the pixels of one tile, for all output channels
    MAP = "map"  # all pixels, if the weights are larger than the map


@dataclass(frozen=True, slots=True)
class Blocks:
    """Output channels in blocks of `width`: `count` full blocks, then `remainder` channels."""

    width: int
    count: int
    remainder: int


@dataclass(frozen=True, slots=True)
class ConvNumbers:
    """Element types of a convolution, and the number of lanes of its pixel vectors."""

    source: str = "float32"
    weight: str = "float32"
    gathered: str = "float32"
    total: str = "float32"
    lanes: int = LANES

    @property
    def staged(self) -> str:
        """The type of the source in a copy with its border."""
        # Values with a zero point are widened once, not for each tap.
        return self.gathered if get_zero_point(self.source) else self.source


FLOATS = ConvNumbers()


def get_integer_numbers(source: str) -> ConvNumbers:
    """Return the types for 8-bit quantized values; gathered values have 16 bits."""
    return ConvNumbers(source, "int8", "int16", "int32", 2 * LANES)


@dataclass(frozen=True, slots=True)
class DirectConv(Kernel):
    """A convolution as a sum over taps, in register tiles of channels and pixels.

    With `is_flat`, the output's rows are one row; see `flatten`. Weights are stored in blocks,
    each (taps, block); see `pack_weights`. Arguments: map, weights, bias, the epilogue's operands,
    a band of the map (if threads share it) and gathered taps (if any), result.
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
        """Height and width of the output in the loops."""
        height, width = self.window.out
        return (1, height * width) if self.is_flat else (height, width)

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output in the loops."""
        return (self.filters, *self.plane)

    @property
    def band(self) -> Band | None:
        """The rows that are copied with their border; None if no copy is needed."""
        channels, kind = self.window.source[0], self.numbers.staged
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
                assert_never(self.gather_mode)

    @property
    def layout(self) -> Layout:
        """The offsets of the window's elements."""
        return compute_layout(self.window, self.band)

    @property
    def depth(self) -> int:
        """Input channels per group."""
        return self.window.source[0] // self.groups

    @property
    def taps(self) -> int:
        """Multiply-accumulates per output element."""
        return self.depth * prod(self.window.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per run."""
        return prod(self.output_shape) * self.taps

    @property
    def uses_channel_vectors(self) -> bool:
        """Whether vectors run along output channels, because the map is too narrow."""
        group_filters = self.filters // self.groups
        # With groups, all lanes of a vector must read the same inputs: groups must be multiples of
        # a vector.
        fits = group_filters >= LANES if self.groups == 1 else group_filters % LANES == 0
        return fits and self.plane[1] < LANES

    @property
    def blocks(self) -> Blocks:
        """The blocks of output channels; a block is within one group."""
        group_filters = self.filters // self.groups
        step = LANES if self.uses_channel_vectors else 1
        width = min(
            CHANNEL_BLOCK if self.uses_channel_vectors else self.tile[0],
            group_filters // step * step,
        )
        if self.groups > 1:
            # A block must not extend into the next group, which reads other channels.
            width = next(w for w in range(width, 0, -step) if group_filters % w == 0)
        return Blocks(width, self.filters // width, self.filters % width)

    @property
    def padding(self) -> int:
        """Channels added to the last block to fill its vectors."""
        return -self.blocks.remainder % LANES if self.uses_channel_vectors else 0

    @property
    def is_weight_major(self) -> bool:
        """Whether to read the weights once and the map repeatedly, instead of the reverse."""
        return self.filters * self.taps >= prod(self.window.source)

    @property
    def gather_mode(self) -> GatherMode:
        """The pixels whose taps are gathered."""
        # A 1x1 window of floats is a single loop without gathering. 8-bit values are widened to 16
        # bits when they are gathered.
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
        """The memory of a shared band and of gathered taps, as far as needed."""
        bands = self.band.spaces if self.band else ()
        gathered_space = Space(self.taps * prod(self.plane), self.numbers.gathered)
        return (*bands, gathered_space) if self.gather_mode is GatherMode.MAP else bands

    def flatten(self) -> "DirectConv":
        """Return the kernel with the output's rows joined to one, if that is possible."""
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
        """Return a bias (filters,) in the kernel's order."""
        return self._pack_blocks(bias.reshape(self.filters, 1))

    def _pack_blocks(self, rows: "Numbers") -> "Numbers":
        """Return (filters, n) as blocks, each (n, block), padded with zeros to full vectors."""
        blocks = self.blocks
        full_filters = blocks.count * blocks.width
        parts = [rows[:full_filters].reshape(blocks.count, blocks.width, -1).transpose(0, 2, 1)]
        if blocks.remainder:
            # Padding channels have zero weights; their results are never written.
            parts.append(np.pad(rows[full_filters:], ((0, self.padding), (0, 0))).T)
        return np.concatenate([part.ravel() for part in parts])
