"""Kernels that look at all channels of a pixel."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Kernel, Shape3
from tcc.backends.arm.kernels.tail import NOTHING, Tail


@dataclass(frozen=True, slots=True)
class Exponential(Kernel):
    """Softmax over the channels of each pixel. Arguments: map, the tail's operands, result."""

    word: ClassVar[str] = "softmax"
    shape: Shape3
    tail: Tail = NOTHING


@dataclass(frozen=True, slots=True)
class Normal(Kernel):
    """Layer normalisation of the channels of each pixel.

    Arguments: map, weight and bias of each channel, the tail's operands, result.
    """

    word: ClassVar[str] = "layer_norm"
    shape: Shape3
    eps: float
    tail: Tail = NOTHING
