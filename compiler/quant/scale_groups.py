"""Values of the int8 program: which exist, which share a scale, and which are unsigned."""

from collections.abc import Mapping

import numpy as np

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ops import (
    Add,
    AvgPool,
    Border,
    Conv,
    Flatten,
    GlobalAvgPool,
    Mul,
    Op,
    Pad,
    Relu,
    Relu6,
)
from tcc.compiler.ops.elementwise import Elementwise
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.zero_points import clip_unused_lows, find_zero_point_values, fit_range

CLAMPS: tuple[type[Op], ...] = (Relu, Relu6)
"""Activations that only limit the output of the operation before them."""
CLAMPABLE: tuple[type[Op], ...] = (Conv, Add, Mul)
"""Operations that fuse a clamp, if nothing else reads them."""

MIN_SCALE = 2.0**-60
"""A value with a smaller scale counts as zero. With this minimum, the product of two scales, which
is a bias's step, stays a normal float32."""

Limits = Mapping[str, tuple[float, float]]
"""Minimum and maximum of each unfused value (see `list_unfused_values`), as real numbers."""


def find_fused_clamps(graph: Graph) -> Mapping[str, str]:
    """Return the node that each fused clamp belongs to, by the clamp's name."""
    node_by_name = {node.name: node for node in graph.nodes}
    source_by_clamp: dict[str, str] = {}
    for node in graph.nodes:
        source = node_by_name.get(node.inputs[0])
        if (
            source is None
            or not isinstance(node.op, CLAMPS)
            or not isinstance(source.op, CLAMPABLE)
        ):
            continue
        # Another reader would need the value before the clamp.
        if graph.find_sole_reader(source.name) == node:
            source_by_clamp[node.name] = source.name
    return source_by_clamp


def list_unfused_values(graph: Graph) -> tuple[str, ...]:
    """Return the values that exist in the int8 program, the graph's input first.

    The output of an operation that fuses a clamp is not among them, only that of the clamp.
    """
    inside = set(find_fused_clamps(graph).values())
    return tuple(name for name in graph.types if name not in inside)


def find_output_values(graph: Graph) -> frozenset[str]:
    """Return the values that only the graph's outputs read, directly or through a flatten."""
    output_values: set[str] = set()
    # From the end, so that readers come before what they read.
    for node in reversed(graph.nodes):
        readers = graph.readers[node.name]
        if all(isinstance(r.op, Flatten) and r.name in output_values for r in readers):
            output_values.add(node.name)
    return frozenset(output_values)


def find_scale_groups(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return the unfused values in groups that share a scale, in the graph's order.

    An operation that only moves values must not change them: with different scales, a concat or a
    max pooling would round a second time, and targets round such steps differently.
    """
    order = {name: index for index, name in enumerate(list_unfused_values(graph))}
    # All members of a group share one list.
    groups = {name: [name] for name in order}
    for node in graph.nodes:
        for input_name in node.inputs if node.op.moves else ():
            node_group, input_group = groups[node.name], groups[input_name]
            if node_group is not input_group:
                # Each value moves once per merge, and merges are few.
                node_group += input_group
                groups |= dict.fromkeys(input_group, node_group)
    ordered_groups = {
        id(group): tuple(sorted(group, key=order.__getitem__)) for group in groups.values()
    }
    return tuple(sorted(ordered_groups.values(), key=lambda group: order[group[0]]))


def find_non_negative(model: Model) -> frozenset[str]:
    """Return the values that cannot be negative for any input.

    They are unsigned and get twice the resolution. This is proven from the graph and the weights,
    not from images: an unseen image could give negative values.
    """
    names: set[str] = set()
    for network_input in model.graph.inputs:
        preprocess = network_input.preprocess
        # (pixel - mean) / std is not negative if no mean is above zero.
        if preprocess is not None and (preprocess.raw or max(preprocess.mean) <= 0):
            names.add(network_input.name)
    for node in model.graph.nodes:
        if _is_non_negative(node, model, names):
            names.add(node.name)
    return frozenset(names)


def _is_non_negative(node: Node, model: Model, proven: set[str]) -> bool:
    has_proven_inputs = all(value in proven for value in node.inputs)
    match node.op:
        case Elementwise() if node.op.bounds[0] >= 0:
            return True
        # Non-negative inputs, weights and biases: rare, but a pooling written as a convolution is
        # such a case.
        case Conv():
            return has_proven_inputs and all(
                bool(np.all(model.weights[p] >= 0)) for p in node.params
            )
        case Pad(value=value):
            return has_proven_inputs and value >= 0
        case Border(values=values):
            return has_proven_inputs and min(values) >= 0
        case Add() | Mul() | AvgPool() | GlobalAvgPool():
            return has_proven_inputs
    return has_proven_inputs and node.op.moves


def compute_minmax_ranges(model: Model, limits: Limits) -> Mapping[str, Range]:
    """Return min-max ranges: the largest magnitude of a group is its largest quantized value.

    The scale is max / 255 if no member can be negative, else absmax / 127, or (max - min) / 255
    with a zero point where that is much smaller (`zero_points`). A group of zeros gets scale 1,
    since a scale must not be 0. A raw input has scale 1: its pixels are quantized values.

    Args:
        model: A lowered model.
        limits: Minimum and maximum of each unfused value, by name.

    Returns:
        The range of every unfused value by name; the members of a group have equal ranges.
    """
    # Zero is always represented exactly: padding and relus give zeros, which must stay zeros.
    non_negative_names = find_non_negative(model)
    raw = {i.name for i in model.graph.inputs if i.preprocess is not None and i.preprocess.raw}
    zero_point_values = find_zero_point_values(model.graph)
    useful_limits = clip_unused_lows(model.graph, limits)
    ranges: dict[str, Range] = {}
    for group in find_scale_groups(model.graph):
        signed = any(name not in non_negative_names for name in group)
        top = max(max(abs(bound) for bound in limits[name]) for name in group)
        scale = 1.0 if raw.intersection(group) else compute_scale(top, signed)
        value_range = Range(scale, signed)
        if signed and zero_point_values.issuperset(group):
            low = min(useful_limits[name][0] for name in group)
            high = max(useful_limits[name][1] for name in group)
            fitted_range = fit_range(low, high, value_range)
            # A value with a smaller scale counts as zero.
            value_range = fitted_range if fitted_range.scale >= MIN_SCALE else value_range
        ranges |= dict.fromkeys(group, value_range)
    return ranges


def compute_scale(top: float, signed: bool) -> float:
    """Return the float32 scale at which `top` is the largest quantized value; 1 if `top` is 0."""
    scale = float(np.float32(top) / np.float32(127 if signed else 255))
    return scale if scale >= MIN_SCALE else 1.0
