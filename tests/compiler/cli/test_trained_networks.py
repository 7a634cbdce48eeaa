"""A trained network of the zoo, by its name, in every command that takes a spec."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def built(tcc):
    """The manifest of a build of `ddsnet-blood`, and what was said."""

    def run(*args):
        outcome = tcc("build", "ddsnet-blood", "--target", "onnxruntime", *args, "--json")
        assert outcome.code == 0, outcome.err
        (bundle,) = outcome.document["bundles"]
        return json.loads(Path(bundle["path"], "manifest.json").read_text()), outcome

    return run


def test_its_weights_and_calibration_are_taken(built, root):
    manifest_json, outcome = built("--precision", "int8")
    assert manifest_json["model"]["name"] == "ddsnet-blood"
    assert (manifest_json["weights"]["origin"], manifest_json["weights"]["file"]) == (
        "zoo",
        "ddsnet-blood",
    )
    shipped = root / "zoo/trained/ddsnet-blood/calibration.json"
    calibration_path = Path(outcome.document["bundles"][0]["path"], "calibration.json")
    assert calibration_path.read_text() == shipped.read_text()
    assert "its card says what they do on patients' images" in outcome.err
    assert "random" not in outcome.err


def test_it_tells_drawn_cells_apart_in_floats_and_integers(tcc, built, root):
    _, outcome = built("--precision", "int8")
    bundle = outcome.document["bundles"][0]["path"]
    for model, eval_args in (("ddsnet-blood", ()), (bundle, ("--saturation",))):
        eval_outcome = tcc("eval", model, "--data", root / "zoo/cells", "--json", *eval_args)
        assert eval_outcome.document["correct"] == 18
        assert "synthetic: a program drew them" in eval_outcome.err
    # By its calibration's images, though drawings judged it.
    saturation = eval_outcome.document["saturation"]
    assert saturation["calibration_images"] == 16
    assert saturation["compared"]
    assert not any(layer["clips_more"] for layer in saturation["layers"])


def test_seed_and_weights_go_before_its_own(built):
    manifest_json, _ = built("--seed", "3")
    assert (manifest_json["weights"]["origin"], manifest_json["weights"]["seed"]) == ("random", 3)


def test_settings_that_need_other_weights_are_refused(tcc):
    outcome = tcc("build", "ddsnet-blood", "--target", "onnxruntime", "--set", "growth=16")
    assert outcome.code == 2
    assert "error[E0504]" in outcome.err
    assert "check that the weights were trained with these parameters of the spec" in outcome.err


def test_a_spec_without_weights_names_it(tcc):
    outcome = tcc("eval", "ddsnet", "--data", "nothing")
    assert "or name a trained network: ddsnet-blood" in outcome.err


def test_calibrating_on_drawings_says_what_that_is_worth(tcc, home, root):
    shutil.copytree(root / "zoo/cells", home / "cells")
    (home / "tcc.toml").write_text('spec = "ddsnet-blood"\ndata = "cells"\n')
    outcome = tcc("calibrate", "--method", "minmax", "--images", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert "says nothing of patients" in outcome.err
    assert outcome.document["path"].endswith("ddsnet-blood-onnxruntime.calibration.json")


def test_a_name_that_is_nearly_one(tcc):
    outcome = tcc("check", "ddsnet-blod")
    assert outcome.code == 2
    assert "did you mean `ddsnet-blood`?" in outcome.err
