"""The sample tiles and cells equal the output of the tool that draws them."""

import shutil
import subprocess
import sys

import pytest

from tcc.compiler.data.images import read_image

CLASSES = {
    "samples": ("ADI", "MUC", "MUS", "STR", "STU", "TUM"),
    "cells": ("Platelets", "RBC", "WBC"),
}
SIDES = {"samples": 224, "cells": 128}


def test_changed_missing_and_extra_tiles_are_stale(root, tmp_path):
    for name in CLASSES:
        shutil.copytree(root / "zoo" / name, tmp_path / name)
    samples = tmp_path / "samples"
    (tmp_path / "cells/WBC/6.png").unlink()
    (samples / "TUM/1.png").write_bytes((samples / "TUM/2.png").read_bytes())
    (samples / "ADI/3.png").rename(samples / "ADI/5.png")
    tool = [sys.executable, root / "tools/make_samples.py", tmp_path]
    completed = subprocess.run([*tool, "--check"], capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    reported_files = [line.partition(" ")[0] for line in completed.stdout.splitlines()]
    stale = ["samples/ADI/3.png", "samples/TUM/1.png", "samples/ADI/5.png", "cells/WBC/6.png"]
    assert reported_files == stale


@pytest.mark.parametrize("name", CLASSES)
def test_samples_differ_and_are_small(root, name):
    files = sorted((root / "zoo" / name).rglob("*.png"))
    pixels = [read_image(path) for path in files]
    assert {p.shape for p in pixels} == {(SIDES[name], SIDES[name], 3)}
    assert len({p.tobytes() for p in pixels}) == len(files)
    assert sum(path.stat().st_size for path in files) < 1_300_000


@pytest.mark.parametrize("name", CLASSES)
def test_the_folder_documents_the_origin_of_the_samples(root, name):
    text = (root / "zoo" / name / "SOURCE.md").read_text()
    assert "synthetic" in text
    assert all(f"`{label}`" in text for label in CLASSES[name])
