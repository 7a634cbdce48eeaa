"""ONNX operators in the form that rules check, read only from a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tcc.compiler.ir.types import Pair, Quad

MAX_TENSOR_BYTES, MAX_VECTOR_BYTES = 1 << 12, 1 << 20
"""Largest constants in bytes that rules can read: of any rank, and of one dimension."""


@dataclass(frozen=True, slots=True)
class OnnxValue:
    """An input or output of an operator; a dimension of unknown size is 0.

    `producer` is the op type of the operator that computes it, `readers` are the op types that
    read it. `dtype` is ONNX's type number. `constant` has the values of small constants.
    """

    name: str
    shape: tuple[int, ...] | None
    producer: str = ""
    is_initializer: bool = False
    constant: NDArray[Any] | None = None
    dtype: int = 0
    readers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OnnxOperator:
    """One operator of a file; a missing optional input is None."""

    name: str
    kind: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[OnnxValue | None, ...]
    outputs: tuple[OnnxValue, ...]

    def get_shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of an input, including the batch."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        return (operand.shape or ()) if operand else ()

    def get_constant(self, index: int) -> NDArray[Any] | None:
        """Return the values of an input that is a small constant."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        return operand.constant if operand else None

    def get_integers(self, name: str) -> tuple[int, ...]:
        """Return an attribute of integers, empty if it is missing."""
        return tuple(self.attributes.get(name, ()))

    def get_pair(self, name: str) -> Pair:
        """Return an attribute of height and width, by default 1 and 1."""
        # ONNX files omit default values.
        down, across, *_ = (*self.get_integers(name), 1, 1)
        return down, across

    @property
    def kernel(self) -> Pair:
        """Height and width of the window, from the attribute or the shape of the weights."""
        down, across, *_ = (*(self.get_integers("kernel_shape") or self.get_shape(1)[2:]), 1, 1)
        return down, across

    @property
    def pads(self) -> Quad:
        """Top, left, bottom, right."""
        top, left_pad, bottom, right_pad, *_ = (*self.get_integers("pads"), 0, 0, 0, 0)
        return top, left_pad, bottom, right_pad

    @property
    def groups(self) -> int:
        """Groups of a convolution's channels."""
        return int(self.attributes.get("group", 1))


def read_operators(model: onnx.ModelProto) -> tuple[OnnxOperator, ...]:
    """Return the operators of a file in order, with the shapes that ONNX infers.

    The file's own shapes of intermediate values are ignored.

    Raises:
        onnx.shape_inference.InferenceError: The shapes are inconsistent.
    """
    # Shape inference needs no weights: this avoids copying hundreds of MB.
    light_model = strip_large_constants(model)
    # The file's own shapes can be wrong; the toolchains infer them too.
    del light_model.graph.value_info[:]
    graph = shape_inference.infer_shapes(light_model, strict_mode=True, check_type=True).graph
    values_by_name = dict(_iterate_values(graph))
    opsets = {opset_import.domain: opset_import.version for opset_import in model.opset_import}
    return tuple(
        OnnxOperator(
            node.name,
            node.op_type,
            node.domain,
            opsets.get(node.domain, 0),
            {a.name: _convert_attribute(helper.get_attribute_value(a)) for a in node.attribute},
            tuple(
                values_by_name.get(name, OnnxValue(name, None)) if name else None
                for name in node.input
            ),
            tuple(values_by_name.get(name, OnnxValue(name, None)) for name in node.output),
        )
        for node in graph.node
    )


def strip_large_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without the values of its large constants."""
    light_model = onnx.ModelProto()
    light_model.CopyFrom(copy_without_constants(model))
    for tensor in model.graph.initializer:
        initializer = light_model.graph.initializer.add()
        # A long vector can be an axis list or the scales of a Resize; larger ranks are weights.
        if tensor.ByteSize() <= (MAX_TENSOR_BYTES if len(tensor.dims) > 1 else MAX_VECTOR_BYTES):
            initializer.CopyFrom(tensor)
        else:
            initializer.name, initializer.data_type = tensor.name, tensor.data_type
            initializer.dims.extend(tensor.dims)
            initializer.data_location = TensorProto.EXTERNAL
    return light_model


def copy_without_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without constants."""
    graph = onnx.GraphProto(name=model.graph.name)
    for part in ("node", "input", "output", "value_info"):
        getattr(graph, part).extend(getattr(model.graph, part))
    imports = list(model.opset_import)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=imports, graph=graph)


def _iterate_values(graph: onnx.GraphProto) -> Iterator[tuple[str, OnnxValue]]:
    """Yield every value by name; the last of several declarations is used."""
    producers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    for value_info in (*graph.input, *graph.value_info, *graph.output):
        name, kind = value_info.name, value_info.type.tensor_type.elem_type
        reader_types = frozenset(readers.get(name, ()))
        yield (
            name,
            OnnxValue(
                name,
                read_shape(value_info),
                producers.get(name, ""),
                dtype=kind,
                readers=reader_types,
            ),
        )
    for tensor in graph.initializer:
        name, shape, kind = tensor.name, tuple(tensor.dims), tensor.data_type
        reader_types = frozenset(readers.get(name, ()))
        constant = None
        if tensor.data_location != TensorProto.EXTERNAL:
            constant = numpy_helper.to_array(tensor)
        yield name, OnnxValue(name, shape, "", True, constant, kind, reader_types)


def read_shape(value_info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return the shape of a declared value, 0 for unknown sizes; None if it has no shape."""
    kind = value_info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(size.dim_value for size in kind.shape.dim)


def _convert_attribute(attribute: Any) -> Any:
    if isinstance(attribute, bytes):
        return attribute.decode(errors="replace")
    if isinstance(attribute, TensorProto):
        return np.asarray(numpy_helper.to_array(attribute))
    return tuple(attribute) if isinstance(attribute, list) else attribute
