"""Precisions: what an artifact computes with.

Backends define their precisions and may name them freely. Code that builds, compares or measures an
artifact asks for the properties of its precision, never for its name.
"""

from dataclasses import dataclass
from enum import Enum
from typing import assert_never


class Arithmetic(Enum):
    """The arithmetic of an artifact."""

    FLOAT = "float"
    """Floats, in an order of operations that the target chooses."""
    INTEGER = "integer"
    """The integer program, with bit-exact results everywhere."""
    SIMULATED = "simulated"
    """The integer program with floats between its roundings, for tools that expect this form."""
    VENDOR = "foreign"
    """Integers that a vendor toolchain makes from floats by its own rules; tcc predicts them."""


class Storage(Enum):
    """The type in which the weights of a float network are stored, from fine to coarse."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"

    @property
    def rounded(self) -> bool:
        """Whether these weights differ from the spec's."""
        match self:
            case Storage.FLOAT32:
                return False
            case Storage.FLOAT16 | Storage.INT8:
                return True
            case _:
                assert_never(self)


@dataclass(frozen=True, slots=True)
class Precision:
    """A precision of a target, as in `--precision`.

    `weights` is the storage of the weights of float arithmetic. With `float_io`, the last layers of
    integer programs output floats, otherwise 8-bit integers.
    """

    name: str
    summary: str
    arithmetic: Arithmetic = Arithmetic.FLOAT
    weights: Storage = Storage.FLOAT32
    float_io: bool = True

    @property
    def integer(self) -> bool:
        """Whether the target is built from the integer program, not the float model."""
        match self.arithmetic:
            case Arithmetic.FLOAT | Arithmetic.VENDOR:
                return False
            case Arithmetic.INTEGER | Arithmetic.SIMULATED:
                return True
            case _:
                assert_never(self.arithmetic)

    @property
    def exact(self) -> bool:
        """Whether its integer results are bit-exact to the integer program."""
        match self.arithmetic:
            case Arithmetic.INTEGER:
                return True
            case Arithmetic.FLOAT | Arithmetic.SIMULATED | Arithmetic.VENDOR:
                return False
            case _:
                assert_never(self.arithmetic)

    @property
    def calibrated(self) -> bool:
        """Whether it needs images for calibration."""
        match self.arithmetic:
            case Arithmetic.FLOAT:
                return False
            case Arithmetic.INTEGER | Arithmetic.SIMULATED | Arithmetic.VENDOR:
                return True
            case _:
                assert_never(self.arithmetic)

    @property
    def full(self) -> bool:
        """Whether it computes in float with the spec's own weights: the baseline of others."""
        # float16 storage does not count, although it multiplies floats: its weights are rounded.
        return not (self.calibrated or self.weights.rounded)


FP32 = Precision("fp32", "float32 throughout, with the spec's own weights")
"""The default precision."""
