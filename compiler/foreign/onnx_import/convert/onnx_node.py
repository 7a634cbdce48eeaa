"""One ONNX node to be converted, with what its inputs have become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tcc.compiler.foreign.onnx_import.graph_builder import GraphBuilder, OperatorRefusal
from tcc.compiler.foreign.onnx_import.node_arguments import argument, numbers, scalar
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ir.types import Pair, Quad
from tcc.compiler.ops import Op

Array = NDArray[Any]
Operand = View | Array
"""A value of the network, or a constant."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxNode:
    """An ONNX node; `name` is what its step is called."""

    origin: gs.Node
    inputs: tuple[Operand | None, ...]
    build: GraphBuilder
    name: str
    opset: int

    # -- inputs -----------------------------------------------------------------------------

    def operand(self, position: int) -> Operand:
        """Return an input."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise OperatorRefusal(f"its input {position} is missing")
        return found

    def view(self, position: int = 0) -> View:
        """Return an input that the network computes, as a value of its own where possible."""
        found = self.operand(position)
        if not isinstance(found, View):
            raise OperatorRefusal(f"its input {position} is a constant, not a value of the network")
        return self.build.settle(found)

    def settled(self, position: int = 0) -> View:
        """Return an input that is a map or a vector as the language knows them."""
        found = self.view(position)
        if not found.settled:
            shape = "x".join(map(str, found.shape[1:]))
            raise OperatorRefusal(
                f"its input is a reshaped or transposed value of {shape}",
                "reshapes are understood where they flatten, shuffle or choose channels",
            )
        return found

    def map(self, position: int = 0) -> View:
        """Return an input that is a feature map."""
        found = self.settled(position)
        if len(found.type.shape) != 3:
            raise OperatorRefusal("it works on one-dimensional data; images have height and width")
        return found

    def has(self, position: int) -> bool:
        """Whether an optional input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def weights(self, position: int) -> NDArray[np.float32]:
        """Return an input that is constant, as float32, in the shape that the file has it in.

        Raises:
            OperatorRefusal: It is computed, or holds no floats.
        """
        found = self.operand(position)
        if isinstance(found, View):
            raise OperatorRefusal(f"its input {position} is computed; weights must be constants")
        if found.dtype not in (np.float32, np.float64, np.float16):
            raise OperatorRefusal(f"its input {position} is {found.dtype}, not float32")
        return found.astype(np.float32)

    # -- arguments --------------------------------------------------------------------------

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.origin.attrs.get(name, default)

    def pair(self, name: str, default: Pair = (1, 1)) -> Pair:
        """Return an attribute that is one number per spatial axis."""
        found = tuple(int(n) for n in self.origin.attrs.get(name, default))
        if len(found) != 2:
            raise OperatorRefusal(
                f"`{name}` has {len(found)} numbers; images have height and width"
            )
        return found

    def argument(self, name: str, position: int) -> Array | None:
        """Return an attribute that later opsets take as an input."""
        return argument(self.origin, name, position)

    def numbers(self, name: str, position: int) -> tuple[int, ...] | None:
        """Return whole numbers that are an attribute or, in later opsets, an input."""
        return numbers(self.origin, name, position)

    def scalar(self, name: str, position: int, default: float) -> float:
        """Return one number that is an attribute or, in later opsets, an input.

        Args:
            name: What older opsets call the attribute.
            position: Which input it is in later ones.
            default: What stands for it where it is not given.
        """
        return scalar(self.origin, name, position, default)

    # -- results ----------------------------------------------------------------------------

    def emit(self, op: Op, *views: View, weights: Sequence[Array] = ()) -> View:
        """Add a step on values as they are.

        Args:
            op: What the step computes.
            views: What it reads: maps or vectors, as `settled` gives them.
            weights: Its tensors, in the order and the shapes of `op.params`.

        Returns:
            The step's value, in the layout of the language.
        """
        value = self.build.emit(self.name, op, [view.value for view in views], weights)
        return self.build.view(value)

    def each(self, op: Op, view: View) -> View:
        """Add a step that works on each element by itself, however they are arranged.

        The value that `view` shows goes through it, and the result is shown in the same way: a
        reshape or a transposition around an activation needs no steps.
        """
        value = self.build.emit(self.name, op, [view.value])
        return view.other(value, self.build.type(value))

    def joined(self, op: Op, *views: View) -> View:
        """Add a step that joins values which are arranged in the same way."""
        value = self.build.emit(self.name, op, [view.value for view in views])
        return views[0].other(value, self.build.type(value))


def pads_of(node: OnnxNode, size: Pair, window: Pair, stride: Pair) -> Quad:
    """Return the padding of a convolution or pool: top, left, bottom, right.

    Args:
        node: One with ONNX's `pads`, which lists all starts before all ends, or `auto_pad`.
        size: The input's height and width.
        window: The kernel's, with the gaps that dilation puts between its taps.
        stride: From one window to the next, down and across.

    Raises:
        OperatorRefusal: The padding is negative, or not of two axes.
    """
    auto = node.attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        found = tuple(int(n) for n in node.attribute("pads", (0, 0, 0, 0)))
        if auto == "VALID":
            found = (0, 0, 0, 0)
        if len(found) != 4 or min(found) < 0:
            raise OperatorRefusal(
                f"its padding is {list(found)}; four numbers from 0 on are needed"
            )
        return found
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise OperatorRefusal(f"`auto_pad` is {auto}")
    total = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, window, stride, strict=True)
    ]
    # ONNX: SAME_UPPER puts the odd row or column at the end, SAME_LOWER at the start.
    less = [t // 2 for t in total]
    more = [t - half for t, half in zip(total, less, strict=True)]
    first, last = (less, more) if auto == "SAME_UPPER" else (more, less)
    return (first[0], first[1], last[0], last[1])
