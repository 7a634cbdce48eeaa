"""Random graphs that cover every kind of fusion and memory placement."""

import numpy as np

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, make_node, verify
from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv,
    Flatten,
    GlobalAvgPool,
    HardSwish,
    Identity,
    LayerNorm,
    Linear,
    MaxPool,
    Mul,
    Op,
    Pad,
    Relu,
    Resize,
    ScaleShift,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
)
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights


def make_random_graph(seed: int, steps: int = 14) -> Graph:
    """Return a graph of random ops. Values without a reader are its outputs."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5)) * 2, int(rng.integers(1, 12))
    source = Input("x0", TensorType((int(rng.integers(1, 4)) * 4, *size)))
    types = {source.name: source.type}
    nodes: list[Node] = []
    while len(nodes) < steps:
        recent_values = list(types)[-6:]
        operands = [
            recent_values[i] for i in rng.integers(0, len(recent_values), int(rng.integers(1, 4)))
        ]
        if rng.random() < 0.6:  # a chain, to give fusion candidates
            operands[0] = recent_values[-1]
        op = _choose_op(rng, [types[v] for v in operands])
        max_inputs = op.arity[1]
        inputs = tuple(operands if max_inputs is None else operands[:max_inputs])
        try:
            node = make_node(f"n{len(nodes)}", op, inputs, tuple(types[v] for v in inputs))
        except OpError:
            continue
        if node is not None and node.type.elements <= 4096:
            nodes.append(node)
            types[node.name] = node.type
    used_values = {operand for node in nodes for operand in node.inputs}
    unused_values = [name for name in types if name not in used_values] + [nodes[steps // 2].name]
    outputs = tuple(Output(f"y{i}", v) for i, v in enumerate(dict.fromkeys(unused_values)))
    return verify(Graph(f"random_{seed}", (source,), tuple(nodes), outputs))


def make_random_model(seed: int, steps: int = 14) -> Model:
    """Return a random graph with random weights."""
    graph = make_random_graph(seed, steps)
    return Model(graph, sample_weights(graph))


def make_model_with_consumers(op: Op, shape: tuple[int, ...]) -> Model:
    """Return an op followed by everything that can be fused with it.

    The added and multiplied operands are constants or outputs of the same op on the same input.
    """
    source = Input("x0", TensorType(shape))
    types = {"x0": source.type}
    nodes: list[Node] = []

    def add(name: str, op: Op, *inputs: str) -> str:
        node = make_node(name, op, inputs, tuple(types[v] for v in inputs))
        assert node is not None
        nodes.append(node)
        types[name] = node.type
        return name

    branch = add("other", op, "x0")
    gate = add("gate", GlobalAvgPool(), branch) if len(types[branch].shape) == 3 else branch
    output_name = add("op", op, "x0")
    output_name = add("scaled", ScaleShift(), output_name)
    output_name = add("sum", Add(), branch, output_name)
    output_name = add("gated", Mul(), output_name, gate, output_name)
    output_name = add("end", HardSwish(), output_name)
    graph = verify(Graph("followed", (source,), tuple(nodes), (Output("y", output_name),)))
    return Model(graph, sample_weights(graph))


def make_model_with_producers(op: Op, shape: tuple[int, ...]) -> Model:
    """Return an op that follows steps that can be fused into it, with one step after it."""
    add = NetBuilder(*shape, name="led")
    add("scaled", BatchNorm())
    add("bounded", HardSwish())
    add("moved", ScaleShift())
    add("op", op)
    add("end", Relu())
    graph = add.build()
    return Model(graph, sample_weights(graph))


def _choose_op(rng: np.random.Generator, types: list[TensorType]) -> Op:
    """Return a random op that may fit inputs of these types."""
    first_type = types[0]
    anywhere: list[Op] = [
        Relu(), Silu(), Sigmoid(), HardSwish(), BatchNorm(), ScaleShift(), Softmax(), Identity(),
        LayerNorm(), Slice(1, step=2), Slice(0, 2), Slice(-2), Add(), Mul(), Add(), Concat(), Concat(), Concat(),
    ]  # fmt: skip
    if rng.random() < 0.3:
        return _pick(rng, [Relu(), HardSwish(), BatchNorm(), ScaleShift(), Add(), Mul()])
    if len(first_type.shape) == 1:
        return _pick(rng, [*anywhere, Linear(int(rng.integers(1, 22)))])
    channels = first_type.shape[0]
    filters = channels if rng.random() < 0.5 else int(rng.integers(1, 21))
    maps: list[Op] = [
        Conv(filters, (1, 1)), Conv(filters, (3, 3), padding=1), Conv(filters, (3, 3), padding=1),
        Conv(channels, (3, 3), padding=1, groups=channels), Conv(filters, (2, 3), (2, 2), 1),
        Conv(2 * channels, (1, 1), groups=channels, bias=False),
        MaxPool((3, 3), (2, 2), 1, ceil=True), AvgPool((3, 3), (1, 1), 1, count_include_pad=False),
        GlobalAvgPool(), Flatten(), Pad((0, 1, 1, 0), -1.0), ChannelShuffle(2),
        Resize(scale=(2, 1)), Resize((3, 5), mode="bilinear"),
    ]  # fmt: skip
    return _pick(rng, anywhere + maps)


def _pick(rng: np.random.Generator, ops: list[Op]) -> Op:
    return ops[int(rng.integers(len(ops)))]
