"""Counting conventions of papers: each is a function of a graph, with its rule as text.

Papers print figures under names such as "operations", counted by various tools. These functions
count in the same way, to explain each printed figure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod

import numpy as np

from tcc.compiler.ir.cost import Cost, compute_cost
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops.pool import Pool
from tcc.compiler.passes import FOLDED, run

Inputs = tuple[TensorType, ...]
Work = Callable[[Node, Inputs], int]


@dataclass(frozen=True)
class CountedNetwork:
    """A network, and how the program that a paper counted is written, by patterns of node names.

    `functions` are operations that the program calls as functions and not as modules. `twice` are
    modules that it registers under two names.
    """

    graph: Graph
    functions: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()

    @cached_property
    def cost(self) -> Cost:
        """Parameters, multiply-accumulates and bytes of the graph as written."""
        return compute_cost(self.graph)

    @cached_property
    def deployed(self) -> Graph:
        """The graph after folding batch norms, as devices run it."""
        unit = np.float32(1)
        # Folding depends on the graph alone; broadcasting one number as all weights saves memory.
        weights = {n: np.broadcast_to(unit, p.shape) for n, p in self.graph.params.items()}
        return run(Model(self.graph, weights), FOLDED).graph


@dataclass(frozen=True, slots=True)
class Convention:
    """A counting convention, with its rule in one line."""

    rule: str
    count: Callable[[CountedNetwork], int]


def _count_filter_macs(node: Node, inputs: Inputs) -> int:
    """Return the multiply-accumulates, plus one addition per output with a bias."""
    biased = len(node.params) > 1
    macs: int = node.op.macs(*inputs)
    return macs + node.type.elements * biased


def _count_outputs(node: Node, _: Inputs) -> int:
    return node.type.elements


def _count_pool_inputs(_: Node, inputs: Inputs) -> int:
    return inputs[0].elements


# ptflops hooks both modules and functions. It counts `nn.ReLU` as a module, and again as the
# `functional.relu` that it calls.
_POOLS = ("max_pool", "avg_pool", "global_avg_pool", "adaptive_avg_pool")

_PTFLOPS: Mapping[str, Work] = {
    "conv": _count_filter_macs,
    "linear": _count_filter_macs,
    "batch_norm": lambda node, _: 2 * node.type.elements,
    "relu": _count_outputs,
    "relu6": _count_outputs,
    **dict.fromkeys(_POOLS, _count_pool_inputs),
}
_HOOKED_TWICE = {"relu", "relu6", *_POOLS}
"""Operations whose modules call functions that ptflops hooks too."""


def count_ptflops(network: CountedNetwork) -> int:
    """Return the count of ptflops with its PyTorch backend."""
    total = 0
    for node in extract_inference_graph(network.graph).nodes:
        is_hooked_twice = node.op.keyword in _HOOKED_TWICE
        is_module = not (is_hooked_twice and _matches_any(node, network.functions))
        times = is_hooked_twice + is_module + _matches_any(node, network.twice)
        total += times * _count_work(_PTFLOPS, node, network.graph)
    return total


def _count_windows(node: Node, _: Inputs) -> int:
    """Return the elements of all pooling windows, including padding."""
    assert isinstance(node.op, Pool)
    # TensorFlow counts a full window for each output, at the borders too.
    return node.type.elements * prod(node.op.kernel)


def _count_filter_flops(node: Node, inputs: Inputs) -> int:
    macs: int = node.op.macs(*inputs)
    return _count_filter_macs(node, inputs) + macs


def _count_join_ops(node: Node, inputs: Inputs) -> int:
    return node.type.elements * (len(inputs) - 1)


_TENSORFLOW: Mapping[str, Work] = {
    "conv": _count_filter_flops,
    "linear": _count_filter_flops,
    "add": _count_join_ops,
    "mul": _count_join_ops,
    "silu": _count_outputs,
    "max_pool": _count_windows,
    "avg_pool": _count_windows,
    "global_avg_pool": _count_pool_inputs,
}


def count_tensorflow(network: CountedNetwork) -> int:
    """Return the count of TensorFlow's profiler for a batch of one image."""
    graph = network.graph
    inference = sum(
        _count_work(_TENSORFLOW, node, graph) for node in extract_inference_graph(graph).nodes
    )
    softmax_values = (o.value for o in graph.outputs if o.activation == "softmax")
    # Five per softmax element: two for the shift by the maximum, one for the exponential, two for
    # the division (TensorFlow's flops_registry.py).
    return (
        inference
        + 5 * sum(graph.types[softmax_value].elements for softmax_value in softmax_values)
        + count_initializers(network)
    )


_INITIALISERS: Mapping[str, Work] = {
    # Glorot uniform: the width between the bounds once, then one product and one sum per weight.
    "conv": lambda node, inputs: 2 * node.op.params(*inputs)[0].elements + 1,
    "linear": lambda node, inputs: 2 * node.op.params(*inputs)[0].elements + 1,
    "batch_norm": lambda node, _: 4 * node.type.shape[0] + 2,
}


def count_initializers(network: CountedNetwork) -> int:
    """Return what TensorFlow's profiler counts outside inference: initial values and averages."""
    graph = network.graph
    return sum(_count_work(_INITIALISERS, node, graph) for node in graph.nodes)


def count_int8_bytes(network: CountedNetwork) -> int:
    """Return the bytes of int8 weights and int32 biases, with scales and zero points."""
    return sum(
        # TFLite stores a float32 scale and an int64 zero point per channel: 12 bytes, for weights
        # and for biases.
        param.elements + 12 * param.shape[0] if len(param.shape) > 1 else 16 * param.elements
        for param in network.deployed.params.values()
    )


def count_dynamic_bytes(network: CountedNetwork) -> int:
    """Return the bytes of int8 weights with scales and zero points, and of fp32 biases."""
    return sum(
        param.elements + 12 * param.shape[0] if len(param.shape) > 1 else 4 * param.elements
        for param in network.deployed.params.values()
    )


def _count_deployed(network: CountedNetwork) -> int:
    return sum(param.elements for param in network.deployed.params.values())


def _count_work(table: Mapping[str, Work], node: Node, graph: Graph) -> int:
    work = table.get(node.op.keyword)
    return work(node, graph.get_input_types(node)) if work else 0


def _matches_any(node: Node, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(node.name, pattern) for pattern in patterns)


CONVENTIONS: Mapping[str, Convention] = {
    "parameters": Convention(
        "trainable parameters, including heads that only training uses",
        lambda network: network.cost.params,
    ),
    "ptflops": Convention(
        "multiply-accumulates, 1 per bias, 2 per element of batch norm, 1 per element of ReLU and"
        " of pooling inputs; both again as functions (ptflops)",
        count_ptflops,
    ),
    "tensorflow": Convention(
        "2 per multiply-accumulate, 1 per bias, sum, product and pooled element, 5 per softmax"
        " output; for training 2 per weight, 1 per kernel, 4 per channel and 2 per layer of batch"
        " norm (TensorFlow's profiler)",
        count_tensorflow,
    ),
    "initialisers": Convention(
        "2 per weight, 1 per kernel, 4 per channel and 2 per layer of batch norm: the count of"
        " TensorFlow's profiler for an unknown batch size, without any inference",
        count_initializers,
    ),
    "stored": Convention(
        "bytes of the fp32 parameters and batch norm statistics",
        lambda network: network.cost.weight_bytes,
    ),
    "fp32": Convention(
        "4 bytes per weight, batch norms folded", lambda network: 4 * _count_deployed(network)
    ),
    "fp16": Convention(
        "2 bytes per weight, batch norms folded", lambda network: 2 * _count_deployed(network)
    ),
    "dynamic": Convention(
        "1 byte per weight, 12 per channel for scale and zero point, 4 per bias",
        count_dynamic_bytes,
    ),
    "int8": Convention(
        "1 byte per weight, 4 per bias, and for both 12 per channel for scale and zero point",
        count_int8_bytes,
    ),
}
"""The conventions by the names in the tables."""
