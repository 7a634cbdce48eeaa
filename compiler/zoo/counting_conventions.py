"""How papers count: each convention as a function of a graph, with its rule in words.

The figures that a paper calls operations are what some tool counted; these functions count the
same, so that a printed figure is explained by a number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod

import numpy as np

from tcc.compiler.ir.cost import Cost, cost
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.pool import Pool
from tcc.compiler.passes import FOLDED, run

Inputs = tuple[TensorType, ...]
Work = Callable[[Node, Inputs], int]


@dataclass(frozen=True)
class Counted:
    """A network, and how the program that a paper counted is written, by patterns of paths.

    `functions` are operations that the program calls as functions, not as modules; `twice` are
    modules that it registers under two names.
    """

    graph: Graph
    functions: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()

    @cached_property
    def cost(self) -> Cost:
        """Parameters, multiply-accumulates and bytes of the graph as written."""
        return cost(self.graph)

    @cached_property
    def deployed(self) -> Graph:
        """The graph as devices run it: batch norms folded."""
        one = np.float32(1)
        # Which batch norms fold depends on the graph alone; one number stands for all, without
        # memory.
        weights = {n: np.broadcast_to(one, p.shape) for n, p in self.graph.params.items()}
        return run(Model(self.graph, weights), FOLDED).graph


@dataclass(frozen=True, slots=True)
class Convention:
    """A way to count, and its rule in one line."""

    rule: str
    count: Callable[[Counted], int]


def _filtered(node: Node, inputs: Inputs) -> int:
    """Return multiply-accumulates, and one addition a biased output."""
    biased = len(node.params) > 1
    macs: int = node.op.macs(*inputs)
    return macs + node.type.elements * biased


def _outputs(node: Node, _: Inputs) -> int:
    return node.type.elements


def _pooled(_: Node, inputs: Inputs) -> int:
    return inputs[0].elements


# ptflops hooks both modules and functions: `nn.ReLU` is counted as a module, and once more as the
# `functional.relu` that it calls.
_POOLS = ("max_pool", "avg_pool", "global_avg_pool", "adaptive_avg_pool")

_PTFLOPS: Mapping[str, Work] = {
    "conv": _filtered,
    "linear": _filtered,
    "batch_norm": lambda node, _: 2 * node.type.elements,
    "relu": _outputs,
    "relu6": _outputs,
    **dict.fromkeys(_POOLS, _pooled),
}
_HOOKED_TWICE = {"relu", "relu6", *_POOLS}
"""Operations whose modules call functions that the tool watches as well."""


def ptflops(network: Counted) -> int:
    """Count as ptflops does with its PyTorch backend."""
    total = 0
    for node in for_inference(network.graph).nodes:
        watched = node.op.word in _HOOKED_TWICE
        module = not (watched and _named(node, network.functions))
        times = watched + module + _named(node, network.twice)
        total += times * _work(_PTFLOPS, node, network.graph)
    return total


def _windows(node: Node, _: Inputs) -> int:
    """Return the elements of all windows of a pooling, those in its padding included."""
    assert isinstance(node.op, Pool)
    # TensorFlow counts a window of the kernel's size for each output, at the edges too.
    return node.type.elements * prod(node.op.kernel)


def _twice_filtered(node: Node, inputs: Inputs) -> int:
    macs: int = node.op.macs(*inputs)
    return _filtered(node, inputs) + macs


def _joined(node: Node, inputs: Inputs) -> int:
    return node.type.elements * (len(inputs) - 1)


_TENSORFLOW: Mapping[str, Work] = {
    "conv": _twice_filtered,
    "linear": _twice_filtered,
    "add": _joined,
    "mul": _joined,
    "silu": _outputs,
    "max_pool": _windows,
    "avg_pool": _windows,
    "global_avg_pool": _pooled,
}


def tensorflow(network: Counted) -> int:
    """Count as TensorFlow's profiler does for a batch of one image."""
    graph = network.graph
    inference = sum(_work(_TENSORFLOW, node, graph) for node in for_inference(graph).nodes)
    ends = (o.value for o in graph.outputs if o.activation == "softmax")
    # Five for each element of a softmax: two for the shift by the largest, one for the exponential,
    # two for the division (TensorFlow's flops_registry.py).
    return inference + 5 * sum(graph.types[end].elements for end in ends) + initialisers(network)


_INITIALISERS: Mapping[str, Work] = {
    # Glorot's uniform values: the width between their bounds once, then a product and a sum each.
    "conv": lambda node, inputs: 2 * node.op.params(*inputs)[0].elements + 1,
    "linear": lambda node, inputs: 2 * node.op.params(*inputs)[0].elements + 1,
    "batch_norm": lambda node, _: 4 * node.type.shape[0] + 2,
}


def initialisers(network: Counted) -> int:
    """Count what TensorFlow's profiler finds beside inference: initial values and averages."""
    graph = network.graph
    return sum(_work(_INITIALISERS, node, graph) for node in graph.nodes)


def int8_bytes(network: Counted) -> int:
    """Return the bytes of weights in int8 and of biases in int32 with scales and zero points."""
    return sum(
        # TFLite keeps a float32 scale and an int64 zero point a channel: 12 bytes. A bias has both
        # as well.
        param.elements + 12 * param.shape[0] if len(param.shape) > 1 else 16 * param.elements
        for param in network.deployed.params.values()
    )


def dynamic_bytes(network: Counted) -> int:
    """Return the bytes of weights in int8 with scales and zero points, and of biases in fp32."""
    return sum(
        param.elements + 12 * param.shape[0] if len(param.shape) > 1 else 4 * param.elements
        for param in network.deployed.params.values()
    )


def _deployed(network: Counted) -> int:
    return sum(param.elements for param in network.deployed.params.values())


def _work(table: Mapping[str, Work], node: Node, graph: Graph) -> int:
    work = table.get(node.op.word)
    return work(node, graph.input_types(node)) if work else 0


def _named(node: Node, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(node.name, pattern) for pattern in patterns)


CONVENTIONS: Mapping[str, Convention] = {
    "parameters": Convention(
        "trainable numbers, those of heads that only training uses included",
        lambda network: network.cost.params,
    ),
    "ptflops": Convention(
        "multiply-accumulates, 1 a bias, 2 an element of batch norm, 1 an element of ReLU and of a"
        " pooling's input, both counted again as functions (ptflops)",
        ptflops,
    ),
    "tensorflow": Convention(
        "2 a multiply-accumulate, 1 a bias, sum, product and pooled element, 5 a softmax output,"
        " and of training 2 a weight, 1 a kernel, 4 a channel and 2 a layer of batch norm"
        " (TensorFlow's profiler)",
        tensorflow,
    ),
    "initialisers": Convention(
        "2 a weight, 1 a kernel, 4 a channel and 2 a layer of batch norm: what TensorFlow's"
        " profiler finds where the batch size is unknown, nothing of it inference",
        initialisers,
    ),
    "stored": Convention(
        "bytes of the fp32 parameters and batch norm statistics",
        lambda network: network.cost.weight_bytes,
    ),
    "fp32": Convention(
        "4 bytes a weight, batch norms folded", lambda network: 4 * _deployed(network)
    ),
    "fp16": Convention(
        "2 bytes a weight, batch norms folded", lambda network: 2 * _deployed(network)
    ),
    "dynamic": Convention(
        "1 byte a weight and 12 a channel for scale and zero point, 4 a bias", dynamic_bytes
    ),
    "int8": Convention(
        "1 byte a weight, 4 a bias, and 12 a channel of either for scale and zero point", int8_bytes
    ),
}
"""The conventions by the names that tables call them."""
