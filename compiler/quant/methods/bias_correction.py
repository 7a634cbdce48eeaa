"""Biases that make the mean output of every layer what it is in floats, one layer after another.

Each layer is corrected on what the integer layers before it, corrected already, give it: so that
their errors do not add up. `rounding.second_moments` corrects each by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import cost
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

FEWEST, MOST = 4, 16
"""Images that the means are taken over: as many as `WORK` allows."""
WORK = 1 << 36
"""Multiply-accumulates that they may take."""


class SequentialCorrection:
    """Corrects the biases of programs that learn from images of one set, each run once in floats.

    A mean over images is enough: rounding shifts a filter's output by nearly the same amount
    everywhere, which the next layers add up (Nagel et al., arXiv 1906.04721, section 4.2).
    """

    def __init__(self, ready: Model, data: DataSet) -> None:
        """Run nothing yet.

        Args:
            ready: The ready float model.
            data: The images that are to be had.
        """
        self.ready, self.data = ready, data
        self.images = max(FEWEST, min(MOST, WORK // max(cost(ready.graph).macs, 1)))
        self._places = {item.digest: place for place, item in enumerate(data.items)}
        self._run = float_program.prepared(_tapped(ready), optimised=True)
        self._means: dict[str, Means] = {}

    def corrected(self, calibration: Calibration, digests: Sequence[str]) -> Calibration:
        """Return a calibration whose biases make good what shifts each layer's mean over images.

        Args:
            calibration: One with the weights of every convolution.
            digests: Images that may be learnt from; the first are, which are held at once.
        """
        (source,) = self.ready.graph.inputs
        some = digests[: self.images]
        tensors = [self.data.tensor(self._places[one], source) for one in some]
        wanted = self._wanted(some, tensors)
        program = quantize(self.ready, calibration)
        sources = fused_clamps(self.ready.graph)
        work = _IntegerRun(program, tensors)
        rounded = dict(calibration.rounded)
        for first, *others in _spans(program.graph.nodes):
            if isinstance(first.op, QConv | RealConv):
                conv = sources.get(first.name, first.name)
                target = wanted[conv]
                # The integer program holds an equalised channel divided by its factor, and so is
                # its mean.
                if first.name in calibration.factors:
                    target = target / calibration.factors[first.name]
                rounded[conv] = work.correct(first, rounded[conv], target)
            work.step((first, *others))
        return replace(calibration, rounded=rounded)

    def _wanted(self, digests: Sequence[str], tensors: Sequence[Array]) -> Means:
        """Return the floats' means over images."""
        for digest, tensor in zip(digests, tensors, strict=True):
            if digest not in self._means:
                self._means[digest] = {
                    name: mean.reshape(-1).astype(np.float64)
                    for name, mean in self._run(tensor).items()
                }
        every = [self._means[one] for one in digests]
        return {name: np.mean([one[name] for one in every], axis=0) for name in every[0]}


def _spans(nodes: Sequence[Node]) -> Iterator[Sequence[Node]]:
    """Yield nodes in order, as many together as come before the next bias that is corrected."""
    starts = [i for i, node in enumerate(nodes) if not i or isinstance(node.op, QConv | RealConv)]
    return (nodes[start:end] for start, end in pairwise([*starts, len(nodes)]))


def _tapped(model: Model) -> Model:
    """Return a model whose outputs are the mean output of every convolution, by its name."""
    graph = model.graph
    nodes, outputs = [*graph.nodes], []
    for node in graph.nodes:
        if isinstance(node.op, Conv):
            name = f"{node.name}:mean"
            # Means leave the runtime as one number a channel, not as maps.
            made = make_node(name, GlobalAvgPool(), (node.name,), (node.type,))
            assert made is not None
            nodes.append(made)
            outputs.append(Output(node.name, name))
    if not outputs:
        return model  # there is no bias
    return Model(replace(graph, nodes=tuple(nodes), outputs=tuple(outputs)), model.weights)


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
        found = self._mean(node, node.op.conv, own.weight) + own.bias
        # More would let the sum overflow (`SUM_BITS`).
        most = 1 << SUM_BITS
        # In steps of the sum: real mean over input scale times weight scale.
        shift = np.clip(np.rint(wanted / step - found), -most, most)
        corrected = np.clip(own.bias + shift, -most, most).astype(np.int32)
        self.weights[node.params[2]] = corrected
        return replace(own, bias=corrected)

    def _mean(self, node: Node, conv: Conv, weight: Array) -> NDArray[np.float64]:
        """Return the mean sum of products of each filter, which depends on mean inputs alone."""
        # Of all images at once: their sums are whole numbers, and what each tap reads is theirs.
        padded = self._summed_levels(node.inputs[0], conv)
        count = len(self.values[node.inputs[0]])
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
            mean = view.sum(axis=(0, 2, 3)) / (count * size[0] * size[1])
            total += np.einsum("gfd,gd->gf", by_group[..., i, j], mean.reshape(conv.groups, -1))
        return total.reshape(-1)

    def _summed_levels(self, value: str, conv: Conv) -> Array:
        """Return the sum over images of the levels that a convolution reads, (1, C, H, W).

        It has the convolution's border of zeros.
        """
        stored = self.values[value]
        low, _ = self.graph.types[value].limits
        # Signed levels are stored from 0 to 255, with the zero point where 0 is.
        total = stored.sum(axis=0, keepdims=True, dtype=np.int64) + len(stored) * min(low, 0)
        return integer_arithmetic.bordered(total, conv.pads)

    def step(self, nodes: Sequence[Node]) -> None:
        """Run neighbouring nodes, and forget what nothing reads any more."""
        # Neighbours together, as each session costs more than what it runs; with a session of its
        # own for each bias, what a corrected one changes reaches the nodes behind it.
        last = {node.name for node in nodes}
        read = dict.fromkeys(value for node in nodes for value in node.inputs)
        kept = [node.name for node in nodes if self.last.get(node.name) not in last]
        self.values |= float_program.evaluate_nodes(
            self.graph, nodes, kept, self.weights, self.values
        )
        for value in read:
            if self.last[value] in last:
                self.values.pop(value, None)
