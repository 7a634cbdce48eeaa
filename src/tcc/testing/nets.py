"""Small graphs for tests, built step by step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Node, Output, make_node, verify
from tcc.compiler.ir.op import Call
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaxPool,
    Mul,
    Op,
    Relu,
    Relu6,
    Sigmoid,
)
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.support.diagnostics import NOWHERE, Span


class NetBuilder:
    """A graph under construction: each call adds a node; its input is the last node by default."""

    def __init__(self, *shape: int, name: str = "net") -> None:
        self.name = name
        self.inputs = (Input("image", TensorType(shape)),)
        self.nodes: list[Node] = []
        self.types = {"image": TensorType(shape)}
        self.last_value = "image"

    def __call__(self, name: str, op: Op, *inputs: str, at: Span = NOWHERE) -> str:
        """Add a node and return its name."""
        input_names = inputs or (self.last_value,)
        node = make_node(
            name, op, input_names, tuple(self.types[value] for value in input_names), at
        )
        assert node is not None
        self.nodes.append(node)
        self.types[name] = node.type
        self.last_value = name
        return name

    def build(self, *outputs: Output) -> Graph:
        """Return the graph; by default its output is the last node."""
        graph_outputs = outputs or (Output("logits", self.last_value),)
        return verify(Graph(self.name, self.inputs, tuple(self.nodes), graph_outputs))


def create_span(line: int, text: str = "  - conv: {filters: 8}") -> Span:
    """Return a source span in a spec, at the first word of a step."""
    return Span("net.yaml", line, 5, text, 4)


def build_dense() -> Graph:
    """A stem, a dense layer, a batch norm that cannot fold, a head and a train-only head."""
    add = NetBuilder(3, 16, 16, name="dense")
    add("stem", Conv(8, (3, 3), (2, 2), 1), at=create_span(3))
    add("stem_bn", BatchNorm(), at=create_span(4))
    skip = add("stem_relu", Relu())
    add("layer/depthwise", DepthwiseConv((3, 3), padding=1, bias=False), at=create_span(5))
    add("layer/bn", BatchNorm(), at=create_span(6))
    add("layer/relu", Relu6())
    add("concat", Concat(), skip, "layer/relu")
    add("bn", BatchNorm(eps=1e-3), at=create_span(7))
    add("relu", Relu())
    add("pool", AvgPool((2, 2)))
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("drop", Dropout(0.5))
    add("fc", Linear(5), at=create_span(8))
    add("aux_gap", GlobalAvgPool(), "stem_relu")
    add("aux_flat", Flatten())
    add("aux_fc", Linear(5))
    return add.build(
        Output("logits", "fc", "softmax", tuple("abcde")),
        Output("aux", "aux_fc", train_only=True),
    )


def build_gated() -> Graph:
    """A residual block with a squeeze-and-excite gate, and two outputs."""
    add = NetBuilder(4, 9, 9, name="gated")
    skip = add("pool", MaxPool((3, 3), (2, 2), ceil=True))
    add("conv", Conv(8, (1, 1), bias=False))
    wide = add("conv_bn", BatchNorm())
    add("squeeze", GlobalAvgPool())
    add("shrink", Conv(2, (1, 1)))
    add("shrink_relu", Relu())
    add("grow", Conv(8, (1, 1)))
    gate = add("gate", Sigmoid())
    add("gated", Mul(), wide, gate)
    add("reduce", Conv(4, (1, 1), bias=False))
    total = add("sum", Add(), skip, "reduce")
    add("gap", GlobalAvgPool())
    add("flat", Flatten())
    add("fc", Linear(3))
    add("fc_bn", BatchNorm())
    return add.build(Output("features", total), Output("logits", "fc_bn"))


@dataclass(frozen=True, slots=True)
class Softsign(ScalarFunction):
    """x / (1 + |x|), an op for which no target has a rule."""

    keyword: ClassVar[str] = "softsign"
    onnx_operator: ClassVar[str] = "Softsign"

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return the PyTorch calls."""
        return (Call("softsign", ("x0",)),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return the ONNX nodes."""
        return (Call("Softsign", ("x0",)),)

    def evaluate(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values."""
        return np.asarray(x / (1.0 + np.abs(x)))


def build_unknown_op() -> Graph:
    """Return a network with an op for which no target has a rule."""
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3), padding=1))
    add("unknown", Softsign())
    add("pool", GlobalAvgPool())
    return add.build()


def build_chain(length: int) -> Graph:
    """Return a chain of convolution, batch norm and relu, repeated."""
    add = NetBuilder(4, 4, 4, name="chain")
    for i in range(length // 3):
        add(f"conv_{i}", Conv(4, (1, 1)))
        add(f"bn_{i}", BatchNorm())
        add(f"relu_{i}", Relu())
    return add.build()
