"""The sample tiles: drawn by the tool that claims to have drawn them."""

import shutil
import subprocess
import sys

from tcc.compiler.data.images import read

CLASSES = ["ADI", "MUC", "MUS", "STR", "STU", "TUM"]


def test_other_pixels_missing_tiles_and_strange_ones_are_stale(root, tmp_path):
    kept = tmp_path / "samples"
    shutil.copytree(root / "zoo/samples", kept)
    (kept / "TUM/1.png").write_bytes((kept / "TUM/2.png").read_bytes())
    (kept / "ADI/3.png").rename(kept / "ADI/5.png")
    tool = [sys.executable, root / "tools/make_samples.py", kept]
    done = subprocess.run([*tool, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    named = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    assert named == ["ADI/3.png", "TUM/1.png", "ADI/5.png"]


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
