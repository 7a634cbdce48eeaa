"""The searches of kl-cosine-literal: a layer's weight scale, by what the quantised network gives.

`kl_cosine_literal` has the equations. A convolution's outputs are compared at positions that lie
evenly over the stored maps, as products of patches and weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
from threadpoolctl import threadpool_limits

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.ops import Conv
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.quant.calibration import Range, RoundedWeights
from tcc.compiler.quant.methods.cosine_search import (
    SampledConv,
    absmax_scale,
    candidates,
    cosine,
    last_largest,
    quantised,
)
from tcc.compiler.quant.methods.found_ranges import FoundRanges, conv_params, rounded_at
from tcc.compiler.quant.methods.kl_divergence import Counts, histogram
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.observe.statistics import Float32, InputWindows, Statistics
from tcc.compiler.reference import float_program


class PairedRun:
    """What both networks hold of each image between two layers.

    `values` are (2 * images, ...) by name, the float network's first: all but convolutions do the
    same to both. The quantised one's are rounded to the levels of their ranges.
    """

    def __init__(
        self, model: Model, ranges: Mapping[str, Range], tensors: Sequence[Float32]
    ) -> None:
        """Begin at the input.

        Args:
            model: The ready float model.
            ranges: Those of the values that the integer program keeps.
            tensors: The network's input for each image.
        """
        (source,) = model.graph.inputs
        self.graph, self.weights, self.ranges = model.graph, model.weights, ranges
        self.images = len(tensors)
        # The last reader of each value, by which it is forgotten: memory holds what is alive of
        # both networks.
        self.last = {value: node.name for node in self.graph.nodes for value in node.inputs}
        # Floats and integers in one batch: all but convolutions run once for both.
        self.values = {source.name: np.stack([*tensors, *tensors])}
        self._round(source.name)

    def step(self, node: Node, weight: Float32 | None = None) -> None:
        """Run a node in both networks, and forget what nothing reads any more.

        Args:
            node: The next one of the graph.
            weight: What the quantised network has instead of the first of the node's weights.
        """
        feeds = {name: self.values[name] for name in dict.fromkeys(node.inputs)}
        run = partial(float_program.evaluate_node, self.graph, node)
        # The same node for both halves; a convolution with other weights needs a run each.
        if weight is None:
            self.values[node.name] = run(self.weights, feeds)
        else:
            changed = {**self.weights, node.params[0]: weight}
            halves = [
                run(each, {name: value[part] for name, value in feeds.items()})
                for each, part in (
                    (self.weights, slice(self.images)),
                    (changed, slice(self.images, None)),
                )
            ]
            self.values[node.name] = np.concatenate(halves)
        self._round(node.name)
        for name in feeds:
            if self.last[name] == node.name:
                del self.values[name]

    def _round(self, name: str) -> None:
        if own := self.ranges.get(name):
            stored = self.values[name][self.images :]
            # Rounded where the integer program rounds, so that what a layer is judged by went
            # through the levels of all before it.
            stored[:] = quantised(stored, np.float32(own.scale), own.limits)


Activate = Callable[[Float32], Float32]
"""What a layer's activation makes of what its convolution gives."""

IMAGES = 16
"""Images whose values are stored from layer to layer."""
PRODUCTS = 1 << 25
"""Most products of a weight and a number that are made for each scale that is tried."""
FEWEST, MOST = 64, 2048
"""Positions of a layer's output that are compared, of all images together."""
BINS = 64
"""Bins of a histogram, from zero to the largest magnitude. The quantised network's numbers lie on a
grid: of a convolution with one tap, or of equal ones, at most some 255 to a channel. In bins of
about a level's width most would miss some of them, whatever the scale."""
SHARES = np.linspace(0.1, 1.0, 19)
"""Scales that the coarse search tries, as shares of absmax / 127."""


@dataclass(frozen=True, slots=True)
class FoundScale:
    """A layer's scale as a share of absmax / 127, its coarse divergence, and its cosine."""

    share: float
    divergence: float
    cosine: float


def search(model: Model, statistics: Statistics, data: DataSet) -> FoundRanges:
    """Return min-max's ranges, and weights at the scales that are found layer by layer.

    Args:
        model: A ready model.
        statistics: What was seen of its values.
        data: Images; `IMAGES` of those that the statistics are of are run.
    """
    safe = minmax(model, statistics, None)
    learnt = set(statistics.images)
    known = replace(data, items=tuple(i for i in data.items if i.digest in learnt)).first(IMAGES)
    (source,) = model.graph.inputs
    tensors = [known.tensor(index, source) for index in range(len(known))]
    run = PairedRun(model, safe.ranges, tensors)
    traces = dict(safe.traces)
    rounded: dict[str, RoundedWeights] = {}
    # One thread of BLAS: products split among several would sum in an order of their own.
    with threadpool_limits(1, "blas"):
        for node in model.graph.nodes:
            if not isinstance(node.op, Conv):
                run.step(node)
                continue
            after = activation(model.graph, node)
            found = found_scale(sampled(run, node, model), activate(after))
            weight, _ = conv_params(node, model)
            scale = absmax_scale(weight.reshape(len(weight), -1))[:, 0] * np.float32(found.share)
            rounded |= rounded_at(model, safe.ranges, {node.name: scale})
            run.step(node, real_weights(rounded[node.name]))
            kept = node.name if node.name in traces or after is None else after.name
            traces[kept] = replace(traces[kept], divergence=found.divergence, cosine=found.cosine)
    return FoundRanges(safe.ranges, traces, rounded)


def activation(graph: Graph, node: Node) -> Node | None:
    """Return the activation of a convolution: a function of one number that alone reads it."""
    reader = graph.sole_reader(node.name)
    return reader if reader is not None and isinstance(reader.op, ScalarFunction) else None


def activate(after: Node | None) -> Activate | None:
    """Return what an activation computes."""
    if after is None:
        return None
    op = after.op
    assert isinstance(op, ScalarFunction)
    return lambda values: op.float64(values.astype(np.float64)).astype(np.float32)


def real_weights(rounded: RoundedWeights) -> Float32:
    """Return what integer weights stand for."""
    shape = (-1, *(1 for _ in rounded.weight.shape[1:]))
    return rounded.weight * rounded.scale.reshape(shape)


def sampled(run: PairedRun, node: Node, model: Model) -> SampledConv:
    """Return a convolution with the float network's outputs and what the quantised one reads.

    Args:
        run: Both networks, before the convolution.
        node: It.
        model: Has its float weights.
    """
    weight, bias = conv_params(node, model)
    assert isinstance(node.op, Conv)
    both = _patches(node.op, run.values[node.inputs[0]], max(FEWEST, PRODUCTS // weight.size))
    floats, stored = np.split(both, 2, axis=1)
    shaped = weight.reshape(node.op.groups, node.op.filters // node.op.groups, -1)
    real = floats @ shaped.transpose(0, 2, 1) + bias.reshape(node.op.groups, 1, -1)
    return SampledConv(
        stored, shaped, bias.reshape(node.op.groups, 1, -1), real, absmax_scale(shaped)
    )


def _patches(op: Conv, maps: Float32, positions: int) -> Float32:
    """Return what outputs read (groups, samples, taps), those of each map in the maps' order."""
    top, left, bottom, right = op.pads
    padded = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right)))
    outs = [
        (size - window) // step + 1
        for size, window, step in zip(padded.shape[2:], op.window, op.stride, strict=True)
    ]
    wanted = min(positions, MOST) * 2 / len(maps)  # of each map; the maps are of both networks
    each = max(1, int(np.ceil(np.sqrt(prod(outs) / wanted))))
    skips = [min(each, out) for out in outs]
    # A stride that is a multiple of the convolution's takes some of its outputs, from the middle
    # of the first stretch on.
    begin = [skip // 2 * step for skip, step in zip(skips, op.stride, strict=True)]
    stride = (skips[0] * op.stride[0], skips[1] * op.stride[1])
    return InputWindows(replace(op, stride=stride), padded[:, :, begin[0] :, begin[1] :]).patches()


def found_scale(layer: SampledConv, after: Activate | None) -> FoundScale:
    """Return the scale of a layer's weights: by divergence, then near it by cosines.

    Args:
        layer: The convolution.
        after: Its activation, if it has one.
    """
    ends = after or _unchanged
    real = ends(layer.real)
    top = np.float32(np.abs(real).max())
    if not top:
        return FoundScale(1.0, 0.0, 1.0)
    wanted = _histogram(real, top)
    found = [divergence(wanted, _histogram(ends(_outputs(layer, share)), top)) for share in SHARES]
    # From the end, since argmin takes the first of equal ones and the largest is wanted.
    coarse = len(SHARES) - 1 - int(np.argmin(found[::-1]))
    shares = candidates(float(SHARES[coarse]), 1.0)
    cosines = [_alike(layer, real, _outputs(layer, share), after) for share in shares]
    best = last_largest(cosines)
    return FoundScale(float(shares[best]), found[coarse], cosines[best])


def divergence(wanted: Counts, found: Counts) -> float:
    """Return the Kullback-Leibler divergence of one histogram from another.

    Args:
        wanted: Counts, not all of them zero; P of equation 9.
        found: Counts of the same bins, to each of which half a number is added; Q.
    """
    some = wanted > 0
    p = wanted[some] / wanted.sum()
    q = (found[some] + 0.5) / (found.sum() + 0.5 * len(found))
    return max(float((p * np.log(p / q)).sum()), 0.0)


def _histogram(values: Float32, top: np.float32) -> Counts:
    """Return how many numbers above zero, then below it, lie in each bin up to the top."""
    sides = (np.maximum(values, 0), np.minimum(values, 0))
    return np.concatenate([histogram(side, float(top), BINS) for side in sides])


def _outputs(layer: SampledConv, share: float) -> Float32:
    """Return what the quantised convolution gives at a share of its weights' scales."""
    found: Float32 = layer.patches @ layer.quantised(share).transpose(0, 2, 1)
    found += layer.bias
    return found


def _alike(layer: SampledConv, real: Float32, found: Float32, after: Activate | None) -> float:
    """Return the cosine of what the convolution gives, its mean with that of the activation."""
    own = cosine(layer.real, found)
    return own if after is None else (own + cosine(real, after(found))) / 2


def _unchanged(values: Float32) -> Float32:
    return values
