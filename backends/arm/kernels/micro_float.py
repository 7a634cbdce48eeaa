"""Convolutions of floats whose innermost loops are a micro-kernel."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import TASKS, MicroConvolution
from tcc.backends.arm.micro.records import (
    MAX_FLOAT_PANELS,
    QUAD,
    FloatDepthwise,
    FloatMatrix,
)
from tcc.backends.arm.micro.window import MicroWindow

NEAR = 1 << 12
"""Floats of weights that stay in a core's first cache beside what they are multiplied with."""
FAR = 1 << 16
"""Floats of weights that stay in a second cache, beside much else: more are to be read once."""
SPREAD = 128
"""Taps from which pixels are gathered even where they lie in rows: those of as many planes may fall
on few sets of the cache. At 160 and 56x56, 35 misses in 1,000 products, 8 gathered."""
STREAMED = 15
"""Tiles that share each reading of weights that no cache holds."""


@dataclass(frozen=True, slots=True)
class MicroFloatMatrix(MicroConvolution):
    """A convolution in tiles of pixels.

    `window` is that of one group; `least` and `most` are what the sums are bounded by first.
    Arguments: map, weights, biases, the window's table, the bounds, the epilogue's operands,
    result.
    """

    word: ClassVar[str] = "float_matrix"
    record: FloatMatrix
    window: MicroWindow
    filters: int
    groups: int
    least: bool
    most: bool
    epilogue: Epilogue

    @property
    def own(self) -> int:
        """Filters of a group."""
        return self.filters // self.groups

    @property
    def padded(self) -> int:
        """Filters of a group, filled up to whole blocks."""
        return -(-self.own // self.record.filters) * self.record.filters

    @property
    def tiles(self) -> int:
        """Tiles of the output; the last may be cut off."""
        return -(-self.pixels // self.record.pixels)

    @property
    def weights(self) -> int:
        """Floats of a group's weights."""
        return self.padded * self.window.taps

    @property
    def area(self) -> int:
        """Taps of a channel."""
        return prod(self.window.kernel)

    @property
    def in_rows(self) -> bool:
        """Whether whole tiles are read where they lie."""
        w = self.window
        flat = w.kernel == (1, 1) and w.size == w.out == (1, self.pixels)
        return flat and self.weights <= NEAR and w.taps < SPREAD

    @property
    def together(self) -> int:
        """Tiles whose panels weights go over before the next are gathered."""
        if self.weights <= NEAR:
            return 1
        # Weights that no cache holds are read from memory once for fifteen tiles
        # (docs/decisions/0030-float-products.md), instead of once for each.
        if self.weights > FAR:
            return min(self.tiles, STREAMED)
        fit = MAX_FLOAT_PANELS // (self.window.taps * self.record.pixels)
        return max(1, min(fit, self.tiles // TASKS))

    @property
    def channels(self) -> int:
        """Channels that are summed at once: as many as panels have room for."""
        # All channels where they fit; else some after others, with the sums so far read from the
        # result.
        fit = MAX_FLOAT_PANELS // (self.together * self.record.pixels * self.area)
        return max(1, min(self.window.channels, fit))

    @property
    def panel(self) -> int:
        """Floats of a panel."""
        return self.channels * self.area * self.record.pixels

    @property
    def share(self) -> int:
        """Filters that a thread takes of some panels, in whole blocks; the last may take fewer."""
        rounds = -(-self.tiles // self.together)
        blocks = self.padded // self.record.filters
        return -(-blocks // min(-(-TASKS // rounds), blocks)) * self.record.filters

    @property
    def shares(self) -> int:
        """Parts of the filters that threads share where tiles are too few for them."""
        return -(-self.padded // self.share)

    @property
    def chunk(self) -> int:
        """Filters that go over some panels before the next do: as many as a cache holds."""
        fit = NEAR // (self.channels * self.area) // self.record.filters * self.record.filters
        return min(self.share, max(fit, self.record.filters))

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w, filled = self.window, self.groups * self.padded
        return (
            Space(self.groups * w.channels * w.size[0] * w.size[1]),
            Space(self.groups * self.weights),
            Space(filled),
            Space(len(w.table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.epilogue.written(self.result),
        )


@dataclass(frozen=True, slots=True)
class MicroFloatDepthwise(MicroConvolution):
    """A depthwise convolution, a plane after another.

    `least` and `most` are what the results are bounded by first. Arguments: map, weights, biases,
    the window's table, the bounds, the epilogue's operands, result.
    """

    word: ClassVar[str] = "depthwise"
    record: FloatDepthwise
    window: MicroWindow
    filters: int
    channels: int
    least: bool
    most: bool
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
            Space(len(w.table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.epilogue.written(self.result),
        )
