"""A function of one 8-bit integer, as a table of its 256 results."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.op import Array, Call, Const, Init, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.ops.integer.base import (
    INT32,
    IntegerSite,
    OpWithWeights,
    QuantizedOp,
    make_dequantize,
    make_float32,
    make_quantize,
)


@dataclass(frozen=True, slots=True)
class Table(QuantizedOp):
    """y = table[x - smallest x]; `function` is the tabulated function.

    Entries are quantized values of y minus the smallest one, as uint8. A table takes 256 bytes and
    is exact on every target, unlike exponential functions of the target.
    """

    keyword: ClassVar[str] = "table"
    function: ScalarFunction

    @classmethod
    def from_float_op(cls, op: ScalarFunction, site: IntegerSite) -> OpWithWeights:
        """Return the op with its table."""
        quantized_table = cls(*site.out, op, zero_point=site.zero_point)
        return quantized_table, (quantized_table.compute_table(*site.types),)

    def compute_table(self, x: TensorType) -> NDArray[np.uint8]:
        """Return the results for all values of x, minus the smallest result: uint8 (256,).

        Args:
            x: The type of the input, with its scale.
        """
        low, high = self.make_type(x.shape).limits
        real = (np.arange(256) + x.limits[0]) * np.float64(x.scale or 0)
        steps = np.rint(self.function.evaluate(real) / np.float64(self.scale))
        return (np.clip(steps, low, high) - low).astype(np.uint8)

    def infer(self, x: TensorType) -> TensorType:
        """Return the shape of the input with the scale of the output."""
        return self.make_type(x.shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the table."""
        return (Param("table", (256,), Init.ZEROS, dtype=DType.U8),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the table entries of the inputs."""
        (x,), (y,) = types, (self.infer(*types),)
        table = params[0].astype(np.int32) + y.limits[0]
        return table[xs[0].astype(np.int32) - x.limits[0]].astype(y.array_dtype)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return GatherElements with flattened indices: five times as fast as Gather."""
        return (
            Call("Cast", ("x0",), {"to": INT32}, "i"),
            Call("Reshape", ("i", Const((-1,))), output="f"),
            Call("GatherElements", ("table", "f"), {"axis": 0}, "e"),
            Call("Reshape", ("e", Const((-1, *x.shape)))),
        )

    def attributes(self) -> dict[str, object]:
        """Return the name and fields of the function, and the clamp."""
        quantized_attributes = QuantizedOp.attributes(self)
        return (
            quantized_attributes | {"function": self.function.keyword} | self.function.attributes()
        )


@dataclass(frozen=True, slots=True)
class ComputedTable(QuantizedOp):
    """A table computed by a float function: clamp(rint(function(float32(x * first)) / second)).

    `first` and `second` are near the scales of x and y. They are chosen so that the last bits of
    the function do not change a result (`float_forms.find_function_scales`).
    """

    keyword: ClassVar[str] = "computed_table"
    function: ScalarFunction
    first: float
    second: float

    def infer(self, x: TensorType) -> TensorType:
        """Return the shape of the input with the scale of the output."""
        return self.make_type(x.shape)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the results of the function."""
        real = xs[0].astype(np.float32) * np.float32(self.first)
        steps = np.rint(self.function.evaluate(real.astype(np.float64)) / self.second)
        return integer_arithmetic.clamp_to_type(steps, self.infer(*types), self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the float function between quantized values."""
        calls = self.function.onnx(x, opset)
        names = {"x0": "r", **{call.output: f"{call.output}f" for call in calls}}
        return (
            make_dequantize("x0", x, "l"),
            Call("Mul", ("l", make_float32(self.first)), output="r"),
            *(_rename_values(call, names) for call in calls),
            *make_quantize(names["y"], self, self.infer(x), self.second),
        )

    def attributes(self) -> dict[str, object]:
        """Return the name and fields of the function, the scales and the clamp."""
        quantized_attributes = QuantizedOp.attributes(self)
        return (
            quantized_attributes | {"function": self.function.keyword} | self.function.attributes()
        )


def _rename_values(call: Call, names: Mapping[str, str]) -> Call:
    """Return a call with renamed values."""
    inputs = tuple(
        names.get(operand, operand) if isinstance(operand, str) else operand
        for operand in call.inputs
    )
    return replace(call, inputs=inputs, output=names[call.output])
