"""Searches of kl-cosine-literal: weight scales by the outputs of the quantized network.

`kl_cosine_literal` has the equations. The outputs of a convolution are compared at evenly spaced
positions of the stored maps, as products of patches and weights.
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
    """Layer-by-layer run of the fp32 network and the quantized network on the same images.

    `tensors` are (2 * images, ...) by name, the fp32 network's first. The quantized network's
    tensors are quantized and dequantized. Only convolutions differ between the two.
    """

    def __init__(
        self, model: Model, ranges: Mapping[str, Range], tensors: Sequence[Float32]
    ) -> None:
        """Start at the input.

        Args:
            model: The lowered fp32 model.
            ranges: The ranges of unfused values.
            tensors: The network's input for each image.
        """
        (network_input,) = model.graph.inputs
        self.graph, self.weights, self.ranges = model.graph, model.weights, ranges
        self.images = len(tensors)
        # Values are dropped after their last reader, to save memory.
        self.last_reader = {
            input_name: node.name for node in self.graph.nodes for input_name in node.inputs
        }
        # Both networks in one batch: operations other than convolutions run once for both.
        self.tensors = {network_input.name: np.stack([*tensors, *tensors])}
        self._round(network_input.name)

    def step(self, node: Node, weight: Float32 | None = None) -> None:
        """Run a node in both networks, and drop tensors that no later node reads.

        Args:
            node: The next node of the graph.
            weight: The quantized network's replacement of the node's first weight.
        """
        feeds = {name: self.tensors[name] for name in dict.fromkeys(node.inputs)}
        run = partial(float_program.evaluate_node, self.graph, node)
        # One run for both halves; with different weights, one run each.
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
            # Quantize where the int8 program does, so that a layer sees the quantization error of
            # all layers before it.
            quantized_half[:] = quantize_dequantize(
                quantized_half, np.float32(value_range.scale), value_range.limits
            )


Activate = Callable[[Float32], Float32]
"""Applies a layer's activation to the output of its convolution."""

MAX_IMAGES = 16
"""Maximum images: their values are stored from layer to layer."""
MAX_PRODUCTS = 1 << 25
"""Maximum multiplications for each candidate scale."""
MIN_POSITIONS, MAX_POSITIONS = 64, 2048
"""Positions of a layer's output that are compared, over all images."""
BINS = 64
"""Bins of a histogram, from zero to the largest magnitude. The quantized network's numbers are on a
grid: at most about 255 per channel for a convolution with one tap, or with equal taps. With bins as
narrow as a quantization step, many bins would be empty at any scale."""
SHARES = np.linspace(0.1, 1.0, 19)
"""Candidate scales of the coarse search, as shares of absmax / 127."""


@dataclass(frozen=True, slots=True)
class LayerScale:
    """A layer's scale as a share of absmax / 127, its coarse divergence, and its cosine."""

    share: float
    divergence: float
    cosine: float


def search(model: Model, statistics: Statistics, dataset: DataSet) -> SearchedRanges:
    """Return min-max ranges, and weights at scales that are searched layer by layer.

    Args:
        model: A lowered model.
        statistics: Statistics of its values.
        dataset: Images; up to `MAX_IMAGES` of those in the statistics are run.
    """
    minmax_ranges = minmax(model, statistics, None)
    fit_digests = set(statistics.images)
    fit_images = replace(
        dataset, items=tuple(i for i in dataset.items if i.digest in fit_digests)
    ).select_first(MAX_IMAGES)
    (network_input,) = model.graph.inputs
    tensors = [fit_images.read_tensor(index, network_input) for index in range(len(fit_images))]
    paired_run = PairedRun(model, minmax_ranges.ranges, tensors)
    traces = dict(minmax_ranges.traces)
    rounded: dict[str, RoundedWeights] = {}
    # One BLAS thread: several threads would sum in another order.
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
    """Return a convolution's activation: the scalar function that is its only reader."""
    reader = graph.find_sole_reader(node.name)
    return reader if reader is not None and isinstance(reader.op, ScalarFunction) else None


def make_activation(activation_node: Node | None) -> Activate | None:
    """Return the function of an activation node; None for None."""
    if activation_node is None:
        return None
    op = activation_node.op
    assert isinstance(op, ScalarFunction)
    return lambda values: op.evaluate(values.astype(np.float64)).astype(np.float32)


def dequantize_weights(rounded: RoundedWeights) -> Float32:
    """Return the real values of quantized weights."""
    shape = (-1, *(1 for _ in rounded.weight.shape[1:]))
    return rounded.weight * rounded.scale.reshape(shape)


def sample_conv(paired_run: PairedRun, node: Node, model: Model) -> SampledConv:
    """Return a convolution with the fp32 network's outputs and the quantized network's inputs.

    Args:
        paired_run: Both networks, before the convolution.
        node: The convolution.
        model: The model with its fp32 weights.
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
    """Return patches (groups, samples, taps) of evenly spaced outputs, in the order of the maps."""
    pad_top, pad_left, pad_bottom, pad_right = op.pads
    padded = np.pad(maps, ((0, 0), (0, 0), (pad_top, pad_bottom), (pad_left, pad_right)))
    outs = [
        (size - window) // step + 1
        for size, window, step in zip(padded.shape[2:], op.window, op.stride, strict=True)
    ]
    positions_per_map = (
        min(positions, MAX_POSITIONS) * 2 / len(maps)
    )  # the maps are of both networks
    interval = max(1, int(np.ceil(np.sqrt(prod(outs) / positions_per_map))))
    skips = [min(interval, out) for out in outs]
    # A multiple of the convolution's stride selects some of its outputs; start in the middle of the
    # first interval.
    begin = [skip // 2 * step for skip, step in zip(skips, op.stride, strict=True)]
    stride = (skips[0] * op.stride[0], skips[1] * op.stride[1])
    return InputWindows(
        replace(op, stride=stride), padded[:, :, begin[0] :, begin[1] :]
    ).extract_patches()


def find_scale(layer: SampledConv, layer_activation: Activate | None) -> LayerScale:
    """Search the scale of a layer's weights: coarsely by divergence, then finely by cosines.

    Args:
        layer: The convolution.
        layer_activation: Its activation, if any.
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
    # Reversed, because argmin returns the first of ties and the largest is wanted.
    coarse_index = len(SHARES) - 1 - int(np.argmin(divergences[::-1]))
    shares = generate_candidates(float(SHARES[coarse_index]), 1.0)
    cosines = [
        _compute_similarity(layer, real, _compute_outputs(layer, share), layer_activation)
        for share in shares
    ]
    best_index = find_last_largest(cosines)
    return LayerScale(float(shares[best_index]), divergences[coarse_index], cosines[best_index])


def compute_divergence(expected_counts: Counts, actual_counts: Counts) -> float:
    """Return the Kullback-Leibler divergence between two histograms.

    Args:
        expected_counts: P of equation 9, as counts that are not all zero.
        actual_counts: Q of equation 9, as counts of the same bins; 0.5 is added to each.
    """
    is_filled = expected_counts > 0
    p = expected_counts[is_filled] / expected_counts.sum()
    q = (actual_counts[is_filled] + 0.5) / (actual_counts.sum() + 0.5 * len(actual_counts))
    return max(float((p * np.log(p / q)).sum()), 0.0)


def _compute_histogram(numbers: Float32, top: np.float32) -> Counts:
    """Return the histogram of positive numbers, followed by that of negative numbers."""
    sides = (np.maximum(numbers, 0), np.minimum(numbers, 0))
    return np.concatenate([compute_histogram(side, float(top), BINS) for side in sides])


def _compute_outputs(layer: SampledConv, share: float) -> Float32:
    """Return the outputs of the convolution with weights quantized at a share of their scales."""
    products: Float32 = layer.patches @ layer.quantize_weights(share).transpose(0, 2, 1)
    products += layer.bias
    return products


def _compute_similarity(
    layer: SampledConv, real: Float32, actual: Float32, layer_activation: Activate | None
) -> float:
    """Return the cosine of the convolution's outputs, averaged with that of the activation's."""
    similarity = compute_cosine(layer.real, actual)
    return (
        similarity
        if layer_activation is None
        else (similarity + compute_cosine(real, layer_activation(actual))) / 2
    )


def _pass_through(numbers: Float32) -> Float32:
    return numbers
