"""Sequential bias correction: each layer's mean output is made equal to the fp32 model's.

Each layer is corrected on the outputs of the quantized layers before it, which are already
corrected, so that errors do not accumulate. `rounding.second_moments` corrects each layer
independently.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Model, Node, Output, make_node
from tcc.compiler.ops import Conv, GlobalAvgPool, integer_arithmetic
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.quant.calibration import Calibration, RoundedWeights
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.nearest_rounding import SUM_BITS
from tcc.compiler.quant.scale_groups import find_fused_clamps
from tcc.compiler.reference import float_program

Array = NDArray[Any]
Means = Mapping[str, NDArray[np.float64]]
"""The mean of each channel by the name of a convolution."""

MIN_IMAGES, MAX_IMAGES = 4, 16
"""Number of images for the means, as `MAX_MACS` allows."""
MAX_MACS = 1 << 36
"""Maximum multiply-accumulates for these images."""


class SequentialCorrection:
    """Bias correction for calibrations that are fitted to images of one dataset.

    Each image runs once through the fp32 model. A mean over images is enough: rounding shifts a
    filter's output by nearly the same amount everywhere, and following layers accumulate these
    shifts (Nagel et al., arXiv 1906.04721, section 4.2).
    """

    def __init__(self, lowered_model: Model, dataset: DataSet) -> None:
        """Prepare the correction without running images.

        Args:
            lowered_model: The lowered fp32 model.
            dataset: The available images.
        """
        self.lowered_model, self.dataset = lowered_model, dataset
        self.images = max(
            MIN_IMAGES, min(MAX_IMAGES, MAX_MACS // max(compute_cost(lowered_model.graph).macs, 1))
        )
        self._index_by_digest = {image.digest: index for index, image in enumerate(dataset.items)}
        self._run = float_program.create_runner(_add_mean_outputs(lowered_model), optimised=True)
        self._means: dict[str, Means] = {}

    def correct_biases(self, calibration: Calibration, digests: Sequence[str]) -> Calibration:
        """Return the calibration with corrected biases.

        Args:
            calibration: A calibration with the weights of every convolution.
            digests: Digests of the fit set; the first images are used, all in memory at once.
        """
        (network_input,) = self.lowered_model.graph.inputs
        fit_digests = digests[: self.images]
        tensors = [
            self.dataset.read_tensor(self._index_by_digest[digest], network_input)
            for digest in fit_digests
        ]
        target_means = self._compute_target_means(fit_digests, tensors)
        program = quantize(self.lowered_model, calibration)
        sources = find_fused_clamps(self.lowered_model.graph)
        integer_run = _IntegerRun(program, tensors)
        rounded = dict(calibration.rounded)
        for conv_node, *next_nodes in _split_spans(program.graph.nodes):
            if isinstance(conv_node.op, QConv | RealConv):
                conv = sources.get(conv_node.name, conv_node.name)
                target = target_means[conv]
                # The int8 program has equalized channels divided by their factors.
                if conv_node.name in calibration.factors:
                    target = target / calibration.factors[conv_node.name]
                rounded[conv] = integer_run.update_bias(conv_node, rounded[conv], target)
            integer_run.step((conv_node, *next_nodes))
        return replace(calibration, rounded=rounded)

    def _compute_target_means(self, digests: Sequence[str], tensors: Sequence[Array]) -> Means:
        """Return the fp32 means over images."""
        for digest, tensor in zip(digests, tensors, strict=True):
            if digest not in self._means:
                self._means[digest] = {
                    name: mean.reshape(-1).astype(np.float64)
                    for name, mean in self._run(tensor).items()
                }
        image_means = [self._means[image] for image in digests]
        return {
            name: np.mean([image[name] for image in image_means], axis=0) for name in image_means[0]
        }


def _split_spans(nodes: Sequence[Node]) -> Iterator[Sequence[Node]]:
    """Yield spans of nodes in order; each span begins at a bias to correct."""
    starts = [i for i, node in enumerate(nodes) if not i or isinstance(node.op, QConv | RealConv)]
    return (nodes[start:end] for start, end in pairwise([*starts, len(nodes)]))


def _add_mean_outputs(model: Model) -> Model:
    """Return a model with the channel means of every convolution as outputs, by its name."""
    graph = model.graph
    nodes, outputs = [*graph.nodes], []
    for node in graph.nodes:
        if isinstance(node.op, Conv):
            name = f"{node.name}:mean"
            # The runtime gives one number per channel instead of maps.
            mean_node = make_node(name, GlobalAvgPool(), (node.name,), (node.type,))
            assert mean_node is not None
            nodes.append(mean_node)
            outputs.append(Output(node.name, name))
    if not outputs:
        return model  # no convolution, so no bias
    return Model(replace(graph, nodes=tuple(nodes), outputs=tuple(outputs)), model.weights)


class _IntegerRun:
    """Node-by-node execution of an int8 program on all images at once."""

    def __init__(self, program: Model, tensors: Sequence[Array]) -> None:
        graph = program.graph
        (network_input,) = graph.inputs
        self.graph = graph
        self.weights = dict(program.weights)
        # All images at once: the mean over them is needed before the next layer runs.
        self.tensors = {
            network_input.name: np.stack(tensors).astype(network_input.type.dtype.value)
        }
        self.last_reader = {
            input_name: node.name for node in graph.nodes for input_name in node.inputs
        }

    def update_bias(
        self, node: Node, rounded_weights: RoundedWeights, target_mean: NDArray[np.float64]
    ) -> RoundedWeights:
        """Correct a convolution's bias to a target mean, and return its quantized weights."""
        assert isinstance(node.op, QConv | RealConv)
        (input_type,) = self.graph.get_input_types(node)
        step = float(input_type.scale or 1) * rounded_weights.scale.astype(np.float64)
        actual_mean = (
            self._compute_mean(node, node.op.conv, rounded_weights.weight) + rounded_weights.bias
        )
        # A larger bias could overflow the sum (`SUM_BITS`).
        max_bias = 1 << SUM_BITS
        # In steps of the sum: mean / (input scale * weight scale).
        shift = np.clip(np.rint(target_mean / step - actual_mean), -max_bias, max_bias)
        corrected = np.clip(rounded_weights.bias + shift, -max_bias, max_bias).astype(np.int32)
        self.weights[node.params[2]] = corrected
        return replace(rounded_weights, bias=corrected)

    def _compute_mean(self, node: Node, conv: Conv, weight: Array) -> NDArray[np.float64]:
        """Return the mean sum of products of each filter, computed from mean inputs."""
        # The sum over images consists of integers, so that it is exact.
        padded = self._sum_quantized_values(node.inputs[0], conv)
        count = len(self.tensors[node.inputs[0]])
        filters, depth = weight.shape[:2]
        by_group = weight.astype(np.float64).reshape(conv.groups, -1, depth, *conv.kernel)
        total = np.zeros((conv.groups, filters // conv.groups))
        size = node.type.shape[1:]
        stride, dilation = conv.stride, conv.dilation
        for (i, j), view in integer_arithmetic.iterate_taps(
            padded, conv.kernel, stride, dilation, (size[0], size[1])
        ):
            # A convolution is linear: the mean of its outputs follows from the mean input of each
            # tap.
            mean = view.sum(axis=(0, 2, 3)) / (count * size[0] * size[1])
            total += np.einsum("gfd,gd->gf", by_group[..., i, j], mean.reshape(conv.groups, -1))
        return total.reshape(-1)

    def _sum_quantized_values(self, value_name: str, conv: Conv) -> Array:
        """Return the sum over images of a convolution's quantized inputs, (1, C, H, W), padded."""
        codes = self.tensors[value_name]
        low, _ = self.graph.types[value_name].limits
        # Signed values are stored as uint8 with zero point 128.
        total = codes.sum(axis=0, keepdims=True, dtype=np.int64) + len(codes) * min(low, 0)
        return integer_arithmetic.pad_map(total, conv.pads)

    def step(self, nodes: Sequence[Node]) -> None:
        """Run consecutive nodes, and drop tensors that no later node reads."""
        # One session for several nodes, since creating a session costs more than running it. A
        # session begins at each bias, so that the following nodes see the corrected bias.
        span_names = {node.name for node in nodes}
        read_names = dict.fromkeys(value_name for node in nodes for value_name in node.inputs)
        kept_names = [
            node.name for node in nodes if self.last_reader.get(node.name) not in span_names
        ]
        self.tensors |= float_program.evaluate_nodes(
            self.graph, nodes, kept_names, self.weights, self.tensors
        )
        for value_name in read_names:
            if self.last_reader[value_name] in span_names:
                self.tensors.pop(value_name, None)
