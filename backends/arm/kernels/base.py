"""The base class of kernels, and calls of kernels with their arguments."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tcc.backends.arm.micro.records import MicroKernel
from tcc.compiler.ir.types import TensorType

if TYPE_CHECKING:
    import numpy as np


Shape3 = tuple[int, int, int]
"""Channels, height, width; a vector of n features is (1, 1, n)."""


SIZES = {"float32": 4, "int32": 4, "int16": 2, "int8": 1, "uint8": 1}
"""Bytes per element of each type in memory."""


def get_dtype(tensor_type: TensorType) -> str:
    """Return the name of a value's element type, `uint8-30` for one with the zero point 30.

    Its values are from -30 to 225, and the low 8 bits of each are stored.
    """
    zero_point = f"-{tensor_type.zero_point}" if tensor_type.zero_point else ""
    return f"{tensor_type.dtype.value}{zero_point}"


def get_memory_dtype(dtype: str) -> str:
    """Return the type of an element in memory."""
    return dtype.partition("-")[0]


def get_zero_point(dtype: str) -> int:
    """Return the zero point of an element type."""
    return int(dtype.partition("-")[2] or 0)


def get_size(dtype: str) -> int:
    """Return the bytes per element."""
    return SIZES[get_memory_dtype(dtype)]


@dataclass(frozen=True, slots=True)
class Space:
    """Memory for elements of one type."""

    elements: int
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.elements * get_size(self.dtype)


def get_space(tensor_type: TensorType) -> Space:
    """Return the memory of a value."""
    return Space(tensor_type.elements, get_dtype(tensor_type))


class Kernel:
    """One C function, fully described: equal kernels are the same function.

    Its arguments are pointers: inputs, constants, scratch memory, then the output. No argument
    overlaps the output.
    """

    name: ClassVar[str]
    """Part of the function's name."""

    @property
    def micro_kernels(self) -> tuple[MicroKernel, ...]:
        """The micro-kernels that it calls."""
        return ()


@dataclass(frozen=True, slots=True)
class Value:
    """An argument: a value of the graph."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class KernelWeights:
    """An argument: weights in the kernel's order."""

    tensor: "np.ndarray"


@dataclass(frozen=True, slots=True)
class Scratch:
    """An argument: scratch memory."""

    space: Space


KernelArgument = Value | KernelWeights | Scratch


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One call of a kernel: its arguments without the output, and the name of the output."""

    kernel: Kernel
    arguments: tuple[KernelArgument, ...]
    output: str


LANES = 4
"""Number of floats in a vector."""


def choose_tile_width(extent: int, max_width: int, lanes: int = LANES) -> tuple[int, int]:
    """Return the width of tiles that cover `extent`, and their lanes, at most `lanes`."""
    if extent < LANES:
        return 1, 1
    # For a map narrower than a vector, use half vectors.
    while lanes > extent:
        lanes //= 2
    return max(lanes, min(max_width, extent) // lanes * lanes), lanes
