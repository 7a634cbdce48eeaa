"""One spec gives one bundle: in any folder, time zone, locale, process, and for any user."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
PLACES = {
    "a": {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    "b é/deeper": {
        "TZ": "America/St_Johns",
        "LC_ALL": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "77",
        "OMP_NUM_THREADS": "3",
        "USER": "somebody",
        "LOGNAME": "somebody",
    },
}
"""What differs between two builds; a locale that is not here is the C one."""
KEPT = ("PATH", "PYTHONPATH", "XDG_CACHE_HOME")
QUICK = ("onnxruntime", "tflite")
LAX = ("--method", "minmax", "--min-cosine", "0", "--min-correlation", "0", "--probes")


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o111
        )
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def build(place, home, images, words, settings):
    place.mkdir(parents=True)
    shutil.copy(home / "tiny.yaml", place)
    shutil.copytree(images, place / "set")
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    env = {**kept, "HOME": str(place / "home"), "TMPDIR": str(place), **settings}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    env["XDG_CACHE_HOME"] = str(cache)  # what was fetched, and compiled pieces of runtimes
    command = [sys.executable, "-c", PROGRAM, "build", "tiny.yaml", *words, "--report", "-q"]
    ended = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return digests(place / "build")


def precisions(tcc, names):
    """Return the targets of each precision that are built here."""
    found = {}
    for each in tcc("targets", "--json").document["targets"]:
        if each["builds"] and (names is None or each["name"] in names):
            for kind in each["precisions"]:
                found.setdefault(kind, []).append(each["name"])
    return found


@pytest.mark.parametrize("names", [QUICK[:1], pytest.param(None, marks=pytest.mark.slow)])
def test_two_builds_have_the_same_bytes(tcc, home, images, tmp_path, names):
    for kind, targets in precisions(tcc, names).items():
        if names and kind not in ("fp32", "int8"):
            continue
        words = ["--target", ",".join(targets), "--precision", kind]
        words += ["--data", "set", *LAX] if kind.startswith("int8") else []
        first, second = (
            build(tmp_path / kind / name, home, images, words, settings)
            for name, settings in PLACES.items()
        )
        assert first
        assert first.keys() == second.keys()
        apart = sorted(name for name in first if first[name] != second[name])
        assert apart == [], kind
