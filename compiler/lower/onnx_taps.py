"""A lowered model that also tells of its values: extremes of channels, and parts of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import Pair
from tcc.compiler.lower.onnx import lower, value_names

AXES = "tap.axes"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows and columns of a feature map, every `step`-th, between bounds given when it runs.

    The inputs `<name>.first` and `<name>.end` (2,) take the bounds, the output is called `name`.
    """

    name: str
    value: str
    step: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class Extreme:
    """The least (`Min`) or greatest (`Max`) number of each channel of a value, as output `name`."""

    name: str
    value: str
    which: Literal["Max", "Min"]


def tapped(model: Model, extremes: Sequence[Extreme], parts: Sequence[Part]) -> bytes:
    """Return a model for one image as ONNX, with more outputs and inputs as `Part` says.

    What is observed of a value then leaves the runtime as few numbers, not as whole maps, which for
    thousands of images would be most of the time.

    Args:
        model: The model to be observed.
        extremes: Outputs (1, channels, ...) more, of one number a channel; a vector is its own
            extreme.
        parts: Outputs (1, channels, rows, columns) more.

    Returns:
        The file's bytes.
    """
    # One image at a time: extremes of a batch would be those of no image, and memory would grow
    # with it.
    proto = lower(model, batch=1)
    graph = proto.graph
    names = value_names(model.graph)
    types = model.graph.types
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), AXES)
    graph.initializer.append(axes)
    for tap in extremes:
        # Reducing a vector over no axes at all would be the vector; axes 2 and 3 are not there to
        # be reduced.
        image = len(types[tap.value].shape) == 3
        graph.node.append(_reduced(tap, names) if image else _copied(tap, names))
        graph.output.append(_any(tap.name, onnx.TensorProto.FLOAT))
    for part in parts:
        graph.initializer.append(
            numpy_helper.from_array(np.array(part.step, np.int64), f"{part.name}.step")
        )
        # Bounds as inputs and not as constants: one session then serves whatever part is asked for.
        graph.input.extend(_any(name, onnx.TensorProto.INT64, 2) for name in _bounds(part))
        graph.node.append(_sliced(part, names))
        graph.output.append(_any(part.name, onnx.TensorProto.FLOAT))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def feeds(part: Part, first: Pair, end: Pair) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs that choose a part: rows and columns from `first` to before `end`.

    Args:
        part: The part of a value.
        first: Its first row and column.
        end: The row and column after its last.

    Returns:
        Pairs of an input's name and int64 (2,).
    """
    for name, bound in zip(_bounds(part), (first, end), strict=True):
        yield name, np.array(bound, np.int64)


def _bounds(part: Part) -> tuple[str, str]:
    return f"{part.name}.first", f"{part.name}.end"


def _reduced(tap: Extreme, names: Mapping[str, str]) -> onnx.NodeProto:
    value = names[tap.value]
    match tap.which:
        case "Max":
            # A pool reads maps in ONNX Runtime's blocks of channels; a reduction has each laid out
            # anew.
            return helper.make_node("GlobalMaxPool", [value], [tap.name], tap.name)
        case "Min":
            # Opset 17, which `lower` takes unless told otherwise, has the axes as an attribute.
            return helper.make_node(
                "ReduceMin", [value], [tap.name], tap.name, axes=[2, 3], keepdims=0
            )
        case other:
            assert_never(other)


def _copied(tap: Extreme, names: Mapping[str, str]) -> onnx.NodeProto:
    return helper.make_node("Identity", [names[tap.value]], [tap.name], tap.name)


def _sliced(part: Part, names: Mapping[str, str]) -> onnx.NodeProto:
    inputs = [names[part.value], *_bounds(part), AXES, f"{part.name}.step"]
    return helper.make_node("Slice", inputs, [part.name], part.name)


def _any(name: str, element: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape or None)
