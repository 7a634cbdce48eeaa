"""Colours changed: what is linear in a pixel's channels as one matrix, what is not as a table."""

import math
from typing import TYPE_CHECKING

from tcc.compiler.train.counter_random import Draws

if TYPE_CHECKING:
    from torch import Tensor

    from tcc.compiler.train.augmentation_record import Augmentation, Change

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601's weights of red, green and blue."""


def recolored(record: "Augmentation", levels: "Tensor", random: Draws, color: str) -> "Tensor":
    """Return images of other brightness, contrast, saturation and hue, or without colour.

    A pixel becomes matrix x pixel + offset, in single products and sums.
    """
    import torch

    changes = (record.brightness, record.contrast, record.saturation, record.hue)
    if not any(changes) and not record.grey:
        return levels
    matrix, offset = _matrix(record, levels, random, color)
    parts = [levels[:, c].float() for c in range(levels.shape[1])]
    result = torch.empty_like(levels)
    # Not as a matrix product, whose order of sums is the library's and depends on the batch.
    for row in range(len(parts)):
        total = parts[0] * _each(matrix[row][0])
        for column, part in enumerate(parts[1:], 1):
            total += part * _each(matrix[row][column])
        total += _each(offset)
        result[:, row] = total.round_().clamp_(0, 255).to(torch.uint8)
    return result


ColorMatrix = list[list["Tensor"]]


def _matrix(
    record: "Augmentation", levels: "Tensor", random: Draws, color: str
) -> "tuple[ColorMatrix, Tensor]":
    """Return the rows and columns of each image's matrix, and its offset, all float64 (N,)."""
    brightness, contrast = (_factor(n, record, random) for n in ("brightness", "contrast"))
    pixels = levels.shape[2] * levels.shape[3]
    means = levels.sum((2, 3)).double() / pixels  # of whole numbers, so in any order
    if levels.shape[1] == 1:
        return [[brightness * contrast]], brightness * (1 - contrast) * means[:, 0]
    luma = LUMA[::-1] if color == "bgr" else LUMA
    grey = means[:, 0] * luma[0] + means[:, 1] * luma[1] + means[:, 2] * luma[2]
    rows = _saturated(record, luma, random, brightness * contrast)
    if record.hue is not None:
        rows = _product(_hue(record.hue, luma, random), rows)
    return rows, brightness * (1 - contrast) * grey


def _factor(name: str, record: "Augmentation", random: Draws) -> "Tensor":
    """Return 1 +- the amount of a change, 1 where it does not happen; float64 (N,)."""
    import torch

    change: Change | None = getattr(record, name)
    if change is None:
        return torch.ones_like(random.keys, dtype=torch.float64)
    drawn = random.between(name, 1 - change.amount, 1 + change.amount)
    return torch.where(random.chance(name, change.probability), drawn, 1.0)


def _saturated(
    record: "Augmentation", luma: tuple[float, ...], random: Draws, gains: "Tensor"
) -> ColorMatrix:
    import torch

    kept = _factor("saturation", record, random)
    kept = torch.where(random.chance("grey", record.grey), 0.0, kept)
    return [
        [gains * (kept * float(row == column) + (1 - kept) * luma[column]) for column in range(3)]
        for row in range(3)
    ]


def _hue(change: "Change", luma: tuple[float, ...], random: Draws) -> ColorMatrix:
    """Return rotations of colours about the grey axis, which keep a pixel's grey (luma).

    Rodrigues' formula about (1, 1, 1); what that moves luma by is taken from all channels.
    """
    import torch

    angle = random.between("hue", -1, 1) * math.radians(change.amount)
    angle = torch.where(random.chance("hue", change.probability), angle, 0.0)
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
    third = (1 - cos) / 3
    signs = ((0, -1, 1), (1, 0, -1), (-1, 1, 0))
    turned = [
        [third + cos * float(r == c) + sin * float(signs[r][c]) for c in range(3)] for r in range(3)
    ]
    drift = [sum((turned[r][c] * luma[r] for r in range(3)), cos * 0) - luma[c] for c in range(3)]
    return [[turned[r][c] - drift[c] for c in range(3)] for r in range(3)]


def _product(one: ColorMatrix, other: ColorMatrix) -> ColorMatrix:
    return [
        [
            one[r][0] * other[0][c] + one[r][1] * other[1][c] + one[r][2] * other[2][c]
            for c in range(3)
        ]
        for r in range(3)
    ]


def curved(record: "Augmentation", levels: "Tensor", random: Draws) -> "Tensor":
    """Return images after gamma and changes of stain, by a table of 256 levels for each channel."""
    import torch

    if record.gamma is None and record.stain is None:
        return levels
    count, channels = levels.shape[:2]
    power = torch.ones((count, channels), dtype=torch.float64, device=levels.device)
    if record.gamma is not None:
        drawn = (random.between("gamma", -1, 1) * math.log1p(record.gamma.amount)).exp()
        power *= torch.where(random.chance("gamma", record.gamma.probability), drawn, 1.0)[:, None]
    if record.stain is not None:
        # Beer and Lambert: light that passes is light to the power of the stain's density
        drawn = random.uniform("stain", channels) * (2 * record.stain.amount)
        holds = random.chance("stain", record.stain.probability)[:, None]
        power *= torch.where(holds, drawn + (1 - record.stain.amount), 1.0)
    # A power is dear and there are only 256 levels: one for each level, not for each pixel.
    shares = torch.arange(256, dtype=torch.float64, device=levels.device) / 255
    table = (shares ** power[:, :, None] * 255).round().clamp(0, 255).to(torch.uint8)
    places = levels.flatten(2).long()
    return table.gather(2, places).reshape(levels.shape)


def _each(values: "Tensor") -> "Tensor":
    return values.float()[:, None, None]
