"""Operations that keep their weights in smaller types and make floats of them first.

Lowerings make them; the language has no word for them. Results are those of the operation itself
with the rounded weights.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from tcc.compiler.ir.op import Call, Const, Init, Op, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops.conv import Linear

FLOAT32 = 1
"""The element type by ONNX's number."""


@dataclass(frozen=True, slots=True)
class Stored(Op):
    """An operation `op` whose parameters are stored otherwise."""

    op: Op

    def infer(self, *xs: TensorType) -> TensorType:
        """Return what the operation itself gives."""
        return self.op.infer(*xs)

    def macs(self, *xs: TensorType) -> int:
        """Return the operation's own multiply-accumulates."""
        return self.op.macs(*xs)

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Never called: what is lowered does not train."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the operation and its fields."""
        return {"op": self.op.word} | self.op.attributes()


@dataclass(frozen=True, slots=True)
class Half(Stored):
    """Weights in float16, of which runtimes make float32 when they load the model."""

    word: ClassVar[str] = "half"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the operation's own, the weight in float16."""
        weight, *others = self.op.params(*xs)
        return (replace(weight, dtype=DType.F16), *others)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast and the operation itself."""
        cast = Call("Cast", ("weight",), {"to": FLOAT32}, "weight")
        return (cast, *self.op.onnx(*xs, opset=opset))


@dataclass(frozen=True, slots=True)
class Int8Weights(Stored):
    """Weights in int8, one scale for each index of the first axis.

    Cast and Mul make the floats, which runtimes do once, when they load the model.
    """

    word: ClassVar[str] = "int8_weights"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the weight in int8, its scales shaped to broadcast, and what else there is."""
        weight, *others = self.op.params(*xs)
        scales = (weight.shape[0], *(1 for _ in weight.shape[1:]))
        return (replace(weight, dtype=DType.I8), Param("scale", scales, Init.ONES), *others)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast, Mul and the operation itself."""
        return (
            Call("Cast", ("weight",), {"to": FLOAT32}, "level"),
            Call("Mul", ("level", "scale"), output="weight"),
            *self.op.onnx(*xs, opset=opset),
        )


@dataclass(frozen=True, slots=True)
class Dequantized(Stored):
    """Weights in int8 and the bias in int32, each with a scale a filter, as tools expect them."""

    word: ClassVar[str] = "dequantized"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scales, the bias, and its scales."""
        weight, bias = self.op.params(*xs)
        scale = Param("scale", bias.shape, Init.ONES)
        return (
            replace(weight, dtype=DType.I8),
            scale,
            replace(bias, dtype=DType.I32),
            replace(scale, role="bias_scale"),
        )

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return DequantizeLinear of both, and the operation itself.

        Zero points are there since some of ONNX Runtime's optimisations expect them.
        """
        _, scale, *_ = self.params(*xs)
        zeros = (0,) * scale.elements
        weight = ("weight", "scale", Const(zeros, "int8"))
        bias = ("bias", "bias_scale", Const(zeros, "int32"))
        return (
            Call("DequantizeLinear", weight, {"axis": 0}, "weight"),
            Call("DequantizeLinear", bias, {"axis": 0}, "bias"),
            *self.op.onnx(*xs, opset=opset),
        )


@dataclass(frozen=True, slots=True)
class DynamicLinear(Stored):
    """A linear layer in 8-bit integers that finds its input's scale when it runs.

    The weight is (inputs, outputs) in uint8 with the zero point 128, one scale an output: products
    of two unsigned integers are right on every processor.
    """

    word: ClassVar[str] = "dynamic_linear"

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scales and the bias, if there is one."""
        assert isinstance(self.op, Linear)
        weight, *bias = self.op.params(x)
        outputs, inputs = weight.shape
        stored = replace(weight, shape=(inputs, outputs), dtype=DType.U8)
        return (stored, Param("scale", (outputs,), Init.ONES), *bias)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return DynamicQuantizeLinear, MatMulInteger and what makes floats of its sums."""
        assert isinstance(self.op, Linear)
        # Of the weights: their levels were shifted by 128 to be unsigned.
        zero = Const((128,), "uint8", scalar=True)
        scaled = "m" if self.op.bias else "y"
        calls = (
            Call("DynamicQuantizeLinear", ("x0",), output="q", more=("s", "z")),
            Call("MatMulInteger", ("q", "weight", "z", zero), output="i"),
            Call("Cast", ("i",), {"to": FLOAT32}, "f"),
            # Scale of the input by those of the weights first, a number an output; then one product
            # a sum.
            Call("Mul", ("s", "scale"), output="k"),
            Call("Mul", ("f", "k"), output=scaled),
        )
        return (*calls, Call("Add", ("m", "bias"))) if self.op.bias else calls
