"""Float models with smaller weights: half the size in float16, a quarter in int8."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Node, verify
from tcc.compiler.ops import Conv, ConvTranspose, Linear, Op
from tcc.compiler.ops.compressed_weights import DynamicLinear, Half, Int8Weights

WEIGHTED: tuple[type[Op], ...] = (Conv, ConvTranspose, Linear)
"""The operations whose weights are most of a model."""
HALF_ERROR = 2.0**-10
"""A tensor stays float32 if float16 is off by more than this share of its largest weight: then the
numbers lie beyond float16's range. Within it, 11 bits are off by half as much at most."""
SMALLEST = 2.0**-100
"""Below this, weights are zero: a 127th part of it is still far from float32's subnormal numbers,
which some processors take for zero."""

Array = NDArray[Any]
Rule = Callable[[Node, Array], tuple[Op, dict[str, Array]] | None]
"""Says what a node becomes, given its weight: an operation, and the tensors that are new to it."""


def half(model: Model) -> Model:
    """Return a model whose weights are float16, with which it computes in float32.

    Biases stay float32: they are few, and errors in them shift whole channels.
    """
    return _replaced(model, _half)


def dynamic(model: Model) -> Model:
    """Return a model whose weights are int8, a scale a filter.

    Linear layers compute in 8-bit integers, their inputs' scales found when they run. ONNX
    Runtime takes three times as long for convolutions of that kind as for those in float, so
    these remain in float.
    """
    return _replaced(model, _dynamic)


def _replaced(model: Model, rule: Rule) -> Model:
    """Return a model with each operation that has weights as the rule says.

    New tensors are called `<weight>.<role>`.
    """
    weights = dict(model.weights)
    nodes = []
    for node in model.graph.nodes:
        # Batch norms and biases stay as they are: in all a few numbers a channel.
        if isinstance(node.op, WEIGHTED):
            weight, *others = node.params
            found = rule(node, np.asarray(model.weights[weight]))
            if found:
                op, tensors = found
                made = {f"{weight}.{role}" if role else weight: t for role, t in tensors.items()}
                weights |= made
                node = replace(node, op=op, params=(*made, *others))  # noqa: PLW2901
        nodes.append(node)
    return Model(verify(replace(model.graph, nodes=tuple(nodes))), weights)


def _half(node: Node, weight: Array) -> tuple[Op, dict[str, Array]] | None:
    # Beyond 65504 float16 is infinite, which the comparison below finds.
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16)
    # In float64, where both forms and their difference are exact.
    error = np.abs(rounded.astype(np.float64) - weight).max(initial=0)
    # Not `>`: an error that is NaN, from infinite weights, must not pass.
    if not error <= HALF_ERROR * np.abs(weight).max(initial=0):
        return None
    return Half(node.op), {"": rounded}


def _dynamic(node: Node, weight: Array) -> tuple[Op, dict[str, Array]] | None:
    whole, scale = levels(weight)
    if isinstance(node.op, Linear):
        # By way of int16, since int8 ends below 128.
        shifted = (whole.astype(np.int16) + 128).astype(np.uint8)
        # Features first, as MatMulInteger takes its second matrix.
        return DynamicLinear(node.op), {"": np.ascontiguousarray(shifted.T), "scale": scale}
    wide = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return Int8Weights(node.op), {"": whole, "scale": wide}


def levels(weight: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as int8 and a scale for each index of its first axis.

    Args:
        weight: Floats (filters, ...).

    Returns:
        Levels in [-127, 127] of the same shape, and float32 scales (filters,).
    """
    flat = weight.reshape(len(weight), -1).astype(np.float64)
    # The largest weight is a level itself, 127: weights within -127 to 127 are what the integer
    # program has as well (docs/decisions/0004-activations-per-tensor.md).
    most = np.abs(flat).max(axis=1)
    scale = np.where(most > SMALLEST, most / 127, 1).astype(np.float32)
    # By the scale as it is stored: rounded by the one before it became float32, levels could be off
    # by one.
    whole = np.rint(flat / scale[:, None].astype(np.float64)).astype(np.int8)
    return whole.reshape(weight.shape), scale
