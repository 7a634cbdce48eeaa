"""Kernels that look at all channels of a pixel."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Kernel, Shape3
from tcc.backends.arm.kernels.epilogue import NOTHING, Epilogue


@dataclass(frozen=True, slots=True)
class SoftmaxKernel(Kernel):
    """Softmax over the channels of each pixel. Arguments: map, the epilogue's operands, result."""

    word: ClassVar[str] = "softmax"
    shape: Shape3
    epilogue: Epilogue = NOTHING


@dataclass(frozen=True, slots=True)
class LayerNormKernel(Kernel):
    """Layer normalisation of the channels of each pixel.

    Arguments: map, weight and bias of each channel, the epilogue's operands, result.
    """

    word: ClassVar[str] = "layer_norm"
    shape: Shape3
    eps: float
    epilogue: Epilogue = NOTHING
