"""Any function of one 8-bit integer, as a table of its 256 results."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.op import Array, Call, Const, Init, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.ops.integer.base import INT32, IntegerForm, IntegerSite, Quantized


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
