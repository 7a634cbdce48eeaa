"""What numbers an artifact computes with, as its own file says, whatever is said of it."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import assert_never


class FloatInfluence(IntEnum):
    """How layers that compute on floats bear on a value; the more, the larger."""

    NONE = 0
    """None is before it: it is the same to the bit everywhere."""
    UNROUNDED = 1
    """It is a float that they computed, and no level is: sums of float32 may differ, no more."""
    ROUNDED = 2
    """Floats that they computed were rounded to levels before it, so that a last bit of a float
    may have become another level, which layers behind it go on with."""


@dataclass(frozen=True, slots=True)
class NumberTypes:
    """The numbers between the layers of an artifact, and those that its constants are stored as.

    `integers`: 8-bit levels go from layer to layer. `products`: some are multiplied as integers.
    `floats`: some layer computes on floats that no definition of integers has. `constant_types`:
    the types, by numpy's words, of the constants. `outputs`: how such layers bear on each output.
    `float_operators`: the operators that give their floats, by name; None where the file names no
    operator.
    """

    integers: bool
    products: bool
    floats: bool
    constant_types: frozenset[str]
    outputs: Mapping[str, FloatInfluence] = field(default_factory=dict)
    float_operators: frozenset[str] | None = None

    def get_influence(self, output: str) -> FloatInfluence:
        """Return how layers in float bear on an output: fully, where the file does not say."""
        return self.outputs.get(
            output, FloatInfluence.ROUNDED if self.floats else FloatInfluence.NONE
        )


class OperatorRole(Enum):
    """What an operator of an artifact does, to who follows its floats."""

    REAL = "makes real numbers of levels"
    MOVE = "puts numbers elsewhere"
    COMPUTE = "computes on what it reads, floats or levels"
    FUNCTION = "is part of a function on levels, defined to the bit, that has floats inside"
    ROUND = "makes levels of floats"


@dataclass
class FloatTracer:
    """Follows floats through an artifact's operators, which are told in their order.

    `real` are the values that are real numbers and no levels: at first, the inputs that are; and
    `computed` those of them that a layer computed, not read off levels.
    """

    real: set[Hashable]
    computed: set[Hashable] = field(default_factory=set)
    influences: dict[Hashable, FloatInfluence] = field(default_factory=dict)

    def step(
        self, role: OperatorRole, inputs: Iterable[Hashable], outputs: Iterable[Hashable]
    ) -> bool:
        """Take the next operator; return whether it gives floats that a layer computed.

        Args:
            role: What the operator does.
            inputs: The values that it reads.
            outputs: Those that it gives.
        """
        inputs, outputs = tuple(inputs), tuple(outputs)
        # What floats did to one input, they may have done to the result: the worst of them holds.
        influence = max(map(self.get_influence, inputs), default=FloatInfluence.NONE)
        is_real = not self.real.isdisjoint(inputs)
        is_computed = not self.computed.isdisjoint(inputs)
        match role:
            case OperatorRole.REAL:
                is_real, is_computed = True, False
            case OperatorRole.MOVE:
                pass
            case OperatorRole.COMPUTE:
                # An operator on levels alone has a definition to the bit; only among floats is the
                # order of sums the runtime's.
                is_computed = is_real
                influence = max(influence, FloatInfluence.UNROUNDED) if is_real else influence
            case OperatorRole.FUNCTION:
                is_real = is_computed = False
            case OperatorRole.ROUND:
                is_real = is_computed = False
                # Rounding the floats of an input, which no layer computed, is the beginning of
                # every integer program and the same everywhere.
                influence = FloatInfluence.ROUNDED if influence else influence
            case _:
                assert_never(role)
        self.real.update(outputs if is_real else ())
        self.computed.update(outputs if is_computed else ())
        self.influences.update(dict.fromkeys(outputs, influence))
        return is_computed

    def get_influence(self, value: Hashable) -> FloatInfluence:
        """Return how layers in float bear on a value."""
        return self.influences.get(value, FloatInfluence.NONE)
