"""The pixel cache: each image is decoded once."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tcc.compiler.data import confined_images, dataset
from tcc.compiler.data.confined_images import PixelCache
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.types import TensorType

SOURCE = Input("image", TensorType((3, 8, 8)), Preprocess(resize=PixelResize((8, 8), "stretch")))


@pytest.fixture
def photographs(tmp_path):
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return dataset.read_dataset(tmp_path)


def test_each_image_is_decoded_once_with_the_same_pixels(photographs, monkeypatch):
    uncached = [photographs.read_tensor(index, SOURCE) for index in range(4)]
    decoded = []
    decode = confined_images.decode_input_pixels
    monkeypatch.setattr(
        confined_images,
        "decode_input_pixels",
        lambda data, *options: decoded.append(data) or decode(data, *options),
    )
    cached_set = replace(photographs, pixel_cache=PixelCache())
    fit_set, held_out_set = cached_set.split()  # both sets share the cache
    for _ in range(3):
        for index, expected in enumerate(uncached):
            np.testing.assert_array_equal(cached_set.read_tensor(index, SOURCE), expected)
        for part in (fit_set, held_out_set):
            for index in range(len(part)):
                part.read_tensor(index, SOURCE)
    assert len(decoded) == 4


def test_cache_is_limited_and_read_only(photographs):
    store = PixelCache(free_bytes=2 * 8 * 8 * 3)
    cached_set = replace(photographs, pixel_cache=store)
    for index in range(4):
        cached_set.read_pixels(index, SOURCE)
    is_cached = [store.get(item.digest) is not None for item in cached_set.items]
    assert is_cached == [True, True, False, False]
    with pytest.raises(ValueError, match="read-only"):
        cached_set.read_pixels(0, SOURCE)[:] = 0
