"""`tcc.calibrate`, from Python."""

import numpy as np
import pytest
from PIL import Image

import tcc
from tcc.compiler.quant.document import read


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_a_spec_is_calibrated_and_written(images, tmp_path):
    spec = tcc.load("fastnet_block")
    found = tcc.calibrate(spec, images, "ax620", out=tmp_path / "c.json", method="minmax")
    assert (found.target, found.method, found.data.images) == ("ax620", "minmax", 4)
    again = read(tmp_path / "c.json")
    assert again.values == found.values


def test_wrong_names_are_said(images):
    with pytest.raises(tcc.UserError, match="did you mean `mse`"):
        tcc.calibrate("fastnet_block", images, method="msee")
    with pytest.raises(tcc.UserError, match="has no integers to calibrate"):
        tcc.calibrate("fastnet_block", images, "arm-a7")
