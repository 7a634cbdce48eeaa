"""What a node is told beside its tensors: attributes, or constants in later opsets."""

from math import isfinite
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray


class NotConstantError(ValueError):
    """An argument is computed while the network runs."""


def get_argument(node: gs.Node, name: str, position: int) -> NDArray[Any] | None:
    """Return what is the attribute `name` in old opsets and the input at `position` in new ones.

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
    """Return an argument that is a list of whole numbers; None where it is not given."""
    constant = get_argument(node, name, position)
    return None if constant is None else tuple(int(v) for v in constant.reshape(-1))


def get_scalar(node: gs.Node, name: str, position: int, default: float) -> float:
    """Return an argument that is one number."""
    constant = get_argument(node, name, position)
    return default if constant is None or not constant.size else float(constant.reshape(-1)[0])


def round_to_shortest(value: float) -> float:
    """Return the number of fewest digits that is the same in float32.

    Raises:
        ValueError: It is not finite.
    """
    # numpy prints the shortest digits that read back as the same float32.
    number = float(str(np.float32(value)))
    if not isfinite(number):
        raise ValueError(f"a constant is {number}")
    return number


def get_computed_input_name(node: gs.Node) -> str:
    """Return what the file calls the first value that a node reads and another one makes."""
    computed = (t for t in node.inputs if not isinstance(t, gs.Constant) and t.inputs)
    return next((tensor.name[:80] for tensor in computed), "NAME")
