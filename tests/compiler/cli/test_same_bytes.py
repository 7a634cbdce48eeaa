"""One spec gives one bundle in any folder, time zone, locale and process, and for any user.

Bundles and calibrations depend only on contents: names of files and folders change no byte.
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

for command in json.loads(sys.argv[1]):
    sys.argv = ["tcc", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""Several builds in one process, so that libraries load once."""
ENVIRONMENTS = {
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
"""Environments of the two builds. A missing locale acts as the C locale."""
INHERITED_VARIABLES = ("PATH", "PYTHONPATH", "XDG_CACHE_HOME")
QUICK = [("onnxruntime", "fp32"), ("onnxruntime", "int8")]
NAMED_PAIRS = [*QUICK, ("tflite", "int8"), ("ax620", "int8")]
NAMES = {
    "one": ("tiny.yaml", "weights.safetensors", "set", "scales.json"),
    "two/deeper": ("other spec.yaml", "best of 3.safetensors", "patients", "c.json"),
}
"""Names of the spec, weights, images and calibration, by working folder."""
LAX_OPTIONS = (
    "--method",
    "minmax",
    "--floor",
    "min_cosine=0",
    "--floor",
    "min_correlation=0",
    "--probes",
)


def compute_digests(folder):
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode & 0o111
        )
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def build(folder, home, images, commands, settings):
    """Build in a folder, and return the digest and mode of each file."""
    folder.mkdir(parents=True)
    shutil.copy(home / "tiny.yaml", folder)
    shutil.copytree(images, folder / "set")
    inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    env = {**inherited, "HOME": str(folder / "home"), "TMPDIR": str(folder), **settings}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    env["XDG_CACHE_HOME"] = str(cache)  # downloads, and compiled parts of runtimes
    # Copy the key that seals the cache, but no record of earlier builds.
    shutil.copytree(user_folders.locate_key_file().parent, folder / "home/.local/state/tcc/seal")
    command = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    completed = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return compute_digests(folder / "build")


def make_commands(pairs):
    """Return the build commands of (target, precision) pairs, one for each precision."""
    for kind in dict.fromkeys(kind for _, kind in pairs):
        targets = ",".join(target for target, precision in pairs if precision == kind)
        args = ["build", "tiny.yaml", "--target", targets, "--precision", kind, "--report", "-q"]
        yield [*args, "--data", "set", *LAX_OPTIONS] if kind.startswith("int8") else args


@pytest.mark.parametrize("pairs", [QUICK, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=len)
def test_two_builds_have_the_same_bytes(tcc, home, images, tmp_path, pairs):
    here = tcc("targets", "--json").document["targets"]
    able = {target_row["name"] for target_row in here if target_row["builds"]}
    pairs = [pair for pair in pairs if pair[0] in able]
    build_args = list(make_commands(pairs))
    (first_folder, first_settings), (second_folder, second_settings) = ENVIRONMENTS.items()
    first_digests = build(tmp_path / first_folder, home, images, build_args, first_settings)
    # Earlier builds in the same process have no effect either.
    second_digests = build(
        tmp_path / second_folder, home, images, build_args[::-1], second_settings
    )
    assert {f"tiny-{target}-{kind}" for target, kind in pairs} <= {
        p.split("/")[0] for p in first_digests
    }
    assert first_digests.keys() == second_digests.keys()
    assert (
        sorted(name for name in first_digests if first_digests[name] != second_digests[name]) == []
    )


def copy_project(folder, home, images, names):
    """Copy the project into a folder with other file names."""
    spec, weights, data, scales = names
    folder.mkdir(parents=True)
    shutil.copy(home / "tiny.yaml", folder / spec)
    shutil.copy(home / "weights.safetensors", folder / weights)
    shutil.copytree(images, folder / data)
    if (home / "scales.json").exists():
        shutil.copy(home / "scales.json", folder / scales)


@pytest.fixture
def weights(home):
    """A weights file."""
    import tcc

    network = tcc.torch("tiny.yaml")
    tcc.save_weights(network, "weights.safetensors")
    return home / "weights.safetensors"


@pytest.mark.usefixtures("weights")
def test_file_names_do_not_change_calibrations(tcc, home, images, monkeypatch):
    file_bytes = []
    for folder_name, names in NAMES.items():
        copy_project(home / folder_name, home, images, names)
        monkeypatch.chdir(home / folder_name)
        spec, weights, data, scales = names
        # This target has more files: the image archive and a plot.
        args = ("calibrate", spec, "--weights", weights, "--data", data, "--target", "ax620")
        assert tcc(*args, "-o", scales, "-q").code == 0
        suffixes = (".json", ".images.tar", ".cosine.svg")
        stem = scales.removesuffix(".json")
        file_bytes.append(
            [(home / folder_name / f"{stem}{suffix}").read_bytes() for suffix in suffixes]
        )
    assert file_bytes[0] == file_bytes[1]


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "from a file"])
@pytest.mark.parametrize(
    "pairs", [NAMED_PAIRS, pytest.param(PAIRS, marks=pytest.mark.slow)], ids=len
)
def test_file_names_do_not_change_bundles(tcc, home, images, monkeypatch, pairs, fresh):
    here = tcc("targets", "--json").document["targets"]
    able = {member["name"] for member in here if member["builds"]}
    kinds = dict.fromkeys(kind for target, kind in pairs if target in able)
    args = ("tiny.yaml", "--weights", "weights.safetensors", "--data", "set", "-o", "scales.json")
    assert fresh or tcc("calibrate", *args, "-q").code == 0
    bundle_digests = []
    for folder_name, names in NAMES.items():
        copy_project(home / folder_name, home, images, names)
        monkeypatch.chdir(home / folder_name)
        spec, weights, data, scales = names
        for kind in kinds:
            targets = ",".join(name for name, member in pairs if member == kind and name in able)
            data_args = (
                ("--calibration", scales, "--data", data)
                if not fresh
                else ("--data", data, *LAX_OPTIONS)
            )
            int8_args = data_args if kind.startswith("int8") else ()
            build_args = ("--weights", weights, "--report", "--no-cache", "-q", *int8_args)
            built = tcc("build", spec, "--target", targets, "--precision", kind, *build_args)
            assert built.code == 0, built.err
        bundle_digests.append(compute_digests(home / folder_name / "build"))
    assert bundle_digests[0].keys() == bundle_digests[1].keys()
    assert (
        sorted(
            name for name in bundle_digests[0] if bundle_digests[0][name] != bundle_digests[1][name]
        )
        == []
    )
