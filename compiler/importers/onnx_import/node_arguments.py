"""Arguments of a node: attributes, or constant inputs in later opsets."""

from math import isfinite
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray


class NotConstantError(ValueError):
    """An argument is computed at run time."""


def get_argument(node: gs.Node, name: str, position: int) -> NDArray[Any] | None:
    """Return the attribute `name` of old opsets, or the input at `position` of new ones.

    Raises:
        NotConstantError: It is computed.
    """
    if name in node.attrs:
        return np.asarray(node.attrs[name])
    tensor = node.inputs[position] if position < len(node.inputs) else None
    if tensor is None or tensor.is_empty():
        return None
    if not isinstance(tensor, gs.Constant):
        raise NotConstantError(name)
    return np.asarray(tensor.values)


def get_integers(node: gs.Node, name: str, position: int) -> tuple[int, ...] | None:
    """Return an argument that is a list of integers; None if it is missing."""
    constant = get_argument(node, name, position)
    return None if constant is None else tuple(int(v) for v in constant.reshape(-1))


def get_scalar(node: gs.Node, name: str, position: int, default: float) -> float:
    """Return an argument that is a scalar."""
    constant = get_argument(node, name, position)
    return default if constant is None or not constant.size else float(constant.reshape(-1)[0])


def round_to_shortest(value: float) -> float:
    """Return the shortest decimal number with the same float32 value.

    Raises:
        ValueError: It is not finite.
    """
    # numpy prints the shortest digits that parse to the same float32.
    number = float(str(np.float32(value)))
    if not isfinite(number):
        raise ValueError(f"a constant is {number}")
    return number


def get_computed_input_name(node: gs.Node) -> str:
    """Return the name of the first input of a node that another node computes."""
    computed = (t for t in node.inputs if not isinstance(t, gs.Constant) and t.inputs)
    return next((tensor.name[:80] for tensor in computed), "NAME")
