"""Images blurred, with noise, or painted over."""

import math
from typing import TYPE_CHECKING

from tcc.compiler.train.counter_random import Draws

if TYPE_CHECKING:
    from torch import Tensor

    from tcc.compiler.train.augmentation_record import Augmentation


def blurred(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images after a Gaussian blur, edges repeated; one tap after the other."""
    import torch

    if record.blur is None or not record.blur.amount:
        return levels
    (places,) = random.chance("blur", record.blur.probability).nonzero(as_tuple=True)
    sigma = random.between("blur", 0, record.blur.amount).clamp(min=1e-3)[places]
    # Beyond three deviations a Gaussian has a quarter of a percent: one reach for the whole batch,
    # by the largest deviation that is drawn.
    reach = math.ceil(3 * record.blur.amount)
    offsets = torch.arange(reach + 1, dtype=torch.float64, device=levels.device)
    taps = (-((offsets / sigma[:, None]) ** 2) / 2).exp()
    taps = taps / (taps.sum(1, keepdim=True) * 2 - 1)
    # Only images that are blurred are made floats.
    values = levels[places].float()
    # A Gaussian is a product: a row of taps across, then down, in place of a square of them.
    for axis in (3, 2):
        values = _summed(values, taps.float(), axis)
    result = levels.clone()
    result[places] = values.round_().clamp_(0, 255).to(torch.uint8)
    return result


def _summed(values: "Tensor", taps: "Tensor", axis: int) -> "Tensor":
    """Return sums of neighbours along an axis by taps, float32 (N, reach + 1)."""
    import torch
    from torch.nn import functional

    reach, side = taps.shape[1] - 1, values.shape[axis]
    around = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    padded = functional.pad(values, around, "replicate")
    total = values.mul_(taps[:, 0, None, None, None])
    both = torch.empty_like(total)
    for offset in range(1, reach + 1):
        before, after = (padded.narrow(axis, reach + step, side) for step in (-offset, offset))
        # Taps are symmetric: neighbours at one distance are added first, and multiplied once.
        torch.add(before, after, out=both)
        total += both.mul_(taps[:, offset, None, None, None])
    return total


def noisy(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images with noise in every pixel and channel.

    It is the sum of four bytes, which is Gaussian up to 3.4 deviations and, made of whole numbers,
    the same everywhere.
    """
    import torch

    if record.noise is None or not record.noise.amount:
        return levels
    (places,) = random.chance("noise", record.noise.probability).nonzero(as_tuple=True)
    shown = levels[places]
    deviation = random.between("noise", 0, record.noise.amount)[places]
    count = math.prod(levels.shape[1:])
    words = (count + 1) // 2
    bits = Draws(random.keys[places]).bits("pixels of noise", words)
    one, two, three, four = bits.view(torch.uint8).view(len(places), words * 2, 4).unbind(2)
    drawn = one.float().add_(two).add_(three).add_(four).sub_(510)[:, :count].view(shown.shape)
    # The deviation of the sum of four bytes: each is uniform, of variance (256^2 - 1) / 12.
    unit = math.sqrt(4 * (256**2 - 1) / 12)
    drawn *= (deviation / unit).float()[:, None, None, None]
    result = levels.clone()
    result[places] = drawn.add_(shown).round_().clamp_(0, 255).to(torch.uint8)
    return result


def erased(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images of which a rectangle is painted over."""
    import torch

    erase = record.erase
    if erase is None:
        return levels
    # Random Erasing (Zhong et al., arXiv 1708.04896): area and aspect of the rectangle are drawn,
    # the aspect evenly in its logarithm.
    area = random.between("erased area", *erase.area)
    aspect = (random.between("erased aspect", -1, 1) * math.log(erase.aspect)).exp()
    places = random.uniform("erased place", 2).T
    inside = random.chance("erase", erase.probability)[:, None, None]
    for axis, share, place in ((3, aspect, places[0]), (2, 1 / aspect, places[1])):
        side = levels.shape[axis]
        length = ((area * share).sqrt() * side).round().clamp(1, side)
        first = (place * (side - length + 1)).floor()
        at = torch.arange(side, device=levels.device, dtype=torch.float64)
        within = (at >= first[:, None]) & (at < (first + length)[:, None])
        inside = inside & (within[:, None, :] if axis == 3 else within[:, :, None])
    return torch.where(inside[:, None], _fill(erase.fill, levels), levels)


def _fill(fill: str, levels: "Tensor") -> "Tensor":
    import torch

    pixels = levels.shape[2] * levels.shape[3]
    means = (levels.sum((2, 3), keepdim=True) + pixels // 2) // pixels
    return (means if fill == "mean" else means * 0).to(torch.uint8)
