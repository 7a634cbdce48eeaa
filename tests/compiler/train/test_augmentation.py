"""Augmentation: what each change does. Its result depends only on seed, epoch and sample."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support.diagnostics import UserError, make_file_span
from tcc.compiler.train import counter_random
from tcc.compiler.train.augmentation import augment
from tcc.compiler.train.recipe_records import (
    Augmentation,
    Change,
    Crop,
    Erase,
    Warp,
    check_augmentation,
)

KINDS = {
    "horizontal_flip": Augmentation(horizontal_flip=0.5),
    "vertical_flip": Augmentation(vertical_flip=0.5),
    "quarter_turns": Augmentation(quarter_turns=0.8),
    "warp": Augmentation(warp=Warp(0.8, 30, (0.7, 1.4), 0.1, 10, "mirror")),
    "warp, edge": Augmentation(warp=Warp(degrees=30, border="edge")),
    "warp, black": Augmentation(warp=Warp(degrees=30, shift=0.2, border="black")),
    "crop": Augmentation(crop=Crop(0.8, (0.3, 0.9), 1.5)),
    "blur": Augmentation(blur=Change(1.5, 0.6)),
    "brightness": Augmentation(brightness=Change(0.4)),
    "contrast": Augmentation(contrast=Change(0.4)),
    "saturation": Augmentation(saturation=Change(0.9)),
    "hue": Augmentation(hue=Change(90)),
    "grey": Augmentation(grey=0.5),
    "gamma": Augmentation(gamma=Change(0.6)),
    "stain": Augmentation(stain=Change(0.4, 0.9)),
    "noise": Augmentation(noise=Change(20, 0.6)),
    "erase": Augmentation(erase=Erase(0.7)),
}
ALL = Augmentation(**{
    f.name: getattr(KINDS[f.name], f.name) for f in fields(Augmentation)
})  # fmt: skip
COUNT = 64
LEVELS = torch.tensor(np.random.default_rng(0).integers(0, 256, (COUNT, 3, 14, 14), np.uint8))
SAMPLES = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:COUNT]
KINDS_AND_ALL = {**KINDS, "all": ALL}


def augment_repeatedly(record, image, seed=0, epoch=0):
    """Augment one image (C, H, W) many times."""
    pixels = torch.as_tensor(image, dtype=torch.uint8)
    return augment(record, pixels.repeat(COUNT, 1, 1, 1), SAMPLES, seed, epoch)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "size"), [*((name, 7) for name in KINDS_AND_ALL), ("all", 1), ("all", 64)]
)
def test_augmentation_ignores_batch_size_order_and_thread_count(name, size, threads):
    expected = augment(KINDS_AND_ALL[name], LEVELS, SAMPLES, 5, 3)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(size))
    thread_count = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for indices in order.split(size)[:16]:
            augmented = augment(KINDS_AND_ALL[name], LEVELS[indices], SAMPLES[indices], 5, 3)
            assert torch.equal(augmented, expected[indices])
    finally:
        torch.set_num_threads(thread_count)


@pytest.mark.parametrize("name", KINDS_AND_ALL)
def test_augmentation_depends_on_seed_epoch_and_sample(name):
    original_pixels = LEVELS.clone()
    base = augment(KINDS_AND_ALL[name], original_pixels, SAMPLES, 5, 3)
    assert torch.equal(original_pixels, LEVELS)
    assert base.dtype == torch.uint8
    assert base.shape == LEVELS.shape
    assert torch.equal(base, augment(KINDS_AND_ALL[name], LEVELS, SAMPLES, 5, 3))
    for seed, epoch, samples in ((6, 3, SAMPLES), (5, 4, SAMPLES), (5, 3, SAMPLES + 1)):
        reseeded = augment(KINDS_AND_ALL[name], LEVELS, samples, seed, epoch)
        assert (reseeded != base).flatten(1).any(1).float().mean() > 0.3


def test_empty_recipe_and_zero_probability_change_nothing():
    assert augment(Augmentation(), LEVELS, SAMPLES, 0, 0) is LEVELS
    never = Augmentation(
        warp=Warp(0, 90), crop=Crop(0), blur=Change(2, 0), hue=Change(90, 0), gamma=Change(1, 0),
        noise=Change(9, 0), erase=Erase(0), stain=Change(1, 0), brightness=Change(1, 0),
    )  # fmt: skip
    assert torch.equal(augment(never, LEVELS, SAMPLES, 0, 0), LEVELS)
    still = Augmentation(warp=Warp(), crop=Crop(area=(1, 1)), blur=Change(0), brightness=Change(0))
    assert torch.equal(augment(still, LEVELS, SAMPLES, 0, 0), LEVELS)


def count_matches(results, *expected):
    """Count how many results equal each expected image. Every result equals one of them."""
    is_match = torch.stack([(results == image).flatten(1).all(1) for image in expected])
    assert is_match.any(0).all()
    return is_match.sum(1).tolist()


def test_flips_and_quarter_turns_are_exact():
    x = LEVELS[0]
    assert min(count_matches(augment_repeatedly(KINDS["horizontal_flip"], x), x, x.flip(2))) > 16
    assert min(count_matches(augment_repeatedly(KINDS["vertical_flip"], x), x, x.flip(1))) > 16
    rotations = [torch.rot90(x, k, (1, 2)) for k in range(4)]
    assert min(count_matches(augment_repeatedly(Augmentation(quarter_turns=1), x), *rotations)) > 6
    flip_and_rotate = Augmentation(0.5, 0.5, 1)
    assert (
        min(
            count_matches(
                augment_repeatedly(flip_and_rotate, x),
                *rotations,
                *(rotation.flip(1) for rotation in rotations),
            )
        )
        > 2
    )
    wide = x[:, :6]
    assert (
        min(
            count_matches(
                augment_repeatedly(Augmentation(quarter_turns=1), wide), wide, wide.flip(1, 2)
            )
        )
        > 16
    )
    assert torch.equal(augment_repeatedly(Augmentation(horizontal_flip=1), x)[0], x.flip(2))


def compute_moments(image):
    """Return the centre of a bright spot, (x, y) in pixels, and its 2 x 2 covariance."""
    values = image.double()
    y, x = torch.meshgrid(*(torch.arange(s).double() for s in values.shape), indexing="ij")
    total = values.sum()
    cx, cy = (values * x).sum() / total, (values * y).sum() / total
    xx, yy, xy = (
        (values * a * b).sum() / total
        for a, b in (((x - cx), (x - cx)), ((y - cy), (y - cy)), ((x - cx), (y - cy)))
    )
    return (float(cx), float(cy)), float(xx), float(yy), float(xy)


def draw_bar(height, width, high, wide):
    image = torch.zeros(1, height, width, dtype=torch.uint8)
    top_edge, left_edge = (height - high) // 2, (width - wide) // 2
    image[:, top_edge : top_edge + high, left_edge : left_edge + wide] = 200
    return image


def test_rotation_keeps_shapes_in_images_that_are_not_square():
    results = augment_repeatedly(
        Augmentation(warp=Warp(degrees=40, border="black")), draw_bar(48, 80, 4, 30)
    )
    angles = []
    for image in results:
        centre, xx, yy, xy = compute_moments(image[0])
        assert centre == pytest.approx((39.5, 23.5), abs=0.1)
        assert xx * yy - xy**2 == pytest.approx(30**2 / 12 * 4**2 / 12, rel=0.15)
        angles.append(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))
    assert min(angles) < -30
    assert max(angles) > 30
    assert max(map(abs, angles)) < 41


def test_scale_shift_and_shear_have_the_requested_size():
    square = draw_bar(61, 61, 13, 13)
    areas = [
        float(image.float().sum()) / (200 * 169)
        for image in augment_repeatedly(
            Augmentation(warp=Warp(scale=(0.5, 2), border="black")), square
        )
    ]
    assert 0.24 < min(areas) < 0.4
    assert 2.6 < max(areas) < 4.1
    shifted = augment_repeatedly(Augmentation(warp=Warp(shift=0.25, border="black")), square)
    centers = np.array([compute_moments(image[0])[0] for image in shifted]) - 30
    assert np.abs(centers).max() < 0.251 * 61
    assert (centers.min(0) < -10).all()
    assert (centers.max(0) > 10).all()
    for image in augment_repeatedly(Augmentation(warp=Warp(shear=30, border="black")), square):
        _, _, yy, xy = compute_moments(image[0])
        assert yy == pytest.approx(169 / 12, rel=0.05)
        assert abs(xy / yy) < np.tan(np.radians(30)) + 0.02


def test_border_modes_mirror_repeat_or_fill_black():
    ramp = torch.arange(16, dtype=torch.uint8).repeat(1, 16, 1) * 10 + 50
    for border, min_level, max_level in (("mirror", 50, 200), ("edge", 50, 200), ("black", 0, 200)):
        augmented = augment_repeatedly(Augmentation(warp=Warp(shift=0.4, border=border)), ramp)
        assert (int(augmented.min()), int(augmented.max())) == (min_level, max_level)
    edged = augment_repeatedly(Augmentation(warp=Warp(shift=0.4, border="edge")), ramp)
    assert (edged.float().diff(dim=3) >= 0).all()
    mirrored = augment_repeatedly(Augmentation(warp=Warp(shift=0.4)), ramp)
    assert (mirrored.float().diff(dim=3) < -5).any()


def test_crop_has_the_requested_area():
    ramp = torch.arange(0, 240, 4, dtype=torch.uint8).repeat(1, 60, 1)
    for image in augment_repeatedly(Augmentation(crop=Crop(area=(0.25, 0.25))), ramp):
        across = image[0].float()
        assert (across == across[0]).all()
        assert float(across[0].max() - across[0].min()) == pytest.approx(118, abs=3)
    spans = [
        float(image[0, 0].float().max() - image[0, 0].float().min()) / 236
        for image in augment_repeatedly(Augmentation(crop=Crop(area=(0.25, 0.25), aspect=4)), ramp)
    ]
    assert min(spans) < 0.4
    assert max(spans) > 0.7


COLORS = torch.tensor([[200, 60, 90], [20, 180, 70], [120, 120, 120], [10, 30, 90]]).T
LUMA = torch.tensor([0.299, 0.587, 0.114])


def paint_colors(colors=COLORS):
    return colors.to(torch.uint8)[:, :, None].repeat(1, 1, 4)


def test_colour_changes_match_their_formulas():
    x = paint_colors().float()
    grey = (x * LUMA[:, None, None]).sum(0)
    for image in augment_repeatedly(Augmentation(brightness=Change(0.2)), paint_colors()).float():
        assert (image - x * (image[0, 0, 0] / 200)).abs().max() <= 1.5
        assert 159 <= image[0, 0, 0] <= 240
    middle = paint_colors(COLORS // 2 + 50)
    mean = float((middle.float() * LUMA[:, None, None]).sum(0).mean())
    for image in augment_repeatedly(Augmentation(contrast=Change(0.5)), middle).float():
        assert float((image * LUMA[:, None, None]).sum(0).mean()) == pytest.approx(mean, abs=0.5)
    greys = (middle.float() * LUMA[:, None, None]).sum(0)
    for record in (Augmentation(saturation=Change(0.4)), Augmentation(hue=Change(20))):
        for image in augment_repeatedly(record, middle).float():
            assert ((image * LUMA[:, None, None]).sum(0) - greys).abs().max() < 0.51
            assert (image[:, 2] - 110).abs().max() == 0
    gray = augment_repeatedly(Augmentation(grey=1), paint_colors()).float()
    assert (gray - grey.round()).abs().max() == 0
    blue_first = augment(
        Augmentation(grey=1), paint_colors().flip(0)[None], SAMPLES[:1], 0, 0, "bgr"
    )
    assert torch.equal(blue_first, gray[:1].to(torch.uint8))


@pytest.mark.parametrize("kind", ["brightness", "contrast", "gamma", "stain", "noise", "blur"])
def test_changes_without_colour_work_on_grey_images(kind):
    augmented = augment(KINDS[kind], LEVELS[:, :1], SAMPLES, 0, 0)
    assert (augmented != LEVELS[:, :1]).any()
    flat = torch.full_like(LEVELS[:, :1], 77)
    if kind in ("contrast", "blur"):
        assert torch.equal(augment(KINDS[kind], flat, SAMPLES, 0, 0), flat)


def test_gamma_and_stain_keep_black_white_and_order():
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    for kind in ("gamma", "stain"):
        for image in augment_repeatedly(KINDS[kind], ramp).flatten(2):
            assert (image[:, 0] == 0).all()
            assert (image[:, 255] == 255).all()
            assert (image.float().diff(dim=1) >= 0).all()
    spread = [
        int(i[:, 8, 0].max() - i[:, 8, 0].min()) for i in augment_repeatedly(KINDS["stain"], ramp)
    ]
    assert max(spread) > 20


def test_noise_has_the_requested_deviation():
    flat = torch.full((3, 40, 40), 128, dtype=torch.uint8)
    noise = augment_repeatedly(Augmentation(noise=Change(20)), flat).double() - 128
    deviations = noise.flatten(1).std(1)
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert 18 < float(deviations.max()) < 20.5
    assert float(deviations.min()) < 2
    loud = noise[deviations.argmax()].flatten() / deviations.max()
    assert float((loud.abs() < 1).double().mean()) == pytest.approx(0.683, abs=0.02)
    neighbours = torch.corrcoef(torch.stack((loud[:-1], loud[1:])))[0, 1]
    assert abs(float(neighbours)) < 0.05


def test_blur_is_gaussian_and_keeps_light():
    point = torch.zeros(1, 41, 41, dtype=torch.uint8)
    point[0, 16:25, 16:25] = 250
    variances = []
    for image in augment_repeatedly(Augmentation(blur=Change(3)), point):
        centre, xx, yy, xy = compute_moments(image[0])
        assert float(image.float().sum()) == pytest.approx(250 * 81, rel=0.02)
        assert centre == pytest.approx((20, 20), abs=1e-6)
        assert xx == pytest.approx(yy)
        assert abs(xy) < 0.05
        variances.append(xx - (81 - 1) / 12)
    assert -0.01 < min(variances) < 0.5
    assert 6 < max(variances) < 9.1


def test_erased_area_has_its_size_and_is_filled():
    x = LEVELS[0].repeat(1, 4, 4)
    mean = x.double().mean((1, 2)).round()
    shares = []
    for image in augment_repeatedly(Augmentation(erase=Erase(1, (0.1, 0.3), 2)), x):
        is_erased = (image != x).any(0)
        rows, columns = is_erased.any(1).nonzero(), is_erased.any(0).nonzero()
        box = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box.double() == mean[:, None, None]).all()
        shares.append(box[0].numel() / x[0].numel())
    assert 0.08 < min(shares) < 0.15
    assert 0.25 < max(shares) < 0.33
    assert (augment_repeatedly(Augmentation(erase=Erase(1, fill="black")), x + 1) == 0).any()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_changes_apply_with_their_probability(probability):
    sample_ids = torch.arange(4000)
    pixels = torch.full((4000, 1, 2, 2), 100, dtype=torch.uint8)
    record = Augmentation(noise=Change(60, probability), brightness=Change(0.0))
    changed_share = (
        (augment(record, pixels, sample_ids, 0, 0) != 100).flatten(1).any(1).double().mean()
    )
    assert float(changed_share) == pytest.approx(probability, abs=0.03)


@settings(max_examples=25)
@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 5), st.text(max_size=5))
def test_random_bits_match_splitmix64(sample, position, name):
    bits = counter_random.create_random(torch.tensor([3, sample]), name, 7).sample_bits("x", 6)[
        1, position
    ]
    mask, step = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mixed(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    key = mixed((sample * step + counter_random.hash_key(name, 7)) & mask)
    key = mixed((key + counter_random.hash_key("x")) & mask)
    assert int(bits) & mask == mixed((key + position * step) & mask)


def test_random_numbers_are_uniform():
    uniforms = counter_random.create_random(torch.arange(2000), 0).sample_uniform("x", 50)
    assert float(uniforms.min()) >= 0
    assert float(uniforms.max()) < 1
    counts = torch.histc(uniforms.float(), 20, 0, 1)
    assert float(((counts - 5000) ** 2 / 5000).sum()) < 43.8  # chi squared, 19 degrees: 0.1 %
    for axis in (0, 1):
        a, b = (
            uniforms.narrow(axis, 0, uniforms.shape[axis] - 1),
            uniforms.narrow(axis, 1, uniforms.shape[axis] - 1),
        )
        assert abs(float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])) < 0.012


def create_input(contract):
    return Input("x", TensorType((3, 8, 8)), contract)


REFUSED = {
    "no image": (Augmentation(), None, "does not take images"),
    "grey": (Augmentation(hue=Change(3)), Preprocess(color="gray"), "`hue` needs colour images"),
    "no colour": (Augmentation(grey=0.1), Preprocess(color="gray"), "`grey` needs colour images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_augmentation_is_refused(name):
    record, contract, fragment = REFUSED[name]
    with pytest.raises(UserError) as caught:
        check_augmentation(record, create_input(contract), make_file_span("recipe.yaml"))
    assert caught.value.diagnostics[0].code == "E1215"
    assert fragment in str(caught.value)


@pytest.mark.parametrize("name", KINDS_AND_ALL)
def test_supported_augmentation_is_accepted(name):
    check_augmentation(
        KINDS_AND_ALL[name], create_input(Preprocess()), make_file_span("recipe.yaml")
    )
