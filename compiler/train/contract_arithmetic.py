"""From grey levels to the network's input on any device, to the bit as a deployed network gets it.

Each step is one operation of IEEE 754 in float32, as in `ir/preprocess`. Divisors are tensors on
the levels' own device: CUDA turns a division by a number of Python's into a multiplication by its
reciprocal, which rounds otherwise for two of five pixels.
"""

from typing import TYPE_CHECKING

from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.diagnostics import UnhandledError

if TYPE_CHECKING:
    from torch import Tensor


def normalized(contract: Preprocess, levels: "Tensor") -> "Tensor":
    """Return (levels / scale - mean) / std as float32 (N, C, H, W), of uint8 or float levels.

    Where the contract divides by an image's maximum, it is that of these levels: what a device
    would divide by, were this the image that it is given.
    """
    import torch

    values = levels.to(torch.float32, copy=True)
    if contract.raw:
        return values
    mean, std = (_by_channel(v, levels) for v in (contract.mean, contract.std))
    return values.div_(_divisor(contract, values)).sub_(mean).div_(std)


def _divisor(contract: Preprocess, values: "Tensor") -> "Tensor":
    match contract.scale:
        case "255":
            return _by_channel((255.0,), values)
        case "max":
            return values.amax((1, 2, 3), keepdim=True).clamp_(min=1)
        case _:
            raise UnhandledError("scale of pixels", contract.scale)


def _by_channel(numbers: tuple[float, ...], like: "Tensor") -> "Tensor":
    import torch

    return torch.tensor(numbers, dtype=torch.float32, device=like.device).reshape(1, -1, 1, 1)
