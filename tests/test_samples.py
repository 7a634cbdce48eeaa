"""The sample tiles: drawn by the tool that claims to have drawn them."""

import subprocess
import sys

import numpy as np
import pytest

from tcc.compiler.data.images import read

CLASSES = ["ADI", "MUC", "MUS", "STR", "STU", "TUM"]


@pytest.fixture(scope="module")
def drawn(root, tmp_path_factory):
    """The tiles, drawn anew."""
    folder = tmp_path_factory.mktemp("samples")
    subprocess.run([sys.executable, root / "tools/make_samples.py", folder], check=True)
    return folder


def test_the_tool_draws_these_very_pixels(root, drawn):
    kept = root / "zoo/samples"
    names = sorted(p.relative_to(drawn) for p in drawn.rglob("*.png"))
    assert names == sorted(p.relative_to(kept) for p in kept.rglob("*.png"))
    assert sorted({name.parts[0] for name in names}) == CLASSES
    for name in names:
        assert np.array_equal(read(drawn / name), read(kept / name)), name


def test_tiles_differ_and_stay_small(root):
    files = sorted((root / "zoo/samples").rglob("*.png"))
    pixels = [read(path) for path in files]
    assert {p.shape for p in pixels} == {(224, 224, 3)}
    assert len({p.tobytes() for p in pixels}) == len(files)
    assert sum(path.stat().st_size for path in files) < 1_300_000


def test_the_folder_states_where_they_come_from(root):
    text = (root / "zoo/samples/SOURCE.md").read_text()
    assert "synthetic" in text
    assert all(f"`{label}`" in text for label in CLASSES)
