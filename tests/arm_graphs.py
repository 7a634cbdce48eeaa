"""Random graphs that put every way of fusing and placing values to the test."""

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


def random_graph(seed: int, steps: int = 14) -> Graph:
    """Return a graph of ops drawn at random, whose unread values are its outputs."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 5)) * 2, int(rng.integers(1, 12))
    source = Input("x0", TensorType((int(rng.integers(1, 4)) * 4, *size)))
    types = {source.name: source.type}
    nodes: list[Node] = []
    while len(nodes) < steps:
        values = list(types)[-6:]
        chosen = [values[i] for i in rng.integers(0, len(values), int(rng.integers(1, 4)))]
        if rng.random() < 0.6:  # a chain, so that there is something to fuse
            chosen[0] = values[-1]
        op = _op(rng, [types[v] for v in chosen])
        most = op.arity[1]
        inputs = tuple(chosen if most is None else chosen[:most])
        try:
            node = make_node(f"n{len(nodes)}", op, inputs, tuple(types[v] for v in inputs))
        except OpError:
            continue
        if node is not None and node.type.elements <= 4096:
            nodes.append(node)
            types[node.name] = node.type
    read = {value for node in nodes for value in node.inputs}
    ends = [name for name in types if name not in read] + [nodes[steps // 2].name]
    outputs = tuple(Output(f"y{i}", v) for i, v in enumerate(dict.fromkeys(ends)))
    return verify(Graph(f"random_{seed}", (source,), tuple(nodes), outputs))


def random_model(seed: int, steps: int = 14) -> Model:
    """Return a random graph with random weights."""
    graph = random_graph(seed, steps)
    return Model(graph, sample_weights(graph))


def followed_model(op: Op, shape: tuple[int, ...]) -> Model:
    """Return an op with everything behind it that can be fused: constants, other values, both.

    What is added and multiplied is computed by the same op, from the same input.
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

    other = add("other", op, "x0")
    gate = add("gate", GlobalAvgPool(), other) if len(types[other].shape) == 3 else other
    last = add("op", op, "x0")
    last = add("scaled", ScaleShift(), last)
    last = add("sum", Add(), other, last)
    last = add("gated", Mul(), last, gate, last)
    last = add("end", HardSwish(), last)
    graph = verify(Graph("followed", (source,), tuple(nodes), (Output("y", last),)))
    return Model(graph, sample_weights(graph))


def led_model(op: Op, shape: tuple[int, ...]) -> Model:
    """Return an op behind what can be done to what it reads, and with one step behind it."""
    add = NetBuilder(*shape, name="led")
    add("scaled", BatchNorm())
    add("bounded", HardSwish())
    add("moved", ScaleShift())
    add("op", op)
    add("end", Relu())
    graph = add.build()
    return Model(graph, sample_weights(graph))


def _op(rng: np.random.Generator, types: list[TensorType]) -> Op:
    """Return an op that may fit inputs of these types."""
    first = types[0]
    anywhere: list[Op] = [
        Relu(), Silu(), Sigmoid(), HardSwish(), BatchNorm(), ScaleShift(), Softmax(), Identity(),
        LayerNorm(), Slice(1, step=2), Slice(0, 2), Slice(-2), Add(), Mul(), Add(), Concat(), Concat(), Concat(),
    ]  # fmt: skip
    if rng.random() < 0.3:
        return _pick(rng, [Relu(), HardSwish(), BatchNorm(), ScaleShift(), Add(), Mul()])
    if len(first.shape) == 1:
        return _pick(rng, [*anywhere, Linear(int(rng.integers(1, 22)))])
    channels = first.shape[0]
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
