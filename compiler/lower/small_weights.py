"""Float models with smaller weights: half the size in float16, a quarter in int8.

The ops store their weights in smaller types and convert them to float first. Only lowerings create
them; specs have no keyword for them. Results are those of the original op with the rounded weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, verify
from tcc.compiler.ir.op import Call, Const, Init, Op, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import Conv, ConvTranspose, Linear

FLOAT32 = 1
"""ONNX's number of the element type."""


@dataclass(frozen=True, slots=True)
class CompressedOp(Op):
    """An op `op` with its parameters stored in another form."""

    op: Op

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the output type of the original op."""
        return self.op.infer(*xs)

    def macs(self, *xs: TensorType) -> int:
        """Return the multiply-accumulates of the original op."""
        return self.op.macs(*xs)

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Never called: lowered models are not trained."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the original op and its fields."""
        return {"op": self.op.keyword} | self.op.attributes()


@dataclass(frozen=True, slots=True)
class Half(CompressedOp):
    """Weights in float16, which runtimes convert to float32 when they load the model."""

    keyword: ClassVar[str] = "half"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the original op's parameters, the weight in float16."""
        weight, *other_params = self.op.params(*xs)
        return (replace(weight, dtype=DType.F16), *other_params)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast and the original op."""
        cast = Call("Cast", ("weight",), {"to": FLOAT32}, "weight")
        return (cast, *self.op.onnx(*xs, opset=opset))


@dataclass(frozen=True, slots=True)
class Int8Weights(CompressedOp):
    """Weights in int8, with one scale for each index of the first axis.

    Cast and Mul convert them to float; runtimes do so once, when they load the model.
    """

    keyword: ClassVar[str] = "int8_weights"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the weight in int8, its broadcastable scales, and the other parameters."""
        weight, *other_params = self.op.params(*xs)
        scales = (weight.shape[0], *(1 for _ in weight.shape[1:]))
        return (replace(weight, dtype=DType.I8), Param("scale", scales, Init.ONES), *other_params)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast, Mul and the original op."""
        return (
            Call("Cast", ("weight",), {"to": FLOAT32}, "level"),
            Call("Mul", ("level", "scale"), output="weight"),
            *self.op.onnx(*xs, opset=opset),
        )


@dataclass(frozen=True, slots=True)
class Dequantized(CompressedOp):
    """Weights in int8 and the bias in int32, each with one scale per filter, for QDQ tools."""

    keyword: ClassVar[str] = "dequantized"

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
        """Return DequantizeLinear of both, and the original op.

        Some of ONNX Runtime's optimizations need the zero points.
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
class DynamicLinear(CompressedOp):
    """A linear layer in 8-bit integers that computes its input's scale at run time.

    The weight is (inputs, outputs) in uint8 with zero point 128, and one scale per output: products
    of two unsigned integers are exact on every processor.
    """

    keyword: ClassVar[str] = "dynamic_linear"

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scales, and the bias if there is one."""
        assert isinstance(self.op, Linear)
        weight, *bias = self.op.params(x)
        outputs, inputs = weight.shape
        quantized_weight = replace(weight, shape=(inputs, outputs), dtype=DType.U8)
        return (quantized_weight, Param("scale", (outputs,), Init.ONES), *bias)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return DynamicQuantizeLinear, MatMulInteger and the conversion of its sums to float."""
        assert isinstance(self.op, Linear)
        # The weights' zero point: their quantized values were shifted by 128 to be unsigned.
        zero = Const((128,), "uint8", scalar=True)
        scaled = "m" if self.op.bias else "y"
        calls = (
            Call("DynamicQuantizeLinear", ("x0",), output="q", extra_outputs=("s", "z")),
            Call("MatMulInteger", ("q", "weight", "z", zero), output="i"),
            Call("Cast", ("i",), {"to": FLOAT32}, "f"),
            # First the input's scale times the weights' scales, one number per output; then one
            # product per sum.
            Call("Mul", ("s", "scale"), output="k"),
            Call("Mul", ("f", "k"), output=scaled),
        )
        return (*calls, Call("Add", ("m", "bias"))) if self.op.bias else calls


WEIGHTED_OPS: tuple[type[Op], ...] = (Conv, ConvTranspose, Linear)
"""The ops with most of a model's weights."""
HALF_ERROR = 2.0**-10
"""A tensor stays float32 if the error of float16 exceeds this share of its largest weight: then the
numbers are outside float16's range. Within the range, 11 bits give at most half of this error."""
MIN_WEIGHT = 2.0**-100
"""Smaller weights become zero: a 127th of this is still far above float32's subnormal numbers,
which some processors treat as zero."""

Array = NDArray[Any]
Rule = Callable[[Node, Array], tuple[Op, dict[str, Array]] | None]
"""Returns the replacement of a node, given its weight: an op and its new tensors."""


def convert_float16(model: Model) -> Model:
    """Return a model with weights in float16 that computes in float32.

    Biases stay float32: they are few, and errors in them shift whole channels.
    """
    return _replace_ops(model, _convert_op_float16)


def quantize_dynamic(model: Model) -> Model:
    """Return a model with weights in int8, with one scale per filter.

    Linear layers compute in 8-bit integers and determine their inputs' scales at run time. For such
    convolutions ONNX Runtime takes three times as long as in float, so convolutions stay in float.
    """
    return _replace_ops(model, _quantize_op)


def _replace_ops(model: Model, rule: Rule) -> Model:
    """Return a model in which a rule has replaced each op with weights.

    New tensors are named `<weight>.<role>`.
    """
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Batch norms and biases stay: they are only a few numbers per channel.
        if isinstance(node.op, WEIGHTED_OPS):
            weight, *other_params = node.params
            replacement = rule(node, np.asarray(model.weights[weight]))
            if replacement:
                op, tensors = replacement
                new_tensors = {
                    f"{weight}.{role}" if role else weight: t for role, t in tensors.items()
                }
                weights |= new_tensors
                node = replace(node, op=op, params=(*new_tensors, *other_params))  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


def _convert_op_float16(node: Node, weight: Array) -> tuple[Op, dict[str, Array]] | None:
    # Beyond 65504 float16 is infinite, which the comparison below detects.
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16)
    # In float64, where both forms and their difference are exact.
    error = np.abs(rounded.astype(np.float64) - weight).max(initial=0)
    # Not `>`: an error of NaN, from infinite weights, must not pass.
    if not error <= HALF_ERROR * np.abs(weight).max(initial=0):
        return None
    return Half(node.op), {"": rounded}


def _quantize_op(node: Node, weight: Array) -> tuple[Op, dict[str, Array]] | None:
    quantized, scale = quantize_weight(weight)
    if isinstance(node.op, Linear):
        # Through int16, because int8 ends below 128.
        shifted = (quantized.astype(np.int16) + 128).astype(np.uint8)
        # Features first, as MatMulInteger expects its second matrix.
        return DynamicLinear(node.op), {"": np.ascontiguousarray(shifted.T), "scale": scale}
    broadcast_scale = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return Int8Weights(node.op), {"": quantized, "scale": broadcast_scale}


def quantize_weight(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as int8, with a scale for each index of its first axis.

    Args:
        weight: Floats (filters, ...).

    Returns:
        Quantized values in [-127, 127] of the same shape, and float32 scales (filters,).
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    # The largest weight maps to 127 exactly: the integer program uses the range -127 to 127 too
    # (docs/decisions/0004-activations-per-tensor.md).
    max_abs = np.abs(flat).max(axis=1)
    scale = np.where(max_abs > MIN_WEIGHT, max_abs / 127, 1).astype(np.float32)
    # Divide by the stored float32 scale: with the float64 scale, a quantized value could be off by
    # one.
    quantized = np.rint(flat / scale[:, None].astype(np.float64)).astype(np.int8)
    return quantized.reshape(weight.shape), scale
