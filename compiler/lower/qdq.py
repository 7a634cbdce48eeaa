"""The integer program as a QDQ model: float ops between dequantization and quantization."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node, verify
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.lower.small_weights import Dequantized
from tcc.compiler.ops import Add, GlobalAvgPool, Mul, Op, Pad, Relu, Relu6
from tcc.compiler.ops.integer import (
    Dequantize,
    QAdd,
    QAvgPool,
    QConv,
    QGlobalAvgPool,
    QMul,
    QPad,
    Quantize,
    QuantizedOp,
    RealConv,
    RealGlobalAvgPool,
    Table,
)
from tcc.compiler.ops.internal import Border
from tcc.compiler.support.diagnostics import UnhandledError

Tensors = Mapping[str, NDArray[Any]]
CONVERSION_OPS: tuple[type[Op], ...] = (Quantize, Dequantize)
UNCHANGED_OPS: tuple[type[Op], ...] = (*CONVERSION_OPS, QGlobalAvgPool, RealGlobalAvgPool)
"""Ops that stay. Runtimes round a global mean of floats differently from its definition."""


def convert_to_qdq(model: Model, *, integer_means: bool = True) -> Model:
    """Return the integer program in float: each op between `dequantize` and `quantize`.

    Weights stay integers with scales, the form that other vendors' toolchains build from. The
    results equal the integer program's if a runtime converts it back to one; otherwise they differ
    by at most one quantization step, because floats round differently.

    Args:
        model: The integer program.
        integer_means: Keep global means as integer ops, as they are defined. Otherwise only
            `quantize` and `dequantize` use integers, for tools that support nothing else.
    """
    builder = _QdqBuilder(model, UNCHANGED_OPS if integer_means else CONVERSION_OPS)
    for node in model.graph.nodes:
        builder.convert_node(node)
    graph = model.graph
    qdq_graph = Graph(graph.name, graph.inputs, tuple(builder.nodes.values()), graph.outputs)
    return eliminate_dead(Model(verify(qdq_graph), builder.weights))


@dataclass
class _QdqBuilder:
    """The model under construction: its nodes and weights so far."""

    model: Model
    unchanged_ops: tuple[type[Op], ...]
    nodes: dict[str, Node] = field(default_factory=dict)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.types = {
            network_input.name: network_input.type for network_input in self.model.graph.inputs
        }

    def convert_node(self, node: Node) -> None:
        """Add the replacement of a node."""
        types = self.model.graph.get_input_types(node)
        weights = {name: self.model.weights[name] for name in node.params}
        is_unchanged = isinstance(node.op, self.unchanged_ops)
        # A node with only float inputs and outputs is not an integer op: `--mixed` kept it.
        if is_unchanged or all(kind.dtype is DType.F32 for kind in (*types, node.type)):
            self.add_node(node, node.name, node.op, node.inputs, weights)
            return
        op, tensors = _convert_op(node, types, weights)
        inputs = tuple(self.get_float_value(node, input_name) for input_name in node.inputs)
        if node.type.dtype is DType.F32:
            self.add_node(node, node.name, op, inputs, tensors)
            return
        # The value keeps its name at the end of the chain, where it is quantized, so that both
        # forms can be compared value by value.
        float_name = self.add_node(node, f"{node.name}:float", op, inputs, tensors)
        clamp = _find_clamp(node)
        if clamp:
            float_name = self.add_node(node, f"{node.name}:clamp", clamp, (float_name,), {})
        y = node.type
        quantize = Quantize(
            float(y.scale or 0), y.dtype is DType.I8, *y.limits, zero_point=y.zero_point
        )
        self.add_node(node, node.name, quantize, (float_name,), {})

    def get_float_value(self, node: Node, value: str) -> str:
        """Return the name of a value's float form, which is created once."""
        name = f"{value}:dequantized"
        # Shared by all readers of the value. ONNX Runtime's fusions need a DequantizeLinear next to
        # each operator, so it copies it for each (ensure_unique_dq_for_node_unit.cc).
        if name not in self.nodes:
            self.add_node(node, name, Dequantize(), (value,), {})
        return name

    def add_node(
        self, origin: Node, name: str, op: Op, inputs: tuple[str, ...], tensors: Tensors
    ) -> str:
        """Add a node with its weights, and return its name."""
        kind = op.infer(*(self.types[input_name] for input_name in inputs))
        self.nodes[name] = Node(name, op, inputs, tuple(tensors), kind, origin.at)
        self.types[name] = kind
        self.weights |= tensors
        return name


def _convert_op(  # noqa: C901, PLR0911 - a case an operation
    node: Node, types: tuple[TensorType, ...], weights: Tensors
) -> tuple[Op, Tensors]:
    """Return the float op that an integer op represents, with its weights."""
    match node.op:
        case QConv(conv=conv):
            (weight, quantized_values), (scale, weight_scales), (bias, quantized_bias) = (
                weights.items()
            )
            # A bias is int32 at the scale of the products, input times filter. That is the first
            # rounding of the integer program's factor
            # (docs/decisions/0002-scales-and-float32-order.md), and what QDQ tools require.
            product_scales = np.float32(types[0].scale) * np.asarray(weight_scales, np.float32)
            return Dequantized(conv), {
                weight: quantized_values,
                scale: weight_scales,
                bias: quantized_bias,
                f"{bias}.scale": product_scales,
            }
        case RealConv(conv=conv):
            (weight, quantized_values), (factor, product_scales), (bias, quantized_bias) = (
                weights.items()
            )
            # A layer with float output stores only the scale of its products; a filter's own scale
            # is that divided by the input's.
            weight_scales = np.asarray(product_scales, np.float32) / np.float32(types[0].scale)
            return Dequantized(conv), {
                weight: quantized_values,
                f"{weight}.scale": weight_scales,
                bias: quantized_bias,
                factor: product_scales,
            }
        case QAdd():
            return Add(), {}
        case QMul():
            return Mul(), {}
        case QAvgPool(pool=pool):
            return pool, {}
        case QGlobalAvgPool() | RealGlobalAvgPool():
            return GlobalAvgPool(), {}
        case QPad(padding=padding, levels=quantized_values):
            # Border values were quantized: their real values are those of the quantized values, not
            # of the spec.
            border_values = tuple(
                quantized_value * float(types[0].scale or 0) for quantized_value in quantized_values
            )
            # Different values may be quantized to the same one; then the result is one Pad.
            return (
                Pad(padding, border_values[0])
                if len(set(border_values)) == 1
                else Border(padding, border_values)
            ), {}
        case Table(function=function):
            return function, {}
        case QuantizedOp() as op:
            raise UnhandledError("integer operation", op.keyword)
        case op:  # only moves numbers
            return op, weights


def _find_clamp(node: Node) -> Op | None:
    """Return the activation that a quantized op's narrower bounds represent."""
    if not isinstance(node.op, QuantizedOp):
        return None
    low, high = node.type.limits
    # A clamp comes from a relu6 if it lowers the upper bound, otherwise from a relu.
    if node.op.high < high:
        return Relu6()
    return Relu() if node.op.low > low else None
