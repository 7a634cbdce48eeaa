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
    compute_absmax_scale,
    compute_cosine,
    find_last_largest,
    generate_candidates,
    quantize_dequantize,
)
from tcc.compiler.quant.methods.kl_divergence import Counts, compute_histogram
from tcc.compiler.quant.methods.range_search import minmax
from tcc.compiler.quant.methods.searched_ranges import (
    SearchedRanges,
    get_conv_params,
    round_at_scales,
)
from tcc.compiler.quant.observe.statistics import Float32, InputWindows, Statistics
from tcc.compiler.reference import float_program


class PairedRun:
    """What both networks hold of each image between two layers.

    `tensors` are (2 * images, ...) by name, the float network's first: all but convolutions do the
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
        self.last_reader = {
            input_name: node.name for node in self.graph.nodes for input_name in node.inputs
        }
        # Floats and integers in one batch: all but convolutions run once for both.
        self.tensors = {source.name: np.stack([*tensors, *tensors])}
        self._round(source.name)

    def step(self, node: Node, weight: Float32 | None = None) -> None:
        """Run a node in both networks, and forget what nothing reads any more.

        Args:
            node: The next one of the graph.
            weight: What the quantised network has instead of the first of the node's weights.
        """
        feeds = {name: self.tensors[name] for name in dict.fromkeys(node.inputs)}
        run = partial(float_program.evaluate_node, self.graph, node)
        # The same node for both halves; a convolution with other weights needs a run each.
        if weight is None:
            self.tensors[node.name] = run(self.weights, feeds)
        else:
            changed = {**self.weights, node.params[0]: weight}
            halves = [
                run(weights, {name: tensor[part] for name, tensor in feeds.items()})
                for weights, part in (
                    (self.weights, slice(self.images)),
                    (changed, slice(self.images, None)),
                )
            ]
            self.tensors[node.name] = np.concatenate(halves)
        self._round(node.name)
        for name in feeds:
            if self.last_reader[name] == node.name:
                del self.tensors[name]

    def _round(self, name: str) -> None:
        if value_range := self.ranges.get(name):
            quantized_half = self.tensors[name][self.images :]
            # Rounded where the integer program rounds, so that what a layer is judged by went
            # through the levels of all before it.
            quantized_half[:] = quantize_dequantize(
                quantized_half, np.float32(value_range.scale), value_range.limits
            )


Activate = Callable[[Float32], Float32]
"""What a layer's activation makes of what its convolution gives."""

MAX_IMAGES = 16
"""Images whose values are stored from layer to layer."""
MAX_PRODUCTS = 1 << 25
"""Most products of a weight and a number that are made for each scale that is tried."""
MIN_POSITIONS, MAX_POSITIONS = 64, 2048
"""Positions of a layer's output that are compared, of all images together."""
BINS = 64
"""Bins of a histogram, from zero to the largest magnitude. The quantised network's numbers lie on a
grid: of a convolution with one tap, or of equal ones, at most some 255 to a channel. In bins of
about a level's width most would miss some of them, whatever the scale."""
SHARES = np.linspace(0.1, 1.0, 19)
"""Scales that the coarse search tries, as shares of absmax / 127."""


@dataclass(frozen=True, slots=True)
class LayerScale:
    """A layer's scale as a share of absmax / 127, its coarse divergence, and its cosine."""

    share: float
    divergence: float
    cosine: float


def search(model: Model, statistics: Statistics, dataset: DataSet) -> SearchedRanges:
    """Return min-max's ranges, and weights at the scales that are found layer by layer.

    Args:
        model: A ready model.
        statistics: What was seen of its values.
        dataset: Images; `MAX_IMAGES` of those that the statistics are of are run.
    """
    minmax_ranges = minmax(model, statistics, None)
    fit_digests = set(statistics.images)
    fit_images = replace(
        dataset, items=tuple(i for i in dataset.items if i.digest in fit_digests)
    ).select_first(MAX_IMAGES)
    (source,) = model.graph.inputs
    tensors = [fit_images.read_tensor(index, source) for index in range(len(fit_images))]
    paired_run = PairedRun(model, minmax_ranges.ranges, tensors)
    traces = dict(minmax_ranges.traces)
    rounded: dict[str, RoundedWeights] = {}
    # One thread of BLAS: products split among several would sum in an order of their own.
    with threadpool_limits(1, "blas"):
        for node in model.graph.nodes:
            if not isinstance(node.op, Conv):
                paired_run.step(node)
                continue
            activation_node = find_activation(model.graph, node)
            layer_scale = find_scale(
                sample_conv(paired_run, node, model), make_activation(activation_node)
            )
            weight, _ = get_conv_params(node, model)
            scale = compute_absmax_scale(weight.reshape(len(weight), -1))[:, 0] * np.float32(
                layer_scale.share
            )
            rounded |= round_at_scales(model, minmax_ranges.ranges, {node.name: scale})
            paired_run.step(node, dequantize_weights(rounded[node.name]))
            traced_name = (
                node.name
                if node.name in traces or activation_node is None
                else activation_node.name
            )
            traces[traced_name] = replace(
                traces[traced_name], divergence=layer_scale.divergence, cosine=layer_scale.cosine
            )
    return SearchedRanges(minmax_ranges.ranges, traces, rounded)


def find_activation(graph: Graph, node: Node) -> Node | None:
    """Return the activation of a convolution: a function of one number that alone reads it."""
    reader = graph.find_sole_reader(node.name)
    return reader if reader is not None and isinstance(reader.op, ScalarFunction) else None


def make_activation(activation_node: Node | None) -> Activate | None:
    """Return what an activation computes."""
    if activation_node is None:
        return None
    op = activation_node.op
    assert isinstance(op, ScalarFunction)
    return lambda values: op.evaluate(values.astype(np.float64)).astype(np.float32)


def dequantize_weights(rounded: RoundedWeights) -> Float32:
    """Return what integer weights stand for."""
    shape = (-1, *(1 for _ in rounded.weight.shape[1:]))
    return rounded.weight * rounded.scale.reshape(shape)


def sample_conv(paired_run: PairedRun, node: Node, model: Model) -> SampledConv:
    """Return a convolution with the float network's outputs and what the quantised one reads.

    Args:
        paired_run: Both networks, before the convolution.
        node: It.
        model: Has its float weights.
    """
    weight, bias = get_conv_params(node, model)
    assert isinstance(node.op, Conv)
    all_patches = _extract_patches(
        node.op, paired_run.tensors[node.inputs[0]], max(MIN_POSITIONS, MAX_PRODUCTS // weight.size)
    )
    float_patches, quantized_patches = np.split(all_patches, 2, axis=1)
    grouped_weight = weight.reshape(node.op.groups, node.op.filters // node.op.groups, -1)
    real = float_patches @ grouped_weight.transpose(0, 2, 1) + bias.reshape(node.op.groups, 1, -1)
    return SampledConv(
        quantized_patches,
        grouped_weight,
        bias.reshape(node.op.groups, 1, -1),
        real,
        compute_absmax_scale(grouped_weight),
    )


def _extract_patches(op: Conv, maps: Float32, positions: int) -> Float32:
    """Return what outputs read (groups, samples, taps), those of each map in the maps' order."""
    pad_top, pad_left, pad_bottom, pad_right = op.pads
    padded = np.pad(maps, ((0, 0), (0, 0), (pad_top, pad_bottom), (pad_left, pad_right)))
    outs = [
        (size - window) // step + 1
        for size, window, step in zip(padded.shape[2:], op.window, op.stride, strict=True)
    ]
    positions_per_map = (
        min(positions, MAX_POSITIONS) * 2 / len(maps)
    )  # of each map; the maps are of both networks
    interval = max(1, int(np.ceil(np.sqrt(prod(outs) / positions_per_map))))
    skips = [min(interval, out) for out in outs]
    # A stride that is a multiple of the convolution's takes some of its outputs, from the middle
    # of the first stretch on.
    begin = [skip // 2 * step for skip, step in zip(skips, op.stride, strict=True)]
    stride = (skips[0] * op.stride[0], skips[1] * op.stride[1])
    return InputWindows(
        replace(op, stride=stride), padded[:, :, begin[0] :, begin[1] :]
    ).extract_patches()


def find_scale(layer: SampledConv, layer_activation: Activate | None) -> LayerScale:
    """Return the scale of a layer's weights: by divergence, then near it by cosines.

    Args:
        layer: The convolution.
        layer_activation: Its activation, if it has one.
    """
    apply_activation = layer_activation or _pass_through
    real = apply_activation(layer.real)
    top = np.float32(np.abs(real).max())
    if not top:
        return LayerScale(1.0, 0.0, 1.0)
    float_counts = _compute_histogram(real, top)
    divergences = [
        compute_divergence(
            float_counts, _compute_histogram(apply_activation(_compute_outputs(layer, share)), top)
        )
        for share in SHARES
    ]
    # From the end, since argmin takes the first of equal ones and the largest is wanted.
    coarse_index = len(SHARES) - 1 - int(np.argmin(divergences[::-1]))
    shares = generate_candidates(float(SHARES[coarse_index]), 1.0)
    cosines = [
        _compute_similarity(layer, real, _compute_outputs(layer, share), layer_activation)
        for share in shares
    ]
    best_index = find_last_largest(cosines)
    return LayerScale(float(shares[best_index]), divergences[coarse_index], cosines[best_index])


def compute_divergence(expected_counts: Counts, actual_counts: Counts) -> float:
    """Return the Kullback-Leibler divergence of one histogram from another.

    Args:
        expected_counts: Counts, not all of them zero; P of equation 9.
        actual_counts: Counts of the same bins, to each of which half a number is added; Q.
    """
    is_filled = expected_counts > 0
    p = expected_counts[is_filled] / expected_counts.sum()
    q = (actual_counts[is_filled] + 0.5) / (actual_counts.sum() + 0.5 * len(actual_counts))
    return max(float((p * np.log(p / q)).sum()), 0.0)


def _compute_histogram(numbers: Float32, top: np.float32) -> Counts:
    """Return how many numbers above zero, then below it, lie in each bin up to the top."""
    sides = (np.maximum(numbers, 0), np.minimum(numbers, 0))
    return np.concatenate([compute_histogram(side, float(top), BINS) for side in sides])


def _compute_outputs(layer: SampledConv, share: float) -> Float32:
    """Return what the quantised convolution gives at a share of its weights' scales."""
    products: Float32 = layer.patches @ layer.quantize_weights(share).transpose(0, 2, 1)
    products += layer.bias
    return products


def _compute_similarity(
    layer: SampledConv, real: Float32, actual: Float32, layer_activation: Activate | None
) -> float:
    """Return the cosine of what the convolution gives, its mean with that of the activation."""
    similarity = compute_cosine(layer.real, actual)
    return (
        similarity
        if layer_activation is None
        else (similarity + compute_cosine(real, layer_activation(actual))) / 2
    )


def _pass_through(numbers: Float32) -> Float32:
    return numbers
