"""A constant border around a map of 8-bit integers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Const, Exact, Op
from tcc.compiler.ir.types import Quad, TensorType
from tcc.compiler.ops.integer.base import IntegerForm, IntegerSite, stored
from tcc.compiler.ops.internal import Border
from tcc.compiler.ops.layout import Pad


@dataclass(frozen=True, slots=True)
class QPad(Op, Exact):
    """A border of one level, or of one level a channel; top, left, bottom, right."""

    word: ClassVar[str] = "qpad"
    stands_for: ClassVar[tuple[type[Op], ...]] = (Pad, Border)
    padding: Quad
    levels: tuple[int, ...]

    @classmethod
    def form(cls, op: Pad | Border, site: IntegerSite) -> IntegerForm:
        """Return it with the levels nearest to the border's numbers."""
        padding, values = (op.pads, (op.value,)) if isinstance(op, Pad) else (op.padding, op.values)
        scale, _, low, high = site.out
        return cls(padding, tuple(int(np.clip(np.rint(v / scale), low, high)) for v in values)), ()

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type with the border added."""
        (c, h, w), (top, left, bottom, right) = x.shape, self.padding
        return x.like((c, h + top + bottom, w + left + right))

    def integer(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the map with its border."""
        (x,), (top, left, *_) = xs, self.padding
        _, height, width = types[0].shape
        fill = np.array(self.levels, x.dtype).reshape(-1, 1, 1)
        result = np.empty((len(x), *self.infer(*types).shape), x.dtype)
        # A channel's level all over, then the map in its place.
        result[:] = fill
        result[:, :, top : top + height, left : left + width] = x
        return result

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Never called: integer graphs do not train."""
        raise AssertionError(self)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Pad, for each channel by itself where they differ."""
        top, left, bottom, right = self.padding
        widths = Const((0, 0, top, left, 0, 0, bottom, right))
        values = [Const((stored(n, x),), "uint8", scalar=True) for n in self.levels]
        if len(set(self.levels)) == 1:
            return (Call("Pad", ("x0", widths, values[0])),)
        # ONNX's Pad has one constant for all channels, so that each is padded by itself.
        calls: list[Call] = []
        for c, value in enumerate(values):
            bounds = (Const((c,)), Const((c + 1,)), Const((1,)))
            calls.append(Call("Slice", ("x0", *bounds), output=f"s{c}"))
            calls.append(Call("Pad", (f"s{c}", widths, value), output=f"p{c}"))
        parts = tuple(f"p{c}" for c in range(len(values)))
        return (*calls, Call("Concat", parts, {"axis": 1}))
