"""Normalization, and ops that only act in training."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import Call, Const, Family, Init, Op, Param
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.elementwise import Elementwise, Float64, ScalarFunction


@dataclass(frozen=True, slots=True)
class BatchNorm(Op):
    """(x - mean) / sqrt(var + eps) * weight + bias, per channel."""

    keyword: ClassVar[str] = "batch_norm"
    family: ClassVar[Family] = "norm"
    eps: float = arg(Kind.FLOAT, 1e-5, low=0.0, doc="added to the variance")
    momentum: float = arg(Kind.FLOAT, 0.1, low=0.0, high=1.0, doc="weight of a new batch")

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return weight, bias and the running mean and var."""
        c = (x.shape[0],)
        return (
            Param("weight", c, Init.ONES),
            Param("bias", c, Init.ZEROS),
            Param("mean", c, Init.ZEROS, trainable=False),
            Param("var", c, Init.ONES, trainable=False),
        )

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return batch_norm with running statistics."""
        attributes = {"eps": self.eps, "momentum": self.momentum}
        # The order of torch; the op has the order of its state dict.
        tensors = ("x0", "mean", "var", "weight", "bias")
        return (Call("batch_norm", tensors, attributes, trains=True),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return BatchNormalization in inference form."""
        tensors = ("x0", "weight", "bias", "mean", "var")
        return (Call("BatchNormalization", tensors, {"epsilon": self.eps}),)


@dataclass(frozen=True, slots=True)
class ScaleShift(Op):
    """x * weight + bias, per channel: a batch norm with its statistics folded in."""

    keyword: ClassVar[str] = "scale_shift"
    family: ClassVar[Family] = "norm"

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return weight and bias, shaped to broadcast over height and width."""
        c = (x.shape[0], *(1 for _ in x.shape[1:]))
        return (Param("weight", c, Init.ONES), Param("bias", c, Init.ZEROS))

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return mul and add."""
        return (Call("mul", ("x0", "weight"), output="s"), Call("add", ("s", "bias")))

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Mul and Add."""
        return (Call("Mul", ("x0", "weight"), output="s"), Call("Add", ("s", "bias")))


@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """(x - m) / sqrt(v + eps) * weight + bias; m and v over the channels of each pixel."""

    keyword: ClassVar[str] = "layer_norm"
    family: ClassVar[Family] = "norm"
    eps: float = arg(Kind.FLOAT, 1e-5, low=0.0, doc="added to the variance")

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return weight and bias, shaped to broadcast over height and width."""
        return ScaleShift().params(x)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return the formula, call by call."""
        mean_attributes = {"dim": 1, "keepdim": True}
        return (
            Call("mean", ("x0",), mean_attributes, "m"),
            Call("sub", ("x0", "m"), output="d"),
            # Written out, because layer_norm of torch normalizes the last axes, but channels are
            # the first axis of a map.
            Call("mul", ("d", "d"), output="q"),
            Call("mean", ("q",), mean_attributes, "v"),
            Call("add", ("v",), {"other": self.eps}, "e"),
            Call("sqrt", ("e",), output="s"),
            Call("div", ("d", "s"), output="n"),
            Call("mul", ("n", "weight"), output="w"),
            Call("add", ("w", "bias")),
        )

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the formula, operator by operator."""
        eps = Const((self.eps,), "float32", scalar=True)
        return (
            # LayerNormalization of ONNX (opset 17) also only normalizes the last axes.
            _build_onnx_mean("x0", "m", opset),
            Call("Sub", ("x0", "m"), output="d"),
            Call("Mul", ("d", "d"), output="q"),
            _build_onnx_mean("q", "v", opset),
            Call("Add", ("v", eps), output="e"),
            Call("Sqrt", ("e",), output="s"),
            Call("Div", ("d", "s"), output="n"),
            Call("Mul", ("n", "weight"), output="w"),
            Call("Add", ("w", "bias")),
        )


def _build_onnx_mean(source: str, output: str, opset: int) -> Call:
    """Return the mean over the channels; from opset 18 on, its axes are an input."""
    if opset >= 18:
        return Call("ReduceMean", (source, Const((1,))), output=output)
    return Call("ReduceMean", (source,), {"axes": [1]}, output)


@dataclass(frozen=True, slots=True)
class Scale(ScalarFunction):
    """x * factor + offset, with two constants."""

    keyword: ClassVar[str] = "scale"
    family: ClassVar[Family] = "norm"
    factor: float = arg(Kind.FLOAT, 1.0, doc="factor of x")
    offset: float = arg(Kind.FLOAT, 0.0, doc="added to the product")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return mul and add."""
        return (
            Call("mul", ("x0",), {"other": self.factor}, "s"),
            Call("add", ("s",), {"other": self.offset}),
        )

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Mul and Add."""
        factor, offset = (
            Const((number,), "float32", scalar=True) for number in (self.factor, self.offset)
        )
        return (Call("Mul", ("x0", factor), output="s"), Call("Add", ("s", offset)))

    def evaluate(self, x: Float64) -> Float64:
        """Return x * factor + offset."""
        return x * self.factor + self.offset


@dataclass(frozen=True, slots=True)
class Dropout(Elementwise):
    """Zero elements with probability `rate` in training; the identity at inference."""

    keyword: ClassVar[str] = "dropout"
    family: ClassVar[Family] = "layout"
    rate: float = arg(Kind.FLOAT, 0.5, low=0.0, high=1.0, doc="probability of zero")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return dropout."""
        return (Call("dropout", ("x0",), {"p": self.rate}, trains=True),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Identity, because artifacts do not train."""
        return (Call("Identity", ("x0",)),)


@dataclass(frozen=True, slots=True)
class StochasticDepth(Elementwise):
    """Zero all values of an image with probability `rate` in training; then the identity."""

    keyword: ClassVar[str] = "stochastic_depth"
    family: ClassVar[Family] = "layout"
    rate: float = arg(Kind.FLOAT, low=0.0, high=1.0, doc="probability of zero")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return a product with one dropped-out number per image."""
        # A mean over all axes but the batch has the shape of one number per image, for any batch
        # size. The mean itself is not used.
        axes = tuple(range(1, len(x.shape) + 1))
        return (
            Call("mean", ("x0",), {"dim": axes, "keepdim": True}, "m"),
            Call("ones_like", ("m",), output="o"),
            Call("dropout", ("o",), {"p": self.rate}, "g", trains=True),
            Call("mul", ("x0", "g")),
        )

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Identity, because artifacts do not train."""
        return (Call("Identity", ("x0",)),)


@dataclass(frozen=True, slots=True)
class Identity(Elementwise):
    """Return the input; gives a value a name and a path."""

    keyword: ClassVar[str] = "identity"
    family: ClassVar[Family] = "layout"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return dropout with probability 0, which is the identity."""
        # torch.nn.functional has no identity.
        return (Call("dropout", ("x0",), {"p": 0.0}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Identity."""
        return (Call("Identity", ("x0",)),)
