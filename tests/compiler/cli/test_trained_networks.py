"""A trained network of the zoo, by its name, in every command that takes a spec."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def built(tcc):
    """The manifest of a build of `ddsnet-blood`, and what was said."""

    def run(*words):
        ended = tcc("build", "ddsnet-blood", "--target", "onnxruntime", *words, "--json")
        assert ended.code == 0, ended.err
        (bundle,) = ended.document["bundles"]
        return json.loads(Path(bundle["path"], "manifest.json").read_text()), ended

    return run


def test_its_weights_and_calibration_are_taken(built, root):
    about, ended = built("--precision", "int8")
    assert about["model"]["name"] == "ddsnet-blood"
    assert (about["weights"]["origin"], about["weights"]["file"]) == ("zoo", "ddsnet-blood")
    shipped = root / "zoo/trained/ddsnet-blood/calibration.json"
    made = Path(ended.document["bundles"][0]["path"], "calibration.json")
    assert made.read_text() == shipped.read_text()
    assert "its card says what they do on patients' images" in ended.err
    assert "random" not in ended.err


def test_it_tells_drawn_cells_apart_in_floats_and_integers(tcc, built, root):
    _, ended = built("--precision", "int8")
    bundle = ended.document["bundles"][0]["path"]
    for one, more in (("ddsnet-blood", ()), (bundle, ("--saturation",))):
        judged = tcc("eval", one, "--data", root / "zoo/cells", "--json", *more)
        assert judged.document["correct"] == 18
        assert "synthetic: a program drew them" in judged.err
    # By its calibration's images, though drawings judged it.
    saturation = judged.document["saturation"]
    assert saturation["calibration_images"] == 16
    assert saturation["compared"]
    assert not any(layer["clips_more"] for layer in saturation["layers"])


def test_seed_and_weights_go_before_its_own(built):
    about, _ = built("--seed", "3")
    assert (about["weights"]["origin"], about["weights"]["seed"]) == ("random", 3)


def test_settings_that_need_other_weights_are_refused(tcc):
    ended = tcc("build", "ddsnet-blood", "--target", "onnxruntime", "--set", "growth=16")
    assert ended.code == 2
    assert "error[E0504]" in ended.err
    assert "were the weights made with other parameters of the spec (`--set`)?" in ended.err


def test_a_spec_without_weights_names_it(tcc):
    ended = tcc("eval", "ddsnet", "--data", "nothing")
    assert "or name a trained network: ddsnet-blood" in ended.err


def test_calibrating_on_drawings_says_what_that_is_worth(tcc, home, root):
    shutil.copytree(root / "zoo/cells", home / "cells")
    (home / "tcc.toml").write_text('spec = "ddsnet-blood"\ndata = "cells"\n')
    ended = tcc("calibrate", "--method", "minmax", "--images", "2", "--json")
    assert ended.code == 0, ended.err
    assert "says nothing of patients" in ended.err
    assert ended.document["path"].endswith("ddsnet-blood-onnxruntime.calibration.json")


def test_a_name_that_is_nearly_one(tcc):
    ended = tcc("check", "ddsnet-blod")
    assert ended.code == 2
    assert "did you mean `ddsnet-blood`?" in ended.err
