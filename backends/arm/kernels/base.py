"""What a kernel is to everything around it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np

Shape3 = tuple[int, int, int]
"""Channels, height, width; a vector of n features is (1, 1, n)."""


class Kernel:
    """One C function, described completely: equal kernels are the same function.

    Its arguments are pointers to floats: what it reads, then its constants, then scratch
    memory, then what it writes. None of them overlap what it writes.
    """

    word: ClassVar[str]
    """Stands in the function's name."""


@dataclass(frozen=True, slots=True)
class Value:
    """An argument: a value of the graph."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class KernelWeights:
    """An argument: weights, in the order in which the kernel reads them."""

    data: "np.ndarray"


@dataclass(frozen=True, slots=True)
class Scratch:
    """An argument: memory of that many floats that the kernel alone uses."""

    floats: int


KernelArgument = Value | KernelWeights | Scratch


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One use of a kernel: its arguments but the last, and the value that it writes."""

    kernel: Kernel
    arguments: tuple[KernelArgument, ...]
    result: str
