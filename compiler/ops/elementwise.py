"""What ops share that work on each element by itself."""

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
"""The least and the greatest number that a value can hold."""
Float64: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Elementwise(Op):
    """An op without weights whose output has its input's shape, element for element."""

    bounds: ClassVar[Bounds] = (-inf, inf)
    """What its results lie between whatever the input, rounding included: where none is below 0,
    integers need no sign, and a clamp that changes nothing is left out."""

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x


@dataclass(frozen=True, slots=True)
class ScalarFunction(Elementwise):
    """A function of one number, applied to each element.

    On 8-bit integers it is a table of its 256 results, so that every one is exact there.
    """

    @abstractmethod
    def evaluate(self, x: Float64) -> Float64:
        """Return the function's values, as exact as float64 is.

        Args:
            x: Finite numbers of any shape and size: nothing may overflow, since a table's scale can
                be any normal float32.

        Returns:
            Numbers of the same shape.
        """
