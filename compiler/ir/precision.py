"""Precisions: what an artifact computes with, as the compiler understands it.

Backends own theirs and name them as they like; whoever builds, compares or judges an artifact asks
what its precision is, never what it is called.
"""

from dataclasses import dataclass
from enum import Enum
from typing import assert_never


class Arithmetic(Enum):
    """What an artifact multiplies and adds."""

    FLOAT = "float"
    """Floats, in an order of the target's own."""
    INTEGER = "integer"
    """The integer program, whose results are the same to the bit everywhere."""
    SIMULATED = "simulated"
    """The integer program with floats between its roundings, for tools that read it so."""
    VENDOR = "foreign"
    """Integers that the maker's own tool makes of floats by its own rules; ours foretell them."""


class Storage(Enum):
    """What a float network's weights are stored as, the finest first."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def rounded(self) -> bool:
        """Whether these weights are not those of the spec to the bit."""
        match self:
            case Storage.FLOAT32:
                return False
            case Storage.FLOAT16 | Storage.INT8:
                return True
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Precision:
    """One word after `--precision`, and what a target makes of a network at it.

    `weights` are those of float arithmetic. With `float_io`, the last layers of integer programs
    give real numbers, else 8-bit integers.
    """

    name: str
    summary: str
    arithmetic: Arithmetic = Arithmetic.FLOAT
    weights: Storage = Storage.FLOAT32
    float_io: bool = True

    @property
    def integer(self) -> bool:
        """Whether the target is given the integer program, not the float model."""
        match self.arithmetic:
            case Arithmetic.FLOAT | Arithmetic.VENDOR:
                return False
            case Arithmetic.INTEGER | Arithmetic.SIMULATED:
                return True
            case _:
                assert_never(self.arithmetic)

    @property
    def exact(self) -> bool:
        """Whether what it computes on integers is the integer program's own, to the bit."""
        match self.arithmetic:
            case Arithmetic.INTEGER:
                return True
            case Arithmetic.FLOAT | Arithmetic.SIMULATED | Arithmetic.VENDOR:
                return False
            case _:
                assert_never(self.arithmetic)

    @property
    def calibrated(self) -> bool:
        """Whether it takes images to calibrate with."""
        match self.arithmetic:
            case Arithmetic.FLOAT:
                return False
            case Arithmetic.INTEGER | Arithmetic.SIMULATED | Arithmetic.VENDOR:
                return True
            case _:
                assert_never(self.arithmetic)

    @property
    def full(self) -> bool:
        """Whether it computes with the spec's own weights in floats: what others compare with."""
        # Storage in float16 is no full precision, though it multiplies floats: its weights were
        # rounded.
        return not (self.calibrated or self.weights.rounded)


FP32 = Precision("fp32", "float32 throughout, with the spec's own weights")
"""What is built unless something else is asked for."""
