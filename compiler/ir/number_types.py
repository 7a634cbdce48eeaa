"""The number types that an artifact computes with, read from its own file."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import assert_never


class FloatInfluence(IntEnum):
    """How layers that compute in float affect a value; a larger value is a stronger effect."""

    NONE = 0
    """No such layer is before it: it is bit-exact everywhere."""
    UNROUNDED = 1
    """A float that such layers computed, never quantized: only float32 sums may differ."""
    ROUNDED = 2
    """Floats that such layers computed were quantized before it. A difference in a float's last bit
    may have become another quantized value, with which later layers continue."""


@dataclass(frozen=True, slots=True)
class NumberTypes:
    """The number types between the layers of an artifact, and those of its constants.

    `integers`: layers exchange 8-bit quantized values. `products`: some are multiplied as integers.
    `floats`: some layer computes in float without a bit-exact definition. `constant_types`: the
    numpy type names of the constants. `outputs`: how such layers affect each output.
    `float_operators`: the names of the operators that compute these floats; None if the file names
    no operators.
    """

    integers: bool
    products: bool
    floats: bool
    constant_types: frozenset[str]
    outputs: Mapping[str, FloatInfluence] = field(default_factory=dict)
    float_operators: frozenset[str] | None = None

    def get_influence(self, output: str) -> FloatInfluence:
        """Return how float layers affect an output: fully, if the file does not show it."""
        return self.outputs.get(
            output, FloatInfluence.ROUNDED if self.floats else FloatInfluence.NONE
        )


class OperatorRole(Enum):
    """What an operator of an artifact does with floats."""

    REAL = "makes floats from quantized values"
    MOVE = "moves numbers"
    COMPUTE = "computes on its inputs, floats or quantized values"
    FUNCTION = "is part of a bit-exact function on quantized values, with floats inside"
    ROUND = "makes quantized values from floats"


@dataclass
class FloatTracer:
    """Follows floats through an artifact's operators, which are added in order.

    `real` are the values that are floats, at first the float inputs. `computed` are those that a
    layer computed; the others were dequantized.
    """

    real: set[Hashable]
    computed: set[Hashable] = field(default_factory=set)
    influences: dict[Hashable, FloatInfluence] = field(default_factory=dict)

    def step(
        self, role: OperatorRole, inputs: Iterable[Hashable], outputs: Iterable[Hashable]
    ) -> bool:
        """Add the next operator; return whether its outputs are floats that a layer computed.

        Args:
            role: What the operator does.
            inputs: The values that it reads.
            outputs: The values that it writes.
        """
        inputs, outputs = tuple(inputs), tuple(outputs)
        # The result is affected as strongly as its worst input.
        influence = max(map(self.get_influence, inputs), default=FloatInfluence.NONE)
        is_real = not self.real.isdisjoint(inputs)
        is_computed = not self.computed.isdisjoint(inputs)
        match role:
            case OperatorRole.REAL:
                is_real, is_computed = True, False
            case OperatorRole.MOVE:
                pass
            case OperatorRole.COMPUTE:
                # An operator on quantized values alone is bit-exact; only on floats does the
                # runtime choose the order of sums.
                is_computed = is_real
                influence = max(influence, FloatInfluence.UNROUNDED) if is_real else influence
            case OperatorRole.FUNCTION:
                is_real = is_computed = False
            case OperatorRole.ROUND:
                is_real = is_computed = False
                # Quantizing the network's float input, which no layer computed, starts every
                # integer program and is the same everywhere.
                influence = FloatInfluence.ROUNDED if influence else influence
            case _:
                assert_never(role)
        self.real.update(outputs if is_real else ())
        self.computed.update(outputs if is_computed else ())
        self.influences.update(dict.fromkeys(outputs, influence))
        return is_computed

    def get_influence(self, value: Hashable) -> FloatInfluence:
        """Return how float layers affect a value."""
        return self.influences.get(value, FloatInfluence.NONE)
