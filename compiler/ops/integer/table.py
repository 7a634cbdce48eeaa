"""Any function of one 8-bit integer, as a table of its 256 results."""

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
    IntegerForm,
    IntegerSite,
    Quantized,
    floats,
    number,
    rounded,
)


@dataclass(frozen=True, slots=True)
class Table(Quantized):
    """y = table[x - smallest x]; `function` is what the table holds.

    Entries are levels of y above its smallest, as uint8. With 256 inputs there are no more results
    to get right: a table costs a byte each, and is exact on every target, unlike its exponentials.
    """

    word: ClassVar[str] = "table"
    function: ScalarFunction

    @classmethod
    def form(cls, op: ScalarFunction, site: IntegerSite) -> IntegerForm:
        """Return it with its table."""
        made = cls(*site.out, op)
        return made, (made.entries(*site.types),)

    def entries(self, x: TensorType) -> NDArray[np.uint8]:
        """Return what the function gives for each level of x: levels above the least (256,).

        Args:
            x: The input's type, with its scale.
        """
        low, high = self.typed(x.shape).limits
        real = (np.arange(256) + x.limits[0]) * np.float64(x.scale or 0)
        steps = np.rint(self.function.float64(real) / np.float64(self.scale))
        return (np.clip(steps, low, high) - low).astype(np.uint8)

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's shape with the output's scale."""
        return self.typed(x.shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the table."""
        return (Param("table", (256,), Init.ZEROS, dtype=DType.U8),)

    def integer(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the levels that the table gives."""
        (x,), (y,) = types, (self.infer(*types),)
        entries = params[0].astype(np.int32) + y.limits[0]
        return entries[xs[0].astype(np.int32) - x.limits[0]].astype(y.dtype.value)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return GatherElements of all indices in a row: five times as fast as Gather."""
        return (
            Call("Cast", ("x0",), {"to": INT32}, "i"),
            Call("Reshape", ("i", Const((-1,))), output="f"),
            Call("GatherElements", ("table", "f"), {"axis": 0}, "e"),
            Call("Reshape", ("e", Const((-1, *x.shape)))),
        )

    def attributes(self) -> dict[str, object]:
        """Return the function's name and fields, and the clamp."""
        own = Quantized.attributes(self)
        return own | {"function": self.function.word} | self.function.attributes()


@dataclass(frozen=True, slots=True)
class ComputedTable(Quantized):
    """The same of a function in floats: clamp(rint(function(float32(x * first)) / second)).

    `first` and `second` are near the scales of x and y, and such that what the function's last bits
    are changes no level (`float_forms.function_scales`).
    """

    word: ClassVar[str] = "computed_table"
    function: ScalarFunction
    first: float
    second: float

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's shape with the output's scale."""
        return self.typed(x.shape)

    def integer(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the levels that the function gives."""
        real = xs[0].astype(np.float32) * np.float32(self.first)
        steps = np.rint(self.function.float64(real.astype(np.float64)) / self.second)
        return integer_arithmetic.clamped(steps, self.infer(*types), self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the function of floats between levels."""
        calls = self.function.onnx(x, opset)
        names = {"x0": "r", **{call.output: f"{call.output}f" for call in calls}}
        return (
            floats("x0", x, "l"),
            Call("Mul", ("l", number(self.first)), output="r"),
            *(_renamed(call, names) for call in calls),
            *rounded(names["y"], self, self.infer(x), self.second),
        )

    def attributes(self) -> dict[str, object]:
        """Return the function's name and fields, the scales and the clamp."""
        own = Quantized.attributes(self)
        return own | {"function": self.function.word} | self.function.attributes()


def _renamed(call: Call, names: Mapping[str, str]) -> Call:
    """Return a call with its values called otherwise."""
    inputs = tuple(names.get(one, one) if isinstance(one, str) else one for one in call.inputs)
    return replace(call, inputs=inputs, output=names[call.output])
