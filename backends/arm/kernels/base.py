"""What a kernel is to everything around it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tcc.backends.arm.micro.records import MicroKernel
from tcc.compiler.ir.types import TensorType

if TYPE_CHECKING:
    import numpy as np


Shape3 = tuple[int, int, int]
"""Channels, height, width; a vector of n features is (1, 1, n)."""


SIZES = {"float32": 4, "int32": 4, "int16": 2, "int8": 1, "uint8": 1}
"""Bytes of each type of number that kernels work on."""


@dataclass(frozen=True, slots=True)
class Space:
    """Memory for numbers of one type."""

    elements: int
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.elements * SIZES[self.dtype]


def get_space(kind: TensorType) -> Space:
    """Return the memory that a value takes."""
    return Space(kind.elements, kind.dtype.value)


class Kernel:
    """One C function, described completely: equal kernels are the same function.

    Its arguments are pointers: to what it reads, then to its constants, then to scratch
    memory, then to what it writes. None of them overlap what it writes.
    """

    name: ClassVar[str]
    """Stands in the function's name."""

    @property
    def micro_kernels(self) -> tuple[MicroKernel, ...]:
        """What it calls."""
        return ()


@dataclass(frozen=True, slots=True)
class Value:
    """An argument: a value of the graph."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class KernelWeights:
    """An argument: weights, in the order in which the kernel reads them."""

    tensor: "np.ndarray"


@dataclass(frozen=True, slots=True)
class Scratch:
    """An argument: memory that the kernel alone uses."""

    space: Space


KernelArgument = Value | KernelWeights | Scratch


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One use of a kernel: its arguments but the last, and the value that it writes."""

    kernel: Kernel
    arguments: tuple[KernelArgument, ...]
    output: str


LANES = 4
"""Floats in a vector."""


def choose_tile_width(extent: int, max_width: int, lanes: int = LANES) -> tuple[int, int]:
    """Return the width and the lanes, at most `lanes`, of tiles that cover `extent`."""
    if extent < LANES:
        return 1, 1
    # A map narrower than a vector takes half vectors.
    while lanes > extent:
        lanes //= 2
    return max(lanes, min(max_width, extent) // lanes * lanes), lanes
