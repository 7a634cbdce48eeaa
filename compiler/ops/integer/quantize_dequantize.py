"""Conversion between float values and 8-bit integers."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, ExactIntegerOp, Op
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.integer.base import QuantizedOp, make_scale, make_zero_point


@dataclass(frozen=True, slots=True)
class Quantize(QuantizedOp):
    """clamp(rint(x / scale)), a float32 division, ties to the even integer.

    This is the definition in ONNX. Multiplying by the rounded inverse gives other values near ties.
    """

    keyword: ClassVar[str] = "quantize"

    def infer(self, x: TensorType) -> TensorType:
        """Return the shape of the input with the scale of the output."""
        return self.make_type(x.shape)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of float32 numbers."""
        scaled = np.rint(xs[0].astype(np.float32) / np.float32(self.scale))
        return integer_arithmetic.clamp_to_type(scaled, self.infer(*types), self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return QuantizeLinear."""
        y = self.infer(x)
        clamp = self.clamp(y)
        call = Call(
            "QuantizeLinear",
            ("x0", make_scale(y), make_zero_point(y)),
            output="c" if clamp else "y",
        )
        return (call, *clamp)


@dataclass(frozen=True, slots=True)
class Dequantize(Op, ExactIntegerOp):
    """float32(quantized value) * scale."""

    keyword: ClassVar[str] = "dequantize"

    def infer(self, x: TensorType) -> TensorType:
        """Return float32 with the shape of the input."""
        return TensorType(x.shape)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the float values."""
        return xs[0].astype(np.float32) * np.float32(types[0].scale)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Not supported: integer graphs are not trained."""
        raise AssertionError(self)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return DequantizeLinear."""
        return (Call("DequantizeLinear", ("x0", make_scale(x), make_zero_point(x))),)
