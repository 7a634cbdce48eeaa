"""Base classes of ops that compute each element separately."""

from abc import abstractmethod
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from tcc.compiler.ir.op import Op
from tcc.compiler.ir.types import TensorType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Bounds: TypeAlias = tuple[float, float]
"""The smallest and the largest number of a value."""
Float64: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Elementwise(Op):
    """An op without weights that maps each element of its input to one of its output."""

    bounds: ClassVar[Bounds] = (-inf, inf)
    """Range of the results for any input, including rounding. Results that are never negative need
    no sign in integers, and a clamp without effect is removed."""

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x


@dataclass(frozen=True, slots=True)
class ScalarFunction(Elementwise):
    """A function of one number, applied to each element.

    For 8-bit integers it is an exact table of its 256 results.
    """

    @abstractmethod
    def evaluate(self, x: Float64) -> Float64:
        """Return the values of the function with the accuracy of float64.

        Args:
            x: Finite numbers of any shape and magnitude. Nothing may overflow, because the scale of
                a table can be any normal float32.

        Returns:
            Numbers of the same shape.
        """
