"""Images that are decoded once, however often they are asked for."""

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


def test_each_is_decoded_once_and_gives_the_same_bytes(photographs, monkeypatch):
    plain = [photographs.tensor(place, SOURCE) for place in range(4)]
    decoded = []
    decode = confined_images.decode_input_pixels
    monkeypatch.setattr(
        confined_images,
        "decode_input_pixels",
        lambda data, *more: decoded.append(data) or decode(data, *more),
    )
    kept = replace(photographs, read_already=PixelCache())
    learn, judge = kept.split()  # parts share what was read
    for _ in range(3):
        for place, wanted in enumerate(plain):
            np.testing.assert_array_equal(kept.tensor(place, SOURCE), wanted)
        for part in (learn, judge):
            for place in range(len(part)):
                part.tensor(place, SOURCE)
    assert len(decoded) == 4


def test_what_has_no_room_is_read_again_and_nobody_changes_what_is_kept(photographs):
    store = PixelCache(free_bytes=2 * 8 * 8 * 3)
    kept = replace(photographs, read_already=store)
    for place in range(4):
        kept.levels(place, SOURCE)
    held = [store.get(item.digest) is not None for item in kept.items]
    assert held == [True, True, False, False]
    with pytest.raises(ValueError, match="read-only"):
        kept.levels(0, SOURCE)[:] = 0
