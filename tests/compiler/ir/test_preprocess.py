"""Preprocessing is bit-exact against Pillow."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tcc.compiler.data.images import read_image
from tcc.compiler.ir import pixel_resampling
from tcc.compiler.ir.pixel_resampling import compute_cover_size
from tcc.compiler.ir.preprocess import (
    MAX_SIDE,
    SCALES,
    PixelResize,
    Preprocess,
    apply,
    check,
    compute_output_shape,
)
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError

BILINEAR = Image.Resampling.BILINEAR
SIDES = st.one_of(st.integers(1, 5), st.integers(1, 200))
IMAGENET = Preprocess(
    "rgb", PixelResize((224, 224)), None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)


def encode_contract(pre):
    return json.loads(json.dumps(json_records.encode(pre)))


def read_json(data):
    """Return the contract of JSON data, checked like a manifest."""
    return json_records.decode(Preprocess, data)


def create_picture(height, width, seed=0):
    """Return noise with flat black and white areas, so that clipping and rounding occur."""
    rng = np.random.default_rng([seed, height, width])
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(rng.random((height, width, 1)) < 0.3, np.uint8(255) * (noise > 127), noise)


def compute_levels(pre, image, size):
    """Return the 8-bit pixels that `apply` computes, as (H, W, C)."""
    values = apply(replace(pre, mean=(0.0,), std=(1.0,)), image, size) * np.float32(255)
    assert np.array_equal(values, np.rint(values))
    return values.astype(np.uint8).transpose(1, 2, 0)


def resize_with_pillow(image, size):
    """Resize with Pillow, one call per axis: from version 13 on it may choose the order."""
    height, width = size
    wide = Image.fromarray(image).resize((width, image.shape[0]), BILINEAR)
    return np.asarray(wide.resize((width, height), BILINEAR))


@settings(max_examples=80)
@given(SIDES, SIDES, SIDES, SIDES)
@example(512, 512, 224, 224)
@example(101, 131, 224, 224)
@example(1, 1, 7, 9)
@example(200, 3, 1, 1)
@example(64, 64, 64, 31)
@example(64, 64, 31, 64)
def test_stretch_equals_pillow(height, width, to_height, to_width):
    image = create_picture(height, width)
    pre = Preprocess(resize=PixelResize((to_height, to_width)))
    actual = compute_levels(pre, image, (3, to_height, to_width))
    assert np.array_equal(actual, resize_with_pillow(image, (to_height, to_width)))


@pytest.mark.parametrize("shape", [(512, 512), (101, 131), (224, 224), (96, 96), (300, 450)])
def test_a_single_pillow_resize_gives_the_same_for_wide_images(shape):
    image = create_picture(*shape)
    expected = Image.fromarray(image).resize((224, 224), BILINEAR)
    assert np.array_equal(compute_levels(IMAGENET, image, (3, 224, 224)), np.asarray(expected))


@settings(max_examples=60)
@given(SIDES, SIDES, SIDES, SIDES)
@example(3, 200, 50, 50)
@example(5, 5, 5, 5)
def test_cover_is_the_center_of_a_resize(height, width, to_height, to_width):
    image, target = create_picture(height, width), (to_height, to_width)
    scaled = compute_cover_size((height, width), target)
    top_edge, left_edge = ((s - t) // 2 for s, t in zip(scaled, target, strict=True))
    resized = resize_with_pillow(image, scaled)
    pre = Preprocess(resize=PixelResize(target, "cover"))
    actual = compute_levels(pre, image, (3, *target))
    assert np.array_equal(
        actual, resized[top_edge : top_edge + to_height, left_edge : left_edge + to_width]
    )


@pytest.mark.parametrize(
    ("source", "target", "scaled"),
    [
        ((100, 200), (50, 50), (50, 100)),
        ((200, 100), (50, 50), (100, 50)),
        ((101, 131), (224, 224), (224, 291)),
        ((3, 7), (5, 5), (5, 12)),  # 7 * 5 / 3 = 11.67 rounds up
        ((4, 7), (2, 2), (2, 4)),  # 3.5 rounds up
        ((10, 10), (10, 10), (10, 10)),
        ((10, 10), (7, 20), (20, 20)),
    ],
)
def test_size_of_a_cover_resize(source, target, scaled):
    assert compute_cover_size(source, target) == scaled


def test_cover_of_a_thin_image_computes_only_kept_pixels():
    # the complete scaled image would be 224 x 8,960,000 pixels
    thin = create_picture(1, 40000)
    result = apply(Preprocess(resize=PixelResize((224, 224), "cover")), thin, (3, 224, 224))
    assert result.shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("shape", "crop", "there", "here"),
    [
        ((6, 8), (4, 4), np.s_[1:5, 2:6], np.s_[:, :]),
        ((7, 7), (4, 4), np.s_[1:5, 1:5], np.s_[:, :]),
        ((2, 3), (5, 6), np.s_[:, :], np.s_[1:3, 1:4]),
        ((2, 9), (4, 4), np.s_[:, 2:6], np.s_[1:3, :]),
        ((4, 4), (4, 4), np.s_[:, :], np.s_[:, :]),
    ],
)
def test_crop_takes_the_center_and_pads_with_zeros(shape, crop, there, here):
    image = create_picture(*shape)
    expected = np.zeros((*crop, 3), np.uint8)
    expected[here] = image[there]
    assert np.array_equal(compute_levels(Preprocess(crop=crop), image, (3, *crop)), expected)


def test_resize_comes_before_crop():
    image = create_picture(90, 70)
    pre = Preprocess(resize=PixelResize((40, 50)), crop=(30, 20))
    expected = resize_with_pillow(image, (40, 50))[5:35, 15:35]
    assert np.array_equal(compute_levels(pre, image, (3, 30, 20)), expected)


def test_gray_is_pillow_luma_before_resizing():
    image = create_picture(61, 83)
    gray = np.asarray(Image.fromarray(image).convert("L"))
    assert np.array_equal(compute_levels(Preprocess("gray"), image, (1, 61, 83))[:, :, 0], gray)
    small = Image.fromarray(gray).resize((20, 61), BILINEAR).resize((20, 30), BILINEAR)
    actual = compute_levels(Preprocess("gray", PixelResize((30, 20))), image, (1, 30, 20))
    assert np.array_equal(actual[:, :, 0], np.asarray(small))


def test_bgr_reverses_the_channels():
    image = create_picture(4, 5)
    assert np.array_equal(compute_levels(Preprocess("bgr"), image, (3, 4, 5)), image[:, :, ::-1])


def test_mean_and_std_round_each_step_to_float32():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    result = apply(replace(IMAGENET, resize=None), image, (3, 16, 16))
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    for channel, (m, s) in enumerate(zip(IMAGENET.mean, IMAGENET.std, strict=True)):
        for value in range(256):
            unit = np.float32(np.float32(value) / np.float32(255))
            expected = np.float32(np.float32(unit - np.float32(m)) / np.float32(s))
            assert result[channel, value // 16, value % 16] == expected


def test_scaling_divides_by_the_largest_value():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = (10, 40, 25)
    image[1, 2, 0] = 7
    pre = Preprocess(scale="max", mean=(0.1, 0.2, 0.3), std=(0.5,))
    actual = apply(pre, image, (3, 2, 3))
    for c, y, x in np.ndindex(3, 2, 3):
        unit = np.float32(np.float32(image[y, x, c]) / np.float32(40))
        mean = np.float32(pre.mean[c])
        assert actual[c, y, x] == np.float32(np.float32(unit - mean) / np.float32(0.5))


def test_the_maximum_is_taken_after_cropping():
    image = np.full((40, 40, 3), 100, np.uint8)
    image[0, 0] = 255  # cut away
    actual = apply(Preprocess(scale="max", crop=(20, 20)), image, (3, 20, 20))
    assert np.array_equal(actual, np.ones((3, 20, 20), np.float32))
    small = Preprocess(scale="max", resize=PixelResize((7, 9)))
    gray = create_picture(31, 45) // 2
    expected = resize_with_pillow(gray, (7, 9)).astype(np.float32)
    expected /= expected.max()
    assert np.array_equal(apply(small, gray, (3, 7, 9)).transpose(1, 2, 0), expected)


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_a_black_image_gives_zeros_under_every_scale(color):
    black = np.zeros((5, 6, 3), np.uint8)
    channels = 1 if color == "gray" else 3
    results = [
        apply(Preprocess(color, scale=scale, mean=(0.5,), std=(0.25,)), black, (channels, 5, 6))
        for scale in SCALES
    ]
    assert np.array_equal(*results)
    assert np.array_equal(results[0], np.full((channels, 5, 6), -2, np.float32))


def test_an_image_with_a_white_pixel_is_the_same_under_both_scales():
    image = create_picture(9, 8)
    image[3, 3, 1] = 255
    first_scaled, second_scaled = (
        apply(Preprocess(scale=scale), image, (3, 9, 8)) for scale in SCALES
    )
    assert np.array_equal(first_scaled, second_scaled)


def test_a_single_mean_applies_to_all_channels():
    image = create_picture(3, 3)
    single_mean = apply(Preprocess(mean=(0.5,), std=(0.25,)), image, (3, 3, 3))
    three = apply(Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3), image, (3, 3, 3))
    assert np.array_equal(single_mean, three)


def test_the_input_image_is_not_modified():
    image = create_picture(9, 9)
    original = image.copy()
    apply(IMAGENET, image, (3, 224, 224))
    assert np.array_equal(image, original)


@pytest.mark.parametrize(
    ("pre", "shape"),
    [
        (Preprocess(), None),
        (Preprocess("gray"), None),
        (Preprocess(resize=PixelResize((5, 6))), (3, 5, 6)),
        (Preprocess("gray", PixelResize((5, 6))), (1, 5, 6)),
        (Preprocess(resize=PixelResize((5, 6), "cover"), crop=(2, 9)), (3, 2, 9)),
        (Preprocess(crop=(2, 9)), (3, 2, 9)),
    ],
)
def test_the_declared_shape_equals_the_shape_of_apply(pre, shape):
    assert compute_output_shape(pre) == shape
    image = create_picture(12, 17)
    size = shape or (pre.channels, 12, 17)
    assert apply(pre, image, size).shape == size


def test_an_image_of_the_wrong_size_is_reported():
    with pytest.raises(UserError) as caught:
        apply(Preprocess(), create_picture(20, 30), (3, 224, 200), "tile.png")
    assert str(caught.value) == (
        "error[E0706]: the image is 30x20 pixels, but the network takes 200x224\n"
        "  --> tile.png\n"
        "   = help: give the image that size, or add `resize` to the spec's `preprocess`"
    )


NUMBERS = st.floats(-10, 10).map(float)
PAIRS = st.tuples(st.integers(1, MAX_SIDE), st.integers(1, MAX_SIDE))


@given(
    st.builds(
        Preprocess,
        color=st.sampled_from(["rgb", "bgr"]),
        resize=st.none() | st.builds(PixelResize, PAIRS, st.sampled_from(["stretch", "cover"])),
        crop=st.none() | PAIRS,
        mean=st.tuples(NUMBERS) | st.tuples(NUMBERS, NUMBERS, NUMBERS),
        std=st.tuples(st.floats(1e-6, 10)),
        raw=st.booleans(),
    )
    | st.builds(Preprocess, scale=st.sampled_from(SCALES))
)
def test_the_contract_round_trips_through_json(pre):
    assert read_json(encode_contract(pre)) == pre


def test_older_contracts_are_read_with_defaults():
    data = encode_contract(IMAGENET)
    del data["raw"]
    assert "scale" not in data
    assert read_json(data) == IMAGENET


def test_a_raw_contract_gives_the_grey_levels():
    image = create_picture(12, 17)
    pre = replace(IMAGENET, resize=PixelResize((8, 9)))
    raw = apply(replace(pre, raw=True), image, (3, 8, 9))
    assert raw.dtype == np.float32
    assert np.array_equal(raw.transpose(1, 2, 0), compute_levels(pre, image, (3, 8, 9)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0, 0]}, "mean and std need 1 or 3 numbers"),
        ({"color": "gray", "mean": [0, 0, 0]}, "mean and std need 1 or 1 numbers"),
        ({"std": [0.0]}, "std must be above 0"),
        ({"scale": "max", "raw": True}, "raw pixels are not divided"),
    ],
)
def test_inconsistent_contracts_are_refused(change, message):
    with pytest.raises(ValueError, match="^" + message):
        check(read_json(encode_contract(Preprocess()) | change))


@pytest.mark.parametrize(
    "change",
    [
        {"color": "cmyk"}, {"color": ["rgb"]}, {"resize": {"mode": "cover"}},
        {"resize": {"size": [0, 4], "mode": "cover"}}, {"resize": {"size": [4, 4], "mode": "fit"}},
        {"crop": [True, True]}, {"crop": [10**9, 1]}, {"crop": [1.5, 2]}, {"crop": "ab"},
        {"crop": [1, 2, 3]}, {"mean": []}, {"mean": ["0.5"]}, {"mean": None}, {"raw": 1},
        {"scale": "min"}, {"scale": 255}, {"extra": 1},
    ],
)  # fmt: skip
def test_invalid_contracts_are_refused(change):
    with pytest.raises(json_records.RecordError, match=f"^{next(iter(change))}|`extra`"):
        read_json(encode_contract(Preprocess()) | change)


@pytest.mark.parametrize("data", [None, [], 3, "rgb"])
def test_contracts_that_are_no_mapping_are_refused(data):
    with pytest.raises(json_records.RecordError, match="the document: expected `object`"):
        read_json(data)


def test_the_reference_images_give_the_reference_input(shared):
    reference = json.loads((shared / "facts/ddsnet_reference.json").read_text())
    image = read_image(shared / "data/ddsnet_checkpoints/GC.png")
    tensor = apply(IMAGENET, image, (3, 224, 224))
    expected = reference["GC"]["runs"]["resize224_bilinear"]
    assert float(tensor.sum(dtype=np.float64)) == pytest.approx(expected["input_sum"], abs=1e-4)


@pytest.mark.parametrize(
    ("pre", "shape", "max_megabytes"),
    [
        (IMAGENET, (16000, 16), 70),  # 10 MiB of it are rows between the passes
        (Preprocess("gray", PixelResize((224, 224))), (3000, 3000), 100),
        (Preprocess(resize=PixelResize((224, 224), "cover")), (1, 65536), 60),
    ],
)
def test_memory_is_bounded_by_rows_and_a_strip(pre, shape, max_megabytes):
    image = np.broadcast_to(np.uint8([3, 90, 7]), (*shape, 3))
    tracemalloc.start()
    apply(pre, image, (pre.channels, 224, 224))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < max_megabytes << 20


def test_the_strip_size_does_not_change_pixels(monkeypatch):
    image = create_picture(211, 157)
    pre = replace(IMAGENET, color="gray", mean=(0.5,), std=(0.25,))
    expected = apply(pre, image, (1, 224, 224))
    for strip in (1, 1000, 50_000):
        monkeypatch.setattr(pixel_resampling, "STRIP_ELEMENTS", strip)
        assert np.array_equal(apply(pre, image, (1, 224, 224)), expected)
