"""A lowered model with probes: extremes of channels, and regions of maps, as outputs."""

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
    """Every `step`-th row and column of a feature map, between bounds that are set at run time.

    The inputs `<name>.first` and `<name>.end` (2,) are the bounds, the output has the name `name`.
    """

    name: str
    value: str
    step: Pair = (1, 1)


@dataclass(frozen=True, slots=True)
class ChannelExtreme:
    """The minimum (`Min`) or maximum (`Max`) of each channel of a value, as output `name`."""

    name: str
    value: str
    which: Literal["Max", "Min"]


def lower_with_probes(
    model: Model, extremes: Sequence[ChannelExtreme], regions: Sequence[MapRegion]
) -> bytes:
    """Return a model for one image as ONNX, with probes as additional outputs and inputs.

    Few numbers then leave the runtime for each value, not entire maps, which would take most of the
    time for thousands of images.

    Args:
        model: The model to observe.
        extremes: Additional outputs (1, channels, ...) with one number per channel; a vector is its
            own extreme.
        regions: Additional outputs (1, channels, rows, columns).

    Returns:
        The file's bytes.
    """
    # One image at a time: the extremes of a batch would belong to no image, and memory would grow
    # with the batch.
    proto = lower(model, batch=1)
    graph = proto.graph
    names = compute_value_names(model.graph)
    types = model.graph.types
    axes = numpy_helper.from_array(np.array([2, 3], np.int64), AXES)
    graph.initializer.append(axes)
    for extreme in extremes:
        # A vector is its own extreme: it has no axes 2 and 3 to reduce.
        image = len(types[extreme.value].shape) == 3
        graph.node.append(
            _create_reduction(extreme, names) if image else _create_identity(extreme, names)
        )
        graph.output.append(_create_value_info(extreme.name, onnx.TensorProto.FLOAT))
    for region in regions:
        graph.initializer.append(
            numpy_helper.from_array(np.array(region.step, np.int64), f"{region.name}.step")
        )
        # Bounds are inputs, not constants, so that one session serves any region.
        graph.input.extend(
            _create_value_info(name, onnx.TensorProto.INT64, 2) for name in _get_bound_names(region)
        )
        graph.node.append(_create_slice(region, names))
        graph.output.append(_create_value_info(region.name, onnx.TensorProto.FLOAT))
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def iterate_feeds(region: MapRegion, start: Pair, end: Pair) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the inputs that select a region: rows and columns from `start` to before `end`.

    Args:
        region: The region of a value.
        start: Its first row and column.
        end: The row and column after its last.

    Yields:
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
            # A pooling reads maps in ONNX Runtime's blocked channel layout; a reduction would
            # convert each map first.
            return helper.make_node("GlobalMaxPool", [value_name], [extreme.name], extreme.name)
        case "Min":
            # In opset 17, the default of `lower`, the axes are an attribute.
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
