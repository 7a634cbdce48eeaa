"""A constant border around a map of 8-bit integers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Op
from tcc.compiler.ir.types import Quad, TensorType
from tcc.compiler.ops.integer.base import IntegerSite, OpWithWeights, to_uint8
from tcc.compiler.ops.internal import Border
from tcc.compiler.ops.layout import Pad


@dataclass(frozen=True, slots=True)
class QPad(Op, ExactIntegerOp):
    """A border with one quantized value, or one per channel; top, left, bottom, right."""

    keyword: ClassVar[str] = "qpad"
    float_ops: ClassVar[tuple[type[Op], ...]] = (Pad, Border)
    padding: Quad
    levels: tuple[int, ...]

    @classmethod
    def from_float_op(cls, op: Pad | Border, site: IntegerSite) -> OpWithWeights:
        """Return the op with the quantized values nearest to those of the border."""
        padding, fills = (op.pads, (op.value,)) if isinstance(op, Pad) else (op.padding, op.values)
        scale, _, low, high = site.out
        return cls(padding, tuple(int(np.clip(np.rint(v / scale), low, high)) for v in fills)), ()

    def infer(self, x: TensorType) -> TensorType:
        """Return the type of the input with the border added."""
        (c, h, w), (pad_top, pad_left, pad_bottom, pad_right) = x.shape, self.padding
        return x.with_shape((c, h + pad_top + pad_bottom, w + pad_left + pad_right))

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the map with its border."""
        (x,), (pad_top, pad_left, *_) = xs, self.padding
        _, height, width = types[0].shape
        fill = np.array(self.levels, x.dtype).reshape(-1, 1, 1)
        padded = np.empty((len(x), *self.infer(*types).shape), x.dtype)
        # Fill each channel with its border value, then copy the map into the middle.
        padded[:] = fill
        padded[:, :, pad_top : pad_top + height, pad_left : pad_left + width] = x
        return padded

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Not supported: integer graphs are not trained."""
        raise AssertionError(self)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Pad, or one per channel if their values differ."""
        pad_top, pad_left, pad_bottom, pad_right = self.padding
        widths = Const((0, 0, pad_top, pad_left, 0, 0, pad_bottom, pad_right))
        fills = [Const((to_uint8(n, x),), "uint8", scalar=True) for n in self.levels]
        if len(set(self.levels)) == 1:
            return (Call("Pad", ("x0", widths, fills[0])),)
        # Pad of ONNX has one constant for all channels, so each channel is padded separately.
        calls: list[Call] = []
        for c, channel_fill in enumerate(fills):
            bounds = (Const((c,)), Const((c + 1,)), Const((1,)))
            calls.append(Call("Slice", ("x0", *bounds), output=f"s{c}"))
            calls.append(Call("Pad", (f"s{c}", widths, channel_fill), output=f"p{c}"))
        parts = tuple(f"p{c}" for c in range(len(fills)))
        return (*calls, Call("Concat", parts, {"axis": 1}))
