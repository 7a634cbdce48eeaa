"""Training images changed at random, as a recipe says: `augment:`.

Levels stay 8-bit, as the contract's arithmetic gets them when deployed: a network never learns from
values that no image has. All numbers are drawn by seed, epoch and sample alone, and no operation
lets one image of a batch touch another: order, size of batches, threads and a resume change
nothing. The order is: flips and turns, one warp, blur, colours, curves, noise, erasing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from tcc.compiler.train import counter_random
from tcc.compiler.train.counter_random import Draws
from tcc.compiler.train.recipe_records import Augmentation, Change, Crop, Mixup, Warp


def augment(
    record: Augmentation,
    levels: Tensor,
    samples: Tensor,
    seed: int,
    epoch: int,
    color: str = "rgb",
) -> Tensor:
    """Return changed levels, uint8 (N, C, H, W) as they came, on the same device.

    Args:
        record: What may happen.
        levels: The images.
        samples: int64 (N,), what each is called in its data set.
        seed: The run's.
        epoch: Which time they are seen.
        color: The contract's order of channels.
    """
    random = counter_random.draws(samples.to(levels.device), seed, "augment", epoch)
    levels = turned(record, levels, random)
    levels = warped(record, levels, random)
    levels = blurred(record, levels, random)
    levels = recolored(record, levels, random, color)
    levels = curved(record, levels, random)
    levels = noisy(record, levels, random)
    return erased(record, levels, random)


BORDERS = {"mirror": "reflection", "edge": "border", "black": "zeros"}
"""What PyTorch calls what lies beyond the edges."""


def turned(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images mirrored and turned by quarters, without any arithmetic."""
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


def _where(holds: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(holds[:, None, None, None], one, other)


def warped(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images after one bilinear map, which is `warp` and `crop` together.

    The grid is made of single multiplications and sums, since a matrix product's last bits depend
    on the size of the batch.
    """
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


def _cropped(crop: Crop, x: Tensor, y: Tensor, random: Draws) -> tuple[Tensor, Tensor]:
    """Return where the pixels of a part lie in the image, in halves of its sides."""
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
    warp: Warp, x: Tensor, y: Tensor, aspect: float, random: Draws
) -> tuple[Tensor, Tensor]:
    """Return where pixels come from; angles are those of the pixels, whatever the image's shape."""
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


def _each(values: Tensor) -> Tensor:
    return values[:, None, None]


LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601's weights of red, green and blue."""


def recolored(record: Augmentation, levels: Tensor, random: Draws, color: str) -> Tensor:
    """Return images of other brightness, contrast, saturation and hue, or without colour.

    A pixel becomes matrix x pixel + offset, in single products and sums.
    """
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


ColorMatrix = list[list[Tensor]]


def _matrix(
    record: Augmentation, levels: Tensor, random: Draws, color: str
) -> tuple[ColorMatrix, Tensor]:
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


def _factor(name: str, record: Augmentation, random: Draws) -> Tensor:
    """Return 1 +- the amount of a change, 1 where it does not happen; float64 (N,)."""
    change: Change | None = getattr(record, name)
    if change is None:
        return torch.ones_like(random.keys, dtype=torch.float64)
    drawn = random.between(name, 1 - change.amount, 1 + change.amount)
    return torch.where(random.chance(name, change.probability), drawn, 1.0)


def _saturated(
    record: Augmentation, luma: tuple[float, ...], random: Draws, gains: Tensor
) -> ColorMatrix:
    kept = _factor("saturation", record, random)
    kept = torch.where(random.chance("grey", record.grey), 0.0, kept)
    return [
        [gains * (kept * float(row == column) + (1 - kept) * luma[column]) for column in range(3)]
        for row in range(3)
    ]


def _hue(change: Change, luma: tuple[float, ...], random: Draws) -> ColorMatrix:
    """Return rotations of colours about the grey axis, which keep a pixel's grey (luma).

    Rodrigues' formula about (1, 1, 1); what that moves luma by is taken from all channels.
    """
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


def curved(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images after gamma and changes of stain, by a table of 256 levels for each channel."""
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


def blurred(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images after a Gaussian blur, edges repeated; one tap after the other."""
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


def _summed(values: Tensor, taps: Tensor, axis: int) -> Tensor:
    """Return sums of neighbours along an axis by taps, float32 (N, reach + 1)."""
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


def noisy(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images with noise in every pixel and channel.

    It is the sum of four bytes, which is Gaussian up to 3.4 deviations and, made of whole numbers,
    the same everywhere.
    """
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


def erased(record: Augmentation, levels: Tensor, random: Draws) -> Tensor:
    """Return images of which a rectangle is painted over."""
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


def _fill(fill: str, levels: Tensor) -> Tensor:
    pixels = levels.shape[2] * levels.shape[3]
    means = (levels.sum((2, 3), keepdim=True) + pixels // 2) // pixels
    return (means if fill == "mean" else means * 0).to(torch.uint8)


def mix(
    record: Mixup, tensors: Tensor, targets: Tensor, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return a batch mixed with itself in another order, new or, where nothing is mixed, as given.

    Args:
        record: How.
        tensors: What the network takes, float32 (N, ...); cutmix needs (N, C, H, W).
        targets: The share of each class, float32 (N, K).
        seed: The run's.
        epoch: Which it is.
        step: Which of its batches.
    """
    import numpy as np

    # A generator of its own for each step, by its place in the run: a training that is resumed
    # draws the same.
    random = np.random.default_rng(
        np.random.Philox(counter_random.word(seed, "mixup", epoch, step))
    )
    holds, cut = random.random() < record.probability, random.random()
    # Half of the batches each, where both are asked for.
    cutmix = record.cutmix > 0 and (record.alpha == 0 or cut < 0.5)
    shape = record.cutmix if cutmix else record.alpha
    if not holds or not shape:
        return tensors, targets
    share = float(random.beta(shape, shape))
    others = torch.from_numpy(random.permutation(len(tensors))).to(tensors.device)
    if not cutmix:
        return _blend(tensors, tensors[others], share), _blend(targets, targets[others], share)
    height, width = tensors.shape[2:]
    top, bottom = _stretch(height, share, random.random())
    left, right = _stretch(width, share, random.random())
    result = tensors.clone()
    result[:, :, top:bottom, left:right] = tensors[others, :, top:bottom, left:right]
    # By the pixels that were really pasted: a rectangle is cut to whole pixels.
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return result, _blend(targets, targets[others], kept)


def _blend(one: Tensor, other: Tensor, share: float) -> Tensor:
    return one * share + other * (1 - share)


def _stretch(side: int, share: float, place: float) -> tuple[int, int]:
    """Return a stretch of a side, of length sqrt(1 - share), that lies within it."""
    length = min(side, round((1 - share) ** 0.5 * side))
    first = int(place * (side - length + 1))
    return first, first + length
