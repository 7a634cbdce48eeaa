"""What a 32-bit device can index, and how deep a spec may nest."""

from collections.abc import Iterator
from contextlib import contextmanager

from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import Span, fail
from tcc.compiler.support.memory_limit import no_collection

# Indices of 32-bit devices are int32.
MAX_ELEMENTS = 2**31 - 1
"""Most elements of one tensor."""


def check_size(node: Node, types: tuple[TensorType, ...], at: Span) -> None:
    """Refuse tensors that no 32-bit device can index.

    Raises:
        UserError: The result or a weight has more than `MAX_ELEMENTS` elements.
    """
    result = node.type
    # The weights too: a linear layer of a large map has more of them than elements on either side.
    sizes = [
        ("the result", result.elements),
        *((p.role, _prod(p.shape)) for p in node.op.params(*types)),
    ]
    for what, elements in sizes:
        if elements > MAX_ELEMENTS:
            raise fail(
                "E0405",
                f"{what} of `{node.op.word}` is too large",
                at,
                label=f"{elements} elements, the limit is {MAX_ELEMENTS}",
            )


def _prod(shape: tuple[int, ...]) -> int:
    return TensorType(shape).elements


@contextmanager
def room_for_nesting() -> Iterator[None]:
    """Let bounded recursion over a nested spec run deeper; such a spec holds no cycles."""
    import sys

    before = sys.getrecursionlimit()
    # Bounded by the limits on nesting (of trees, steps and expressions), so that this is no way to
    # Python's own end; each level is several frames.
    sys.setrecursionlimit(max(before, 12_000))
    try:
        with no_collection():
            yield
    finally:
        sys.setrecursionlimit(before)
