"""One spec gives one bundle: in any folder, time zone, locale, process, and for any user.

Bundles and calibrations hold contents alone: what files and folders are called changes no byte.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from build_kinds import PAIRS

from tcc.compiler.support import user_folders

PROGRAM = """
import json, sys
from tcc.compiler.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["tcc", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""Several builds, one after another: what they load is loaded once."""
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
QUICK = [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
NAMED = [*QUICK, ("tflite", "int8"), ("ax620", "int8")]
NAMES = {
    "one": ("tiny.yaml", "weights.safetensors", "set", "scales.json"),
    "two/deeper": ("other spec.yaml", "best of 3.safetensors", "patients", "c.json"),
}
"""The names of the spec, the weights, the images and the calibration, by working folder."""
LAX = ("--method", "minmax", "--floor", "min_cosine=0", "--floor", "min_correlation=0", "--probes")


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o111
        )
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def build(place, home, images, commands, settings):
    """Build in a place; return what each file holds."""
    place.mkdir(parents=True)
    shutil.copy(home / "tiny.yaml", place)
    shutil.copytree(images, place / "set")
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    env = {**kept, "HOME": str(place / "home"), "TMPDIR": str(place), **settings}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    env["XDG_CACHE_HOME"] = str(cache)  # what was fetched, and compiled pieces of runtimes
    # With the key that seals them; what was built here is no part of what is built.
    shutil.copytree(user_folders.locate_key_file().parent, place / "home/.local/state/tcc/seal")
    command = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    ended = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return digests(place / "build")


def commands(pairs):
    """Return the builds of pairs of a target and a precision, a command for each precision."""
    for kind in dict.fromkeys(kind for _, kind in pairs):
        targets = ",".join(target for target, each in pairs if each == kind)
        words = ["build", "tiny.yaml", "--target", targets, "--precision", kind, "--report", "-q"]
        yield [*words, "--data", "set", *LAX] if kind.startswith("int8") else words


@pytest.mark.parametrize("pairs", [QUICK, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=len)
def test_two_builds_have_the_same_bytes(tcc, home, images, tmp_path, pairs):
    here = tcc("targets", "--json").document["targets"]
    able = {each["name"] for each in here if each["builds"]}
    pairs = [pair for pair in pairs if pair[0] in able]
    words = list(commands(pairs))
    (one, settings), (other, others) = PLACES.items()
    first = build(tmp_path / one, home, images, words, settings)
    # Nor does what was built before, in the same process, shape anything.
    second = build(tmp_path / other, home, images, words[::-1], others)
    assert {f"tiny-{target}-{kind}" for target, kind in pairs} <= {p.split("/")[0] for p in first}
    assert first.keys() == second.keys()
    assert sorted(name for name in first if first[name] != second[name]) == []


def lay_out(place, home, images, names):
    """Put the same contents into a folder, under some names."""
    spec, weights, data, scales = names
    place.mkdir(parents=True)
    shutil.copy(home / "tiny.yaml", place / spec)
    shutil.copy(home / "weights.safetensors", place / weights)
    shutil.copytree(images, place / data)
    if (home / "scales.json").exists():
        shutil.copy(home / "scales.json", place / scales)


@pytest.fixture
def weights(home):
    """A file of weights."""
    import tcc

    network = tcc.torch("tiny.yaml")
    tcc.save_weights(network, "weights.safetensors")
    return home / "weights.safetensors"


@pytest.mark.usefixtures("weights")
def test_names_shape_no_calibration(tcc, home, images, monkeypatch):
    found = []
    for place, names in NAMES.items():
        lay_out(home / place, home, images, names)
        monkeypatch.chdir(home / place)
        spec, weights, data, scales = names
        # This target has more files: the images of the package, and a picture.
        words = ("calibrate", spec, "--weights", weights, "--data", data, "--target", "ax620")
        assert tcc(*words, "-o", scales, "-q").code == 0
        ends = (".json", ".images.tar", ".cosine.svg")
        stem = scales.removesuffix(".json")
        found.append([(home / place / f"{stem}{end}").read_bytes() for end in ends])
    assert found[0] == found[1]


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "from a file"])
@pytest.mark.parametrize("pairs", [NAMED, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=len)
def test_names_shape_no_bundle(tcc, home, images, monkeypatch, pairs, fresh):
    here = tcc("targets", "--json").document["targets"]
    able = {each["name"] for each in here if each["builds"]}
    kinds = dict.fromkeys(kind for target, kind in pairs if target in able)
    words = ("tiny.yaml", "--weights", "weights.safetensors", "--data", "set", "-o", "scales.json")
    assert fresh or tcc("calibrate", *words, "-q").code == 0
    found = []
    for place, names in NAMES.items():
        lay_out(home / place, home, images, names)
        monkeypatch.chdir(home / place)
        spec, weights, data, scales = names
        for kind in kinds:
            targets = ",".join(name for name, each in pairs if each == kind and name in able)
            how = ("--calibration", scales, "--data", data) if not fresh else ("--data", data, *LAX)
            integers = how if kind.startswith("int8") else ()
            given = ("--weights", weights, "--report", "--no-cache", "-q", *integers)
            built = tcc("build", spec, "--target", targets, "--precision", kind, *given)
            assert built.code == 0, built.err
        found.append(digests(home / place / "build"))
    assert found[0].keys() == found[1].keys()
    assert sorted(name for name in found[0] if found[0][name] != found[1][name]) == []
