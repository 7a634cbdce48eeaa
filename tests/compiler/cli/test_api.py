"""`tcc.calibrate` and `tcc.build`, from Python."""

import pytest

import tcc
from tcc.compiler.quant.calibration_document import read


def test_a_spec_is_calibrated_and_written(home, images):
    spec = tcc.load("fastnet_block")
    found = tcc.calibrate(spec, images, "ax620", out=home / "c.json", method="minmax")
    assert (found.target, found.method, found.data.images) == ("ax620", "minmax", 9)
    again = read(home / "c.json")
    assert again.values == found.values


def test_wrong_names_are_said(images):
    with pytest.raises(tcc.UserError, match="did you mean `mse`"):
        tcc.calibrate("fastnet_block", images, method="msee")


def test_integers_are_built_from_images_or_from_a_file(home, images):
    whole = tcc.build("tiny.yaml", "onnxruntime", out="a", precision="int8", data=images)
    about = whole.manifest.calibration
    assert about.measured.outputs["logits"].cosine > 0.999
    tcc.calibrate("tiny.yaml", images, out="c.json")
    again = tcc.build("tiny.yaml", "onnxruntime", out="b", precision="int8", calibration="c.json")
    first, second = (b.model.joinpath("model.onnx").read_bytes() for b in (whole, again))
    assert first == second
    mixed = tcc.build(
        "tiny.yaml", "ort", out="c", precision="int8", data=images, min_cosine=1 - 1e-13, mixed=True
    )
    assert mixed.manifest.calibration.in_float


def test_integers_below_the_floor_are_refused(home, images):
    with pytest.raises(tcc.BelowFloor, match="the mean cosine of `logits` is"):
        tcc.build("tiny.yaml", "onnxruntime", precision="int8", data=images, min_cosine=1.0)
    assert not (home / "build").exists()


def test_integers_need_images(home):
    with pytest.raises(tcc.UserError, match="calibrate with which images"):
        tcc.build("tiny.yaml", "onnxruntime", precision="int8")
