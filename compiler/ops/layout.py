"""Ops that move elements without changing them."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import (
    Array,
    Call,
    Const,
    ExactIntegerOp,
    Family,
    Op,
    OpError,
    require_image_shape,
)
from tcc.compiler.ir.types import Quad, TensorType
from tcc.compiler.ops.window import Padding, resolve_padding


@dataclass(frozen=True, slots=True)
class Flatten(Op, ExactIntegerOp):
    """Reshape a feature map to a vector, channel by channel."""

    keyword: ClassVar[str] = "flatten"
    family: ClassVar[Family] = "layout"

    def infer(self, x: TensorType) -> TensorType:
        """Return (elements,)."""
        return x.with_shape((x.elements,))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return flatten."""
        return (Call("flatten", ("x0",), {"start_dim": 1}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Flatten."""
        return (Call("Flatten", ("x0",), {"axis": 1}),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the reshaped array."""
        return xs[0].reshape(len(xs[0]), -1)


@dataclass(frozen=True, slots=True)
class Slice(Op, ExactIntegerOp):
    """Select channels start, start + step, ... below stop; negative numbers count from the end."""

    keyword: ClassVar[str] = "slice"
    family: ClassVar[Family] = "layout"
    start: int = arg(Kind.INT, 0, doc="first channel")
    stop: int | None = arg(Kind.INT, None, doc="one past the last channel; all if omitted")
    step: int = arg(Kind.INT, 1, low=1, doc="distance between selected channels")

    def resolve(self, x: TensorType) -> "Slice":
        """Return the op with its bounds counted from the first channel."""
        self.infer(x)
        # Targets only handle bounds that are not negative or missing.
        return Slice(*slice(self.start, self.stop, self.step).indices(x.shape[0]))

    def infer(self, x: TensorType) -> TensorType:
        """Return the type of the input with the selected channels."""
        channels = len(range(*slice(self.start, self.stop, self.step).indices(x.shape[0])))
        if not channels:
            raise OpError(
                "E0308",
                "slice selects no channel",
                f"start {self.start}, stop {'the end' if self.stop is None else self.stop}"
                f" of {x.shape[0]} channels",
                "select at least one channel; negative numbers count from the last channel",
            )
        return x.with_shape((channels, *x.shape[1:]))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return slice_copy."""
        attributes = {"dim": 1, "start": self.start, "end": self.stop, "step": self.step}
        return (Call("slice_copy", ("x0",), attributes),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Slice."""
        start, stop, step = slice(self.start, self.stop, self.step).indices(x.shape[0])
        bounds = (Const((start,)), Const((stop,)), Const((1,)), Const((step,)))
        return (Call("Slice", ("x0", *bounds)),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the selected channels."""
        return xs[0][:, slice(self.start, self.stop, self.step)]


@dataclass(frozen=True, slots=True)
class ChannelShuffle(Op, ExactIntegerOp):
    """Interleave `groups` equal groups of channels (ShuffleNet)."""

    keyword: ClassVar[str] = "channel_shuffle"
    family: ClassVar[Family] = "layout"
    groups: int = arg(Kind.INT, low=1, doc="number of groups to interleave")

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        c, _, _ = require_image_shape(x, self.keyword)
        if c % self.groups:
            raise OpError(
                "E0303",
                "groups must divide the channels",
                f"{c} channels in {self.groups} groups",
                f"set `groups` to a divisor of {c}",
            )
        return x

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return channel_shuffle."""
        return (Call("channel_shuffle", ("x0",), {"groups": self.groups}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Reshape, Transpose, Reshape; the size of the batch axis is not fixed."""
        c, h, w = x.shape
        # 0 copies the size of the batch (ONNX Reshape).
        split, joined = Const((0, self.groups, c // self.groups, h, w)), Const((0, c, h, w))
        return (
            Call("Reshape", ("x0", split), output="r"),
            Call("Transpose", ("r",), {"perm": [0, 2, 1, 3, 4]}, "t"),
            Call("Reshape", ("t", joined)),
        )

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the interleaved channels."""
        (x,) = xs
        return x.reshape(len(x), self.groups, -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Put a constant border around a feature map."""

    keyword: ClassVar[str] = "pad"
    family: ClassVar[Family] = "layout"
    padding: Padding = arg(Kind.PADDING, low=0, doc="border width; `same` is not possible here")
    value: float = arg(Kind.FLOAT, 0.0, doc="value of the border")

    @property
    def pads(self) -> Quad:
        """Resolved padding: top, left, bottom, right."""
        return resolve_padding(self.padding, (0, 0), (1, 1), (1, 1))

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type with the border added."""
        c, h, w = require_image_shape(x, self.keyword)
        if self.padding == "same":
            raise OpError(
                "E0315", "`same` is not possible for a pad", help="write the padding as numbers"
            )
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        return x.with_shape((c, h + pad_top + pad_bottom, w + pad_left + pad_right))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return pad."""
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        # torch lists the axes from the last one on, each with the sizes before and after.
        return (
            Call(
                "pad",
                ("x0",),
                {"pad": (pad_left, pad_right, pad_top, pad_bottom), "value": self.value},
            ),
        )

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Pad."""
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        # ONNX lists the sizes before all axes, then those after them.
        widths = Const((0, 0, pad_top, pad_left, 0, 0, pad_bottom, pad_right))
        return (Call("Pad", ("x0", widths, Const((self.value,), "float32", scalar=True))),)
