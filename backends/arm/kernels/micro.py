"""Int8 convolutions with micro-kernels as inner loops."""

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

L1_BYTES = 1 << 14
"""Bytes of weights that stay in the first-level cache, besides the other operand."""
MAX_PANELS = 1 << 16
"""Largest size of a thread's panels on its stack in bytes; see `POOL_STACK` in `runtime/pool.h`."""
MIN_TASKS = 4
"""Least number of parts of a large map, to use as many threads."""


@dataclass(frozen=True, slots=True)
class ResultForm:
    """The form of results: quantized values between two bounds, or floats; then the epilogue."""

    dtype: str
    bounds: Pair | None
    epilogue: Epilogue

    @property
    def function_name(self) -> str:
        """The name of the micro-kernel's function."""
        return "levels" if self.bounds else "reals"


class MicroKernelCaller(Kernel):
    """A kernel that calls a micro-kernel."""

    record: MicroKernel

    @property
    def scratch(self) -> tuple[Space, ...]:
        """Scratch memory, after the inputs and constants."""
        return ()

    @property
    def micro_kernels(self) -> tuple[MicroKernel, ...]:
        """The micro-kernel that it calls."""
        return (self.record,)


class MicroConvolution(MicroKernelCaller):
    """A convolution with a micro-kernel."""

    window: MicroWindow
    filters: int

    @property
    def pixels(self) -> int:
        """Pixels of the output."""
        return self.window.out[0] * self.window.out[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates per run, as the spec counts them."""
        return self.filters * self.pixels * self.window.taps

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output in the loops."""
        # All rows as one: tiles of pixels continue past the end of a row.
        return (self.filters, 1, self.pixels)


@dataclass(frozen=True, slots=True)
class MicroMatrix(MicroConvolution):
    """A convolution in tiles of pixels, which are gathered into panels.

    `window` is the window of one group. Arguments: map, weights, biases, factors, the window's
    table, the epilogue's operands, scratch, result.
    """

    name: ClassVar[str] = "matrix"
    record: Matrix
    window: MicroWindow
    filters: int
    groups: int
    form: ResultForm

    @property
    def group_filters(self) -> int:
        """Filters per group."""
        return self.filters // self.groups

    @property
    def padded_filters(self) -> int:
        """Filters per group, padded to full blocks."""
        return -(-self.group_filters // self.record.filters) * self.record.filters

    @property
    def quads(self) -> int:
        """Quads (groups of four taps) per sum."""
        return -(-self.window.taps // QUAD)

    @property
    def panel_bytes(self) -> int:
        """Bytes per panel."""
        return self.quads * QUAD * self.record.pixels

    @property
    def uses_channel_quads(self) -> bool:
        """Whether a quad is four channels of one tap."""
        return self.record.has_channel_quads(self.window.channels)

    @property
    def scratch(self) -> tuple[Space, ...]:
        """The memory of interleaved channels, if panels are copied from these."""
        if (
            not isinstance(self.record, ChannelMatrix)
            or not self.uses_channel_quads
            or self.window.is_flat
        ):
            return ()
        return (Space(self.record.count_interleaved_quads(self.window, self.groups), "int32"),)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one group's weights."""
        return self.padded_filters * self.quads * QUAD

    @property
    def chunk_filters(self) -> int:
        """Filters that are applied to all panels of a round before the next filters."""
        # Each panel reads a block of weights: the block stays in the first-level cache while
        # panels stream through it.
        fitting_filters = (
            L1_BYTES // (self.quads * QUAD) // self.record.filters * self.record.filters
        )
        return min(self.group_filters, max(fitting_filters, self.record.filters))

    @property
    def panels_per_round(self) -> int:
        """Panels that are gathered before weights are applied to them."""
        max_panels = MAX_PANELS // self.panel_bytes
        if self.weight_bytes <= L1_BYTES:
            # All weights stay in the cache: several panels only help to write longer runs.
            max_panels = (
                L1_BYTES // self.panel_bytes
                if self.record.supports_panel_spans and not self.form.epilogue.steps
                else 1
            )
        # At most a fourth of the map, so that threads have separate parts.
        tiles = self.pixels // self.record.pixels
        return max(1, min(max_panels, tiles // MIN_TASKS))

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
        w, total_filters = self.window, self.groups * self.padded_filters
        source_space = Space(self.groups * w.channels * w.size[0] * w.size[1], w.dtype)
        return (
            source_space,
            Space(self.groups * self.weight_bytes, "int8"),
            Space(total_filters, "int32"),
            Space(total_filters),
            Space(len(w.build_table()), "int32"),
            *self.form.epilogue.spaces,
            *self.scratch,
            self.form.epilogue.get_output_space(self.output_shape),
        )


@dataclass(frozen=True, slots=True)
class MicroVector(MicroKernelCaller):
    """A matrix-vector product.

    Arguments: vector, weights, biases, factors, the epilogue's operands, result.
    """

    name: ClassVar[str] = "vector"
    record: Vector
    window: MicroWindow
    filters: int
    form: ResultForm

    @property
    def row_bytes(self) -> int:
        """Bytes of one filter's weights."""
        return -(-self.window.channels // self.record.step) * self.record.step

    @property
    def macs(self) -> int:
        """Multiply-accumulates per run."""
        return self.filters * self.window.channels

    @property
    def output_shape(self) -> Shape3:
        """The shape of the output in the loops."""
        return (self.filters, 1, 1)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
        padded = -(-self.filters // self.record.filters) * self.record.filters
        return (
            Space(self.window.channels, self.window.dtype),
            Space(padded * self.row_bytes, "int8"),
            Space(padded, "int32"),
            Space(padded),
            *self.form.epilogue.spaces,
            self.form.epilogue.get_output_space(self.output_shape),
        )


@dataclass(frozen=True, slots=True)
class MicroDepthwise(MicroConvolution):
    """A depthwise convolution, one plane at a time.

    With `has_uniform_weights`, all weights of each filter are equal. Arguments: map, weights,
    biases, factors, the window's table, result.
    """

    name: ClassVar[str] = "depthwise"
    record: Depthwise
    window: MicroWindow
    filters: int
    channels: int
    form: ResultForm
    has_uniform_weights: bool = False

    @property
    def taps(self) -> int:
        """Weights per filter, padded to full quads."""
        return -(-self.window.taps // QUAD) * QUAD

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of each argument."""
        w = self.window
        return (
            Space(self.channels * w.size[0] * w.size[1], w.dtype),
            Space(self.filters * self.taps, "int16"),
            Space(self.filters, "int32"),
            Space(self.filters),
            Space(len(w.build_table()), "int32"),
            Space(self.filters * self.pixels, self.form.dtype),
        )
