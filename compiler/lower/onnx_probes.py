"""A lowered model that also tells of its values: extremes of channels, and parts of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import Pair
from tcc.compiler.lower.onnx import compute_value_names, lower

AXES = "tap.axes"


@dataclass(frozen=True, slots=True)
class MapRegion:
    """Rows and columns of a feature map, every `step`-th, between bounds given when it runs.

    The inputs `<name>.first` and `<name>.end` (2,) take the bounds, the output is called `name`.
    """

    name: str
    value: str
    step: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class ChannelExtreme:
    """The least (`Min`) or greatest (`Max`) number of each channel of a value, as output `name`."""

    name: str
    value: str
    which: Literal["Max", "Min"]


def lower_with_probes(
    model: Model, extremes: Sequence[ChannelExtreme], regions: Sequence[MapRegion]
) -> bytes:
    """Return a model for one image as ONNX, with more outputs and inputs as `MapRegion` says.

    What is observed of a value then leaves the runtime as few numbers, not as whole maps, which for
    thousands of images would be most of the time.

    Args:
        model: The model to be observed.
        extremes: Outputs (1, channels, ...) more, of one number a channel; a vector is its own
            extreme.
        regions: Outputs (1, channels, rows, columns) more.

    Returns:
        The file's bytes.
    """
    # One image at a time: extremes of a batch would be those of no image, and memory would grow
    # with it.
    proto = lower(model, batch=1)
    graph = proto.graph
    names = compute_value_names(model.graph)
    types = model.graph.types
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), AXES)
    graph.initializer.append(axes)
    for extreme in extremes:
        # Reducing a vector over no axes at all would be the vector; axes 2 and 3 are not there to
        # be reduced.
        image = len(types[extreme.value].shape) == 3
        graph.node.append(
            _create_reduction(extreme, names) if image else _create_identity(extreme, names)
        )
        graph.output.append(_create_value_info(extreme.name, onnx.TensorProto.FLOAT))
    for region in regions:
        graph.initializer.append(
            numpy_helper.from_array(np.array(region.step, np.int64), f"{region.name}.step")
        )
        # Bounds as inputs and not as constants: one session then serves whatever part is asked for.
        graph.input.extend(
            _create_value_info(name, onnx.TensorProto.INT64, 2) for name in _get_bound_names(region)
        )
        graph.node.append(_create_slice(region, names))
        graph.output.append(_create_value_info(region.name, onnx.TensorProto.FLOAT))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def iterate_feeds(region: MapRegion, start: Pair, end: Pair) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs that choose a part: rows and columns from `start` to before `end`.

    Args:
        region: The part of a value.
        start: Its first row and column.
        end: The row and column after its last.

    Returns:
        Pairs of an input's name and int64 (2,).
    """
    for name, bound in zip(_get_bound_names(region), (start, end), strict=True):
        yield name, np.array(bound, np.int64)


def _get_bound_names(region: MapRegion) -> tuple[str, str]:
    return f"{region.name}.first", f"{region.name}.end"


def _create_reduction(extreme: ChannelExtreme, names: Mapping[str, str]) -> onnx.NodeProto:
    value_name = names[extreme.value]
    match extreme.which:
        case "Max":
            # A pool reads maps in ONNX Runtime's blocks of channels; a reduction has each laid out
            # anew.
            return helper.make_node("GlobalMaxPool", [value_name], [extreme.name], extreme.name)
        case "Min":
            # Opset 17, which `lower` takes unless told otherwise, has the axes as an attribute.
            return helper.make_node(
                "ReduceMin", [value_name], [extreme.name], extreme.name, axes=[2, 3], keepdims=0
            )
        case unknown_kind:
            assert_never(unknown_kind)


def _create_identity(extreme: ChannelExtreme, names: Mapping[str, str]) -> onnx.NodeProto:
    return helper.make_node("Identity", [names[extreme.value]], [extreme.name], extreme.name)


def _create_slice(region: MapRegion, names: Mapping[str, str]) -> onnx.NodeProto:
    inputs = [names[region.value], *_get_bound_names(region), AXES, f"{region.name}.step"]
    return helper.make_node("Slice", inputs, [region.name], region.name)


def _create_value_info(name: str, element_type: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, shape or None)
