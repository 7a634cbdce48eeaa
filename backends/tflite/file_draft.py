"""Draft of a TFLite file: channels-last values, and operators in execution order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite.writer import FileTensor, Operator
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.types import Shape

Array = NDArray[Any]
FUSING_OPERATORS = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL",
     "MAX_POOL_2D", "AVERAGE_POOL_2D"}
)  # fmt: skip
"""Operators that can fuse a clamp at no cost."""


class FileDraft:
    """The tensors and operators so far, and the tensor of each value of the graph.

    A feature map is (1, height, width, channels), a vector (1, features). Vectors in `permuted` are
    flattened maps in pixel order, where the graph has channel order.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.graph
        self.tensors: dict[str, FileTensor] = {}
        self.operators: list[Operator] = []
        self.values: dict[str, str] = {}
        self.permuted: dict[str, Shape] = {}
        for network_input in self.graph.inputs:
            shape = to_channels_last(network_input.type.shape)
            self.values[network_input.name] = self.add_tensor(
                network_input.name, shape, network_input.type.dtype.value
            )

    def add_tensor(
        self, name: str, shape: Shape, dtype: str = "float32", content: bytes | None = None
    ) -> str:
        """Add a tensor; return its name, which differs from the given one if that is in use."""
        while name in self.tensors:
            name += "_"
        self.tensors[name] = FileTensor(name, shape, dtype, content)
        return name

    def add_constant(self, name: str, array: Array) -> str:
        """Add a constant; return its name."""
        little_endian = array.astype(array.dtype.newbyteorder("<"))
        return self.add_tensor(name, array.shape, array.dtype.name, little_endian.tobytes())

    def add_integers(self, name: str, numbers: Sequence[Any]) -> str:
        """Add an int32 constant, such as a list of axes; return its name."""
        return self.add_constant(name, np.array(numbers, np.int32))

    def get_weights(self, node: Node) -> tuple[Array, ...]:
        """Return the float32 values of a node's weight tensors."""
        return tuple(np.asarray(self.model.weights[p], np.float32) for p in node.params)

    def get_inputs(self, node: Node) -> tuple[str, ...]:
        """Return the tensors that a node reads."""
        return tuple(self.values[input_name] for input_name in node.inputs)

    def add_operator(
        self,
        code: str,
        inputs: Sequence[str],
        output: tuple[str, Shape],
        options: Mapping[str, Any] | None = None,
        version: int = 1,
    ) -> str:
        """Add an operator and its output (name, shape); return the output's name."""
        name = self.add_tensor(*output)
        clamp = {"fusedActivationFunction": "NONE"} if code in FUSING_OPERATORS else {}
        self.operators.append(
            Operator(code, tuple(inputs), (name,), {**clamp, **(options or {})}, version)
        )
        return name

    def add_padding(
        self, node: Node, tensor_name: str, border: tuple[int, int, int, int], fill: float = 0.0
    ) -> str:
        """Add a border (top, left, bottom, right) around a feature map, if it has any width."""
        if not any(border):
            return tensor_name
        top, left, bottom, right = border
        _, height, width, channels = self.tensors[tensor_name].shape
        rows = [[0, 0], [top, bottom], [left, right], [0, 0]]
        widths = self.add_integers(f"{node.name}/border", rows)
        shape = (1, height + top + bottom, width + left + right, channels)
        # XNNPACK runs PAD, which pads with zeros, but not PADV2, which pads with other values.
        if not fill:
            return self.add_operator("PAD", (tensor_name, widths), (f"{node.name}/padded", shape))
        fill_constant = self.add_constant(f"{node.name}/fill", np.array([fill], np.float32))
        return self.add_operator(
            "PADV2", (tensor_name, widths, fill_constant), (f"{node.name}/padded", shape)
        )

    def add_slice(
        self,
        tensor_name: str,
        output: str,
        begin: Sequence[int],
        end: Sequence[int],
        step: Sequence[int],
    ) -> str:
        """Add a slice of every `step`th element between two corners of a map or vector."""
        corners = zip(("begin", "end", "step"), (begin, end, step), strict=True)
        bounds = [
            self.add_integers(f"{output}/{corner_name}", numbers)
            for corner_name, numbers in corners
        ]
        shape = tuple(len(range(*b)) for b in zip(begin, end, step, strict=True))
        return self.add_operator("STRIDED_SLICE", (tensor_name, *bounds), (output, shape))

    def add_reshape(self, tensor_name: str, output: str, shape: Shape) -> str:
        """Add a reshape that keeps the order of elements; return its output."""
        size = self.add_integers(f"{output}/shape", shape)
        reshaped = self.add_operator(
            "RESHAPE", (tensor_name, size), (output, shape), {"newShape": list(shape)}
        )
        self.tensors[reshaped] = replace(self.tensors[tensor_name], name=reshaped, shape=shape)
        return reshaped


def to_channels_last(shape: Shape) -> Shape:
    """Return the shape of a value in the file: (1, height, width, channels) or (1, features)."""
    return (1, *shape[1:], shape[0])
