"""Random augmentation of training images, as configured in a recipe's `augment:`.

Pixels stay 8-bit, as in deployment: the network never trains on values that no image has. Random
numbers depend only on seed, epoch and sample, and images of a batch do not affect each other. The
result is therefore independent of the order, the batch size, the threads and a resume. The order
is: flips and turns, one warp, blur, colours, curves, noise, erasing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from tcc.compiler.train import counter_random
from tcc.compiler.train.counter_random import CounterRandom
from tcc.compiler.train.recipe_records import Augmentation, Change, Crop, Mixup, Warp


def augment(
    augmentation: Augmentation,
    images: Tensor,
    samples: Tensor,
    seed: int,
    epoch: int,
    color: str = "rgb",
) -> Tensor:
    """Return augmented images, uint8 (N, C, H, W), on the same device.

    Args:
        augmentation: The changes to apply.
        images: The images, uint8 (N, C, H, W).
        samples: The images' indices in their dataset, int64 (N,).
        seed: The run's seed.
        epoch: The epoch.
        color: The contract's channel order.
    """
    random = counter_random.create_random(samples.to(images.device), seed, "augment", epoch)
    images = apply_flips_and_turns(augmentation, images, random)
    images = apply_warp(augmentation, images, random)
    images = apply_blur(augmentation, images, random)
    images = apply_colors(augmentation, images, random, color)
    images = apply_curves(augmentation, images, random)
    images = add_noise(augmentation, images, random)
    return apply_erasing(augmentation, images, random)


BORDER_MODES = {"mirror": "reflection", "edge": "border", "black": "zeros"}
"""PyTorch's padding modes, by border name."""


def apply_flips_and_turns(
    augmentation: Augmentation, images: Tensor, random: CounterRandom
) -> Tensor:
    """Return flipped images, rotated by multiples of 90 degrees, without any arithmetic."""
    flips_x = random.sample_chance("horizontal flip", augmentation.horizontal_flip)
    flips_y = random.sample_chance("vertical flip", augmentation.vertical_flip)
    quarter_turns = (random.sample_uniform("turns")[:, 0] * 4).long()
    if images.shape[2] != images.shape[3]:
        quarter_turns = quarter_turns // 2 * 2
    quarter_turns = torch.where(
        random.sample_chance("turns", augmentation.quarter_turns), quarter_turns, 0
    )
    # A quarter turn is a transposition and one flip; a half turn is both flips.
    is_transposed = quarter_turns % 2 == 1
    flips_x, flips_y = (
        flips_x ^ (quarter_turns >= 2),
        flips_y ^ ((quarter_turns == 1) | (quarter_turns == 2)),
    )
    if augmentation.quarter_turns and images.shape[2] == images.shape[3]:
        images = _select_images(is_transposed, images.transpose(2, 3), images)
    if augmentation.horizontal_flip or augmentation.quarter_turns:
        images = _select_images(flips_x, images.flip(3), images)
    if augmentation.vertical_flip or augmentation.quarter_turns:
        images = _select_images(flips_y, images.flip(2), images)
    return images


def _select_images(mask: Tensor, changed: Tensor, unchanged: Tensor) -> Tensor:
    return torch.where(mask[:, None, None, None], changed, unchanged)


def apply_warp(augmentation: Augmentation, images: Tensor, random: CounterRandom) -> Tensor:
    """Return images after one bilinear resampling, which combines `warp` and `crop`.

    The grid is computed with elementwise products and sums, because the last bits of a matrix
    product depend on the batch size.
    """
    if augmentation.warp is None and augmentation.crop is None:
        return images
    height, width = images.shape[2:]
    x, y = (
        (torch.arange(size, device=images.device, dtype=torch.float64) + 0.5) / size * 2 - 1
        for size in (width, height)
    )
    x, y = x[None, None, :], y[None, :, None]
    if augmentation.crop is not None:
        x, y = _crop_grid(augmentation.crop, x, y, random)
    border = "mirror"
    if augmentation.warp is not None:
        x, y = _transform_grid(augmentation.warp, x, y, width / height, random)
        border = augmentation.warp.border
    shape = (len(images), height, width)
    # In float64 until here, and rounded once: grid_sample requires a grid of the image's type.
    grid = torch.stack((x.float().expand(shape), y.float().expand(shape)), -1)
    sampled = functional.grid_sample(
        images.float(), grid, "bilinear", BORDER_MODES[border], align_corners=False
    )
    return sampled.round_().clamp_(0, 255).to(torch.uint8)


def _crop_grid(crop: Crop, x: Tensor, y: Tensor, random: CounterRandom) -> tuple[Tensor, Tensor]:
    """Return the image coordinates of a crop's pixels, from -1 to 1 along each side."""
    area = random.sample_range("crop area", *crop.area)
    # Uniform in the logarithm: twice as wide is as likely as twice as high.
    aspect = (random.sample_range("crop aspect", -1, 1) * math.log(crop.aspect)).exp()
    width, height = ((area * a).sqrt().clamp(max=1) for a in (aspect, 1 / aspect))
    x_offset, y_offset = random.sample_uniform("crop place", 2).T * 2 - 1
    is_applied = random.sample_chance("crop", crop.probability)
    width, height = torch.where(is_applied, width, 1.0), torch.where(is_applied, height, 1.0)
    x = x * _broadcast_to_pixels(width) + _broadcast_to_pixels(x_offset * (1 - width))
    return x, y * _broadcast_to_pixels(height) + _broadcast_to_pixels(y_offset * (1 - height))


def _transform_grid(
    warp: Warp, x: Tensor, y: Tensor, aspect: float, random: CounterRandom
) -> tuple[Tensor, Tensor]:
    """Return the pixels' source coordinates; angles are in pixel space, for any aspect ratio."""
    is_applied = random.sample_chance("warp", warp.probability)
    angle = random.sample_range("rotation", -1, 1) * math.radians(warp.degrees)
    shear = (random.sample_range("shear", -1, 1) * math.radians(warp.shear)).tan()
    # Uniform in the logarithm, as for a crop: twice as large is as likely as half as large.
    low, high = map(math.log, warp.scale)
    scale = random.sample_range("scale", low, high).exp()
    angle, shear = (torch.where(is_applied, v, 0.0) for v in (angle, shear))
    scale = torch.where(is_applied, scale, 1.0)
    # Coordinates run from -1 to 1, so that a shift by a share of the side is twice that number.
    shifts = random.sample_uniform("shift", 2).T * (4 * warp.shift) - 2 * warp.shift
    x_shift, y_shift = torch.where(is_applied, shifts, 0.0)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    x, y = (x - _broadcast_to_pixels(x_shift)) * aspect, y - _broadcast_to_pixels(y_shift)
    rotated_x, rotated_y = (
        x * _broadcast_to_pixels(cos) - y * _broadcast_to_pixels(sin),
        x * _broadcast_to_pixels(sin) + y * _broadcast_to_pixels(cos),
    )
    return (rotated_x + rotated_y * _broadcast_to_pixels(shear)) / aspect, rotated_y


def _broadcast_to_pixels(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]


LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601's weights of red, green and blue."""


def apply_colors(
    augmentation: Augmentation, images: Tensor, random: CounterRandom, color: str
) -> Tensor:
    """Return images with changed brightness, contrast, saturation and hue, or in grey.

    Each pixel becomes matrix x pixel + offset, in elementwise products and sums.
    """
    changes = (
        augmentation.brightness,
        augmentation.contrast,
        augmentation.saturation,
        augmentation.hue,
    )
    if not any(changes) and not augmentation.grey:
        return images
    matrix, offset = _build_color_matrix(augmentation, images, random, color)
    channels = [images[:, c].float() for c in range(images.shape[1])]
    output = torch.empty_like(images)
    # Not as a matrix product: its summation order depends on the library and the batch.
    for row in range(len(channels)):
        total = channels[0] * _broadcast_to_pixels(matrix[row][0])
        for column, channel in enumerate(channels[1:], 1):
            total += channel * _broadcast_to_pixels(matrix[row][column])
        total += _broadcast_to_pixels(offset)
        output[:, row] = total.round_().clamp_(0, 255).to(torch.uint8)
    return output


ColorMatrix = list[list[Tensor]]


def _build_color_matrix(
    augmentation: Augmentation, images: Tensor, random: CounterRandom, color: str
) -> tuple[ColorMatrix, Tensor]:
    """Return each image's colour matrix, by row and column, and its offset, all float64 (N,)."""
    brightness, contrast = (
        _sample_factor(n, augmentation, random) for n in ("brightness", "contrast")
    )
    pixel_count = images.shape[2] * images.shape[3]
    means = images.sum((2, 3)).double() / pixel_count  # sums of integers are exact in any order
    if images.shape[1] == 1:
        return [[brightness * contrast]], brightness * (1 - contrast) * means[:, 0]
    luma = LUMA_WEIGHTS[::-1] if color == "bgr" else LUMA_WEIGHTS
    grey = means[:, 0] * luma[0] + means[:, 1] * luma[1] + means[:, 2] * luma[2]
    rows = _build_saturation_matrix(augmentation, luma, random, brightness * contrast)
    if augmentation.hue is not None:
        rows = _compute_product(_build_hue_matrix(augmentation.hue, luma, random), rows)
    return rows, brightness * (1 - contrast) * grey


def _sample_factor(name: str, augmentation: Augmentation, random: CounterRandom) -> Tensor:
    """Return a factor within 1 +- the change's amount, 1 where it is not applied; float64 (N,)."""
    change: Change | None = getattr(augmentation, name)
    if change is None:
        return torch.ones_like(random.keys, dtype=torch.float64)
    factor = random.sample_range(name, 1 - change.amount, 1 + change.amount)
    return torch.where(random.sample_chance(name, change.probability), factor, 1.0)


def _build_saturation_matrix(
    augmentation: Augmentation, luma: tuple[float, ...], random: CounterRandom, gains: Tensor
) -> ColorMatrix:
    saturation = _sample_factor("saturation", augmentation, random)
    saturation = torch.where(random.sample_chance("grey", augmentation.grey), 0.0, saturation)
    return [
        [
            gains * (saturation * float(row == column) + (1 - saturation) * luma[column])
            for column in range(3)
        ]
        for row in range(3)
    ]


def _build_hue_matrix(
    change: Change, luma: tuple[float, ...], random: CounterRandom
) -> ColorMatrix:
    """Return colour rotations about the grey axis that preserve a pixel's luma.

    Uses Rodrigues' formula about (1, 1, 1), and subtracts the change in luma from all channels.
    """
    angle = random.sample_range("hue", -1, 1) * math.radians(change.amount)
    angle = torch.where(random.sample_chance("hue", change.probability), angle, 0.0)
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
    third = (1 - cos) / 3
    signs = ((0, -1, 1), (1, 0, -1), (-1, 1, 0))
    rotation = [
        [third + cos * float(r == c) + sin * float(signs[r][c]) for c in range(3)] for r in range(3)
    ]
    drift = [sum((rotation[r][c] * luma[r] for r in range(3)), cos * 0) - luma[c] for c in range(3)]
    return [[rotation[r][c] - drift[c] for c in range(3)] for r in range(3)]


def _compute_product(matrix_a: ColorMatrix, matrix_b: ColorMatrix) -> ColorMatrix:
    return [
        [
            matrix_a[r][0] * matrix_b[0][c]
            + matrix_a[r][1] * matrix_b[1][c]
            + matrix_a[r][2] * matrix_b[2][c]
            for c in range(3)
        ]
        for r in range(3)
    ]


def apply_curves(augmentation: Augmentation, images: Tensor, random: CounterRandom) -> Tensor:
    """Return images after gamma and stain changes, with a table of 256 values for each channel."""
    if augmentation.gamma is None and augmentation.stain is None:
        return images
    count, channels = images.shape[:2]
    power = torch.ones((count, channels), dtype=torch.float64, device=images.device)
    if augmentation.gamma is not None:
        exponents = (
            random.sample_range("gamma", -1, 1) * math.log1p(augmentation.gamma.amount)
        ).exp()
        power *= torch.where(
            random.sample_chance("gamma", augmentation.gamma.probability), exponents, 1.0
        )[:, None]
    if augmentation.stain is not None:
        # Beer-Lambert law: transmitted light is a power function with the stain's density
        exponents = random.sample_uniform("stain", channels) * (2 * augmentation.stain.amount)
        is_applied = random.sample_chance("stain", augmentation.stain.probability)[:, None]
        power *= torch.where(is_applied, exponents + (1 - augmentation.stain.amount), 1.0)
    # Powers are expensive: compute one for each of the 256 values, not for each pixel.
    intensities = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    table = (intensities ** power[:, :, None] * 255).round().clamp(0, 255).to(torch.uint8)
    indices = images.flatten(2).long()
    return table.gather(2, indices).reshape(images.shape)


def apply_blur(augmentation: Augmentation, images: Tensor, random: CounterRandom) -> Tensor:
    """Return images after a Gaussian blur with replicated edges, computed tap by tap."""
    if augmentation.blur is None or not augmentation.blur.amount:
        return images
    (indices,) = random.sample_chance("blur", augmentation.blur.probability).nonzero(as_tuple=True)
    sigma = random.sample_range("blur", 0, augmentation.blur.amount).clamp(min=1e-3)[indices]
    # A quarter of a percent of a Gaussian is beyond three deviations. One radius serves all images,
    # from the largest deviation.
    radius = math.ceil(3 * augmentation.blur.amount)
    offsets = torch.arange(radius + 1, dtype=torch.float64, device=images.device)
    kernel = (-((offsets / sigma[:, None]) ** 2) / 2).exp()
    kernel = kernel / (kernel.sum(1, keepdim=True) * 2 - 1)
    # Convert only the images that are blurred to float.
    pixels = images[indices].float()
    # A Gaussian is separable: filter along rows, then along columns.
    for axis in (3, 2):
        pixels = _sum_neighbors(pixels, kernel.float(), axis)
    output = images.clone()
    output[indices] = pixels.round_().clamp_(0, 255).to(torch.uint8)
    return output


def _sum_neighbors(pixels: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Return weighted sums of neighbours along an axis, in the memory of `pixels`.

    `kernel` (N, radius + 1) has float32 weights for each image, by distance from the pixel.
    """
    radius, size = kernel.shape[1] - 1, pixels.shape[axis]
    padding = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
    padded = functional.pad(pixels, padding, "replicate")
    total = pixels.mul_(kernel[:, 0, None, None, None])
    neighbors = torch.empty_like(total)
    for offset in range(1, radius + 1):
        preceding, following = (
            padded.narrow(axis, radius + step, size) for step in (-offset, offset)
        )
        # The kernel is symmetric: add the two neighbours at one distance, then multiply once.
        torch.add(preceding, following, out=neighbors)
        total += neighbors.mul_(kernel[:, offset, None, None, None])
    return total


def add_noise(augmentation: Augmentation, images: Tensor, random: CounterRandom) -> Tensor:
    """Return images with noise in every pixel and channel.

    The noise is the sum of four random bytes. It is Gaussian up to 3.4 deviations, and identical on
    every machine because it is computed from integers.
    """
    if augmentation.noise is None or not augmentation.noise.amount:
        return images
    (indices,) = random.sample_chance("noise", augmentation.noise.probability).nonzero(
        as_tuple=True
    )
    selected = images[indices]
    deviation = random.sample_range("noise", 0, augmentation.noise.amount)[indices]
    count = math.prod(images.shape[1:])
    word_count = (count + 1) // 2
    bits = CounterRandom(random.keys[indices]).sample_bits("pixels of noise", word_count)
    byte_1, byte_2, byte_3, byte_4 = (
        bits.view(torch.uint8).view(len(indices), word_count * 2, 4).unbind(2)
    )
    noise = (
        byte_1.float()
        .add_(byte_2)
        .add_(byte_3)
        .add_(byte_4)
        .sub_(510)[:, :count]
        .view(selected.shape)
    )
    # The deviation of the sum of four uniform bytes, each with the variance (256^2 - 1) / 12.
    byte_sum_deviation = math.sqrt(4 * (256**2 - 1) / 12)
    noise *= (deviation / byte_sum_deviation).float()[:, None, None, None]
    output = images.clone()
    output[indices] = noise.add_(selected).round_().clamp_(0, 255).to(torch.uint8)
    return output


def apply_erasing(augmentation: Augmentation, images: Tensor, random: CounterRandom) -> Tensor:
    """Return images with a rectangle filled with one colour."""
    erase = augmentation.erase
    if erase is None:
        return images
    # Random Erasing (Zhong et al., arXiv 1708.04896): random area and aspect ratio, the latter
    # uniform in the logarithm.
    area = random.sample_range("erased area", *erase.area)
    aspect = (random.sample_range("erased aspect", -1, 1) * math.log(erase.aspect)).exp()
    positions = random.sample_uniform("erased place", 2).T
    mask = random.sample_chance("erase", erase.probability)[:, None, None]
    for axis, ratio, position in ((3, aspect, positions[0]), (2, 1 / aspect, positions[1])):
        size = images.shape[axis]
        length = ((area * ratio).sqrt() * size).round().clamp(1, size)
        start = (position * (size - length + 1)).floor()
        coordinates = torch.arange(size, device=images.device, dtype=torch.float64)
        is_covered = (coordinates >= start[:, None]) & (coordinates < (start + length)[:, None])
        mask = mask & (is_covered[:, None, :] if axis == 3 else is_covered[:, :, None])
    return torch.where(mask[:, None], _compute_fill(erase.fill, images), images)


def _compute_fill(fill: str, images: Tensor) -> Tensor:
    pixel_count = images.shape[2] * images.shape[3]
    means = (images.sum((2, 3), keepdim=True) + pixel_count // 2) // pixel_count
    return (means if fill == "mean" else means * 0).to(torch.uint8)


def apply_mixup(
    mixup: Mixup, tensors: Tensor, targets: Tensor, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Return a batch mixed with a permutation of itself, and its mixed targets.

    A batch that is not mixed is returned unchanged.

    Args:
        mixup: The mixup and cutmix settings.
        tensors: The network's inputs, float32 (N, ...); cutmix needs (N, C, H, W).
        targets: The share of each class, float32 (N, K).
        seed: The run's seed.
        epoch: The epoch.
        step: The batch's index in the epoch.
    """
    import numpy as np

    # Each step has its own generator, so that a resumed training draws the same numbers.
    random = np.random.default_rng(
        np.random.Philox(counter_random.hash_key(seed, "mixup", epoch, step))
    )
    is_applied, coin = random.random() < mixup.probability, random.random()
    # If both are enabled, each is applied to half of the batches.
    cutmix = mixup.cutmix > 0 and (mixup.alpha == 0 or coin < 0.5)
    shape = mixup.cutmix if cutmix else mixup.alpha
    if not is_applied or not shape:
        return tensors, targets
    weight = float(random.beta(shape, shape))
    partners = torch.from_numpy(random.permutation(len(tensors))).to(tensors.device)
    if not cutmix:
        return _blend_tensors(tensors, tensors[partners], weight), _blend_tensors(
            targets, targets[partners], weight
        )
    height, width = tensors.shape[2:]
    y_start, y_end = _place_interval(height, weight, random.random())
    x_start, x_end = _place_interval(width, weight, random.random())
    mixed = tensors.clone()
    mixed[:, :, y_start:y_end, x_start:x_end] = tensors[partners, :, y_start:y_end, x_start:x_end]
    # Weight by the pixels that were pasted, because the rectangle is rounded to pixels.
    area_weight = 1 - (y_end - y_start) * (x_end - x_start) / (height * width)
    return mixed, _blend_tensors(targets, targets[partners], area_weight)


def _blend_tensors(tensor: Tensor, partner: Tensor, weight: float) -> Tensor:
    return tensor * weight + partner * (1 - weight)


def _place_interval(size: int, weight: float, position: float) -> tuple[int, int]:
    """Return the start and end of an interval within a side, of length sqrt(1 - weight)."""
    length = min(size, round((1 - weight) ** 0.5 * size))
    start = int(position * (size - length + 1))
    return start, start + length
