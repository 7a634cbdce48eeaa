"""Quantized weights by second moments: minimizes each layer's output error and corrects its mean.

Layers are independent. The moments of a layer's quantized input are those of the fp32 values plus
the rounding noise, so that the values themselves are not needed.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Range, RoundedWeights
from tcc.compiler.quant.observe.condensed_statistics import MAX_WEIGHTS
from tcc.compiler.quant.observe.statistics import Float32, TapMoments, TapSums
from tcc.compiler.quant.rounding import least_error_rounding
from tcc.compiler.quant.rounding.channel_equalization import Factors
from tcc.compiler.quant.rounding.least_error_rounding import Float64
from tcc.compiler.quant.rounding.nearest_rounding import (
    bound_scales,
    compute_max_weight,
    quantize_bias,
    round_weights,
)
from tcc.compiler.quant.scale_groups import find_fused_clamps

ROUNDING_NOISE = 1 / 12
"""Second moment of the rounding error, in squared steps: the error is uniform over a step."""
MAX_SEARCH_PRODUCTS = 1 << 23
"""Maximum products for a scale search with all second moments; above, only the diagonal is used."""
MAX_SMALL_GROUP = 64
"""Maximum weights of a group that is rounded to nearest, such as a depthwise filter."""


@dataclass(frozen=True, slots=True)
class FloatConv:
    """A convolution: float weight (filters, taps), bias, and ranges of input and output."""

    weight: Float64
    bias: Float64
    input_range: Range
    output_range: Range


def round_by_moments(
    model: Model,
    ranges: Mapping[str, Range],
    moments: Mapping[str, TapMoments],
    factors: Factors,
    threads: int | None = None,
) -> Mapping[str, RoundedWeights]:
    """Return the quantized weights of every convolution.

    Each layer is processed on one thread, so that the result does not depend on the number of
    threads.

    Args:
        model: The lowered model, with channels equalized by `factors`.
        ranges: The ranges of its unfused values.
        moments: Tap moments before equalization, of each convolution that is not too large.
        factors: Equalization factors (channels,) by value.
        threads: Number of layers processed in parallel; None for one per processor.
    """
    clamp_by_source = {source: clamp for clamp, source in find_fused_clamps(model.graph).items()}
    nodes = [n for n in model.graph.nodes if isinstance(n.op, Conv)]

    def round_node(node: Node) -> RoundedWeights:
        weight, *bias = (model.weights[name] for name in node.params)
        conv_bias = bias[0] if bias else np.zeros(len(weight), np.float32)
        input_range, output_range = (
            ranges[node.inputs[0]],
            ranges[clamp_by_source.get(node.name, node.name)],
        )
        # With so many taps, weights must be smaller, and the images do not determine the moments.
        if compute_max_weight(
            weight[0].size, input_range
        ) < least_error_rounding.MAX_WEIGHT or _is_nearest_only(weight):
            return round_weights(weight, conv_bias, input_range, output_range)
        flat = weight.reshape(len(weight), -1).astype(np.float64)
        layer = FloatConv(flat, conv_bias.astype(np.float64), input_range, output_range)
        sums, input_factors = moments[node.name].sums, factors.get(node.inputs[0])
        rounded_weights = _round_layer(
            layer, _quantize_sums(sums, input_factors, input_range.scale)
        )
        return RoundedWeights(
            rounded_weights.weight.reshape(weight.shape),
            rounded_weights.scale,
            rounded_weights.bias,
        )

    count = threads or os.cpu_count()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count) as pool:
        return dict(zip((n.name for n in nodes), pool.map(round_node, nodes), strict=True))


def _is_nearest_only(weight: Float32) -> bool:
    """Whether a layer is only rounded to nearest: it is an average, or too large."""
    flat = weight.reshape(len(weight), -1)
    return weight.size > MAX_WEIGHTS or bool((flat == flat[:, :1]).all())


def _quantize_sums(sums: TapSums, factor: Float32 | None, step: float) -> TapSums:
    """Return the sums over quantized inputs, in steps, with rounding noise.

    Args:
        sums: The sums over fp32 inputs.
        factor: The equalization factors (channels,); None for ones.
        step: The scale of the input.
    """
    groups, taps = sums.total.shape
    channel_factors = np.ones(groups) if factor is None else factor.astype(np.float64)
    channel_steps = channel_factors.reshape(groups, -1) * step
    tap_steps = np.repeat(channel_steps, taps // channel_steps.shape[1], axis=1)
    blocks = np.array_split(tap_steps, len(sums.products), axis=1)
    products = tuple(
        block_products / (block_steps[:, :, None] * block_steps[:, None])
        + np.eye(block_steps.shape[1]) * (sums.count * ROUNDING_NOISE)
        for block_products, block_steps in zip(sums.products, blocks, strict=True)
    )
    return TapSums(sums.count, sums.total / tap_steps, products)


def _round_layer(layer: FloatConv, sums: TapSums) -> RoundedWeights:
    """Return the quantized weights of a layer from the sums over its quantized inputs."""
    groups = len(sums.total)
    weight = layer.weight.reshape(groups, len(layer.weight) // groups, -1)
    mean = sums.total / sums.count * layer.input_range.scale
    # There are many small groups: a search in each would take long, and few taps leave little room
    # for compensation.
    if groups > 1 and weight[0].size <= MAX_SMALL_GROUP:
        parts = [_round_small_groups(weight, sums.products[0] / sums.count)]
    else:
        parts = [
            _round_dense_group(group_weight, sums, group)
            for group, group_weight in enumerate(weight)
        ]
    scale, steps = (np.concatenate(group_arrays) for group_arrays in zip(*parts, strict=True))
    # The sums must fit 32 bits. If that raises a scale, its weights are rounded again.
    final_scale = bound_scales(
        scale, layer.bias.astype(np.float32), layer.input_range, layer.output_range
    )
    raised = final_scale.astype(np.float64) != scale
    if raised.any():
        nearest_steps = least_error_rounding.round_to_nearest(
            layer.weight, final_scale.astype(np.float64)
        )
        steps = np.where(raised[:, None], nearest_steps, steps)
    real = (steps * final_scale.astype(np.float64)[:, None]).reshape(weight.shape)
    # Bias correction: (W - Q) E[x].
    shift = np.matmul(weight - real, mean[:, :, None]).reshape(-1)
    return RoundedWeights(
        steps, final_scale, quantize_bias(layer.bias + shift, final_scale, layer.input_range)
    )


def _round_small_groups(weight: Float64, moments: Float64) -> tuple[Float64, NDArray[np.int8]]:
    """Return scales and weights (filters, taps) of many small groups, rounded to nearest.

    Args:
        weight: The real weights (groups, filters, taps).
        moments: Second moments of each group's inputs (groups, taps, taps).
    """
    _, filters, taps = weight.shape
    flat = weight.reshape(-1, taps)
    scale = least_error_rounding.find_best_scale(flat, np.repeat(moments, filters, axis=0))
    return scale, least_error_rounding.round_to_nearest(flat, scale)


def _round_dense_group(
    weight: Float64, sums: TapSums, group: int
) -> tuple[Float64, NDArray[np.int8]]:
    """Return the scales and the weights (filters, taps) of one group."""
    taps = weight.shape[1]
    blocks = np.array_split(np.arange(taps), len(sums.products))
    moments = [
        _compute_covariance(products[group], sums.total[group, block], sums.count)
        for products, block in zip(sums.products, blocks, strict=True)
    ]
    if len(blocks) == 1 and weight.size * taps <= MAX_SEARCH_PRODUCTS:
        scale = least_error_rounding.find_best_scale(weight, moments[0])
    else:
        scale = least_error_rounding.find_best_scale(
            weight, np.concatenate([np.diag(m) for m in moments])
        )
    steps = [
        least_error_rounding.round_by_gptq(weight[:, block], scale, block_moments)
        for block, block_moments in zip(blocks, moments, strict=True)
    ]
    return scale, np.hstack(steps)


def _compute_covariance(products: Float64, total: Float64, count: int) -> Float64:
    """Return the covariance (taps, taps)."""
    moments: Float64 = (products - np.outer(total, total) / count) / count
    return moments
