"""Images turned, mirrored and warped; each pixel of the result is computed by itself."""

import math
from typing import TYPE_CHECKING

from tcc.compiler.train.counter_random import Draws

if TYPE_CHECKING:
    from torch import Tensor

    from tcc.compiler.train.augmentation_record import Augmentation, Crop, Warp

BORDERS = {"mirror": "reflection", "edge": "border", "black": "zeros"}
"""What PyTorch calls what lies beyond the edges."""


def turned(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images mirrored and turned by quarters, without any arithmetic."""
    import torch

    across = random.chance("horizontal flip", record.horizontal_flip)
    down = random.chance("vertical flip", record.vertical_flip)
    turns = (random.uniform("turns")[:, 0] * 4).long()
    if levels.shape[2] != levels.shape[3]:
        turns = turns // 2 * 2
    turns = torch.where(random.chance("turns", record.quarter_turns), turns, 0)
    # A quarter turn is a transposition and one mirroring, a half turn both mirrorings.
    swapped = turns % 2 == 1
    across, down = across ^ (turns >= 2), down ^ ((turns == 1) | (turns == 2))
    if record.quarter_turns and levels.shape[2] == levels.shape[3]:
        levels = _where(swapped, levels.transpose(2, 3), levels)
    if record.horizontal_flip or record.quarter_turns:
        levels = _where(across, levels.flip(3), levels)
    if record.vertical_flip or record.quarter_turns:
        levels = _where(down, levels.flip(2), levels)
    return levels


def _where(holds: "Tensor", one: "Tensor", other: "Tensor") -> "Tensor":
    import torch

    return torch.where(holds[:, None, None, None], one, other)


def warped(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images after one bilinear map, which is `warp` and `crop` together.

    The grid is made of single multiplications and sums, since a matrix product's last bits depend
    on the size of the batch.
    """
    import torch
    from torch.nn import functional

    if record.warp is None and record.crop is None:
        return levels
    height, width = levels.shape[2:]
    x, y = (
        (torch.arange(side, device=levels.device, dtype=torch.float64) + 0.5) / side * 2 - 1
        for side in (width, height)
    )
    x, y = x[None, None, :], y[None, :, None]
    if record.crop is not None:
        x, y = _cropped(record.crop, x, y, random)
    border = "mirror"
    if record.warp is not None:
        x, y = _affine(record.warp, x, y, width / height, random)
        border = record.warp.border
    shape = (len(levels), height, width)
    # In float64 until here, and rounded once; grid_sample
    # wants the grid in the type of the image.
    grid = torch.stack((x.float().expand(shape), y.float().expand(shape)), -1)
    found = functional.grid_sample(
        levels.float(), grid, "bilinear", BORDERS[border], align_corners=False
    )
    return found.round_().clamp_(0, 255).to(torch.uint8)


def _cropped(crop: "Crop", x: "Tensor", y: "Tensor", random: Draws) -> "tuple[Tensor, Tensor]":
    """Return where the pixels of a part lie in the image, in halves of its sides."""
    import torch

    area = random.between("crop area", *crop.area)
    # Even in the logarithm: twice as wide is as likely as twice as high.
    aspect = (random.between("crop aspect", -1, 1) * math.log(crop.aspect)).exp()
    wide, high = ((area * a).sqrt().clamp(max=1) for a in (aspect, 1 / aspect))
    right, low = random.uniform("crop place", 2).T * 2 - 1
    holds = random.chance("crop", crop.probability)
    wide, high = torch.where(holds, wide, 1.0), torch.where(holds, high, 1.0)
    x = x * _each(wide) + _each(right * (1 - wide))
    return x, y * _each(high) + _each(low * (1 - high))


def _affine(
    warp: "Warp", x: "Tensor", y: "Tensor", aspect: float, random: Draws
) -> "tuple[Tensor, Tensor]":
    """Return where pixels come from; angles are those of the pixels, whatever the image's shape."""
    import torch

    holds = random.chance("warp", warp.probability)
    angle = random.between("rotation", -1, 1) * math.radians(warp.degrees)
    shear = (random.between("shear", -1, 1) * math.radians(warp.shear)).tan()
    # Even in the logarithm, as for a crop: twice as large is as likely as half.
    low, high = map(math.log, warp.scale)
    scale = random.between("scale", low, high).exp()
    angle, shear = (torch.where(holds, v, 0.0) for v in (angle, shear))
    scale = torch.where(holds, scale, 1.0)
    # Places run from -1 to 1, so that a share of the side is twice as many units.
    moved = random.uniform("shift", 2).T * (4 * warp.shift) - 2 * warp.shift
    right, below = torch.where(holds, moved, 0.0)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = (x - _each(right)) * aspect, y - _each(below)
    turned_x, turned_y = x * _each(cos) - y * _each(sin), x * _each(sin) + y * _each(cos)
    return (turned_x + turned_y * _each(shear)) / aspect, turned_y


def _each(values: "Tensor") -> "Tensor":
    return values[:, None, None]
