"""`tcc plot cosines`: networks and datasets side by side, from files and bundles."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def calibration_paths(tcc, home, images):
    """Calibrations of two networks and two datasets, and a bundle."""
    other_images = home / "other"
    for number in range(18):
        (other_images).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(other_images / f"{number}.png")
    text = (home / "tiny.yaml").read_text()
    (home / "second.yaml").write_text(text.replace("name: tiny", "name: second"))
    for spec, data, name in (
        ("tiny", images, "a"),
        ("tiny", other_images, "b"),
        ("second", other_images, "c"),
    ):
        outcome = tcc("calibrate", f"{spec}.yaml", "--data", data, "-o", f"{name}.json", "-q")
        assert outcome.code == 0, outcome.err
    outcome = tcc(
        "build", "second.yaml", "--target", "tflite", "--precision", "int8", "--data", other_images
    )
    assert outcome.code == 0, outcome.err
    return ["skin=a.json", "blood=b.json", "c.json", "build/second-tflite-int8"]


def test_networks_and_datasets_are_side_by_side(tcc, home, calibration_paths):
    outcome = tcc("plot", "cosines", *calibration_paths, "-o", "five.svg", "--json")
    assert outcome.code == 0, outcome.err
    cosine_by_name = {member["name"]: member["cosine"] for member in outcome.document["cosines"]}
    assert list(cosine_by_name) == [
        "tiny, skin",
        "tiny, blood",
        "second, onnxruntime",
        "second, tflite",
    ]
    for name, file in (("tiny, skin", "a"), ("tiny, blood", "b"), ("second, onnxruntime", "c")):
        calibration_json = json.loads((home / f"{file}.json").read_text())
        assert (
            cosine_by_name[name]
            == calibration_json["judged"][calibration_json["used"]]["logits"]["cosine"]
        )
    svg_root = ET.parse(home / "five.svg").getroot()
    texts = [member.text for member in svg_root.iter(f"{SVG}text")]
    assert {*cosine_by_name, "0.98", *(f"{value:.6f}" for value in cosine_by_name.values())} <= set(
        texts
    )
    page, *bars = svg_root.iter(f"{SVG}rect")
    assert len(bars) == 4
    assert all(0 < float(bar.get("width")) < float(page.get("width")) for bar in bars)
    first_bytes = (home / "five.svg").read_bytes()
    text = tcc("plot", "cosines", *calibration_paths, "-o", "five.svg").out
    assert (home / "five.svg").read_bytes() == first_bytes
    assert all(f"  {name} " in text for name in cosine_by_name)
    assert tcc("plot", "cosines", *calibration_paths, "-q").out == "cosines.png\n"
    with Image.open(home / "cosines.png") as picture:
        assert picture.format == "PNG"


def test_datasets_without_a_name_show_their_digest(tcc, home, calibration_paths):
    (home / "x=y.json").write_bytes((home / "b.json").read_bytes())
    outcome = tcc("plot", "cosines", "a.json", "x=y.json", "--json")
    names = [cosine["name"] for cosine in outcome.document["cosines"]]
    digests = [json.loads((home / f"{n}.json").read_text())["data"]["digest"] for n in "ab"]
    assert names == [f"tiny, {digest[:8]}" for digest in digests]


def test_files_without_cosines_are_refused(tcc, home, built, picture):
    for args, code, message in (
        ([str(built)], "E1280", "no cosine of int8 and fp32"),
        (["none.json"], "E0603", "none.json"),
        (["one.png"], "E0730", "one.png"),
        (["build"], "E0620", "build"),
        ([str(built), "-o", "a.jpg"], "E0601", "a figure is a .png or .svg file"),
    ):
        outcome = tcc("plot", "cosines", *args)
        assert (outcome.code, f"error[{code}]" in outcome.err, message in outcome.err) == (2, True, True), (
            args, outcome.err)  # fmt: skip
    assert tcc("plot", "cosines").code == 2
    assert not (home / "cosines.png").exists()
