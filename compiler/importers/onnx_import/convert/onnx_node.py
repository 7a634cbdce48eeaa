"""One ONNX node to convert, with its converted inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.graph_builder import GraphBuilder, OperatorRefusal
from tcc.compiler.importers.onnx_import.node_arguments import get_argument, get_integers, get_scalar
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ir.types import Pair, Quad
from tcc.compiler.ops import Op

Array = NDArray[Any]
Operand = View | Array
"""A value of the network, or a constant."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxNode:
    """An ONNX node; `name` is the preferred name of its step."""

    origin: gs.Node
    inputs: tuple[Operand | None, ...]
    builder: GraphBuilder
    name: str
    opset: int

    # -- inputs -----------------------------------------------------------------------------

    def get_operand(self, position: int) -> Operand:
        """Return an input."""
        operand = self.inputs[position] if position < len(self.inputs) else None
        if operand is None:
            raise OperatorRefusal(f"its input {position} is missing")
        return operand

    def get_view(self, position: int = 0) -> View:
        """Return a computed input, materialized if possible."""
        operand = self.get_operand(position)
        if not isinstance(operand, View):
            raise OperatorRefusal(f"its input {position} is a constant, not a value of the network")
        return self.builder.materialize(operand)

    def get_materialized(self, position: int = 0) -> View:
        """Return a computed input that is a map or a vector of the graph."""
        view = self.get_view(position)
        if not view.is_materialized:
            shape = "x".join(map(str, view.shape[1:]))
            raise OperatorRefusal(
                f"its input is a reshaped or transposed value of shape {shape}",
                "use reshapes only to flatten, shuffle or select channels",
            )
        return view

    def get_map(self, position: int = 0) -> View:
        """Return an input that is a feature map."""
        view = self.get_materialized(position)
        if len(view.type.shape) != 3:
            raise OperatorRefusal("its input is not a feature map with height and width")
        return view

    def has_input(self, position: int) -> bool:
        """Whether an optional input is present."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def get_weights(self, position: int) -> NDArray[np.float32]:
        """Return a constant input as float32, with its shape in the file.

        Raises:
            OperatorRefusal: It is computed, or not floating point.
        """
        operand = self.get_operand(position)
        if isinstance(operand, View):
            raise OperatorRefusal(f"its input {position} is computed; weights must be constants")
        if operand.dtype not in (np.float32, np.float64, np.float16):
            raise OperatorRefusal(f"its input {position} is {operand.dtype}, not float32")
        return operand.astype(np.float32)

    # -- arguments --------------------------------------------------------------------------

    def get_attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.origin.attrs.get(name, default)

    def get_pair(self, name: str, default: Pair = (1, 1)) -> Pair:
        """Return an attribute with one number per spatial axis."""
        numbers = tuple(int(n) for n in self.origin.attrs.get(name, default))
        if len(numbers) != 2:
            raise OperatorRefusal(f"`{name}` has {len(numbers)} numbers, not 2 (height, width)")
        return numbers

    def get_argument(self, name: str, position: int) -> Array | None:
        """Return an attribute that is an input in later opsets."""
        return get_argument(self.origin, name, position)

    def get_integers(self, name: str, position: int) -> tuple[int, ...] | None:
        """Return integers that are an attribute or, in later opsets, an input."""
        return get_integers(self.origin, name, position)

    def get_scalar(self, name: str, position: int, default: float) -> float:
        """Return a scalar that is an attribute or, in later opsets, an input.

        Args:
            name: Name of the attribute in older opsets.
            position: Position of the input in later ones.
            default: Value if it is missing.
        """
        return get_scalar(self.origin, name, position, default)

    # -- results ----------------------------------------------------------------------------

    def emit(self, op: Op, *views: View, weights: Sequence[Array] = ()) -> View:
        """Add a step on materialized values.

        Args:
            op: Op of the step.
            views: Its inputs: maps or vectors, as `get_materialized` returns them.
            weights: Its tensors, in the order and the shapes of `op.params`.

        Returns:
            The step's value, materialized.
        """
        value = self.builder.emit(self.name, op, [view.value for view in views], weights)
        return self.builder.make_view(value)

    def emit_elementwise(self, op: Op, view: View) -> View:
        """Add an element-wise step on a view with any element order.

        The step is applied to the value of the view, and the result is the same view of the new
        value. A reshape or transposition around an activation needs no steps.
        """
        value = self.builder.emit(self.name, op, [view.value])
        return view.replace_value(value, self.builder.get_type(value))

    def emit_join(self, op: Op, *views: View) -> View:
        """Add a step that joins views with the same element order."""
        value = self.builder.emit(self.name, op, [view.value for view in views])
        return views[0].replace_value(value, self.builder.get_type(value))


def get_padding(node: OnnxNode, size: Pair, window: Pair, stride: Pair) -> Quad:
    """Return the padding of a convolution or pool: top, left, bottom, right.

    Args:
        node: A node with ONNX's `pads`, which lists all starts before all ends, or `auto_pad`.
        size: The input's height and width.
        window: Height and width of the kernel, including the gaps of dilation.
        stride: Vertical and horizontal stride.

    Raises:
        OperatorRefusal: The padding is negative, or not for two axes.
    """
    auto = node.get_attribute("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        padding = tuple(int(n) for n in node.get_attribute("pads", (0, 0, 0, 0)))
        if auto == "VALID":
            padding = (0, 0, 0, 0)
        if len(padding) != 4 or min(padding) < 0:
            raise OperatorRefusal(f"its padding is {list(padding)}, not four numbers of at least 0")
        return padding
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise OperatorRefusal(f"`auto_pad` is {auto}, which is not supported")
    total = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, window, stride, strict=True)
    ]
    # ONNX: SAME_UPPER puts the odd row or column at the end, SAME_LOWER at the start.
    smaller_half = [t // 2 for t in total]
    larger_half = [t - half for t, half in zip(total, smaller_half, strict=True)]
    start_pads, end_pads = (
        (smaller_half, larger_half) if auto == "SAME_UPPER" else (larger_half, smaller_half)
    )
    return (start_pads[0], start_pads[1], end_pads[0], end_pads[1])
