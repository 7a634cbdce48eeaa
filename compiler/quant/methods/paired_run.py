"""A float network and its quantised form, run side by side a layer at a time on stored inputs."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.quant.calibration import Range
from tcc.compiler.quant.methods.cosine_search import quantised
from tcc.compiler.quant.observe.statistics import Float32
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
