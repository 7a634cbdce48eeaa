"""Biases that make the mean output of every layer what it is in floats, one layer after another.

Each layer is corrected on what the integer layers before it, corrected already, give it: so that
their errors do not add up. `rounding.second_moments` corrects each by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model, Node, Output, make_node
from tcc.compiler.ops import Conv, GlobalAvgPool, integer_arithmetic
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.quant.calibration import Calibration, RoundedWeights
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.nearest_rounding import SUM_BITS
from tcc.compiler.quant.scale_groups import fused_clamps
from tcc.compiler.reference import float_program

Array = NDArray[Any]
Means = Mapping[str, NDArray[np.float64]]
"""The mean of each channel by the name of a convolution."""

IMAGES = 16
"""Images that the means are taken over."""


def sequential(ready: Model, calibration: Calibration, data: DataSet) -> Calibration:
    """Return a calibration whose biases make good what shifts each layer's mean over images.

    A mean over images is enough: rounding shifts a filter's output by nearly the same amount
    everywhere, which the next layers add up (Nagel et al., arXiv 1906.04721, section 4.2).

    Args:
        ready: The ready float model.
        calibration: One with the weights of every convolution.
        data: Images, all of which are held at once: `IMAGES` are enough.
    """
    (source,) = ready.graph.inputs
    tensors = [data.tensor(index, source) for index in range(len(data))]
    program = quantize(ready, calibration)
    wanted = means(ready, tensors)
    sources = fused_clamps(ready.graph)
    work = _IntegerRun(program, tensors)
    rounded = dict(calibration.rounded)
    for node in program.graph.nodes:
        if isinstance(node.op, QConv | RealConv):
            conv = sources.get(node.name, node.name)
            target = wanted[conv]
            # The integer program holds an equalised channel divided by its factor, and so is its
            # mean.
            if node.name in calibration.factors:
                target = target / calibration.factors[node.name]
            rounded[conv] = work.correct(node, rounded[conv], target)
        work.step(node)
    return replace(calibration, rounded=rounded)


def means(model: Model, tensors: Sequence[Array]) -> Means:
    """Return the mean output of every convolution over images, before any activation."""
    graph = model.graph
    nodes, outputs = [*graph.nodes], []
    for node in graph.nodes:
        if isinstance(node.op, Conv):
            name = f"{node.name}:mean"
            # Means leave the runtime as one number a channel, not as maps.
            made = make_node(name, GlobalAvgPool(), (node.name,), (node.type,))
            assert made is not None
            nodes.append(made)
            outputs.append(Output(node.name + ":means", name))
    if not outputs:
        return {}
    tapped = replace(graph, nodes=tuple(nodes), outputs=tuple(outputs))
    run = float_program.prepared(Model(tapped, model.weights))
    total: dict[str, NDArray[np.float64]] = {}
    for tensor in tensors:
        for name, mean in run(tensor).items():
            total[name] = total.get(name, 0.0) + mean.reshape(-1).astype(np.float64)
    return {name.removesuffix(":means"): v / len(tensors) for name, v in total.items()}


class _IntegerRun:
    """An integer program, run node by node on all images at once."""

    def __init__(self, program: Model, tensors: Sequence[Array]) -> None:
        graph = program.graph
        (source,) = graph.inputs
        self.graph = graph
        self.weights = dict(program.weights)
        # All images together: a mean over them is needed before the next layer runs.
        self.values = {source.name: np.stack(tensors).astype(source.type.dtype.value)}
        self.last = {value: node.name for node in graph.nodes for value in node.inputs}

    def correct(
        self, node: Node, own: RoundedWeights, wanted: NDArray[np.float64]
    ) -> RoundedWeights:
        """Change a convolution's bias so that its mean is the wanted one; return what it is now."""
        assert isinstance(node.op, QConv | RealConv)
        (x,) = self.graph.input_types(node)
        step = float(x.scale or 1) * own.scale.astype(np.float64)
        # In steps of the sum: real mean over input scale times weight scale.
        found = self._mean(node, node.op.conv, own.weight) + own.bias
        # More would let the sum overflow (`SUM_BITS`).
        most = 1 << SUM_BITS
        shift = np.clip(np.rint(wanted / step - found), -most, most)
        corrected = np.clip(own.bias + shift, -most, most).astype(np.int32)
        self.weights[node.params[2]] = corrected
        return replace(own, bias=corrected)

    def _mean(self, node: Node, conv: Conv, weight: Array) -> NDArray[np.float64]:
        """Return the mean sum of products of each filter, which depends on mean inputs alone."""
        padded = self._levels(node.inputs[0], conv)
        filters, depth = weight.shape[:2]
        by_group = weight.astype(np.float64).reshape(conv.groups, -1, depth, *conv.kernel)
        total = np.zeros((conv.groups, filters // conv.groups))
        size = node.type.shape[1:]
        stride, dilation = conv.stride, conv.dilation
        for (i, j), view in integer_arithmetic.taps(
            padded, conv.kernel, stride, dilation, (size[0], size[1])
        ):
            # A convolution is linear, so that the mean of its outputs needs the mean of what each
            # tap reads, and no product for each position.
            mean = view.sum(axis=(0, 2, 3), dtype=np.int64) / (len(view) * size[0] * size[1])
            total += np.einsum("gfd,gd->gf", by_group[..., i, j], mean.reshape(conv.groups, -1))
        return total.reshape(-1)

    def _levels(self, value: str, conv: Conv) -> Array:
        """Return the levels that a convolution reads, with its border of zeros."""
        stored = self.values[value]
        low, _ = self.graph.types[value].limits
        # The border of zeros is the zero point where signed levels are stored from 0 to 255.
        return integer_arithmetic.bordered(stored, conv.pads, -min(low, 0)) + np.int16(min(low, 0))

    def step(self, node: Node) -> None:
        """Run a node, and forget what nothing reads any more."""
        # Each node by itself: what a corrected bias changes must reach the nodes behind it.
        self.values[node.name] = float_program.evaluate_node(
            self.graph, node, self.weights, self.values
        )
        # An addition may read one value twice.
        for value in dict.fromkeys(node.inputs):
            if self.last[value] == node.name:
                del self.values[value]
