"""Functions of one element, and softmax."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from tcc.compiler.ir.op import Alias, Call, Const, Op
from tcc.compiler.ir.signature import Kind, arg
from tcc.compiler.ir.types import TensorType


def _scalar(value: float) -> Const:
    return Const((value,), "float32", scalar=True)


@dataclass(frozen=True, slots=True)
class Elementwise(Op):
    """A function of one element without weights."""

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x


@dataclass(frozen=True, slots=True)
class Relu(Elementwise):
    """max(x, 0)."""

    word: ClassVar[str] = "relu"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return relu."""
        return (Call("relu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Relu."""
        return (Call("Relu", ("x0",)),)


@dataclass(frozen=True, slots=True)
class Relu6(Elementwise):
    """min(max(x, 0), 6)."""

    word: ClassVar[str] = "relu6"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return relu6."""
        return (Call("relu6", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Clip."""
        return (Call("Clip", ("x0", _scalar(0.0), _scalar(6.0))),)


@dataclass(frozen=True, slots=True)
class LeakyRelu(Elementwise):
    """x where x > 0, else slope * x."""

    word: ClassVar[str] = "leaky_relu"
    slope: float = arg(Kind.FLOAT, 0.01, doc="factor below zero")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return leaky_relu."""
        return (Call("leaky_relu", ("x0",), {"negative_slope": self.slope}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return LeakyRelu."""
        return (Call("LeakyRelu", ("x0",), {"alpha": self.slope}),)


@dataclass(frozen=True, slots=True)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x))."""

    word: ClassVar[str] = "sigmoid"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return sigmoid."""
        return (Call("sigmoid", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Sigmoid."""
        return (Call("Sigmoid", ("x0",)),)


@dataclass(frozen=True, slots=True)
class Tanh(Elementwise):
    """Hyperbolic tangent."""

    word: ClassVar[str] = "tanh"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return tanh."""
        return (Call("tanh", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Tanh."""
        return (Call("Tanh", ("x0",)),)


@dataclass(frozen=True, slots=True)
class Silu(Elementwise):
    """x * sigmoid(x), also called swish."""

    word: ClassVar[str] = "silu"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return silu."""
        return (Call("silu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Sigmoid and Mul."""
        return (Call("Sigmoid", ("x0",), output="s"), Call("Mul", ("x0", "s")))


@dataclass(frozen=True, slots=True)
class Gelu(Elementwise):
    """x / 2 * (1 + erf(x / sqrt(2)))."""

    word: ClassVar[str] = "gelu"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return gelu."""
        return (Call("gelu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Erf with the arithmetic around it."""
        half, one = _scalar(0.5), _scalar(1.0)
        return (
            Call("Mul", ("x0", _scalar(sqrt(0.5))), output="r"),
            Call("Erf", ("r",), output="e"),
            Call("Add", ("e", one), output="a"),
            Call("Mul", ("x0", half), output="h"),
            Call("Mul", ("h", "a")),
        )


@dataclass(frozen=True, slots=True)
class HardSigmoid(Elementwise):
    """min(max(x / 6 + 1/2, 0), 1)."""

    word: ClassVar[str] = "hard_sigmoid"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return hardsigmoid."""
        return (Call("hardsigmoid", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return HardSigmoid."""
        return (Call("HardSigmoid", ("x0",), {"alpha": 1 / 6, "beta": 0.5}),)


@dataclass(frozen=True, slots=True)
class HardSwish(Elementwise):
    """x * hard_sigmoid(x)."""

    word: ClassVar[str] = "hard_swish"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return hardswish."""
        return (Call("hardswish", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return HardSigmoid and Mul."""
        gate = Call("HardSigmoid", ("x0",), {"alpha": 1 / 6, "beta": 0.5}, output="s")
        return (gate, Call("Mul", ("x0", "s")))


@dataclass(frozen=True, slots=True)
class Softmax(Elementwise):
    """exp(x) / sum exp(x), over the channels (the features of a vector)."""

    word: ClassVar[str] = "softmax"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return softmax."""
        return (Call("softmax", ("x0",), {"dim": 1}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Softmax; a feature map is moved to channels-last, as opset 11 flattens."""
        if len(x.shape) == 1 or opset >= 13:
            return (Call("Softmax", ("x0",), {"axis": 1}),)
        return (
            Call("Transpose", ("x0",), {"perm": [0, 2, 3, 1]}, "t"),
            Call("Softmax", ("t",), {"axis": 3}, "s"),
            Call("Transpose", ("s",), {"perm": [0, 3, 1, 2]}),
        )


ELEMENTWISE: tuple[type[Elementwise], ...] = (
    Relu, Relu6, LeakyRelu, Sigmoid, Tanh, Silu, Gelu, HardSigmoid, HardSwish,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Activation(Alias):
    """The activation called `kind`, so that a block can take it as a parameter."""

    word: ClassVar[str] = "activation"
    kind: str = arg(
        Kind.ENUM, choices=(*(a.word for a in ELEMENTWISE), "none"), doc="which; none is identity"
    )

    def resolve(self, x: TensorType) -> Op | None:
        """Return the op of that name, or None for `none`."""
        return next((a() for a in ELEMENTWISE if a.word == self.kind), None)
