"""Equal runs of steps become a repeat."""

from collections.abc import Hashable, Mapping, Sequence

from tcc.compiler.foreign.onnx_import.spec_writer.op_syntax import written
from tcc.compiler.foreign.onnx_import.spec_writer.spec_steps import (
    OpStep,
    RepeatStep,
    SpecStep,
    nodes,
)
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import ACTIVATIONS, BatchNorm, Conv, Linear

LONGEST = 64
"""Most steps of one turn."""
FEWEST = 3
"""Fewest ops of a turn that is worth a repeat."""


def folded(
    items: tuple[SpecStep, ...], graph: Graph, named: frozenset[str]
) -> tuple[SpecStep, ...]:
    """Return steps with equal runs of them, one after another, as repeats; inner ones first."""
    return _Folder(graph.types, named).sequence(items)


class _Folder:
    def __init__(self, types: Mapping[str, TensorType], named: frozenset[str]) -> None:
        self.types, self.named = types, named
        self.numbers: dict[Hashable, int] = {}

    def sequence(self, items: tuple[SpecStep, ...]) -> tuple[SpecStep, ...]:
        # From the inside out: blocks that were folded are then one step each, of which a stage may
        # be a run.
        inner = tuple(map(self._inside, items))
        keys = [self._key(item) for item in inner]
        result: list[SpecStep] = []
        at = 0
        while at < len(inner):
            period, times = self._run(inner, keys, at)
            if times > 1:
                turns = (inner[at + i * period : at + (i + 1) * period] for i in range(times))
                result.append(RepeatStep(tuple(turns)))
                at += period * times
            else:
                result.append(inner[at])
                at += 1
        return tuple(result)

    def _inside(self, item: SpecStep) -> SpecStep:
        match item:
            case OpStep(node, branches, source) if branches:
                parts = (b if isinstance(b, str) else self.sequence(b) for b in branches)
                return OpStep(node, tuple(parts), source)
        return item

    def _run(self, items: Sequence[SpecStep], keys: Sequence[int], at: int) -> tuple[int, int]:
        """Return length and number of the equal turns from a place on that cover most steps."""
        best = (1, 1)
        if not _begins(items, at):
            return best
        # Each place tries every length of a turn once: at most 64 comparisons of slices a place.
        for period in range(1, min(LONGEST, (len(keys) - at) // 2) + 1):
            times = _times(keys, at, period)
            # Only if more steps are covered: of two lengths with equal cover the shorter, with more
            # turns.
            longer = period * times > best[0] * best[1]
            if times > 1 and longer and _ops(items[at : at + period]) >= FEWEST:
                best = (period, times)
        return best

    def _key(self, item: SpecStep) -> int:
        """Return a number that is equal for equal steps alone."""
        # Steps become numbers once, so that runs are compared as lists of integers however deep
        # they are.
        return self.numbers.setdefault(self._form(item), len(self.numbers))

    def _form(self, item: SpecStep) -> Hashable:
        match item:
            case RepeatStep(turns):
                return len(turns), tuple(map(self._key, turns[0]))
            case OpStep(node, branches, source):
                word, arguments = written(node.op, *(self.types[v] for v in node.inputs))
                parts = tuple(
                    b if isinstance(b, str) else tuple(map(self._key, b)) for b in branches
                )
                own = node.name if node.name in self.named else ""
                return word, repr(arguments), parts, source, own
        raise AssertionError(item)


def _times(keys: Sequence[int], at: int, period: int) -> int:
    """Return how often the steps from a place on stand there one after another."""
    turn, times = keys[at : at + period], 1
    while keys[at + times * period : at + (times + 1) * period] == turn:
        times += 1
    return times


def _ops(items: Sequence[SpecStep]) -> int:
    return sum(1 for _ in nodes(tuple(items)))


def _begins(items: Sequence[SpecStep], at: int) -> bool:
    """Whether a person might begin a turn here: not between a layer and its activation."""
    match items[at], items[at - 1] if at else None:
        case OpStep(node=Node(op=op)), _ if isinstance(op, ACTIVATIONS):
            return False
        # A batch norm that begins a turn is the form of DenseNet and of ResNetV2, if no layer
        # stands before it that it belongs to.
        case OpStep(node=Node(op=BatchNorm())), OpStep(node=Node(op=before)):
            return not isinstance(before, Conv | Linear)
    return True
