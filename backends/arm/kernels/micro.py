"""Convolutions of levels whose innermost loops are micro-kernels."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Kernel, Shape3, Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.micro.records import (
    QUAD,
    ChannelMatrix,
    Depthwise,
    Matrix,
    MicroKernel,
    Vector,
)
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.ir.types import Pair

L1 = 1 << 14
"""Bytes of weights that stay in a core's first cache beside what they are multiplied with."""
MAX_PANELS = 1 << 16
"""Most bytes of panels that a thread holds on its stack; see `POOL_STACK` in `runtime/pool.h`."""
TASKS = 4
"""Parts that a map is at least cut into, where it is large enough, for as many threads."""


@dataclass(frozen=True, slots=True)
class ResultForm:
    """What becomes of sums: levels between two bounds, or real numbers, and then the epilogue's."""

    dtype: str
    bounds: Pair | None
    epilogue: Epilogue

    @property
    def what(self) -> str:
        """The micro-kernel's function."""
        return "levels" if self.bounds else "reals"


class MicroKernelCaller(Kernel):
    """A kernel around a micro-kernel."""

    record: MicroKernel

    @property
    def scratch(self) -> tuple[Space, ...]:
        """Memory that it alone uses, behind all that it reads."""
        return ()

    @property
    def micro_kernels(self) -> tuple[MicroKernel, ...]:
        """What it calls."""
        return (self.record,)


class MicroConvolution(MicroKernelCaller):
    """One of filters that slide over a map."""

    window: MicroWindow
    filters: int

    @property
    def pixels(self) -> int:
        """Pixels of the output."""
        return self.window.out[0] * self.window.out[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, as the spec counts them."""
        return self.filters * self.pixels * self.window.taps

    @property
    def result(self) -> Shape3:
        """The shape of the output as the loops see it."""
        # Rows end to end: tiles of pixels do not stop at a row's end.
        return (self.filters, 1, self.pixels)


@dataclass(frozen=True, slots=True)
class MicroMatrix(MicroConvolution):
    """A convolution in tiles of pixels, gathered into panels.

    `window` is that of one group. Arguments: map, weights, biases, factors, the window's table, the
    epilogue's operands, scratch, result.
    """

    word: ClassVar[str] = "matrix"
    record: Matrix
    window: MicroWindow
    filters: int
    groups: int
    form: ResultForm

    @property
    def own(self) -> int:
        """Filters of a group."""
        return self.filters // self.groups

    @property
    def padded(self) -> int:
        """Filters of a group, filled up to whole blocks."""
        return -(-self.own // self.record.filters) * self.record.filters

    @property
    def quads(self) -> int:
        """Fours of taps of a sum."""
        return -(-self.window.taps // QUAD)

    @property
    def panel(self) -> int:
        """Bytes of a panel."""
        return self.quads * QUAD * self.record.pixels

    @property
    def joins(self) -> bool:
        """Whether quads are four channels of a tap."""
        return self.record.joins_channels(self.window.channels)

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of interleaved channels, where panels are copied from these."""
        if not isinstance(self.record, ChannelMatrix) or not self.joins or self.window.flat:
            return ()
        return (Space(self.record.dealt(self.window, self.groups), "int32"),)

    @property
    def weights(self) -> int:
        """Bytes of a group's weights."""
        return self.padded * self.quads * QUAD

    @property
    def chunk(self) -> int:
        """Filters that go over some panels before the next do: as many as a cache holds."""
        # A block of weights is read for each panel: where it stays in the first cache, panels
        # stream past it.
        fit = L1 // (self.quads * QUAD) // self.record.filters * self.record.filters
        return min(self.own, max(fit, self.record.filters))

    @property
    def together(self) -> int:
        """Panels that are gathered before weights go over them."""
        most = MAX_PANELS // self.panel
        if self.weights <= L1:
            # All weights stay: panels are several only for runs of results that are longer.
            most = L1 // self.panel if self.record.spans and not self.form.epilogue.steps else 1
        # Not more than a fourth of the map, so that threads have parts of their own.
        tiles = self.pixels // self.record.pixels
        return max(1, min(most, tiles // TASKS))

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w, filled = self.window, self.groups * self.padded
        source = Space(self.groups * w.channels * w.size[0] * w.size[1], w.levels)
        return (
            source,
            Space(self.groups * self.weights, "int8"),
            Space(filled, "int32"),
            Space(filled),
            Space(len(w.table()), "int32"),
            *self.form.epilogue.spaces,
            *self.scratch,
            self.form.epilogue.written(self.result),
        )


@dataclass(frozen=True, slots=True)
class MicroVector(MicroKernelCaller):
    """A product of a matrix and a vector.

    Arguments: vector, weights, biases, factors, the epilogue's operands, result.
    """

    word: ClassVar[str] = "vector"
    record: Vector
    window: MicroWindow
    filters: int
    form: ResultForm

    @property
    def row(self) -> int:
        """Bytes of a filter's weights."""
        return -(-self.window.channels // self.record.step) * self.record.step

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.filters * self.window.channels

    @property
    def result(self) -> Shape3:
        """The shape of the output as the loops see it."""
        return (self.filters, 1, 1)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        padded = -(-self.filters // self.record.filters) * self.record.filters
        return (
            Space(self.window.channels, self.window.levels),
            Space(padded * self.row, "int8"),
            Space(padded, "int32"),
            Space(padded),
            *self.form.epilogue.spaces,
            self.form.epilogue.written(self.result),
        )


@dataclass(frozen=True, slots=True)
class MicroDepthwise(MicroConvolution):
    """A depthwise convolution, a plane after another.

    `means` says whether all weights of each filter are one number. Arguments: map, weights, biases,
    factors, the window's table, result.
    """

    word: ClassVar[str] = "depthwise"
    record: Depthwise
    window: MicroWindow
    filters: int
    channels: int
    form: ResultForm
    means: bool = False

    @property
    def taps(self) -> int:
        """A filter's weights, filled up."""
        return -(-self.window.taps // QUAD) * QUAD

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w = self.window
        return (
            Space(self.channels * w.size[0] * w.size[1], w.levels),
            Space(self.filters * self.taps, "int16"),
            Space(self.filters, "int32"),
            Space(self.filters),
            Space(len(w.table()), "int32"),
            Space(self.filters * self.pixels, self.form.dtype),
        )
