"""The graph in the making: one step at a time, with its weights."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.foreign.onnx_import.tensor_view import View, channels_of, choosing, every_nth
from tcc.compiler.ir.argument_declarations import signature
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, make_node
from tcc.compiler.ir.op import OpError
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import (
    BatchNorm,
    ChannelShuffle,
    Conv,
    Flatten,
    LayerNorm,
    Linear,
    Op,
    Resize,
    ScaleShift,
)
from tcc.compiler.ops.elementwise import Elementwise
from tcc.compiler.ops.join import Broadcasting, Concat

LONGEST = 60
SIZES = frozenset({"C", "H", "W"})
"""What the language itself calls a value's size."""


def identifier(name: str, otherwise: str = "") -> str:
    """Return a name as an identifier of the language."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_")
    # Names of the language begin with a letter or an underscore, as Python's do.
    return f"_{plain}" if plain[:1].isdigit() or plain in SIZES else plain or otherwise


def of_weight(name: str) -> str:
    """Return the layer that a weight's name speaks of: `features.0` of `features.0.weight`.

    Empty where the name was made by a machine.
    """
    # PyTorch's `conv1.weight`, Keras's `conv1/kernel` and `bn/gamma`. Weights that PyTorch's
    # exporter folded have names that were counted, such as `onnx::Conv_123`.
    found = re.fullmatch(r"(.+?)[./](?:weight|bias|kernel|gamma|beta)", name)
    return found[1] if found and "::" not in found[1] else ""


def of_node(name: str, type: str) -> str:
    """Return the place that a node's name speaks of.

    `/layer1/layer1.0/conv1/Conv` is at `layer1.0.conv1`. Empty where there is none, as in the
    names that exporters count up.
    """
    parts = [part for part in name.split("/") if part]
    if parts and re.fullmatch(rf"({re.escape(type)}|node_\w+?)(_\d+)?|n\d+", parts[-1]):
        parts.pop()
    inner = [part for part, after in pairwise([*parts, ""]) if not after.startswith(f"{part}.")]
    return ".".join(inner)


class UniqueNames:
    """Names given so far; `fresh` gives another."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self.counts: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """Return a name that none has: the one asked for, or that with a number."""
        unique = name
        while unique in self.taken:
            # Counted from where the last one ended: a thousand equal names take a thousand steps.
            self.counts[name] = self.counts.get(name, 1) + 1
            unique = f"{name}_{self.counts[name]}"
        self.taken.add(unique)
        return unique


Tensor = NDArray[np.float32]
WIDENED = (Elementwise, Broadcasting, Concat, BatchNorm, LayerNorm, ScaleShift)
"""What works on a vector as on a map of one pixel."""


class OperatorRefusal(ValueError):  # noqa: N818 - what it is, not what it does
    """Nothing in the language does what an operator does; `help` says what would."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


@dataclass
class GraphBuilder:
    """Nodes by name, in order, with their weights.

    `wished` holds the name that each was to have, `settled` the values that views became,
    `as_maps` the vectors that were made again as maps.
    """

    source: Input
    names: UniqueNames
    nodes: dict[str, Node] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    wished: dict[str, str] = field(default_factory=dict)
    settled: dict[View, View] = field(default_factory=dict)
    as_maps: dict[str, str] = field(default_factory=dict)

    def type(self, value: str) -> TensorType:
        """Return the type of a value."""
        return self.source.type if value == self.source.name else self.nodes[value].type

    def emit(self, name: str, op: Op, values: Sequence[str], weights: Sequence[Tensor] = ()) -> str:
        """Add a step, called as its op if not else; return its value.

        That is the input's where the step would do nothing.

        Raises:
            OperatorRefusal: The inputs or weights do not fit the op.
        """
        # Names first are free: a step is refused by its inputs and arguments, never by what it is
        # called.
        types = tuple(self.type(value) for value in values)
        # `make_node` looks at shapes alone; the written spec would be refused for such an argument.
        _check_bounds(op)
        fresh = self.names.fresh(name or op.word)
        try:
            node = make_node(fresh, op, tuple(values), types)
        except OpError as error:
            raise OperatorRefusal(str(error)) from None
        # A resize to the size that is there, which exporters write as any other.
        if node is None:
            return values[0]
        wanted = [param.shape for param in node.op.params(*types)]
        if [w.shape for w in weights] != wanted:
            found = ", ".join(str(list(w.shape)) for w in weights)
            raise OperatorRefusal(
                f"its weights are {found}, not {', '.join(str(list(w)) for w in wanted)}"
            )
        self.nodes[node.name] = node
        self.wished[node.name] = name
        tensors = (np.ascontiguousarray(w, np.float32) for w in weights)
        self.weights.update(zip(node.params, tensors, strict=True))
        return node.name

    def view(self, value: str) -> View:
        """Return a value as it is."""
        return View(value, self.type(value))

    def settle(self, view: View) -> View:
        """Return a view as a value of its own, if the language can make it one; else the view."""
        if not view.settled and view not in self.settled:
            # Kept, so that several readers of one flattening share its step.
            self.settled[view] = self._settle(view)
        return self.settled.get(view, view)

    def moved(self, view: View) -> View:
        """Return what moving elements made; a shuffle is a value at once, before it is cut."""
        # A shuffle of channels is cut in two behind it by ShuffleNetV2: seen through, neither half
        # would be a slice of anything.
        return self.settle(view) if isinstance(_choice(view), ChannelShuffle) else view

    def _settle(self, view: View) -> View:
        shape, chosen = view.shape, _choice(view)
        if not isinstance(chosen, bool):
            return self._chosen(view, chosen, flat=len(shape) == 2)
        # Squeeze-and-excitation with linear layers: pooled, flattened, two matrices, and reshaped
        # to (1, C, 1, 1) to scale a map. The language has no step from a vector to a map, so the
        # steps since the flattening are taken again on maps of one pixel.
        if len(view.type.shape) == 1 and shape == (1, view.type.elements, 1, 1) and view.whole():
            ordered = bool(np.array_equal(view.positions().ravel(), np.arange(view.type.elements)))
            widened = self._as_map(view.value) if ordered else None
            if widened is not None:
                return self.view(widened)
        return view

    def _chosen(self, view: View, op: Op | None, *, flat: bool) -> View:
        value = view.value if op is None else self.emit(view.name, op, [view.value])
        if flat and len(self.type(value).shape) == 3:
            value = self.emit(view.name, Flatten(), [value])
        return self.view(value)

    def _as_map(self, vector: str) -> str | None:
        """Return a vector as a map of one pixel: its steps are taken again before they flatten."""
        needed = self._ancestors(vector)
        for name in [n for n in self.nodes if n in needed]:
            if name not in self.as_maps:
                widened = self._widened(self.nodes[name])
                if widened is None:
                    return None
                self.as_maps[name] = widened
        return self.as_maps.get(vector)

    def _ancestors(self, vector: str) -> set[str]:
        """Return the vector and the vectors that it is computed from."""
        found: set[str] = set()
        pending = [vector]
        while pending:
            name = pending.pop()
            if name in found or name not in self.nodes or name in self.as_maps:
                continue
            found.add(name)
            if not isinstance(self.nodes[name].op, Flatten):
                pending += self.nodes[name].inputs
        return found

    def _widened(self, node: Node) -> str | None:
        """Return the value of a step on vectors, taken on maps of one pixel."""
        op, weights = node.op, [self.weights[p] for p in node.params]
        if isinstance(op, Flatten):
            # A flattening of more than one pixel mixes pixels into features: no map of one pixel is
            # that.
            return node.inputs[0] if self.type(node.inputs[0]).shape[1:] == (1, 1) else None
        if any(value not in self.as_maps for value in node.inputs):
            return None
        values = [self.as_maps[value] for value in node.inputs]
        if isinstance(op, Linear):
            # A linear layer is a 1x1 convolution of one pixel, with the same numbers.
            weights[0] = weights[0][:, :, None, None]
            conv = Conv(op.units, (1, 1), bias=op.bias)
            return self.emit(self.wished[node.name], conv, values, weights)
        if not isinstance(op, WIDENED):
            return None
        if isinstance(op, ScaleShift | LayerNorm):
            weights = [w[:, None, None] for w in weights]
        return self.emit(self.wished[node.name], op, values, weights)

    def unspread(self, value: str) -> str:
        """Return what was spread over all pixels, where one pixel will do."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return value
        one = self.type(node.inputs[0]).shape[1:] == (1, 1)
        return node.inputs[0] if one else value

    def model(self, name: str, outputs: tuple[Output, ...]) -> Model:
        """Return what was built."""
        graph = Graph(name, (self.source,), tuple(self.nodes.values()), outputs)
        return Model(graph, self.weights)


def _check_bounds(op: Op) -> None:
    """Refuse an argument that is smaller or larger than the language lets it be."""
    for parameter in signature(type(op)):
        value = getattr(op, parameter.name)
        # Pairs and paddings are bounded number by number.
        numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if n is not None]
        low, high = parameter.low, parameter.high
        if low is not None and any(n < low for n in numbers):
            raise OperatorRefusal(f"its {parameter.name} is {value}; {low:g} is the least")
        if high is not None and any(n > high for n in numbers):
            raise OperatorRefusal(f"its {parameter.name} is {value}; {high:g} is the most")


def _choice(view: View) -> Op | bool | None:
    """Return the op that a view is: None for the value itself, False for no op.

    A map as a vector counts as the map.
    """
    shape = view.shape
    if shape[:1] != (1,):
        return False
    size = every_nth(view)
    if size is not None:
        return Resize(size)
    if len(shape) != 2 and (len(shape) != 4 or shape[2:] != view.type.shape[1:]):
        return False
    channels = channels_of(view)
    return False if channels is None else choosing(channels, view.type.shape[0])
