"""The input contract from a spec to every target: what becomes of an image's values."""

import json

import numpy as np
import pytest
from PIL import Image

OWN = ("--target", "onnxruntime,host,tflite", "-q")


@pytest.fixture
def own(home):
    """A spec that divides an image by its own maximum."""
    text = (home / "tiny.yaml").read_text()
    text = text.replace("mode: stretch}", "mode: stretch}, scale: max, mean: [0.25], std: [0.5]")
    (home / "tiny.yaml").write_text(text)
    return home


def raw(tcc, bundle, *paths):
    found = tcc("run", bundle, *paths, "--json")
    assert found.code == 0, found.err
    return [image["outputs"]["logits"]["raw"] for image in found.document["images"]]


def test_an_image_as_bright_as_it_likes_gives_the_same_on_every_target(tcc, own):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    dark = np.random.default_rng(3).integers(0, 60, (8, 8, 3), np.uint8)
    for name, factor in (("dark", 1), ("bright", 4), ("black", 0)):
        Image.fromarray(dark * factor).save(own / f"{name}.png")
    assert tcc("build", "tiny.yaml", *OWN).code == 0
    bundles = [own / f"build/tiny-{t}-fp32" for t in ("onnxruntime", "host", "tflite")]
    for bundle in bundles:
        one, other, black = raw(tcc, bundle, "dark.png", "bright.png", "black.png")
        assert one == other != black
        assert np.isfinite(black).all()
        np.testing.assert_allclose(one, raw(tcc, bundles[0], "dark.png")[0], atol=1e-5)
    found = tcc("verify", *bundles, "--json")
    assert found.code == 0
    assert [pair["same"] for pair in found.document["pairs"]] == [2, 2, 2]


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_its_integer_program_takes_floats_and_gives_its_goldens_to_the_bit(
    tcc, own, images, target
):
    if target == "tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    words = ("--target", target, "--precision", "int8", "--data", images, "-q")
    assert tcc("build", "tiny.yaml", *words, "--min-cosine", "0").code == 0
    bundle = own / f"build/tiny-{target}-int8"
    about = json.loads((bundle / "manifest.json").read_text())["input"]
    assert about["dtype"] == "float32"
    assert about["preprocess"]["scale"] == "max"
    assert about["preprocess"]["raw"] is False
    (one,) = tcc("verify", bundle, "--json").document["bundles"]
    assert one["holds"]
    assert one["tolerance"]["relative"] == 0


@pytest.mark.parametrize(
    ("scale", "label"),
    [("7", "this is 7"), ("min", "this is 'min'"), ("1/255", "this is 0.0039")],
)
def test_what_scale_can_be(tcc, own, scale, label):
    spec = own / "tiny.yaml"
    spec.write_text(spec.read_text().replace("scale: max", f"scale: {scale}"))
    found = tcc("check", "tiny.yaml")
    assert found.code == 2
    assert "error[E0213]: `scale` must be one of 255, max\n" in found.err
    assert "tiny.yaml:8:64\n" in found.err
    assert label in found.err


def test_255_is_the_default(tcc, own):
    spec = own / "tiny.yaml"
    spec.write_text(spec.read_text().replace("scale: max", "scale: 255"))
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    about = json.loads((own / "build/tiny-onnxruntime-fp32/manifest.json").read_text())
    assert about["input"]["preprocess"]["scale"] == "255"
