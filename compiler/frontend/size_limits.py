"""What a 32-bit device can index, and how deep a spec may nest."""

from collections.abc import Iterator
from contextlib import contextmanager

from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import Span, fail
from tcc.compiler.support.memory_limit import disable_collection

# Indices of 32-bit devices are int32.
MAX_ELEMENTS = 2**31 - 1
"""Most elements of one tensor."""


def check_size(node: Node, types: tuple[TensorType, ...], at: Span) -> None:
    """Refuse tensors that no 32-bit device can index.

    Raises:
        UserError: The result or a weight has more than `MAX_ELEMENTS` elements.
    """
    output_type = node.type
    # The weights too: a linear layer of a large map has more of them than elements on either side.
    sizes = [
        ("the result", output_type.elements),
        *((p.role, _count_elements(p.shape)) for p in node.op.params(*types)),
    ]
    for tensor_name, elements in sizes:
        if elements > MAX_ELEMENTS:
            raise fail(
                "E0405",
                f"{tensor_name} of `{node.op.keyword}` is too large",
                at,
                label=f"{elements:,} elements, the limit is {MAX_ELEMENTS:,}",
                help="use a smaller input, or fewer filters or units",
            )


def _count_elements(shape: tuple[int, ...]) -> int:
    return TensorType(shape).elements


@contextmanager
def raise_recursion_limit() -> Iterator[None]:
    """Raise the recursion limit and disable garbage collection: a nested spec has no cycles."""
    import sys

    previous_limit = sys.getrecursionlimit()
    # The limits on nesting (of trees, steps and expressions) bound the recursion, so it cannot
    # overflow the stack. Each level takes several frames.
    sys.setrecursionlimit(max(previous_limit, 12_000))
    try:
        with disable_collection():
            yield
    finally:
        sys.setrecursionlimit(previous_limit)
