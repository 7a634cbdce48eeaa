"""Pixel values read directly from a file equal those of separate decoding and resizing."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tcc.compiler.data import images, pillow_resampling
from tcc.compiler.ir import image_limits, preprocess
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.support.diagnostics import UserError

SIDES = st.integers(1, 90)


def encode_image(shape, form="PNG", mode="RGB", seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    pixels[: shape[0] // 2] = pixels[: shape[0] // 2] // 128 * 255
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def assert_same(data, contract, size):
    expected = preprocess.prepare_pixels(contract, images.decode(data, "x"), size)
    actual = images.decode_input_pixels(data, "x", contract, size)
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, expected)


@settings(max_examples=60)
@given(
    st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.none() | st.tuples(SIDES, SIDES),
    st.sampled_from(preprocess.MODES), st.sampled_from(preprocess.COLORS), st.sampled_from(["PNG", "JPEG"]),
)  # fmt: skip
def test_any_size_and_contract(shape, target, crop, mode, color, form):
    contract = Preprocess(color=color, resize=PixelResize(target, mode), crop=crop)
    assert_same(encode_image(shape, form), contract, (contract.channels, *(crop or target)))


@pytest.mark.parametrize("shape", [(768, 1024), (1024, 768), (3, 2000), (2000, 3)])
@pytest.mark.parametrize("mode", preprocess.MODES)
def test_photograph_sizes(shape, mode):
    contract = Preprocess(resize=PixelResize((224, 224), mode))
    assert_same(encode_image(shape, "JPEG"), contract, (3, 224, 224))


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_other_colour_modes(mode):
    assert_same(
        encode_image((40, 30), "JPEG", mode), Preprocess(resize=PixelResize((9, 8))), (3, 9, 8)
    )


def test_exif_orientation_is_applied_before_resizing():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode_image((40, 30), "JPEG", exif=exif)
    assert images.decode(data, "x").shape == (30, 40, 3)
    assert_same(data, Preprocess(resize=PixelResize((12, 8), "cover")), (3, 12, 8))


def test_pillow_with_other_results_is_not_used(monkeypatch):
    resize = Image.Image.resize

    def resize_otherwise(self, size, *options):
        return resize(self, size, Image.Resampling.BICUBIC)

    pillow_resampling.is_equal.cache_clear()
    monkeypatch.setattr(Image.Image, "resize", resize_otherwise)
    try:
        assert not pillow_resampling.is_equal()
        assert_same(encode_image((50, 70)), Preprocess(resize=PixelResize((20, 30))), (3, 20, 30))
    finally:
        pillow_resampling.is_equal.cache_clear()


def test_pillow_is_used_if_its_results_are_equal():
    assert pillow_resampling.is_equal()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E0702"),
        (encode_image((50, 50))[:900], "E0703"),
        (encode_image((8, 8), "PNG"), "E0706"),
    ],
)
def test_errors_match_those_of_decoding(data, code):
    contract = Preprocess() if code == "E0706" else Preprocess(resize=PixelResize((9, 9)))
    with pytest.raises(UserError) as caught:
        images.decode_input_pixels(data, "x.png", contract, (3, 9, 9))
    with pytest.raises(UserError) as expected:
        preprocess.prepare_pixels(contract, images.decode(data, "x.png"), (3, 9, 9), "x.png")
    assert str(caught.value) == str(expected.value)
    assert caught.value.diagnostics[0].code == code


def test_large_image_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(image_limits, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="E0704"):
        images.decode_input_pixels(
            encode_image((50, 50)), "x", Preprocess(resize=PixelResize((9, 9))), (3, 9, 9)
        )
