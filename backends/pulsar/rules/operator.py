"""ONNX operators as rules look at them, read from a file and from nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from tcc.compiler.ir.types import Pair, Quad

SMALL, LONG = 1 << 12, 1 << 20
"""Bytes of constants whose numbers rules may look at: of any, and of those in one dimension."""


@dataclass(frozen=True, slots=True)
class OnnxValue:
    """An input or output of an operator; a dimension that the file does not fix is 0.

    `maker` is the kind of the operator that makes it, `readers` are those that read it; `dtype` is
    ONNX's number of its type, and `constant` its numbers where they are few.
    """

    name: str
    shape: tuple[int, ...] | None
    maker: str = ""
    stored: bool = False
    constant: NDArray[Any] | None = None
    dtype: int = 0
    readers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class OnnxOperator:
    """One operator of a file, as its opset has it; an input that is left out is None."""

    name: str
    kind: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[OnnxValue | None, ...]
    outputs: tuple[OnnxValue, ...]

    def shape(self, place: int) -> tuple[int, ...]:
        """Return the shape of an input, the batch included."""
        value = self.inputs[place] if place < len(self.inputs) else None
        return (value.shape or ()) if value else ()

    def constant(self, place: int) -> NDArray[Any] | None:
        """Return the numbers of an input that is a small constant."""
        value = self.inputs[place] if place < len(self.inputs) else None
        return value.constant if value else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return an attribute of whole numbers, empty where it is left out."""
        return tuple(self.attributes.get(name, ()))

    def pair(self, name: str) -> Pair:
        """Return an attribute of height and width, by default 1 and 1."""
        # ONNX leaves defaults out of files.
        down, across, *_ = (*self.numbers(name), 1, 1)
        return down, across

    @property
    def kernel(self) -> Pair:
        """The window: an attribute, or the size of the weights."""
        down, across, *_ = (*(self.numbers("kernel_shape") or self.shape(1)[2:]), 1, 1)
        return down, across

    @property
    def pads(self) -> Quad:
        """Top, left, bottom, right."""
        top, left, bottom, right, *_ = (*self.numbers("pads"), 0, 0, 0, 0)
        return top, left, bottom, right

    @property
    def groups(self) -> int:
        """Groups of a convolution's channels."""
        return int(self.attributes.get("group", 1))


def operators(model: onnx.ModelProto) -> tuple[OnnxOperator, ...]:
    """Return the operators of a file in order, with shapes that ONNX itself infers.

    What the file says of values between operators is not believed.

    Raises:
        onnx.shape_inference.InferenceError: Its shapes do not fit each other.
    """
    # Shapes need no weights: hundreds of MB are not copied to find them.
    bare = light(model)
    # A file may say of its values what it likes; the toolchains infer them too.
    del bare.graph.value_info[:]
    graph = shape_inference.infer_shapes(bare, strict_mode=True, check_type=True).graph
    values = dict(_values(graph))
    opsets = {each.domain: each.version for each in model.opset_import}
    return tuple(
        OnnxOperator(
            node.name,
            node.op_type,
            node.domain,
            opsets.get(node.domain, 0),
            {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute},
            tuple(values.get(name, OnnxValue(name, None)) if name else None for name in node.input),
            tuple(values.get(name, OnnxValue(name, None)) for name in node.output),
        )
        for node in graph.node
    )


def light(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a file without the numbers of its large constants."""
    found = onnx.ModelProto()
    found.CopyFrom(outer(model))
    for tensor in model.graph.initializer:
        kept = found.graph.initializer.add()
        # Long in one dimension may be an axis list or the scales of a Resize; of more dimensions,
        # weights.
        if tensor.ByteSize() <= (SMALL if len(tensor.dims) > 1 else LONG):
            kept.CopyFrom(tensor)
        else:
            kept.name, kept.data_type = tensor.name, tensor.data_type
            kept.dims.extend(tensor.dims)
            kept.data_location = TensorProto.EXTERNAL
    return found


def outer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a file without constants."""
    graph = onnx.GraphProto(name=model.graph.name)
    for part in ("node", "input", "output", "value_info"):
        getattr(graph, part).extend(getattr(model.graph, part))
    imports = list(model.opset_import)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=imports, graph=graph)


def _values(graph: onnx.GraphProto) -> Iterator[tuple[str, OnnxValue]]:
    """Yield every value by name; what a file says twice of one counts the last time."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    for info in (*graph.input, *graph.value_info, *graph.output):
        name, kind = info.name, info.type.tensor_type.elem_type
        read = frozenset(readers.get(name, ()))
        yield name, OnnxValue(name, sizes(info), makers.get(name, ""), dtype=kind, readers=read)
    for tensor in graph.initializer:
        name, shape, kind = tensor.name, tuple(tensor.dims), tensor.data_type
        read = frozenset(readers.get(name, ()))
        constant = None
        if tensor.data_location != TensorProto.EXTERNAL:
            constant = numpy_helper.to_array(tensor)
        yield name, OnnxValue(name, shape, "", True, constant, kind, read)


def sizes(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return the shape of a declared value, 0 where a size is not fixed; None without one."""
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(size.dim_value for size in kind.shape.dim)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, TensorProto):
        return np.asarray(numpy_helper.to_array(value))
    return tuple(value) if isinstance(value, list) else value
