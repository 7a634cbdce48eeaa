"""The steps of a spec that is to be written."""

from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler.ir.graph import Node


@dataclass(frozen=True, slots=True)
class OpStep:
    """One use of an op.

    A join has branches: each the name of an earlier value, or steps that start from the current
    one. Another step reads the current value, or `source` if that is named.
    """

    node: Node
    branches: "tuple[str | tuple[SpecStep, ...], ...]" = ()
    source: str = ""


@dataclass(frozen=True, slots=True)
class RepeatStep:
    """Equal runs of steps, one after another; `turns` holds each."""

    turns: "tuple[tuple[SpecStep, ...], ...]"


SpecStep = OpStep | RepeatStep


def nodes(items: tuple[SpecStep, ...]) -> Iterator[Node]:
    """Yield the nodes in the order in which the steps make them."""
    for item in items:
        match item:
            case RepeatStep(turns):
                for turn in turns:
                    yield from nodes(turn)
            case OpStep(node, branches):
                for branch in branches:
                    if not isinstance(branch, str):
                        yield from nodes(branch)
                yield node
