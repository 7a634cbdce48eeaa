"""A TFLite file of integers while it grows. Maps are (1, height, width, channels).

A value of the integer program is an int8 tensor: signed levels as they are (zero point 0), unsigned
ones less 128 (zero point -128).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite.file_draft import FileDraft
from tcc.backends.tflite.windows import padding
from tcc.backends.tflite.writer import FileTensor, Operator, Quantization
from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.types import Pair, Quad, Shape, TensorType

Array = NDArray[Any]
SMALLEST = -128
"""The least int8."""
JOINED = 5
"""Most inputs of a CONCATENATION that XNNPACK takes."""
VERSIONS = {"float32": 1, "int32": 1, "int8": 2}
"""The first versions of PAD, MAXIMUM and MINIMUM that take a type."""
MAGIC = 1.5 * 2.0**23
"""Added to and taken from a float32 below 2**22, it rounds that to the nearest, ties to even."""


def zero(kind: TensorType) -> int:
    """Return the stored int8 that stands for zero."""
    return SMALLEST - kind.limits[0]


def laid_out(shape: Shape) -> Shape:
    """Return a value's shape in the file, its batch axis included."""
    return (1, *shape[1:], shape[0]) if len(shape) == 3 else (1, *shape)


def meaning(kind: TensorType) -> Quantization:
    """Return what the stored levels of a value stand for."""
    return Quantization((float(np.float32(kind.scale)),), (zero(kind),))


class IntegerDraft:
    """The net so far; the program's floats are written there as any float model's."""

    def __init__(self, model: Model) -> None:
        self.net = FileDraft(model)
        self.model = model
        self.tensors = self.net.tensors

    def types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's inputs."""
        return self.model.graph.input_types(node)

    def weights(self, node: Node) -> tuple[Array, ...]:
        """Return a node's weights."""
        return tuple(np.asarray(self.model.weights[name]) for name in node.params)

    def value(self, name: str, kind: TensorType) -> str:
        """Add the tensor of a value of the program; return its name."""
        shape = laid_out(kind.shape)
        if kind.scale is None:
            made = self.tensor(name, shape, kind.dtype.value)
        else:
            made = self.new(FileTensor(name, shape, "int8", None, meaning(kind)))
        self.net.values[name] = made
        return made

    def new(self, tensor: FileTensor) -> str:
        """Add a tensor; return its name, which differs where that is taken."""
        name = self.net.tensor(tensor.name, tensor.shape)
        self.tensors[name] = replace(tensor, name=name)
        return name

    def tensor(self, name: str, shape: Shape, dtype: str) -> str:
        """Add a plain tensor; return its name."""
        return self.net.tensor(name, shape, dtype)

    def constant(self, name: str, data: Array, quantization: Quantization | None = None) -> str:
        """Add a constant; return its name."""
        stored = np.ascontiguousarray(data)
        raw = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        return self.new(FileTensor(name, stored.shape, stored.dtype.name, raw, quantization))

    def run(
        self,
        code: str,
        inputs: Sequence[str],
        output: str,
        options: Mapping[str, Any] | None = None,
        version: int = 1,
    ) -> str:
        """Add an operator whose output is a tensor already; return that."""
        self.net.operators.append(Operator(code, tuple(inputs), (output,), options or {}, version))
        return output

    def like(self, source: str, name: str, shape: Shape) -> str:
        """Add a tensor of the same elements as another in another shape; return its name."""
        kind = self.tensors[source]
        return self.new(FileTensor(name, shape, kind.dtype, None, kind.quantization))

    def reshaped(self, source: str, output: str) -> str:
        """Add a reshape to the shape of a tensor; return that."""
        shape = self.tensors[output].shape
        to = self.constant(f"{output}/shape", np.array(shape, np.int32))
        return self.run("RESHAPE", (source, to), output, {"newShape": list(shape)})

    def transposed(self, source: str, output: str, order: Sequence[int]) -> str:
        """Add a transposition; return its output."""
        perm = self.constant(f"{output}/order", np.array(order, np.int32))
        # 4 is the first version with more than four axes.
        return self.run("TRANSPOSE", (source, perm), output, version=2 if len(order) < 5 else 4)

    def joined(self, parts: Sequence[str], output: str, axis: int) -> str:
        """Add concatenations, none of more parts than `JOINED`; return the output."""
        while len(parts) > JOINED:
            groups = [parts[i : i + JOINED] for i in range(0, len(parts), JOINED)]
            name = f"{output}:{len(parts)}"
            parts = [self._part(g, f"{name}.{i}", axis) for i, g in enumerate(groups)]
        return self.run("CONCATENATION", parts, output, {"axis": axis}, 2)

    def _part(self, parts: Sequence[str], name: str, axis: int) -> str:
        if len(parts) == 1:
            return parts[0]
        shape = [*self.tensors[parts[0]].shape]
        shape[axis] = sum(self.tensors[part].shape[axis] for part in parts)
        return self.joined(parts, self.like(parts[0], name, tuple(shape)), axis)

    def padded(self, source: str, name: str, pads: Quad) -> str:
        """Add a border of zeros around a map, if it has any width; return the map's name."""
        if not any(pads):
            return source
        top, left, bottom, right = pads
        _, height, width, channels = self.tensors[source].shape
        shape = (1, height + top + bottom, width + left + right, channels)
        made = self.like(source, name, shape)
        widths = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
        version = VERSIONS[self.tensors[source].dtype]
        return self.run("PAD", (source, self.constant(f"{name}/widths", widths)), made, {}, version)

    def placed(
        self, node: Node, place: tuple[Pair, Pair, Quad], *, smallest: bool = False
    ) -> tuple[str, str]:
        """Return a node's input for windows (size, stride, border), and the word for the padding.

        What no word says becomes a border, of zeros or of the smallest level.
        """
        (source,), (x,) = self.net.inputs(node), self.types(node)
        word, pads = padding(self.net, node, place)
        if word:
            return source, word
        name = f"{node.name}:padded"
        if not smallest or zero(x) == SMALLEST:
            return self.padded(source, name, pads), "VALID"
        return self.bordered(source, name, pads, np.array([SMALLEST])), "VALID"

    def bordered(self, source: str, output: str, pads: Quad, stored: Array) -> str:
        """Join a border of one stored level a channel to a map; return its name.

        XNNPACK has no other border than of zeros.
        """
        top, left, bottom, right = pads
        for axis, before, after in ((1, top, bottom), (2, left, right)):
            if not before + after:
                continue
            last = axis == 2 or not left + right
            parts = [self._edge(source, f"{output}:{axis}a", axis, before, stored), source]
            parts.append(self._edge(source, f"{output}:{axis}b", axis, after, stored))
            parts = [part for part in parts if part]
            shape = [*self.tensors[source].shape]
            shape[axis] += before + after
            made = self.like(source, output if last else f"{output}:rows", tuple(shape))
            source = self.joined(parts, made, axis)
        return source

    def _edge(self, source: str, name: str, axis: int, width: int, stored: Array) -> str:
        if not width:
            return ""
        shape = [*self.tensors[source].shape]
        shape[axis] = width
        data = np.broadcast_to(stored.astype(np.int8), shape)
        return self.constant(name, data, self.tensors[source].quantization)

    def number(self, name: str, value: float, dtype: str = "float32") -> str:
        """Add a constant of one element; return its name."""
        return self.constant(name, np.array([value], dtype))

    def between(self, source: str, output: str, low: float, high: float) -> str:
        """Add bounds; return the output."""
        kind = self.tensors[output]
        raised = self.like(source, f"{output}:raised", kind.shape)
        version = VERSIONS[kind.dtype]
        for code, bound, x, y in (
            ("MAXIMUM", low, source, raised),
            ("MINIMUM", high, raised, output),
        ):
            data = np.array([bound], kind.dtype)
            limit = self.constant(f"{y}/{code.lower()}", data, kind.quantization)
            self.run(code, (x, limit), y, {}, version)
        return output

    def floats(self, source: str, name: str, kind: TensorType) -> str:
        """Add the levels of a value as float32; return their name."""
        made = self.tensor(f"{name}:stored", laid_out(kind.shape), "float32")
        self.run("CAST", (source,), made)
        if not zero(kind):
            return made
        level = self.tensor(f"{name}:level", laid_out(kind.shape), "float32")
        return self.run("SUB", (made, self.number(f"{name}/zero", zero(kind))), level)

    def rounded(self, source: str, output: str, y: TensorType, low: int, high: int) -> str:
        """Add what stores float32 numbers of levels as levels, ties to even; return the output."""
        # Bounds come first: the sum rounds to whole numbers below 2**22 alone. CAST cuts fractions
        # off, of which none are left.
        shape = laid_out(y.shape)
        steps = [self.tensor(f"{output}:{s}", shape, "float32") for s in ("kept", "near", "whole")]
        self.between(source, steps[0], low, high)
        self.run("ADD", (steps[0], self.number(f"{output}/up", MAGIC)), steps[1])
        # The zero point comes with the subtraction: one operator less.
        down = self.number(f"{output}/down", MAGIC - zero(y))
        self.run("SUB", (steps[1], down), steps[2])
        return self.run("CAST", (steps[2],), output)
