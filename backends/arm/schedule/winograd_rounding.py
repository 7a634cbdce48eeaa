"""Computes the outputs of a network with Winograd convolutions, without its program.

Tiles, points and float32 are as in `micro/c/winograd_floats.h`; the order of sums is numpy's.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.backends.arm.kernels.micro_winograd import MicroWinograd
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro.winograd import TILE_SIDE
from tcc.backends.arm.schedule import float_choice
from tcc.backends.arm.schedule.partition import Site, partition
from tcc.compiler import ops
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.reference import float_program

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def _to_floats(*rows: "tuple[float, ...] | Floats") -> "Floats":
    return np.array(rows, np.float32)


_E = np.eye(7)
_P = [4 * _E[k] - 5 * _E[k + 2] + _E[k + 4] for k in range(3)]
_U = [_E[k + 1] * -4 + _E[k + 3] for k in range(3)]
_V = [_E[k + 3] - _E[k + 1] for k in range(3)]
STRIDED_TAPS = 2
"""Taps per side of the first phase, if two phases have separate points."""
PIXELS = {
    STRIDED_TAPS: _to_floats(
        (1, 0, -1 / 2, 0, -1, 0, 1 / 2, 0, 0),
        (0, 0, 1, 0, 1 / 2, 0, -1 / 2, 0, 0),
        (0, 0, 1 / 3, 0, -1 / 2, 0, 1 / 6, 0, 0),
        (0, 0, -1 / 6, 0, 0, 0, 1 / 6, 0, 0),
        (0, 0, 2, 0, -1, 0, -2, 0, 1),
        *np.eye(9)[1::2],
    ),
    3: _to_floats(
        (1, 0, -5 / 4, 0, 1 / 4, 0),
        (0, 2 / 3, 2 / 3, -1 / 6, -1 / 6, 0),
        (0, -2 / 3, 2 / 3, 1 / 6, -1 / 6, 0),
        (0, -1 / 12, -1 / 24, 1 / 12, 1 / 24, 0),
        (0, 1 / 12, -1 / 24, -1 / 12, 1 / 24, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    4: _to_floats(
        _P[1] - _P[0] / 2,
        _U[2] + _U[1] / 2 - _U[0] / 2,
        _U[2] - 1.5 * _U[1] + _U[0] / 2,
        _V[2] - _V[0] + 1.5 * _V[1],
        _V[2] + _V[0] - 2.5 * _V[1],
        _P[1],
        _P[2] - _P[1] / 2,
    ),
}
"""Matrices from pixels to points, by the number of taps per side."""
TAPS = {
    STRIDED_TAPS: _to_floats(
        (1, 0, 0), (1, 0, 1), (-1, 0, 1), (1, 0, 2), (0, 0, 1), *[(0, 1, 0)] * 4
    ),
    3: _to_floats((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4), (0, 0, 1)),
    4: _to_floats(
        (-1 / 2, 0, 0, 0),
        (-1 / 3, -1 / 3, -1 / 3, -1 / 3),
        (1 / 9, -1 / 9, 1 / 9, -1 / 9),
        (1 / 36, 2 / 36, 4 / 36, 8 / 36),
        (-1 / 60, 2 / 60, -4 / 60, 8 / 60),
        (32 / 45, 16 / 45, 8 / 45, 4 / 45),
        (0, 0, 0, 1),
    ),
}
"""Matrices from a filter's taps to points."""
OUTPUTS = {
    STRIDED_TAPS: _to_floats(
        (1, 1, 1, 1, 0, 1, 0, 0, 0),
        (0, 1, -1, 2, 0, 0, 1, 0, 0),
        (0, 1, 1, 4, 0, 0, 0, 1, 0),
        (0, 1, -1, 8, 1, 0, 0, 0, 1),
    ),
    3: _to_floats(
        (1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)
    ),
    4: _to_floats(
        (1, 1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 1 / 2, 0),
        (0, 1, 1, 4, 4, 1 / 4, 0),
        (0, 1, -1, 8, -8, 1 / 8, 1),
    ),
}
"""Matrices from products of points to outputs."""


def find_layers(model: Model, machine: Machine) -> tuple[Node, ...]:
    """Return the convolutions that a machine computes with Winograd's method."""
    graph, weights = model.graph, model.weights
    sites = (Site(graph, weights, machine, group) for group in partition(graph))
    anchors = (
        site.group.anchor
        for site in sites
        if isinstance(site.group.anchor.op, ops.Conv)
        and isinstance(
            float_choice.choose_candidate(site.group.anchor.op, site).kernel, MicroWinograd
        )
    )
    return tuple(anchors)


def compute_outputs(model: Model, machine: Machine, tensor: "Floats") -> "Mapping[str, Floats]":
    """Return the outputs for an input tensor, by name, both without a batch axis."""
    graph, weights = model.graph, model.weights
    winograd_names = {node.name for node in find_layers(model, machine)}
    tensors = {network_input.name: tensor[None] for network_input in graph.inputs}
    for node in graph.nodes:
        if node.name in winograd_names and isinstance(node.op, ops.Conv):
            params = [weights[name] for name in node.params]
            tensors[node.name] = compute_convolution(node.op, tensors[node.inputs[0]][0], *params)[
                None
            ]
        else:
            tensors[node.name] = float_program.evaluate_node(graph, node, weights, tensors)
    return {output.name: tensors[output.value][0] for output in graph.outputs}


def compute_convolution(
    op: ops.Conv, feature_map: "Floats", weight: "Floats", bias: "NDArray[Any] | float" = 0.0
) -> "Floats":
    """Return a convolution's output for a map (channels, height, width), computed in tiles."""
    step = op.stride[0]
    taps = -(-op.kernel[0] // step)
    pad_top, pad_left, pad_bottom, pad_right = op.pads
    height, width = (
        (n + pad_before + pad_after - kernel) // step + 1
        for n, pad_before, pad_after, kernel in zip(
            feature_map.shape[1:],
            (pad_top, pad_left),
            (pad_bottom, pad_right),
            op.kernel,
            strict=True,
        )
    )
    tiles = -(-height // TILE_SIDE), -(-width // TILE_SIDE)
    # Phases that are not summed stay interleaved: a tile reads all of its pixels.
    summed, tile_step = (1, TILE_SIDE * step) if taps == STRIDED_TAPS else (step, TILE_SIDE)
    side = len(PIXELS[taps])
    size = tuple(((n - 1) * tile_step + side) * summed for n in tiles)
    pixels = _split_phases(feature_map, (pad_top, pad_left), size, summed)
    filters = _split_phases(weight, (0, 0), (TAPS[taps].shape[1] * summed,) * 2, summed)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), (1, 2))
    tiled = windows[:, ::tile_step, ::tile_step].reshape(len(pixels), -1, side, side)
    points = (PIXELS[taps] @ tiled @ PIXELS[taps].T).transpose(2, 3, 0, 1)
    transformed = (TAPS[taps] @ filters @ TAPS[taps].T).transpose(2, 3, 0, 1)
    products = (transformed @ points).transpose(2, 3, 0, 1)
    tile_outputs = OUTPUTS[taps] @ products @ OUTPUTS[taps].T
    merged = tile_outputs.reshape(len(weight), *tiles, TILE_SIDE, TILE_SIDE).transpose(
        0, 1, 3, 2, 4
    )
    rows = merged.reshape(len(weight), tiles[0] * TILE_SIDE, tiles[1] * TILE_SIDE)
    output: Floats = rows[:, :height, :width] + np.reshape(bias, (-1, 1, 1))
    return output


def _split_phases(
    feature_map: "Floats", start: tuple[int, int], size: tuple[int, ...], step: int
) -> "Floats":
    """Return maps (..., channels, height, width), padded by `start`, as one map per phase."""
    *lead, channels, height, width = feature_map.shape
    (pad_top, pad_left), (down, across) = start, size
    padded = np.zeros((*lead, channels, down, across), np.float32)
    high, wide = min(height, down - pad_top), min(width, across - pad_left)
    padded[..., pad_top : pad_top + high, pad_left : pad_left + wide] = feature_map[
        ..., :high, :wide
    ]
    split = padded.reshape(*lead, channels, down // step, step, across // step, step)
    axes = (*range(len(lead) + 1), *(len(lead) + axis for axis in (2, 4, 1, 3)))
    return split.transpose(axes).reshape(*lead, -1, down // step, across // step)
