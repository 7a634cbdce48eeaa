"""Functions of one number, and softmax.

To add a function, write its class here and add its name to `ACTIVATIONS`. The class defines its
keyword, its `kind` for `activation`, the module for training, the ONNX operators and their import.
Its table of 256 quantized values in an int8 model and its tests also follow from the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import erf, inf, sqrt
from typing import Any, ClassVar

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import Alias, Call, Const, Op
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.elementwise import Bounds, Elementwise, Float64, ScalarFunction
from tcc.compiler.support.lazy_numpy import np


def _make_scalar(value: float) -> Const:
    return Const((value,), "float32", scalar=True)


def _compute_sigmoid(x: Float64) -> Float64:
    small = np.exp(-np.abs(x))  # at most 1, so there is no overflow
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def _compute_hard_sigmoid(x: Float64) -> Float64:
    return np.asarray(np.clip(x / 6 + 0.5, 0, 1))


@dataclass(frozen=True, slots=True)
class Relu(ScalarFunction):
    """max(x, 0)."""

    keyword: ClassVar[str] = "relu"
    onnx_operator: ClassVar[str] = "Relu"
    bounds: ClassVar[Bounds] = (0.0, inf)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return relu."""
        return (Call("relu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Relu."""
        return (Call("Relu", ("x0",)),)

    def evaluate(self, x: Float64) -> Float64:
        """Return max(x, 0)."""
        return np.asarray(np.maximum(x, 0))


@dataclass(frozen=True, slots=True)
class Relu6(ScalarFunction):
    """min(max(x, 0), 6)."""

    keyword: ClassVar[str] = "relu6"
    bounds: ClassVar[Bounds] = (0.0, 6.0)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return relu6."""
        return (Call("relu6", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Clip."""
        # ONNX has no such operator.
        return (Call("Clip", ("x0", _make_scalar(0.0), _make_scalar(6.0))),)

    def evaluate(self, x: Float64) -> Float64:
        """Return x between 0 and 6."""
        return np.asarray(np.clip(x, 0, 6))


@dataclass(frozen=True, slots=True)
class LeakyRelu(ScalarFunction):
    """x if x > 0, else slope * x."""

    keyword: ClassVar[str] = "leaky_relu"
    onnx_operator: ClassVar[str] = "LeakyRelu"
    slope: float = arg(Kind.FLOAT, 0.01, doc="factor below zero")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return leaky_relu."""
        return (Call("leaky_relu", ("x0",), {"negative_slope": self.slope}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return LeakyRelu."""
        return (Call("LeakyRelu", ("x0",), {"alpha": self.slope}),)

    def evaluate(self, x: Float64) -> Float64:
        """Return x, or its product with the slope."""
        return np.asarray(np.where(x > 0, x, self.slope * x))

    @classmethod
    def from_onnx(cls, attributes: Mapping[str, Any]) -> "LeakyRelu":
        """Return the op with the slope `alpha`, which is 0.01 in ONNX if it is omitted."""
        return cls(attributes.get("alpha", 0.01))


@dataclass(frozen=True, slots=True)
class Sigmoid(ScalarFunction):
    """1 / (1 + exp(-x))."""

    keyword: ClassVar[str] = "sigmoid"
    onnx_operator: ClassVar[str] = "Sigmoid"
    bounds: ClassVar[Bounds] = (0.0, 1.0)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return sigmoid."""
        return (Call("sigmoid", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Sigmoid."""
        return (Call("Sigmoid", ("x0",)),)

    def evaluate(self, x: Float64) -> Float64:
        """Return the sigmoid without overflow of exp."""
        return _compute_sigmoid(x)


@dataclass(frozen=True, slots=True)
class Tanh(ScalarFunction):
    """Hyperbolic tangent."""

    keyword: ClassVar[str] = "tanh"
    onnx_operator: ClassVar[str] = "Tanh"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return tanh."""
        return (Call("tanh", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Tanh."""
        return (Call("Tanh", ("x0",)),)

    def evaluate(self, x: Float64) -> Float64:
        """Return tanh."""
        return np.asarray(np.tanh(x))


@dataclass(frozen=True, slots=True)
class Silu(ScalarFunction):
    """x * sigmoid(x), also called swish."""

    keyword: ClassVar[str] = "silu"
    onnx_operator: ClassVar[str] = "Swish"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return silu."""
        return (Call("silu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Sigmoid and Mul."""
        # ONNX only has Swish from opset 24 on.
        return (Call("Sigmoid", ("x0",), output="s"), Call("Mul", ("x0", "s")))

    def evaluate(self, x: Float64) -> Float64:
        """Return x * sigmoid(x)."""
        return x * _compute_sigmoid(x)


@dataclass(frozen=True, slots=True)
class Gelu(ScalarFunction):
    """x / 2 * (1 + erf(x / sqrt(2)))."""

    keyword: ClassVar[str] = "gelu"
    onnx_operator: ClassVar[str] = "Gelu"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return gelu."""
        return (Call("gelu", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Erf with the arithmetic around it."""
        # ONNX only has Gelu from opset 20 on.
        half, unit = _make_scalar(0.5), _make_scalar(1.0)
        return (
            Call("Mul", ("x0", _make_scalar(sqrt(0.5))), output="r"),
            Call("Erf", ("r",), output="e"),
            Call("Add", ("e", unit), output="a"),
            Call("Mul", ("x0", half), output="h"),
            Call("Mul", ("h", "a")),
        )

    def evaluate(self, x: Float64) -> Float64:
        """Return the GELU by erf of the C library, because numpy has none."""
        gate = np.array([erf(v) for v in (x / sqrt(2)).ravel()])
        return np.asarray(x / 2 * (1 + gate.reshape(x.shape)))


@dataclass(frozen=True, slots=True)
class HardSigmoid(ScalarFunction):
    """min(max(x / 6 + 1/2, 0), 1)."""

    keyword: ClassVar[str] = "hard_sigmoid"
    onnx_operator: ClassVar[str] = "HardSigmoid"
    bounds: ClassVar[Bounds] = (0.0, 1.0)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return hardsigmoid."""
        return (Call("hardsigmoid", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return HardSigmoid."""
        return (Call("HardSigmoid", ("x0",), {"alpha": 1 / 6, "beta": 0.5}),)

    def evaluate(self, x: Float64) -> Float64:
        """Return x / 6 + 1/2 between 0 and 1."""
        return _compute_hard_sigmoid(x)


@dataclass(frozen=True, slots=True)
class HardSwish(ScalarFunction):
    """x * hard_sigmoid(x)."""

    keyword: ClassVar[str] = "hard_swish"
    onnx_operator: ClassVar[str] = "HardSwish"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return hardswish."""
        return (Call("hardswish", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return HardSigmoid and Mul."""
        # ONNX only has HardSwish from opset 14 on.
        gate = Call("HardSigmoid", ("x0",), {"alpha": 1 / 6, "beta": 0.5}, output="s")
        return (gate, Call("Mul", ("x0", "s")))

    def evaluate(self, x: Float64) -> Float64:
        """Return x * hard_sigmoid(x)."""
        return x * _compute_hard_sigmoid(x)


@dataclass(frozen=True, slots=True)
class Softmax(Elementwise):
    """exp(x) / sum exp(x), over the channels (or the features of a vector)."""

    keyword: ClassVar[str] = "softmax"
    bounds: ClassVar[Bounds] = (0.0, 1.0)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return softmax."""
        return (Call("softmax", ("x0",), {"dim": 1}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Softmax; for feature maps before opset 13, on channels-last data."""
        if len(x.shape) == 1 or opset >= 13:
            return (Call("Softmax", ("x0",), {"axis": 1}),)
        return (
            Call("Transpose", ("x0",), {"perm": [0, 2, 3, 1]}, "t"),
            Call("Softmax", ("t",), {"axis": 3}, "s"),
            Call("Transpose", ("s",), {"perm": [0, 3, 1, 2]}),
        )


ACTIVATIONS: tuple[type[ScalarFunction], ...] = (
    Relu, Relu6, LeakyRelu, Sigmoid, Tanh, Silu, Gelu, HardSigmoid, HardSwish,
)  # fmt: skip
"""The classes of all activations in the language."""


@dataclass(frozen=True, slots=True)
class Activation(Alias):
    """The activation named `kind`, so that it can be a parameter of a block."""

    keyword: ClassVar[str] = "activation"
    kind: str = arg(
        Kind.ENUM,
        choices=(*(a.keyword for a in ACTIVATIONS), "none"),
        doc="the activation; none is identity",
    )

    def resolve(self, x: TensorType) -> Op | None:
        """Return the op of the kind, or None for `none`."""
        return next((a() for a in ACTIVATIONS if a.keyword == self.kind), None)
