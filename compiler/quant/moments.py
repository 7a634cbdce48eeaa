"""Integer weights by second moments: each layer's output error made least, its mean made good.

Layers are independent. What a layer reads is quantised as the integer program does, so that its
weights also make up for that: b += W E[x] - Q E[x_q].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.graph import Model
from tcc.compiler.ops import Conv
from tcc.compiler.quant import rounding
from tcc.compiler.quant.calibration import Range, Rounded
from tcc.compiler.quant.groups import fused
from tcc.compiler.quant.nearest import allowed, bias_steps, most, rounded
from tcc.compiler.quant.rounding import Float64
from tcc.compiler.quant.statistics import Float32, Statistics

BLOCK = 1152
"""Most taps whose moments are known together; of more, only those of a block with each other."""
SEARCHED = 288
"""Most taps of which a scale is found by all moments; of more, by the diagonal alone."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution: float weight (filters, taps) and bias, and the ranges around it."""

    weight: Float64
    bias: Float64
    x: Range
    y: Range


def round_moments(
    model: Model, ranges: Mapping[str, Range], statistics: Statistics
) -> Mapping[str, Rounded]:
    """Return the integer weights of every convolution whose input was seen."""
    inside = {source: clamp for clamp, source in fused(model.graph).items()}
    found = {}
    for node in model.graph.nodes:
        if isinstance(node.op, Conv) and node.name in statistics.windows:
            weight, *bias = (model.weights[name] for name in node.params)
            shift = bias[0] if bias else np.zeros(len(weight), np.float32)
            x, y = ranges[node.inputs[0]], ranges[inside.get(node.name, node.name)]
            if most(weight[0].size, x) < rounding.LIMIT:
                found[node.name] = rounded(weight, shift, x, y)
                continue
            flat = weight.reshape(len(weight), -1).astype(np.float64)
            layer = Layer(flat, shift.astype(np.float64), x, y)
            patches = statistics.windows[node.name].patches()
            own = _rounded(layer, patches)
            found[node.name] = Rounded(own.weight.reshape(weight.shape), own.scale, own.bias)
    return found


def levels(real: Float32, kind: Range) -> NDArray[np.float64]:
    """Return the levels that real numbers become, as floats."""
    low, high = kind.limits
    steps: Float64 = np.clip(np.rint(real / np.float32(kind.scale)), low, high).astype(np.float64)
    return steps


def _rounded(layer: Layer, patches: Float32) -> Rounded:
    """Return the weights of a layer that reads `patches` (groups, samples, taps)."""
    groups, _, taps = patches.shape
    each = len(layer.weight) // groups
    weight = layer.weight.reshape(groups, each, taps)
    known, read = patches.astype(np.float64), levels(patches, layer.x)
    if each * taps <= LONGEST_DEPTHWISE and groups > 1:
        scale, steps = _depthwise(weight, read)
    else:
        parts = [_dense(w, part) for w, part in zip(weight, read, strict=True)]
        scale = np.stack([own for own, _ in parts])
        steps = np.stack([own for _, own in parts])
    flat, steps = scale.reshape(-1), steps.reshape(len(layer.weight), taps)
    final = allowed(flat, layer.bias.astype(np.float32), layer.x, layer.y)
    raised = final.astype(np.float64) != flat
    if raised.any():
        again = rounding.nearest(layer.weight, final.astype(np.float64))
        steps = np.where(raised[:, None], again, steps)
    real = (steps * final.astype(np.float64)[:, None]).reshape(weight.shape)
    means, got = known.mean(axis=1), read.mean(axis=1) * layer.x.scale
    shift = np.einsum("gft,gt->gf", weight, means) - np.einsum("gft,gt->gf", real, got)
    bias = layer.bias + shift.reshape(-1)
    return Rounded(steps, final, bias_steps(bias, final, layer.x))


LONGEST_DEPTHWISE = 64
"""Most taps of all filters of a group that is one of many, for which rounding is to nearest."""


def _depthwise(weight: Float64, read: Float64) -> tuple[Float64, NDArray[np.int8]]:
    """Return scales (groups, filters) and weights of many small groups, rounded to nearest."""
    groups, each, taps = weight.shape
    moments = np.matmul(read.transpose(0, 2, 1), read) / read.shape[1]
    flat = weight.reshape(-1, taps)
    scale = rounding.best_scale(flat, np.repeat(moments, each, axis=0))
    return scale.reshape(groups, each), rounding.nearest(flat, scale)


def _dense(weight: Float64, read: Float64) -> tuple[Float64, NDArray[np.int8]]:
    """Return the scale and the weights of the filters (filters, taps) of one group."""
    taps = weight.shape[1]
    count = -(-taps // BLOCK)
    blocks = np.array_split(np.arange(taps), count)
    moments = [np.atleast_2d(np.cov(read[:, part], rowvar=False, bias=True)) for part in blocks]
    if taps <= SEARCHED:
        scale = rounding.best_scale(weight, moments[0])
    else:
        scale = rounding.best_scale(weight, np.concatenate([np.diag(m) for m in moments]))
    steps = [
        rounding.gptq(weight[:, part], scale, own)
        for part, own in zip(blocks, moments, strict=True)
    ]
    return scale, np.hstack(steps)
