"""Generated files equal the current output of their generator (`make generate`)."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATORS = runpy.run_path(str(ROOT / "tools/generate.py"))["list_generators"]()


def run(tool, *arguments, **options):
    command = [sys.executable, tool, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_generators_exist():
    names = {path.name for path in GENERATORS}
    assert names >= {"make_goldens.py", "make_passes.py", "make_reference.py", "make_errors.py"}


SLOW = ("make_goldens.py",)


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW))
        for path in GENERATORS
    ],
)
def test_generated_files_are_up_to_date(tool):
    completed = run(tool, "--check")
    assert completed.returncode == 0, completed.stdout + completed.stderr


def test_stale_files_are_detected_and_regenerated(tmp_path):
    """Uses the fastest generator. `--check` writes nothing."""
    for name in ("make_errors.py", "generated.py", "generate.py"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    page, tool = tmp_path / "docs/errors.md", tmp_path / "tools/generate.py"
    assert run(tool, "--check").returncode == 1
    assert not page.exists()
    assert run(tool).returncode == 0
    assert page.read_bytes() == (ROOT / "docs/errors.md").read_bytes()
    page.write_text("other")
    completed = run(tool, "--check")
    assert (completed.returncode, completed.stdout) == (
        1, "errors.md is out of date: run tools/make_errors.py\n"
    )  # fmt: skip
    assert page.read_text() == "other"
