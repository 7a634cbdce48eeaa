"""Draft of an integer TFLite file. Maps are (1, height, width, channels).

A value of the integer program is an int8 tensor: signed quantized values are stored unchanged (zero
point 0), unsigned ones minus 128 (zero point -128).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite.file_draft import FileDraft
from tcc.backends.tflite.windows import choose_padding
from tcc.backends.tflite.writer import FileTensor, Operator, Quantization
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.types import Pair, Quad, Shape, TensorType

Array = NDArray[Any]
MIN_INT8 = -128
"""Smallest int8."""
MAX_CONCAT_INPUTS = 5
"""Maximum number of inputs of a CONCATENATION in XNNPACK."""
OPERATOR_VERSIONS = {"float32": 1, "int32": 1, "int8": 2}
"""First versions of PAD, MAXIMUM and MINIMUM that support a type."""
ROUNDING_CONSTANT = 1.5 * 2.0**23
"""Adding and subtracting it rounds a float32 below 2**22 to nearest, ties to even."""


def get_zero_point(tensor_type: TensorType) -> int:
    """Return the stored int8 of zero."""
    return MIN_INT8 - tensor_type.limits[0]


def to_file_shape(shape: Shape) -> Shape:
    """Return a value's shape in the file, including the batch axis."""
    return (1, *shape[1:], shape[0]) if len(shape) == 3 else (1, *shape)


def build_quantization(tensor_type: TensorType) -> Quantization:
    """Return scale and zero point of a value's stored int8."""
    return Quantization((float(np.float32(tensor_type.scale)),), (get_zero_point(tensor_type),))


class IntegerDraft:
    """The draft so far; float parts of the program are written as in a float model."""

    def __init__(self, model: Model) -> None:
        self.net = FileDraft(model)
        self.model = model
        self.tensors = self.net.tensors

    def get_input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's inputs."""
        return self.model.graph.get_input_types(node)

    def get_weights(self, node: Node) -> tuple[Array, ...]:
        """Return a node's weights."""
        return tuple(np.asarray(self.model.weights[name]) for name in node.params)

    def add_value(self, name: str, tensor_type: TensorType) -> str:
        """Add the tensor of a value of the program; return its name."""
        shape = to_file_shape(tensor_type.shape)
        if tensor_type.scale is None:
            tensor_name = self.add_tensor(name, shape, tensor_type.dtype.value)
        else:
            tensor_name = self.add_file_tensor(
                FileTensor(name, shape, "int8", None, build_quantization(tensor_type))
            )
        self.net.values[name] = tensor_name
        return tensor_name

    def add_file_tensor(self, tensor: FileTensor) -> str:
        """Add a tensor; return its name, which differs from the given one if that is in use."""
        name = self.net.add_tensor(tensor.name, tensor.shape)
        self.tensors[name] = replace(tensor, name=name)
        return name

    def add_tensor(self, name: str, shape: Shape, dtype: str) -> str:
        """Add a tensor without quantization; return its name."""
        return self.net.add_tensor(name, shape, dtype)

    def add_constant(
        self, name: str, array: Array, quantization: Quantization | None = None
    ) -> str:
        """Add a constant; return its name."""
        contiguous = np.ascontiguousarray(array)
        raw = contiguous.astype(contiguous.dtype.newbyteorder("<")).tobytes()
        return self.add_file_tensor(
            FileTensor(name, contiguous.shape, contiguous.dtype.name, raw, quantization)
        )

    def append_operator(
        self,
        code: str,
        inputs: Sequence[str],
        output: str,
        options: Mapping[str, Any] | None = None,
        version: int = 1,
    ) -> str:
        """Add an operator with an existing output tensor; return that tensor."""
        self.net.operators.append(Operator(code, tuple(inputs), (output,), options or {}, version))
        return output

    def add_tensor_like(self, source: str, name: str, shape: Shape) -> str:
        """Add a tensor with the type of another one and its own shape; return its name."""
        kind = self.tensors[source]
        return self.add_file_tensor(FileTensor(name, shape, kind.dtype, None, kind.quantization))

    def add_reshape(self, source: str, output: str) -> str:
        """Add a reshape to the shape of a tensor; return that tensor."""
        shape = self.tensors[output].shape
        shape_constant = self.add_constant(f"{output}/shape", np.array(shape, np.int32))
        return self.append_operator(
            "RESHAPE", (source, shape_constant), output, {"newShape": list(shape)}
        )

    def add_transpose(self, source: str, output: str, order: Sequence[int]) -> str:
        """Add a transposition; return its output."""
        perm = self.add_constant(f"{output}/order", np.array(order, np.int32))
        # Version 4 is the first with more than four axes.
        return self.append_operator(
            "TRANSPOSE", (source, perm), output, version=2 if len(order) < 5 else 4
        )

    def add_concat(self, parts: Sequence[str], output: str, axis: int) -> str:
        """Add concatenations of at most `MAX_CONCAT_INPUTS` parts each; return the output."""
        while len(parts) > MAX_CONCAT_INPUTS:
            groups = [
                parts[i : i + MAX_CONCAT_INPUTS] for i in range(0, len(parts), MAX_CONCAT_INPUTS)
            ]
            name = f"{output}:{len(parts)}"
            parts = [self._add_group(g, f"{name}.{i}", axis) for i, g in enumerate(groups)]
        return self.append_operator("CONCATENATION", parts, output, {"axis": axis}, 2)

    def _add_group(self, parts: Sequence[str], name: str, axis: int) -> str:
        if len(parts) == 1:
            return parts[0]
        shape = [*self.tensors[parts[0]].shape]
        shape[axis] = sum(self.tensors[part].shape[axis] for part in parts)
        return self.add_concat(parts, self.add_tensor_like(parts[0], name, tuple(shape)), axis)

    def add_padding(self, source: str, name: str, pads: Quad) -> str:
        """Add a border of zeros around a map, if it has any width; return the map's name."""
        if not any(pads):
            return source
        top, left, bottom, right = pads
        _, height, width, channels = self.tensors[source].shape
        shape = (1, height + top + bottom, width + left + right, channels)
        padded = self.add_tensor_like(source, name, shape)
        widths = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
        version = OPERATOR_VERSIONS[self.tensors[source].dtype]
        return self.append_operator(
            "PAD", (source, self.add_constant(f"{name}/widths", widths)), padded, {}, version
        )

    def prepare_windows(
        self, node: Node, geometry: tuple[Pair, Pair, Quad], *, pads_with_minimum: bool = False
    ) -> tuple[str, str]:
        """Return a node's input for windows (size, stride, border), and the padding keyword.

        A padding without keyword becomes a border, of zeros or of the smallest quantized value.
        """
        (source,), (source_type,) = self.net.get_inputs(node), self.get_input_types(node)
        padding_mode, pads = choose_padding(self.net, node, geometry)
        if padding_mode:
            return source, padding_mode
        name = f"{node.name}:padded"
        if not pads_with_minimum or get_zero_point(source_type) == MIN_INT8:
            return self.add_padding(source, name, pads), "VALID"
        return self.add_border(source, name, pads, np.array([MIN_INT8])), "VALID"

    def add_border(self, source: str, output: str, pads: Quad, border_values: Array) -> str:
        """Join a border of one stored value per channel to a map; return its name.

        XNNPACK only pads with zeros.
        """
        top, left, bottom, right = pads
        for axis, leading, trailing in ((1, top, bottom), (2, left, right)):
            if not leading + trailing:
                continue
            is_last = axis == 2 or not left + right
            parts = [
                self._add_edge(source, f"{output}:{axis}a", axis, leading, border_values),
                source,
            ]
            parts.append(self._add_edge(source, f"{output}:{axis}b", axis, trailing, border_values))
            parts = [part for part in parts if part]
            shape = [*self.tensors[source].shape]
            shape[axis] += leading + trailing
            joined = self.add_tensor_like(
                source, output if is_last else f"{output}:rows", tuple(shape)
            )
            source = self.add_concat(parts, joined, axis)
        return source

    def _add_edge(self, source: str, name: str, axis: int, width: int, border_values: Array) -> str:
        if not width:
            return ""
        shape = [*self.tensors[source].shape]
        shape[axis] = width
        edge = np.broadcast_to(border_values.astype(np.int8), shape)
        return self.add_constant(name, edge, self.tensors[source].quantization)

    def add_scalar(self, name: str, number: float, dtype: str = "float32") -> str:
        """Add a constant of one element; return its name."""
        return self.add_constant(name, np.array([number], dtype))

    def add_bounds(self, source: str, output: str, low: float, high: float) -> str:
        """Add lower and upper bounds; return the output."""
        kind = self.tensors[output]
        raised = self.add_tensor_like(source, f"{output}:raised", kind.shape)
        version = OPERATOR_VERSIONS[kind.dtype]
        for code, bound, bounded_source, bounded in (
            ("MAXIMUM", low, source, raised),
            ("MINIMUM", high, raised, output),
        ):
            bound_array = np.array([bound], kind.dtype)
            limit = self.add_constant(f"{bounded}/{code.lower()}", bound_array, kind.quantization)
            self.append_operator(code, (bounded_source, limit), bounded, {}, version)
        return output

    def add_dequantized(self, source: str, name: str, tensor_type: TensorType) -> str:
        """Add a value's quantized values as float32; return their name."""
        stored_floats = self.add_tensor(
            f"{name}:stored", to_file_shape(tensor_type.shape), "float32"
        )
        self.append_operator("CAST", (source,), stored_floats)
        if not get_zero_point(tensor_type):
            return stored_floats
        shifted = self.add_tensor(f"{name}:level", to_file_shape(tensor_type.shape), "float32")
        return self.append_operator(
            "SUB",
            (stored_floats, self.add_scalar(f"{name}/zero", get_zero_point(tensor_type))),
            shifted,
        )

    def add_rounding(self, source: str, output: str, y: TensorType, low: int, high: int) -> str:
        """Add rounding of float32 to stored values, ties to even; return the output."""
        # Bounds first: the sum rounds correctly only below 2**22. CAST truncates, but then no
        # fractions are left.
        shape = to_file_shape(y.shape)
        steps = [
            self.add_tensor(f"{output}:{s}", shape, "float32") for s in ("kept", "near", "whole")
        ]
        self.add_bounds(source, steps[0], low, high)
        self.append_operator(
            "ADD", (steps[0], self.add_scalar(f"{output}/up", ROUNDING_CONSTANT)), steps[1]
        )
        # The subtraction also adds the zero point, which saves one operator.
        down = self.add_scalar(f"{output}/down", ROUNDING_CONSTANT - get_zero_point(y))
        self.append_operator("SUB", (steps[1], down), steps[2])
        return self.append_operator("CAST", (steps[2],), output)
