"""Training normalizes images bit for bit as deployment does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ir import preprocess
from tcc.compiler.ir.preprocess import SCALES, Preprocess
from tcc.compiler.support.diagnostics import UnhandledError
from tcc.compiler.train.pixel_store import normalize_pixels

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
LEVELS = np.random.default_rng(0).permutation(3 * 256).reshape(1, 16, 16, 3).astype(np.uint8)
IMAGES = np.concatenate([LEVELS, LEVELS // 2, LEVELS * 0, LEVELS % 2])
"""Four images (N, H, W, C): all pixel values, half of them, black, and 0 and 1."""
NUMBERS = st.floats(-4, 4) | st.just(1e-30)
DEVIATIONS = st.floats(1e-6, 300)


def compute_expected(contract):
    return np.stack([preprocess.normalize(contract, image) for image in IMAGES])


def assert_same(contract, device):
    pixels = torch.tensor(IMAGES.transpose(0, 3, 1, 2), device=device)
    for input_pixels in (
        pixels,
        pixels.float(),
        pixels.contiguous(memory_format=torch.channels_last),
    ):
        original_pixels = input_pixels.clone()
        normalized_images = normalize_pixels(contract, input_pixels)
        assert normalized_images.dtype == torch.float32
        assert np.array_equal(
            normalized_images.cpu().numpy().view(np.int32),
            compute_expected(contract).view(np.int32),
        )
        assert torch.equal(input_pixels, original_pixels)


@pytest.mark.parametrize("device", DEVICES)
@given(
    means=st.lists(NUMBERS, min_size=3, max_size=3),
    deviations=st.lists(DEVIATIONS, min_size=3, max_size=3),
    scale=st.sampled_from(SCALES),
    is_one_value=st.booleans(),
)
def test_all_pixel_values_with_any_mean_and_deviation(
    device, means, deviations, scale, is_one_value
):
    count = 1 if is_one_value else 3
    assert_same(
        Preprocess(mean=tuple(means[:count]), std=tuple(deviations[:count]), scale=scale), device
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", SCALES)
def test_imagenet_constants_and_raw_pixels(device, scale):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert_same(Preprocess(mean=mean, std=std, scale=scale), device)
    assert_same(Preprocess(mean=mean, std=std, raw=True), device)


def test_unknown_pixel_scale_is_an_error():
    with pytest.raises(UnhandledError, match="handle the pixel scale 'mean'"):
        normalize_pixels(Preprocess(scale="mean"), torch.zeros(1, 3, 2, 2))
