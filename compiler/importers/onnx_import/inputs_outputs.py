"""What goes into an ONNX graph and comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper

from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError, fail, find_nearest_name, make_file_span

# Preprocessing that TensorFlow's exporters leave in the graph, before the transposition.
AXIS_PRESERVING_OPERATORS = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Sub"})
"""Operators that leave axes where they are."""
_FLOAT_TYPE = TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT))


Size = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The input of a graph; with `channels_last`, the file takes height x width x channels."""

    name: str
    type: TensorType
    channels_last: bool

    def to_batch(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an image (C, H, W) as a batch of one for the file."""
        return (np.moveaxis(tensor, 0, -1) if self.channels_last else tensor)[None]


def resolve_input(path: Path, model: ModelProto, shape: Size | None) -> GraphInput:
    """Make the graph's one input a batch of one image of a known size; return what it is.

    What the file says of other values' shapes is dropped, since it may depend on the batch.

    Args:
        path: The file, for diagnostics.
        model: The model, which is changed.
        shape: Channels, height and width, where the file leaves them open.

    Raises:
        UserError: There is another number of inputs, or it is no batch of float32 images (E0905).
    """
    source = _get_only_input(path, model)
    channels_last = _is_transposed(model, source.name)
    size = _get_size(path, source, shape, channels_last=channels_last)
    channels, height, width = size
    order = (height, width, channels) if channels_last else size
    source.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, (1, *order)))
    # Shapes with another batch would contradict the batch of one; what cleaning needs it infers.
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            # Unknown, not 1: an output need not have the batch in front.
            dim.Clear()
    return GraphInput(source.name, TensorType(size), channels_last)


def check_values(path: Path, model: ModelProto, names: Sequence[str]) -> None:
    """Refuse names of values that no node of the graph makes.

    Raises:
        UserError: There is no such value (E0906).
    """
    value_names = [value for node in model.graph.node for value in node.output if value]
    for name in names:
        if name not in value_names:
            # Comparing a word with every name takes time; beyond some thousands it would be
            # noticed.
            suggestion = (
                find_nearest_name(name, set(value_names)) if len(value_names) <= 5000 else None
            )
            help = (
                f"did you mean `{suggestion}`?"
                if suggestion
                else "name an output of one of its nodes"
            )
            span = make_file_span(str(path))
            raise fail("E0906", f"no value of the file is called `{name[:80]}`", span, help=help)


def replace_outputs(model: ModelProto, names: Sequence[str]) -> None:
    """Let the named values be the graph's outputs; with no name, they stay."""
    if names:
        del model.graph.output[:]
        model.graph.output.extend(ValueInfoProto(name=n, type=_FLOAT_TYPE) for n in names)


def add_output(model: ModelProto, name: str) -> None:
    """Let a value be one of the graph's outputs, if it is none yet."""
    if all(output.name != name for output in model.graph.output):
        model.graph.output.append(ValueInfoProto(name=name, type=_FLOAT_TYPE))


def _get_only_input(path: Path, model: ModelProto) -> ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    sources: list[ValueInfoProto] = [
        # Until IR version 3 every constant is an input as well.
        value
        for value in model.graph.input
        if value.name not in constants
    ]
    if len(sources) != 1:
        input_names = ", ".join(f"`{value.name[:40]}`" for value in sources[:5]) or "none"
        raise _make_input_error(
            path, "the graph must have one input, an image", f"it has {input_names}"
        )
    return sources[0]


def _is_transposed(model: ModelProto, source: str) -> bool:
    """Whether an input goes through a transpose that brings its last axis to the front.

    It may be scaled before.
    """
    passthrough = {source}
    orders: list[list[int]] = []
    for node in model.graph.node:
        if passthrough.isdisjoint(node.input):
            continue
        if node.op_type in AXIS_PRESERVING_OPERATORS:
            passthrough.update(node.output)
        else:
            permutation = [*(a.ints for a in node.attribute if a.name == "perm"), ()][0]
            orders.append([*permutation])
    # Every reader must transpose so: one that reads the axes as they are takes them in that order.
    return bool(orders) and all(order == [0, 3, 1, 2] for order in orders)


def _get_size(
    path: Path, source: ValueInfoProto, shape: Size | None, *, channels_last: bool
) -> Size:
    tensor = source.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        type_name = TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else "?"
        label = f"`{source.name[:40]}` is {type_name}"
        raise _make_input_error(
            path, "the input must be float32", label, "export the network in float32"
        )
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if not dims and shape:
        return shape
    if len(dims) != 4:
        label = f"`{source.name[:40]}` has {len(dims)} axes"
        raise _make_input_error(path, "the input must be batch x channels x height x width", label)
    if dims[0] not in (None, 0, 1):
        label = f"`{source.name[:40]}` is a batch of {dims[0]}"
        help = "export it with a batch of one image, or an open batch axis"
        raise _make_input_error(path, "the batch axis must be open, or 1", label, help)
    ordered = (dims[3], *dims[1:3]) if channels_last else dims[1:]
    return _merge_sizes(path, source, ordered, shape)


def _merge_sizes(
    path: Path,
    source: ValueInfoProto,
    dims: Sequence[int | None],
    shape: Size | None,
) -> Size:
    """Return the size that file and user agree on."""
    file_size = "x".join(str(d or "?") for d in dims)
    if shape and any(d not in (None, 0, n) for d, n in zip(dims, shape, strict=True)):
        option_size = "x".join(map(str, shape))
        label = f"the file says {file_size}, --shape {option_size}"
        raise _make_input_error(path, "the input has another size", label)
    channels, height, width = shape or (d or 0 for d in dims)
    if min(channels, height, width) < 1:
        help = "give it with --shape, such as --shape 3,224,224"
        label = f"`{source.name[:40]}` is {file_size}"
        raise _make_input_error(path, "the file does not say the size of the image", label, help)
    return channels, height, width


def _make_input_error(path: Path, message: str, label: str, help: str = "") -> UserError:
    return fail("E0905", message, make_file_span(str(path)), label=label, help=help)
