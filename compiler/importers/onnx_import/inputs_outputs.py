"""Inputs and outputs of an ONNX graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper

from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError, fail, find_nearest_name, make_file_span

# TensorFlow's exporters leave preprocessing in the graph, before the transposition.
AXIS_PRESERVING_OPERATORS = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Sub"})
"""Operators that do not move axes."""
_FLOAT_TYPE = TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT))


Size = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The input of a graph; with `channels_last`, the file expects height x width x channels."""

    name: str
    type: TensorType
    channels_last: bool

    def to_batch(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an image (C, H, W) as a batch of one for the file."""
        return (np.moveaxis(tensor, 0, -1) if self.channels_last else tensor)[None]


def resolve_input(path: Path, model: ModelProto, shape: Size | None) -> GraphInput:
    """Set the graph's one input to a batch of one image of known size; return this input.

    Removes the shapes of other values, because they may depend on the batch.

    Args:
        path: The file, for diagnostics.
        model: The model, which is changed.
        shape: Channels, height and width, if the file does not define them.

    Raises:
        UserError: There is not exactly one input, or it is not a batch of float32 images (E0905).
    """
    source = _get_only_input(path, model)
    channels_last = _is_transposed(model, source.name)
    size = _get_size(path, source, shape, channels_last=channels_last)
    channels, height, width = size
    order = (height, width, channels) if channels_last else size
    source.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, (1, *order)))
    # Shapes with another batch size would contradict the batch of one; cleaning infers them again.
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            # Unknown, not 1: the batch need not be the first axis of an output.
            dim.Clear()
    return GraphInput(source.name, TensorType(size), channels_last)


def check_values(path: Path, model: ModelProto, names: Sequence[str]) -> None:
    """Refuse names of values that no node of the graph computes.

    Raises:
        UserError: There is no such value (E0906).
    """
    value_names = [value for node in model.graph.node for value in node.output if value]
    for name in names:
        if name not in value_names:
            # Comparing a name with every other one is slow for more than some thousands of names.
            suggestion = (
                find_nearest_name(name, set(value_names)) if len(value_names) <= 5000 else None
            )
            help = (
                f"did you mean `{suggestion}`?"
                if suggestion
                else "use the name of an output of one of its nodes"
            )
            span = make_file_span(str(path))
            raise fail("E0906", f"no value of the file is called `{name[:80]}`", span, help=help)


def replace_outputs(model: ModelProto, names: Sequence[str]) -> None:
    """Make the named values the graph's outputs; without names, keep the outputs."""
    if names:
        del model.graph.output[:]
        model.graph.output.extend(ValueInfoProto(name=n, type=_FLOAT_TYPE) for n in names)


def add_output(model: ModelProto, name: str) -> None:
    """Add a value to the graph's outputs, unless it is one already."""
    if all(output.name != name for output in model.graph.output):
        model.graph.output.append(ValueInfoProto(name=name, type=_FLOAT_TYPE))


def _get_only_input(path: Path, model: ModelProto) -> ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    sources: list[ValueInfoProto] = [
        # Until IR version 3 every constant is also an input.
        value
        for value in model.graph.input
        if value.name not in constants
    ]
    if len(sources) != 1:
        input_names = ", ".join(f"`{value.name[:40]}`" for value in sources[:5]) or "none"
        raise _make_input_error(
            path, "the graph must have one input, an image", f"its inputs: {input_names}"
        )
    return sources[0]


def _is_transposed(model: ModelProto, source: str) -> bool:
    """Whether all readers of an input transpose its last axis to the front.

    It may be scaled first.
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
    # Every reader must transpose this way: a reader without it uses the axes in the file's order.
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
        label = f"`{source.name[:40]}` has {len(dims)} axes, not 4"
        raise _make_input_error(path, "the input must be batch x channels x height x width", label)
    if dims[0] not in (None, 0, 1):
        label = f"`{source.name[:40]}` has a batch size of {dims[0]}"
        help = "export the network with batch size 1 or a dynamic batch axis"
        raise _make_input_error(path, "the batch axis must be dynamic or 1", label, help)
    ordered = (dims[3], *dims[1:3]) if channels_last else dims[1:]
    return _merge_sizes(path, source, ordered, shape)


def _merge_sizes(
    path: Path,
    source: ValueInfoProto,
    dims: Sequence[int | None],
    shape: Size | None,
) -> Size:
    """Return the size of the file, completed by `shape`; they must agree."""
    file_size = "x".join(str(d or "?") for d in dims)
    if shape and any(d not in (None, 0, n) for d, n in zip(dims, shape, strict=True)):
        option_size = "x".join(map(str, shape))
        label = f"in the file {file_size}, with --shape {option_size}"
        raise _make_input_error(path, "--shape differs from the input size of the file", label)
    channels, height, width = shape or (d or 0 for d in dims)
    if min(channels, height, width) < 1:
        help = "set it with --shape, for example --shape 3,224,224"
        label = f"`{source.name[:40]}` is {file_size}"
        raise _make_input_error(path, "the file does not define the image size", label, help)
    return channels, height, width


def _make_input_error(path: Path, message: str, label: str, help: str = "") -> UserError:
    return fail("E0905", message, make_file_span(str(path)), label=label, help=help)
