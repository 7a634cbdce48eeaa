"""A TFLite file in the making: values channels-last, one operator after another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite.writer import FileTensor, Operator
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.types import Shape

Array = NDArray[Any]
FUSES = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL",
     "MAX_POOL_2D", "AVERAGE_POOL_2D"}
)  # fmt: skip
"""The operators that clamp their results at no cost."""


class FileDraft:
    """The tensors and operators so far, and the tensor that holds each value of the graph.

    A feature map is (1, height, width, channels), a vector (1, features). Vectors in `permuted`
    hold a feature map pixel by pixel, where the graph means channel by channel.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.graph
        self.tensors: dict[str, FileTensor] = {}
        self.operators: list[Operator] = []
        self.values: dict[str, str] = {}
        self.permuted: dict[str, Shape] = {}
        for source in self.graph.inputs:
            shape = channels_last(source.type.shape)
            self.values[source.name] = self.tensor(source.name, shape, source.type.dtype.value)

    def tensor(
        self, name: str, shape: Shape, dtype: str = "float32", data: bytes | None = None
    ) -> str:
        """Add a tensor; return its name, which differs from the one given if that is taken."""
        while name in self.tensors:
            name += "_"
        self.tensors[name] = FileTensor(name, shape, dtype, data)
        return name

    def constant(self, name: str, values: Array) -> str:
        """Add a constant; return its name."""
        little = values.astype(values.dtype.newbyteorder("<"))
        return self.tensor(name, values.shape, values.dtype.name, little.tobytes())

    def integers(self, name: str, values: Sequence[Any]) -> str:
        """Add a constant of int32, such as a list of axes; return its name."""
        return self.constant(name, np.array(values, np.int32))

    def weights(self, node: Node) -> tuple[Array, ...]:
        """Return the float32 values of a node's weight tensors."""
        return tuple(np.asarray(self.model.weights[p], np.float32) for p in node.params)

    def inputs(self, node: Node) -> tuple[str, ...]:
        """Return the tensors that a node reads."""
        return tuple(self.values[value] for value in node.inputs)

    def add(
        self,
        code: str,
        inputs: Sequence[str],
        output: tuple[str, Shape],
        options: Mapping[str, Any] | None = None,
        version: int = 1,
    ) -> str:
        """Add an operator and its output of a name and a shape; return the output's name."""
        name = self.tensor(*output)
        clamp = {"fusedActivationFunction": "NONE"} if code in FUSES else {}
        self.operators.append(
            Operator(code, tuple(inputs), (name,), {**clamp, **(options or {})}, version)
        )
        return name

    def padded(
        self, node: Node, value: str, border: tuple[int, int, int, int], fill: float = 0.0
    ) -> str:
        """Put a border (top, left, bottom, right) around a feature map, if it has any width."""
        if not any(border):
            return value
        top, left, bottom, right = border
        _, height, width, channels = self.tensors[value].shape
        rows = [[0, 0], [top, bottom], [left, right], [0, 0]]
        widths = self.integers(f"{node.name}/border", rows)
        shape = (1, height + top + bottom, width + left + right, channels)
        # PAD fills with zeros and is delegated to XNNPACK; PADV2, for other numbers, is not.
        if not fill:
            return self.add("PAD", (value, widths), (f"{node.name}/padded", shape))
        held = self.constant(f"{node.name}/fill", np.array([fill], np.float32))
        return self.add("PADV2", (value, widths, held), (f"{node.name}/padded", shape))

    def cut(
        self, value: str, output: str, begin: Sequence[int], end: Sequence[int], step: Sequence[int]
    ) -> str:
        """Take every `step`th element of a feature map or vector between two corners."""
        corners = zip(("begin", "end", "step"), (begin, end, step), strict=True)
        bounds = [self.integers(f"{output}/{word}", numbers) for word, numbers in corners]
        shape = tuple(len(range(*b)) for b in zip(begin, end, step, strict=True))
        return self.add("STRIDED_SLICE", (value, *bounds), (output, shape))

    def reshaped(self, value: str, output: str, shape: Shape) -> str:
        """Read a value's elements in order as another shape."""
        size = self.integers(f"{output}/shape", shape)
        made = self.add("RESHAPE", (value, size), (output, shape), {"newShape": list(shape)})
        self.tensors[made] = replace(self.tensors[value], name=made, shape=shape)
        return made


def channels_last(shape: Shape) -> Shape:
    """Return the shape of a value in the file: (1, height, width, channels) or (1, features)."""
    return (1, *shape[1:], shape[0])
