"""Bundles of older tcc versions, stored unchanged: every command still reads them."""

import json
import shutil

import pytest

from tcc.compiler.bundle import manifest

BUNDLE_FOLDERS = {2: "manifest-2"}
"""The folder of each released version and of the current one."""


def test_every_supported_version_has_a_stored_bundle():
    assert set(BUNDLE_FOLDERS) == {manifest.KIND.version, *manifest.KIND.older_versions}


@pytest.mark.parametrize("version", BUNDLE_FOLDERS)
def test_old_bundle_runs_and_agrees(version, tcc, home, root):
    folder = shutil.copytree(root / "tests/golden/versions" / BUNDLE_FOLDERS[version], home / "old")
    assert json.loads((folder / "manifest.json").read_text())["tcc_bundle"] == version
    outcome = tcc("verify", folder, "--json")
    assert outcome.code == 0, outcome.err
    (verified,) = outcome.document["bundles"]
    assert [(member["differing"], member["values"]) for member in verified["agreement"]] == [
        (0, 3)
    ] * 2
    ran = tcc("run", folder, folder / "goldens/1/image.ppm", "--json")
    assert ran.code == 0, ran.err
    (image,) = ran.document["images"]
    labels = {member["label"] for member in image["outputs"]["logits"]["classes"]}
    assert labels == {"cat", "dog", "owl"}
    assert tcc("show", folder).code == 0


@pytest.mark.parametrize("version", [1, 3, 99, None, True])
def test_unsupported_version_has_a_fix(version, tcc, home, root, picture):
    folder = shutil.copytree(root / "tests/golden/versions/manifest-2", home / "old")
    manifest_json = json.loads((folder / "manifest.json").read_text()) | {"tcc_bundle": version}
    (folder / "manifest.json").write_text(json.dumps(manifest_json))
    for args in (("run", folder, picture), ("verify", folder)):
        outcome = tcc(*args)
        assert (
            outcome.code,
            "error[E0621]: not a bundle's manifest of a known" in outcome.err,
        ) == (
            2,
            True,
        )
        assert "help: build the bundle again" in outcome.err


def test_calibration_of_an_older_version_builds(tcc, home, root):
    """Version 2 is version 3 without the interval, with its own seal."""
    from tcc.compiler.support.json_records import seal

    version_folder = root / "tests/golden/versions/manifest-2"
    calibration_json = json.loads((version_folder / "calibration.json").read_text())
    calibration_json.pop("expected")
    for version, code in ((2, 0), (1, 2)):
        calibration_json |= {"tcc_calibration": version, "seal": ""}
        (home / "c.json").write_text(
            json.dumps(calibration_json | {"seal": seal(calibration_json)})
        )
        (home / "old.yaml").write_text(SPEC)
        outcome = tcc("build", "old.yaml", "--target", "onnxruntime", "--precision", "int8",
                    "--calibration", "c.json", "--floor", "min_cosine=0", "-q")  # fmt: skip
        assert outcome.code == code, outcome.err
        assert ("error[E0730]" in outcome.err and "calibrate again" in outcome.err) == bool(code)


SPEC = """\
tcc: 1
name: old
input: {image: {shape: [3, 8, 8], preprocess: {}}}
graph:
  - conv: {filters: 4, kernel: 3, padding: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 3}
output: {logits: {activation: softmax, labels: [cat, dog, owl]}}
"""
