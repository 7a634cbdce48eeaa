"""Integer weights by second moments: each layer's output error made least, its mean made good.

Layers are independent. What a layer reads is quantised as the integer program does, so that its
weights also make up for that: b += W E[x] - Q E[x_q].
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Range, RoundedWeights
from tcc.compiler.quant.observe.statistics import Float32, InputWindows, Statistics
from tcc.compiler.quant.rounding import least_error_rounding
from tcc.compiler.quant.rounding.channel_equalization import Factors
from tcc.compiler.quant.rounding.least_error_rounding import Float64
from tcc.compiler.quant.rounding.nearest_rounding import (
    allowed_scales,
    bias_steps,
    largest_weight,
    rounded,
)
from tcc.compiler.quant.scale_groups import fused_clamps

BLOCK = 256
"""Most taps whose moments are taken together; more taps are split into blocks of so many."""
SEARCHED = 1 << 23
"""Up to so many products a scale is found by all second moments; beyond, by the squares alone."""
LARGEST = 1 << 22
"""Most weights of a layer that is searched; images tell too little of the taps of a larger one."""
SMALL_GROUP = 64
"""Groups of at most so many weights, depthwise filters say, are rounded to nearest."""
TOGETHER = 1 << 19
"""Numbers that are read by groups worked on together: what fits a processor's cache."""


@dataclass(frozen=True, slots=True)
class FloatConv:
    """One convolution: float weight (filters, taps) and bias, and the ranges around it."""

    weight: Float64
    bias: Float64
    x: Range
    y: Range


def round_by_moments(
    model: Model,
    ranges: Mapping[str, Range],
    statistics: Statistics,
    factors: Factors,
    threads: int | None = None,
) -> Mapping[str, RoundedWeights]:
    """Return the integer weights of every convolution whose input was seen.

    Each layer is worked on by one thread, so that their number does not change a bit.

    Args:
        model: The ready model, its channels equalised by `factors`.
        ranges: The ranges of its kept values.
        statistics: What was seen of the model before it was equalised.
        factors: What each channel (channels,) of a value was divided by.
        threads: How many layers are worked on side by side; None is one a processor.
    """
    inside = {source: clamp for clamp, source in fused_clamps(model.graph).items()}
    nodes = [
        n for n in model.graph.nodes if isinstance(n.op, Conv) and n.name in statistics.windows
    ]

    def one(node: Node) -> RoundedWeights:
        weight, *bias = (model.weights[name] for name in node.params)
        shift = bias[0] if bias else np.zeros(len(weight), np.float32)
        x, y = ranges[node.inputs[0]], ranges[inside.get(node.name, node.name)]
        # So many taps that weights must be smaller: moments of so many would not be told by the
        # images.
        if largest_weight(weight[0].size, x) < least_error_rounding.LIMIT or _plain(weight):
            return rounded(weight, shift, x, y)
        flat = weight.reshape(len(weight), -1).astype(np.float64)
        layer = FloatConv(flat, shift.astype(np.float64), x, y)
        windows = statistics.windows[node.name]
        if node.inputs[0] in factors:
            factor = factors[node.inputs[0]][:, None, None]
            windows = replace(windows, parts=windows.parts / factor)
        # Windows were seen of the model before equalising: divided by the factors, they are this
        # one's.
        own = _rounded(layer, windows)
        return RoundedWeights(own.weight.reshape(weight.shape), own.scale, own.bias)

    count = threads or os.cpu_count()  # not more, since each holds a layer's patches
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count) as pool:
        return dict(zip((n.name for n in nodes), pool.map(one, nodes), strict=True))


def _plain(weight: Float32) -> bool:
    """Whether a layer is only rounded to nearest: it takes means, or too long to work on."""
    flat = weight.reshape(len(weight), -1)
    return weight.size > LARGEST or bool((flat == flat[:, :1]).all())


def _rounded(layer: FloatConv, windows: InputWindows) -> RoundedWeights:
    """Return the weights of a layer that reads windows."""
    groups = windows.op.groups
    weight = layer.weight.reshape(groups, len(layer.weight) // groups, -1)
    # Of groups with few weights there are many: a search in each would take long for filters that
    # have little to trade among so few taps.
    small = groups > 1 and weight[0].size <= SMALL_GROUP
    means, got, moments, parts = [], [], [], []
    for start, end in _spans(windows, weight.shape[2], together=small):
        # What a 1 x 1 convolution reads is no copy, and must stay what it is.
        patches = np.require(windows.of_groups(start, end).patches(), requirements="W")
        means.append(_means(patches))
        # In place: patches are the largest thing that is held.
        _to_levels(patches, layer.x)
        got.append(_means(patches) * layer.x.scale)
        if small:
            read = patches.astype(np.float64)
            moments.append(np.matmul(read.transpose(0, 2, 1), read) / patches.shape[1])
        else:
            parts.append(_dense(weight[start], patches[0]))
    if small:
        parts = [_small(weight, np.concatenate(moments))]
    scale, steps = (np.concatenate(each) for each in zip(*parts, strict=True))
    # The sums must fit 32 bits whatever the search found; steps of another scale are rounded anew.
    final = allowed_scales(scale, layer.bias.astype(np.float32), layer.x, layer.y)
    raised = final.astype(np.float64) != scale
    if raised.any():
        again = least_error_rounding.nearest(layer.weight, final.astype(np.float64))
        steps = np.where(raised[:, None], again, steps)
    real = (steps * final.astype(np.float64)[:, None]).reshape(weight.shape)
    # W E[x] - Q E[x_q], with the weights that were found, whatever found them.
    shift = np.matmul(weight, np.concatenate(means)[:, :, None])
    shift -= np.matmul(real, np.concatenate(got)[:, :, None])
    return RoundedWeights(steps, final, bias_steps(layer.bias + shift.reshape(-1), final, layer.x))


def _spans(windows: InputWindows, taps: int, *, together: bool) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of groups that are worked on together, or of each."""
    groups = windows.op.groups
    # A window's numbers are each read by about as many outputs as a filter has taps.
    numbers = windows.parts[:, :1].size * taps
    step = max(1, TOGETHER // numbers) if together else 1
    return ((start, min(start + step, groups)) for start in range(0, groups, step))


def _to_levels(real: Float32, kind: Range) -> None:
    """Make levels of real numbers, as floats, in place."""
    low, high = kind.limits
    real *= np.float32(1 / kind.scale)
    np.rint(real, out=real)
    np.clip(real, low, high, out=real)


def _means(patches: Float32) -> Float64:
    """Return the mean of each tap (groups, taps)."""
    # As a product: its float32 sums run in one order, on one thread, at every call.
    ones = np.ones(patches.shape[1], np.float32)
    means: Float64 = (ones @ patches).astype(np.float64) / patches.shape[1]
    return means


def _small(weight: Float64, moments: Float64) -> tuple[Float64, NDArray[np.int8]]:
    """Return scales and weights (filters, taps) of many small groups, rounded to nearest.

    Args:
        weight: The real weights (groups, filters, taps).
        moments: Second moments of what each group reads (groups, taps, taps).
    """
    _, each, taps = weight.shape
    flat = weight.reshape(-1, taps)
    scale = least_error_rounding.best_scale(flat, np.repeat(moments, each, axis=0))
    return scale, least_error_rounding.nearest(flat, scale)


def _dense(weight: Float64, read: Float32) -> tuple[Float64, NDArray[np.int8]]:
    """Return the scale and the weights of the filters (filters, taps) of one group."""
    taps = weight.shape[1]
    blocks = np.array_split(np.arange(taps), -(-taps // BLOCK))
    moments = [_moments(read[:, part].astype(np.float64)) for part in blocks]
    if len(blocks) == 1 and weight.size * taps <= SEARCHED:
        scale = least_error_rounding.best_scale(weight, moments[0])
    else:
        scale = least_error_rounding.best_scale(
            weight, np.concatenate([np.diag(m) for m in moments])
        )
    steps = [
        least_error_rounding.gptq(weight[:, part], scale, own)
        for part, own in zip(blocks, moments, strict=True)
    ]
    return scale, np.hstack(steps)


def _moments(read: Float64) -> Float64:
    """Return the second moments of levels (samples, taps) about their means.

    Sums of products of levels are whole numbers, exact in any order.
    """
    total = read.sum(axis=0)
    moments: Float64 = (read.T @ read - np.outer(total, total) / len(read)) / len(read)
    return moments
