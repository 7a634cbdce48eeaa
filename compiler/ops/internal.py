"""Ops that passes create and that have no keyword in the language."""

from dataclasses import dataclass, replace
from typing import ClassVar

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Op, OpError, require_image_shape
from tcc.compiler.ir.types import Quad, TensorType


@dataclass(frozen=True, slots=True)
class Unflatten(Op, ExactIntegerOp):
    """Reshape a vector to a feature map of one pixel."""

    keyword: ClassVar[str] = "unflatten"

    def infer(self, x: TensorType) -> TensorType:
        """Return (features, 1, 1)."""
        if len(x.shape) != 1:
            raise OpError("E0304", "unflatten needs a vector", f"the input is {x}")
        return replace(x, shape=(*x.shape, 1, 1))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return unflatten."""
        return (Call("unflatten", ("x0",), {"dim": 1, "sizes": (*x.shape, 1, 1)}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Reshape; the size of the batch axis is not fixed."""
        return (Call("Reshape", ("x0", Const((0, *x.shape, 1, 1)))),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the reshaped array."""
        return xs[0].reshape(*xs[0].shape, 1, 1)


@dataclass(frozen=True, slots=True)
class Border(Op):
    """Put a border around a feature map, with one value per channel.

    `padding` is top, left, bottom, right.
    """

    keyword: ClassVar[str] = "border"
    padding: Quad
    values: tuple[float, ...]

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type with the border added."""
        c, h, w = require_image_shape(x, self.keyword)
        if c != len(self.values):
            raise OpError(
                "E0303", "border needs one value per channel", f"{len(self.values)} for {x}"
            )
        pad_top, pad_left, pad_bottom, pad_right = self.padding
        return replace(x, shape=(c, h + pad_top + pad_bottom, w + pad_left + pad_right))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return a pad of each channel, and cat."""
        pad_top, pad_left, pad_bottom, pad_right = self.padding
        calls = []
        # Channel by channel, because pad in torch and Pad in ONNX take one value for all channels.
        for c, channel_fill in enumerate(self.values):
            calls.append(Call("narrow", ("x0",), {"dim": 1, "start": c, "length": 1}, f"c{c}"))
            attributes = {"pad": (pad_left, pad_right, pad_top, pad_bottom), "value": channel_fill}
            calls.append(Call("pad", (f"c{c}",), attributes, f"p{c}"))
        return (*calls, Call("cat", self._padded, {"dim": 1}, packed=True))

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return a Pad of each channel, and Concat."""
        pad_top, pad_left, pad_bottom, pad_right = self.padding
        widths = Const((0, 0, pad_top, pad_left, 0, 0, pad_bottom, pad_right))
        calls = []
        for c, channel_fill in enumerate(self.values):
            bounds = (Const((c,)), Const((c + 1,)), Const((1,)))
            fill = Const((channel_fill,), "float32", scalar=True)
            calls.append(Call("Slice", ("x0", *bounds), output=f"c{c}"))
            calls.append(Call("Pad", (f"c{c}", widths, fill), output=f"p{c}"))
        return (*calls, Call("Concat", self._padded, {"axis": 1}))

    @property
    def _padded(self) -> tuple[str, ...]:
        return tuple(f"p{c}" for c in range(len(self.values)))
