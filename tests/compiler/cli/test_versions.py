"""Bundles that an older tcc wrote, kept as they were: every command still reads them."""

import json
import shutil

import pytest

from tcc.compiler.bundle import manifest

KEPT = {2: "manifest-2"}
"""The folder of each version that was ever in a release, and of today's."""


def test_there_is_a_bundle_of_every_version_that_is_read():
    assert set(KEPT) == {manifest.KIND.version, *manifest.KIND.older_versions}


@pytest.mark.parametrize("version", KEPT)
def test_an_old_bundle_runs_and_agrees(version, tcc, home, root):
    folder = shutil.copytree(root / "tests/golden/versions" / KEPT[version], home / "old")
    assert json.loads((folder / "manifest.json").read_text())["tcc_bundle"] == version
    found = tcc("verify", folder, "--json")
    assert found.code == 0, found.err
    (verified,) = found.document["bundles"]
    assert [(one["differing"], one["values"]) for one in verified["agreement"]] == [(0, 3)] * 2
    ran = tcc("run", folder, folder / "goldens/1/image.ppm", "--json")
    assert ran.code == 0, ran.err
    (image,) = ran.document["images"]
    labels = {one["label"] for one in image["outputs"]["logits"]["classes"]}
    assert labels == {"cat", "dog", "owl"}
    assert tcc("show", folder).code == 0


@pytest.mark.parametrize("version", [1, 3, 99, None, True])
def test_another_version_says_what_to_do(version, tcc, home, root, picture):
    folder = shutil.copytree(root / "tests/golden/versions/manifest-2", home / "old")
    plain = json.loads((folder / "manifest.json").read_text()) | {"tcc_bundle": version}
    (folder / "manifest.json").write_text(json.dumps(plain))
    for words in (("run", folder, picture), ("verify", folder)):
        found = tcc(*words)
        assert (found.code, "error[E0621]: not a bundle's manifest of a known" in found.err) == (
            2,
            True,
        )
        assert "help: build the bundle again" in found.err


def test_a_calibration_of_an_older_version_builds(tcc, home, root):
    """Version 2 had no interval; it is version 3 without it, sealed as it was."""
    from tcc.compiler.support.json_records import seal

    kept = root / "tests/golden/versions/manifest-2"
    plain = json.loads((kept / "calibration.json").read_text())
    plain.pop("expected")
    for version, code in ((2, 0), (1, 2)):
        plain |= {"tcc_calibration": version, "seal": ""}
        (home / "c.json").write_text(json.dumps(plain | {"seal": seal(plain)}))
        (home / "old.yaml").write_text(SPEC)
        found = tcc("build", "old.yaml", "--target", "onnxruntime", "--precision", "int8",
                    "--calibration", "c.json", "--floor", "min_cosine=0", "-q")  # fmt: skip
        assert found.code == code, found.err
        assert ("error[E0730]" in found.err and "calibrate again" in found.err) == bool(code)


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
