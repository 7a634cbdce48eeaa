"""Float models with smaller weights: half the size in float16, a quarter in int8.

The ops keep their weights in smaller types and make floats of them first. Lowerings make them; the
language has no word for them. Results are those of the operation itself with the rounded weights.
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
"""The element type by ONNX's number."""


@dataclass(frozen=True, slots=True)
class CompressedOp(Op):
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
        return {"op": self.op.keyword} | self.op.attributes()


@dataclass(frozen=True, slots=True)
class Half(CompressedOp):
    """Weights in float16, of which runtimes make float32 when they load the model."""

    keyword: ClassVar[str] = "half"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the operation's own, the weight in float16."""
        weight, *other_params = self.op.params(*xs)
        return (replace(weight, dtype=DType.F16), *other_params)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast and the operation itself."""
        cast = Call("Cast", ("weight",), {"to": FLOAT32}, "weight")
        return (cast, *self.op.onnx(*xs, opset=opset))


@dataclass(frozen=True, slots=True)
class Int8Weights(CompressedOp):
    """Weights in int8, one scale for each index of the first axis.

    Cast and Mul make the floats, which runtimes do once, when they load the model.
    """

    keyword: ClassVar[str] = "int8_weights"

    def params(self, *xs: TensorType) -> tuple[Param, ...]:
        """Return the weight in int8, its scales shaped to broadcast, and what else there is."""
        weight, *other_params = self.op.params(*xs)
        scales = (weight.shape[0], *(1 for _ in weight.shape[1:]))
        return (replace(weight, dtype=DType.I8), Param("scale", scales, Init.ONES), *other_params)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Cast, Mul and the operation itself."""
        return (
            Call("Cast", ("weight",), {"to": FLOAT32}, "level"),
            Call("Mul", ("level", "scale"), output="weight"),
            *self.op.onnx(*xs, opset=opset),
        )


@dataclass(frozen=True, slots=True)
class Dequantized(CompressedOp):
    """Weights in int8 and the bias in int32, each with a scale a filter, as tools expect them."""

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
class DynamicLinear(CompressedOp):
    """A linear layer in 8-bit integers that finds its input's scale when it runs.

    The weight is (inputs, outputs) in uint8 with the zero point 128, one scale an output: products
    of two unsigned integers are right on every processor.
    """

    keyword: ClassVar[str] = "dynamic_linear"

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scales and the bias, if there is one."""
        assert isinstance(self.op, Linear)
        weight, *bias = self.op.params(x)
        outputs, inputs = weight.shape
        quantized_weight = replace(weight, shape=(inputs, outputs), dtype=DType.U8)
        return (quantized_weight, Param("scale", (outputs,), Init.ONES), *bias)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return DynamicQuantizeLinear, MatMulInteger and what makes floats of its sums."""
        assert isinstance(self.op, Linear)
        # Of the weights: their levels were shifted by 128 to be unsigned.
        zero = Const((128,), "uint8", scalar=True)
        scaled = "m" if self.op.bias else "y"
        calls = (
            Call("DynamicQuantizeLinear", ("x0",), output="q", extra_outputs=("s", "z")),
            Call("MatMulInteger", ("q", "weight", "z", zero), output="i"),
            Call("Cast", ("i",), {"to": FLOAT32}, "f"),
            # Scale of the input by those of the weights first, a number an output; then one product
            # a sum.
            Call("Mul", ("s", "scale"), output="k"),
            Call("Mul", ("f", "k"), output=scaled),
        )
        return (*calls, Call("Add", ("m", "bias"))) if self.op.bias else calls


WEIGHTED_OPS: tuple[type[Op], ...] = (Conv, ConvTranspose, Linear)
"""The operations whose weights are most of a model."""
HALF_ERROR = 2.0**-10
"""A tensor stays float32 if float16 is off by more than this share of its largest weight: then the
numbers lie beyond float16's range. Within it, 11 bits are off by half as much at most."""
MIN_WEIGHT = 2.0**-100
"""Below this, weights are zero: a 127th part of it is still far from float32's subnormal numbers,
which some processors take for zero."""

Array = NDArray[Any]
Rule = Callable[[Node, Array], tuple[Op, dict[str, Array]] | None]
"""Says what a node becomes, given its weight: an operation, and the tensors that are new to it."""


def convert_float16(model: Model) -> Model:
    """Return a model whose weights are float16, with which it computes in float32.

    Biases stay float32: they are few, and errors in them shift whole channels.
    """
    return _replace_ops(model, _convert_op_float16)


def quantize_dynamic(model: Model) -> Model:
    """Return a model whose weights are int8, a scale a filter.

    Linear layers compute in 8-bit integers, their inputs' scales found when they run. ONNX
    Runtime takes three times as long for convolutions of that kind as for those in float, so
    these remain in float.
    """
    return _replace_ops(model, _quantize_op)


def _replace_ops(model: Model, rule: Rule) -> Model:
    """Return a model with each operation that has weights as the rule says.

    New tensors are called `<weight>.<role>`.
    """
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Batch norms and biases stay as they are: in all a few numbers a channel.
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
    # Beyond 65504 float16 is infinite, which the comparison below finds.
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16)
    # In float64, where both forms and their difference are exact.
    error = np.abs(rounded.astype(np.float64) - weight).max(initial=0)
    # Not `>`: an error that is NaN, from infinite weights, must not pass.
    if not error <= HALF_ERROR * np.abs(weight).max(initial=0):
        return None
    return Half(node.op), {"": rounded}


def _quantize_op(node: Node, weight: Array) -> tuple[Op, dict[str, Array]] | None:
    quantized, scale = quantize_weight(weight)
    if isinstance(node.op, Linear):
        # By way of int16, since int8 ends below 128.
        shifted = (quantized.astype(np.int16) + 128).astype(np.uint8)
        # Features first, as MatMulInteger takes its second matrix.
        return DynamicLinear(node.op), {"": np.ascontiguousarray(shifted.T), "scale": scale}
    broadcast_scale = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return Int8Weights(node.op), {"": quantized, "scale": broadcast_scale}


def quantize_weight(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as int8 and a scale for each index of its first axis.

    Args:
        weight: Floats (filters, ...).

    Returns:
        Levels in [-127, 127] of the same shape, and float32 scales (filters,).
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    # The largest weight is a level itself, 127: weights within -127 to 127 are what the integer
    # program has as well (docs/decisions/0004-activations-per-tensor.md).
    max_abs = np.abs(flat).max(axis=1)
    scale = np.where(max_abs > MIN_WEIGHT, max_abs / 127, 1).astype(np.float32)
    # By the scale as it is stored: rounded by the one before it became float32, levels could be off
    # by one.
    quantized = np.rint(flat / scale[:, None].astype(np.float64)).astype(np.int8)
    return quantized.reshape(weight.shape), scale
