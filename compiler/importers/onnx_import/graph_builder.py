"""Build the graph one step at a time, with its weights."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.tensor_view import (
    View,
    find_channels,
    find_strided_size,
    select_channel_op,
)
from tcc.compiler.ir.argument_declarations import list_parameters
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

MAX_NAME_LENGTH = 60
RESERVED_NAMES = frozenset({"C", "H", "W"})
"""Names that specs reserve for the size of a value."""


def to_identifier(name: str, fallback: str = "") -> str:
    """Return a name as an identifier that specs allow."""
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:MAX_NAME_LENGTH].rstrip("_")
    # Identifiers begin with a letter or an underscore, as in Python.
    return (
        f"_{cleaned}" if cleaned[:1].isdigit() or cleaned in RESERVED_NAMES else cleaned or fallback
    )


def get_weight_layer(name: str) -> str:
    """Return the layer in a weight's name: `features.0` for `features.0.weight`.

    Empty if the name was generated.
    """
    # PyTorch's `conv1.weight`, Keras's `conv1/kernel` and `bn/gamma`. Weights that PyTorch's
    # exporter folded have numbered names, such as `onnx::Conv_123`.
    matched = re.fullmatch(r"(.+?)[./](?:weight|bias|kernel|gamma|beta)", name)
    return matched[1] if matched and "::" not in matched[1] else ""


def get_node_path(name: str, type: str) -> str:
    """Return the module path in a node's name.

    `/layer1/layer1.0/conv1/Conv` gives `layer1.0.conv1`. Empty if there is none, as in the
    numbered names of exporters.
    """
    parts = [part for part in name.split("/") if part]
    if parts and re.fullmatch(rf"({re.escape(type)}|node_\w+?)(_\d+)?|n\d+", parts[-1]):
        parts.pop()
    inner = [
        part for part, next_part in pairwise([*parts, ""]) if not next_part.startswith(f"{part}.")
    ]
    return ".".join(inner)


class UniqueNames:
    """The names used so far; `make_unique` adds another."""

    def __init__(self, used_names: Iterable[str] = ()) -> None:
        self.used_names = set(used_names)
        self.counts: dict[str, int] = {}

    def make_unique(self, name: str) -> str:
        """Return an unused name: the requested one, or the same with a number."""
        unique = name
        while unique in self.used_names:
            # Continue from the last number, so that a thousand equal names take a thousand steps.
            self.counts[name] = self.counts.get(name, 1) + 1
            unique = f"{name}_{self.counts[name]}"
        self.used_names.add(unique)
        return unique


Tensor = NDArray[np.float32]
PIXELWISE_OPS = (Elementwise, Broadcasting, Concat, BatchNorm, LayerNorm, ScaleShift)
"""Ops that work on a vector as on a map of one pixel."""


class OperatorRefusal(ValueError):  # noqa: N818 - a refusal, not a program error
    """No op does what an operator does; `help` suggests a way around it."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help


@dataclass
class GraphBuilder:
    """Nodes by name, in order, with their weights.

    `preferred_names`: the requested name of each node. `materialized_views`: the value that each
    view became. `map_by_vector`: the map that duplicates each vector.
    """

    source: Input
    names: UniqueNames
    nodes: dict[str, Node] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    preferred_names: dict[str, str] = field(default_factory=dict)
    materialized_views: dict[View, View] = field(default_factory=dict)
    map_by_vector: dict[str, str] = field(default_factory=dict)

    def get_type(self, value: str) -> TensorType:
        """Return the type of a value."""
        return self.source.type if value == self.source.name else self.nodes[value].type

    def emit(self, name: str, op: Op, inputs: Sequence[str], weights: Sequence[Tensor] = ()) -> str:
        """Add a step and return its value; without `name` it is named after its op.

        Returns the input's value if the step would do nothing.

        Raises:
            OperatorRefusal: The inputs or weights do not fit the op.
        """
        # Any name is valid here: a step is rejected for its inputs or arguments, never its name.
        types = tuple(self.get_type(value) for value in inputs)
        # `make_node` checks only shapes; the written spec would be rejected for such an argument.
        _check_bounds(op)
        unique_name = self.names.make_unique(name or op.keyword)
        try:
            node = make_node(unique_name, op, tuple(inputs), types)
        except OpError as error:
            raise OperatorRefusal(str(error)) from None
        # A resize to the current size, which exporters write like any other.
        if node is None:
            return inputs[0]
        expected_shapes = [param.shape for param in node.op.params(*types)]
        if [w.shape for w in weights] != expected_shapes:
            actual_shapes = ", ".join(str(list(w.shape)) for w in weights)
            raise OperatorRefusal(
                f"the shapes of its weights are {actual_shapes}, expected "
                f"{', '.join(str(list(w)) for w in expected_shapes)}"
            )
        self.nodes[node.name] = node
        self.preferred_names[node.name] = name
        tensors = (np.ascontiguousarray(w, np.float32) for w in weights)
        self.weights.update(zip(node.params, tensors, strict=True))
        return node.name

    def make_view(self, value: str) -> View:
        """Return a view of a value with its own layout."""
        return View(value, self.get_type(value))

    def materialize(self, view: View) -> View:
        """Return a view as a value of its own if an op can compute it; else the view."""
        if not view.is_materialized and view not in self.materialized_views:
            # Cached, so that several readers of one flattening share its step.
            self.materialized_views[view] = self._materialize_view(view)
        return self.materialized_views.get(view, view)

    def resolve_shuffle(self, view: View) -> View:
        """Return a moved view; a channel shuffle becomes a value before it is split."""
        # ShuffleNetV2 splits a shuffle of channels in two. Without a value for the shuffle,
        # neither half would be a slice.
        return self.materialize(view) if isinstance(_find_view_op(view), ChannelShuffle) else view

    def _materialize_view(self, view: View) -> View:
        shape, choice = view.shape, _find_view_op(view)
        if not isinstance(choice, bool):
            return self._emit_choice(view, choice, flat=len(shape) == 2)
        # Squeeze-and-excitation with linear layers: pooled, flattened, two matrices, then reshaped
        # to (1, C, 1, 1) to scale a map. No op converts a vector to a map, so the steps since the
        # flattening are repeated on maps of one pixel.
        if (
            len(view.type.shape) == 1
            and shape == (1, view.type.elements, 1, 1)
            and view.is_complete()
        ):
            ordered = bool(
                np.array_equal(view.compute_positions().ravel(), np.arange(view.type.elements))
            )
            widened = self._convert_to_map(view.value) if ordered else None
            if widened is not None:
                return self.make_view(widened)
        return view

    def _emit_choice(self, view: View, op: Op | None, *, flat: bool) -> View:
        value = view.value if op is None else self.emit(view.name, op, [view.value])
        if flat and len(self.get_type(value).shape) == 3:
            value = self.emit(view.name, Flatten(), [value])
        return self.make_view(value)

    def _convert_to_map(self, vector: str) -> str | None:
        """Return a vector as a map of one pixel: repeats its steps without the flattening."""
        needed = self._collect_ancestors(vector)
        for name in [n for n in self.nodes if n in needed]:
            if name not in self.map_by_vector:
                widened = self._emit_on_maps(self.nodes[name])
                if widened is None:
                    return None
                self.map_by_vector[name] = widened
        return self.map_by_vector.get(vector)

    def _collect_ancestors(self, vector: str) -> set[str]:
        """Return the vector and the vectors that it is computed from."""
        ancestors: set[str] = set()
        pending = [vector]
        while pending:
            name = pending.pop()
            if name in ancestors or name not in self.nodes or name in self.map_by_vector:
                continue
            ancestors.add(name)
            if not isinstance(self.nodes[name].op, Flatten):
                pending += self.nodes[name].inputs
        return ancestors

    def _emit_on_maps(self, node: Node) -> str | None:
        """Return the value of a vector step, repeated on maps of one pixel."""
        op, weights = node.op, [self.weights[p] for p in node.params]
        if isinstance(op, Flatten):
            # Flattening more than one pixel turns pixels into features, which no map of one pixel
            # can represent.
            return node.inputs[0] if self.get_type(node.inputs[0]).shape[1:] == (1, 1) else None
        if any(value not in self.map_by_vector for value in node.inputs):
            return None
        map_inputs = [self.map_by_vector[value] for value in node.inputs]
        if isinstance(op, Linear):
            # A linear layer is a 1x1 convolution of one pixel with the same weights.
            weights[0] = weights[0][:, :, None, None]
            conv = Conv(op.units, (1, 1), bias=op.bias)
            return self.emit(self.preferred_names[node.name], conv, map_inputs, weights)
        if not isinstance(op, PIXELWISE_OPS):
            return None
        if isinstance(op, ScaleShift | LayerNorm):
            weights = [w[:, None, None] for w in weights]
        return self.emit(self.preferred_names[node.name], op, map_inputs, weights)

    def find_unexpanded(self, value: str) -> str:
        """Return the one-pixel value before an expansion to all pixels; else the value."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return value
        is_one_pixel = self.get_type(node.inputs[0]).shape[1:] == (1, 1)
        return node.inputs[0] if is_one_pixel else value

    def build_model(self, name: str, outputs: tuple[Output, ...]) -> Model:
        """Return the finished model."""
        graph = Graph(name, (self.source,), tuple(self.nodes.values()), outputs)
        return Model(graph, self.weights)


def _check_bounds(op: Op) -> None:
    """Refuse an argument that is outside the bounds of its parameter."""
    for parameter in list_parameters(type(op)):
        argument = getattr(op, parameter.name)
        # Each number of a pair or padding is checked.
        numbers = [
            n for n in (argument if isinstance(argument, tuple) else (argument,)) if n is not None
        ]
        low, high = parameter.low, parameter.high
        if low is not None and any(n < low for n in numbers):
            raise OperatorRefusal(f"its {parameter.name} is {argument}; the minimum is {low:g}")
        if high is not None and any(n > high for n in numbers):
            raise OperatorRefusal(f"its {parameter.name} is {argument}; the maximum is {high:g}")


def _find_view_op(view: View) -> Op | bool | None:
    """Return the op that a view corresponds to: None for the value itself, False for no op.

    A flattened map is treated as the map.
    """
    shape = view.shape
    if shape[:1] != (1,):
        return False
    size = find_strided_size(view)
    if size is not None:
        return Resize(size)
    if len(shape) != 2 and (len(shape) != 4 or shape[2:] != view.type.shape[1:]):
        return False
    channels = find_channels(view)
    return False if channels is None else select_channel_op(channels, view.type.shape[0])
