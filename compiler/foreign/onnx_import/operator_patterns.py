"""Small trees of ONNX operators, found in a graph by their last operator."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isclose
from typing import Any

import onnx_graphsurgeon as gs

COMMUTATIVE = frozenset({"Add", "Max", "Min", "Mul"})
PatternMatch = Mapping[str, Any]
"""What the names of a pattern stand for: tensors of captures, nodes of operators."""


class Pattern(ABC):
    """What a tensor may be."""

    @abstractmethod
    def fits(self, tensor: gs.Tensor, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield what the names stand for, in each way in which a tensor fits."""


@dataclass(frozen=True, slots=True)
class AnyValue(Pattern):
    """Any value that is computed, the same one wherever the name stands."""

    name: str

    def fits(self, tensor: gs.Tensor, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the tensor under the name."""
        # By identity: the same tensor, not one of the same name or numbers.
        if found.get(self.name, tensor) is tensor and not isinstance(tensor, gs.Constant):
            yield {**found, self.name: tensor}


@dataclass(frozen=True, slots=True)
class NumberPattern(Pattern):
    """A constant that is one number, or nearly."""

    value: float

    def fits(self, tensor: gs.Tensor, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield what was found before."""
        if isinstance(tensor, gs.Constant) and tensor.values.size == 1:
            (number,) = tensor.values.reshape(-1)
            # The file's numbers are float32, some 6e-8 beside what is meant.
            if isclose(float(number), self.value, rel_tol=1e-6):
                yield found


@dataclass(frozen=True, slots=True)
class AnyConstant(Pattern):
    """Any constant."""

    name: str

    def fits(self, tensor: gs.Tensor, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the tensor under the name."""
        if isinstance(tensor, gs.Constant):
            yield {**found, self.name: tensor}


@dataclass(frozen=True, slots=True)
class OperatorPattern(Pattern):
    """What an operator makes of its first inputs; the node is found under `name`."""

    type: str
    inputs: tuple[Pattern, ...]
    name: str = ""

    def fits(self, tensor: gs.Tensor, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which the node that makes the tensor fits."""
        # The first output alone: what Split or Dropout give besides is no result of the pattern.
        if len(tensor.inputs) == 1 and tensor.inputs[0].outputs[0] is tensor:
            yield from self.ends(tensor.inputs[0], found)

    def ends(self, node: gs.Node, found: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which a node fits."""
        if node.op != self.type or len(node.inputs) < len(self.inputs):
            return
        if node.op in COMMUTATIVE and len(node.inputs) != len(self.inputs):
            return  # one of three
        if self.name:
            found = {**found, self.name: node}
        # At most two orders an operator; the longest pattern, a layer norm with weights, has nine.
        orders = [self.inputs]
        if node.op in COMMUTATIVE:
            orders.append(self.inputs[::-1])
        for order in orders:
            yield from _all(order, tuple(node.inputs), found)


def _all(
    patterns: tuple[Pattern, ...], tensors: tuple[gs.Tensor, ...], found: PatternMatch
) -> Iterator[PatternMatch]:
    if not patterns:
        yield found
        return
    for more in patterns[0].fits(tensors[0], found):
        yield from _all(patterns[1:], tensors[1:], more)


def operator(type: str, *inputs: Pattern | float, name: str = "") -> OperatorPattern:
    """Return the pattern of an operator; plain numbers stand for constants."""
    wrapped = (i if isinstance(i, Pattern) else NumberPattern(i) for i in inputs)
    return OperatorPattern(type, tuple(wrapped), name)


def find(pattern: OperatorPattern, node: gs.Node) -> PatternMatch | None:
    """Return what the names stand for if a node ends the pattern."""
    return next(pattern.ends(node, {}), None)
