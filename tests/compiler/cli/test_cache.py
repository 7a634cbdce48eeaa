"""`tcc build` with a cache: the same bytes, keyed only by the inputs; and `tcc cache`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from build_kinds import PAIRS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tcc.compiler.support import stage_cache, user_folders

INT8 = ("--target", "onnxruntime", "--precision", "int8", "--data", "set")


@pytest.fixture
def store(home, monkeypatch) -> Path:
    """A separate cache and state folder for the test."""
    monkeypatch.delenv("TCC_CACHE_LIMIT")
    monkeypatch.setenv("TCC_CACHE", str(home / "cache"))
    key = user_folders.locate_key_file()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    shutil.copytree(
        key.parent, user_folders.locate_key_file().parent
    )  # the kernels are already compiled
    return home / "cache/stages"


@pytest.fixture
def build(tcc, store):
    """Build, and return the cached stages of each target."""

    def run(*args, code=0):
        outcome = tcc("build", "tiny.yaml", *args, "--json")
        assert outcome.code == code, outcome.err
        return (
            [bundle_report["cached"] for bundle_report in outcome.document["bundles"]]
            if not code
            else outcome
        )

    return run


def read_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read_modes(folder):
    return {str(p.relative_to(folder)): p.stat().st_mode for p in folder.rglob("*")}


def test_second_build_has_the_same_bytes(build, images, home, tcc):
    assert build(*INT8) == [[]]
    first_files, kinds = read_files(home / "build"), read_modes(home / "build")
    assert build(*INT8) == [["integers", "bundle", "replay"]]
    assert read_files(home / "build") == first_files
    assert read_modes(home / "build") == kinds
    outcome = tcc("build", "tiny.yaml", *INT8, "-v")
    assert "bit for bit (cached result)" in outcome.out
    assert "from the cache: integers, bundle, replay; `--no-cache` rebuilds them" in outcome.out
    uncached_outcome = tcc("build", "tiny.yaml", *INT8, "--no-cache", "-v")
    assert "cached" not in uncached_outcome.out
    assert read_files(home / "build") == first_files
    assert outcome.err == uncached_outcome.err  # messages about the int8 model are repeated
    assert "int8 against fp32" in outcome.err
    assert "SNR dB" in outcome.err


CHANGES = {
    "text": lambda home: (home / "tiny.yaml").write_text(
        (home / "tiny.yaml").read_text().replace("- relu", "- hard_swish")
    ),
    "comment": lambda home: (home / "tiny.yaml").write_text(
        (home / "tiny.yaml").read_text() + "# more\n"
    ),
    "labels": lambda home: (home / "tiny.yaml").write_text(
        (home / "tiny.yaml").read_text().replace("'cat'", "'cow'")
    ),
    "accuracy": lambda home: (home / "tiny.yaml").write_text(
        (home / "tiny.yaml").read_text() + "accuracy: {min_cosine: 0.5}\n"
    ),
    "pixel": lambda home: _change_pixel(home / "set/cat/1.png"),
    "one image less": lambda home: (home / "set/cat/1.png").unlink(),
    "an image twice": lambda home: shutil.copy(home / "set/cat/1.png", home / "set/cat/copy.png"),
    "tcc": lambda home: None,
    "--set width=5": [],
    "--seed 1": [],
    "--name other": [],
    "--method minmax": [],
    "--no-guard --method kl-cosine": [],
    "--min-images 2": [],
    "--passes ready": [],
    "--floor min_cosine=0.1": ["calibration"],
    "--floor max_drop=0.9": ["calibration"],
    "--floor min_correlation=0.01": ["calibration"],
    "--floor max_error=50": ["calibration"],
    "--mixed": ["calibration"],
    "--probes": ["calibration"],
}
"""Changes of a build's bytes: a change of its inputs, or options and the stages that stay cached."""


def _change_pixel(path):
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def base_cache_folder(tmp_path_factory):
    """A cache folder that contains the base build."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def base_cache(build, images, store, base_cache_folder, monkeypatch):
    """The cache of the base build."""
    monkeypatch.setenv("TCC_CACHE", str(base_cache_folder))
    if not (base_cache_folder / "stages").exists():
        build(*INT8)
        assert build(*INT8) == [["integers", "bundle", "replay"]]


@pytest.mark.parametrize("change", CHANGES)
def test_everything_that_changes_the_bytes_is_in_the_key(
    change, base_cache, build, home, monkeypatch
):
    expected_change = CHANGES[change]
    if change == "tcc":
        monkeypatch.setattr(stage_cache, "digest_environment", lambda: "another")
    elif callable(expected_change):
        expected_change(home)
    args = () if callable(expected_change) else change.split()
    assert build(*INT8, *args) == [[] if callable(expected_change) else expected_change]


@pytest.mark.slow
def test_cache_is_separate_for_each_precision(base_cache, build, home):
    shutil.rmtree(home / "build", ignore_errors=True)  # `base_cache` builds there if it runs first
    args = ("--target", "onnxruntime", "--precision")
    assert build(*args, "int8-qdq", "--data", "set") == [["integers"]]
    assert build(*args, "fp16") == [[]]
    assert build(*args, "fp32") == [[]]
    for precision in ("int8-qdq", "fp16", "fp32"):
        data_args = ("--data", "set") if precision == "int8-qdq" else ()
        assert build(*args, precision, *data_args, "--no-cache", "-o", "anew") == [[]]
    assert read_files(home / "anew") == read_files(home / "build")


OPTIONS = (
    ("--seed", "1"), ("--method", "minmax"), ("--floor", "min_cosine=0.5"), ("--mixed",), ("--probes",),
    ("--passes", "ready"), ("--set", "width=5"), ("--no-replay",), ("--report",),
    ("--precision", "int8-qdq"), ("--target", "tflite"),
)  # fmt: skip


@pytest.fixture(scope="module")
def uncached():
    """Results of builds without the cache, by options. Other tests check that they are
    reproducible.
    """
    return {}


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.sampled_from(OPTIONS), max_size=3), min_size=2, max_size=3))
def test_earlier_builds_do_not_change_the_bytes(tcc, store, images, home, uncached, builds):
    def run_build(*args):
        shutil.rmtree(home / "build", ignore_errors=True)
        outcome = tcc(*args)
        return outcome.code, outcome.err, not outcome.code and read_files(home / "build")

    for options in map(frozenset, builds):
        args = ["build", "tiny.yaml", *INT8, *(arg for option in sorted(options) for arg in option)]
        if options not in uncached:
            uncached[options] = run_build(*args, "--no-cache")
        assert run_build(*args) == uncached[options]


def test_names_and_folders_do_not_change_the_bytes(build, images, home):
    """Neither does the order of images or the folder where a build starts."""
    build(*INT8)
    (home / "other").mkdir()
    for number, path in enumerate(sorted((home / "set/cat").iterdir())):
        path.rename(path.with_name(f"x{9 - number}.png"))
    shutil.move(home / "set", home / "other/set")
    args = (*INT8[:-1], "other/set", "-o", "elsewhere")
    assert build(*args) == [["integers", "bundle", "replay"]]
    assert read_files(home / "elsewhere") == read_files(home / "build")


def test_weights_are_in_the_key(build, home):
    from safetensors.numpy import load_file, save_file

    from tcc.compiler.data import weights
    from tcc.compiler.frontend.spec import load

    save_file(
        dict(weights.initialize_random(load(home / "tiny.yaml").graph)), home / "w.safetensors"
    )
    args = ("--target", "onnxruntime", "--weights", "w.safetensors")
    assert (build(*args), build(*args)) == ([[]], [["bundle", "replay"]])
    changed = load_file(home / "w.safetensors")
    name = next(iter(changed))
    changed[name] = changed[name].copy()
    changed[name].flat[0] += 1
    save_file(changed, home / "w.safetensors")
    assert build(*args) == [[]]


def test_another_target_reuses_the_calibration(build, images, home):
    targets = ("--precision", "int8", "--data", "set", "--target")
    assert build(*targets, "onnxruntime") == [[]]
    # Its last layer outputs integers: another program from the same calibration.
    assert build(*targets, "onnxruntime,tflite") == [["integers", "bundle"], ["calibration"]]
    both = build(*targets, "onnxruntime,tflite")
    assert both == [["integers", "bundle", "replay"]] * 2
    first_files = read_files(home / "build")
    assert build(*targets, "onnxruntime,tflite", "--no-cache", "-o", "anew") == [[], []]
    assert read_files(home / "anew") == first_files


def test_cached_builds_report_the_same_agreement(tcc, store, images):
    args = ("build", "tiny.yaml", "--precision", "int8", "--data", "set")
    args = (*args, "--target", "onnxruntime,tflite")
    first_agreement, second_agreement = (
        tcc(*args, "--json").document["agreement"] for _ in range(2)
    )
    assert first_agreement == second_agreement
    assert all(target["layers"] for target in first_agreement["targets"])
    assert first_agreement["pairs"]


def test_cache_contains_no_image_data(build, images, store, home):
    """Comparisons over images run again. The cached calibration has only the values of bundles."""
    args = (*INT8, "--agree", "3", "--report")
    assert build(*args) == [[]]
    assert build(*args) == [["integers", "bundle"]]
    cache_files = read_files(store)
    assert {path.partition("/")[0] for path in cache_files} == {
        "calibration",
        "integers",
        "bundle",
        "size",
    }
    for path, data in cache_files.items():
        assert b"set/" not in data, path
        assert str(home).encode() not in data, path
        for image in images.rglob("*.png"):
            pixels = np.array(Image.open(image).convert("RGB")).tobytes()
            assert f"{image.parent.name}/{image.name}".encode() not in data
            # after the header, which many images share
            assert image.read_bytes()[41:60] not in data
            assert pixels[:24] not in data


def test_packages_with_images_are_not_cached(build, images, store, home, no_docker):
    args = ("--target", "ax620", "--data", "set")
    assert build(*args) == [[]]
    first_files = read_files(home / "build")
    assert build(*args) == [["integers"]]
    assert read_files(home / "build") == first_files
    assert not list(store.glob("bundle/*"))


@pytest.mark.slow
def test_cached_program_needs_a_trust_record(build, store, home):
    args = ("--target", "host")
    assert build(*args) == [[]]
    first_files = read_files(home / "build")
    assert build(*args) == [["bundle", "replay"]]
    assert read_files(home / "build") == first_files
    for record_path in user_folders.KNOWN_PROGRAMS.path.iterdir():
        record_path.unlink()
    # Writing to the cache does not allow adding trusted programs.
    assert build(*args) == [["replay"]]
    assert read_files(home / "build") == first_files


def test_cached_code_needs_a_trust_record(build, store, monkeypatch):
    """Treats this runtime's files as programs: real programs take longer to build."""
    from tcc.backends.onnxruntime.backend import OnnxRuntime

    monkeypatch.setattr(
        OnnxRuntime, "list_code_files", lambda _, names: tuple(names), raising=False
    )
    args = ("--target", "onnxruntime")
    assert build(*args) == [[]]
    assert build(*args) == [["bundle", "replay"]]
    (record_path,) = user_folders.KNOWN_PROGRAMS.path.iterdir()
    record_path.unlink()
    # Writing to the cache does not allow adding trusted programs.
    assert build(*args) == [["replay"]]
    assert build(*args) == [["bundle", "replay"]]


@pytest.mark.slow
def test_forged_program_in_the_cache_never_runs(build, store, home, monkeypatch):
    """A cache entry with valid hashes that lists no program."""
    import dataclasses

    from tcc.compiler.bundle import manifest
    from tcc.compiler.bundle.bundle_folder import list_files
    from tcc.compiler.support import json_records
    from tcc.compiler.support.stage_cache import StageCache

    build("--target", "host")
    (path,) = (store / "bundle").iterdir()
    cache = StageCache(store)
    parts = dict(cache.get("bundle", path.name))
    cached_manifest = json_records.decode(manifest.Manifest, json.loads(parts["manifest"]))
    program = next(f.path for f in cached_manifest.files if f.executable)
    parts[f"files/{program}"] = f"#!/bin/sh\necho ran > {home}/ran\n".encode()
    bundle_files = {n.removeprefix("files/"): v for n, v in parts.items() if n.startswith("files/")}
    executable = frozenset(f.path for f in cached_manifest.files if f.executable)
    cached_manifest = manifest.seal_manifest(
        dataclasses.replace(cached_manifest, files=list_files(bundle_files, executable))
    )
    parts["manifest"] = json.dumps(json_records.encode(cached_manifest)).encode()
    cache.store("bundle", path.name, parts)
    first_files = read_files(home / "build")
    assert "bundle" not in build("--target", "host")[0]  # and the bundle is unchanged
    assert not (home / "ran").exists()
    assert read_files(home / "build") == first_files


def test_cached_replay_depends_on_artifact_runtime_and_processor(build, store, home, monkeypatch):
    args = ("--target", "onnxruntime")
    build(*args)
    assert build(*args) == [["bundle", "replay"]]
    from tcc.backends.onnxruntime import backend

    version = backend.installed_version
    with monkeypatch.context() as patch:
        patch.setattr(backend, "installed_version", lambda name: version(name) + ".post1")
        assert "replay" not in build(*args, "--no-replay")[0]
        assert "replay" not in build(*args)[0]
    with monkeypatch.context() as patch:
        patch.setattr("tcc.compiler.support.cpu.read_identity", lambda: ("flags : none",))
        patch.setattr(stage_cache, "digest_environment", stage_cache.digest_environment.__wrapped__)
        assert build(*args) == [[]]
    assert build(*args) == [["bundle", "replay"]]


def test_no_replay_is_not_cached_as_a_replay(build, store):
    args = ("--target", "onnxruntime")
    assert build(*args, "--no-replay") == [[]]
    assert build(*args) == [["bundle"]]
    assert build(*args) == [["bundle", "replay"]]
    assert build(*args, "--no-replay") == [["bundle"]]


def test_disagreement_is_not_cached(tcc, store, monkeypatch):
    from tcc.compiler.bundle import replay

    run = replay._run_goldens
    args = ("build", "tiny.yaml", "--target", "onnxruntime")
    with monkeypatch.context() as patch:

        def shift_outputs(*arguments):
            return [{n: v + 1 for n, v in outputs.items()} for outputs in run(*arguments)]

        patch.setattr(replay, "_run_goldens", shift_outputs)
        assert tcc(*args).code == 4
        assert not list(store.glob("*/*"))
    assert tcc(*args, "--json").document["bundles"][0]["cached"] == []


def test_model_below_the_floor_is_refused_again(build, images, store):
    args = (*INT8, "--floor", "max_error=0.0000001")
    for _ in range(2):
        assert "error" in build(*args, code=4).err
    assert {path.parent.name for path in store.glob("*/*")} == {"calibration"}
    build(*INT8)
    assert build(*args, code=4)


@pytest.mark.parametrize("stage", ["integers", "bundle", "size", "replay"])
def test_damaged_entries_are_rebuilt(stage, build, images, store, home):
    build(*INT8)
    first_files = read_files(home / "build")
    (path,) = (store / stage).iterdir()
    entry_bytes = path.read_bytes()
    path.write_bytes(entry_bytes[:-3])
    names = ["integers", "bundle", "replay"]
    remaining_stages = [name for name in names if name != stage]
    assert build(*INT8) == [
        ["calibration", *remaining_stages] if stage == "integers" else remaining_stages
    ]
    assert read_files(home / "build") == first_files
    assert path.read_bytes() == entry_bytes
    assert build(*INT8) == [names]


@pytest.mark.parametrize("stage", ["integers", "bundle", "size", "replay"])
def test_entries_with_invalid_contents_are_rebuilt(stage, build, images, store, home):
    """An attacker who knows the format could write such entries."""
    from tcc.compiler.support.stage_cache import StageCache

    build(*INT8)
    first_files = read_files(home / "build")
    (path,) = (store / stage).iterdir()
    cached_parts = StageCache(store).get(stage, path.name)
    for change in (
        {"about": b"{}", "manifest": b"{}", "bytes": b"many", "files/calibration.json": b"{}"},
        {},
    ):
        parts = (
            {name: change.get(name, data) for name, data in cached_parts.items()} if change else {}
        )
        StageCache(store).store(stage, path.name, parts)
        build(*INT8)
        assert read_files(home / "build") == first_files


def test_unwritable_cache_is_reported_and_not_used(tcc, store, home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("TCC_CACHE", str(home / "file/below"))
    for _ in range(2):
        outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime")
        assert outcome.code == 0
        assert outcome.err.count("is off for this run") == 1
    monkeypatch.setenv("TCC_CACHE", str(home / "cache"))
    store.mkdir(parents=True)
    store.chmod(0o777)
    outcome = tcc("build", "tiny.yaml", "--target", "onnxruntime")
    assert outcome.code == 0
    assert outcome.err.count("only you can write to") == 1
    assert not list(store.iterdir())


def test_limit_smaller_than_an_entry(build, store, monkeypatch):
    monkeypatch.setenv("TCC_CACHE_LIMIT", "1 KB")
    args = ("--target", "onnxruntime")
    assert [build(*args), build(*args)] == [[[]], [["replay"]]]
    monkeypatch.setenv("TCC_CACHE_LIMIT", "0")
    assert build(*args) == [[]]


def test_cache_shows_and_clears(tcc, build, images, store, monkeypatch):
    empty = tcc("cache", "--json").document
    assert empty["folder"] == str(store)
    assert empty["bytes"] == 0
    build(*INT8)
    document = tcc("cache", "--json").document
    assert {stage_row["stage"]: stage_row["entries"] for stage_row in document["stages"]} == {
        "calibration": 1, "integers": 1, "bundle": 1, "size": 1, "replay": 1,
    }  # fmt: skip
    assert document["bytes"] == sum(path.stat().st_size for path in store.glob("*/*"))
    text = tcc("cache").out
    assert "of at most 1.0 GB" in text
    assert str(store) in text
    assert tcc("cache", "clear", "bundle").out.startswith("removed 1 entry, ")
    assert build(*INT8) == [["integers", "replay"]]
    assert tcc("cache", "clear", "--json").document["removed"][1]["entries"] == 1
    assert build(*INT8) == [[]]
    refused = tcc("cache", "clear", "bundles")
    assert refused.code == 2
    assert "E1401" in refused.err
    assert "did you mean `bundle`?" in refused.err
    assert tcc("cache", "--json", "clear").code == 2
    monkeypatch.setenv("TCC_CACHE_LIMIT", "lots")
    for args in (
        ("cache",),
        ("cache", "clear"),
        ("build", "tiny.yaml", "--target", "onnxruntime"),
    ):
        assert tcc(*args).code == 2
        assert "E1400" in tcc(*args).err


def test_kernels_are_shown_and_cleared_only_by_name(tcc, store, home, monkeypatch):
    """Each kernel takes seconds to compile, and none depends on a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "caches"))
    folder = user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER)
    for number in range(3):
        (folder / f"{number}.o").write_bytes(bytes(100))
    assert tcc("cache", "--json").document["kernels"] == {"entries": 3, "bytes": 300}
    assert "kernels" in tcc("cache").out
    assert tcc("cache", "clear").out.startswith("removed 0 entries")
    assert len(list(folder.iterdir())) == 3
    assert tcc("cache", "clear", "kernels").out.startswith("removed 3 entries, 300 B")
    assert list(folder.iterdir()) == []
    assert tcc("cache", "--json").document["kernels"] == {"entries": 0, "bytes": 0}


def test_limit_applies_to_kernels(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "caches"))
    folder = user_folders.prepare_cache_folder(user_folders.KERNELS_FOLDER)
    for age in (3, 1, 2, 0):
        (folder / f"{age}.o").write_bytes(bytes(100))
        os.utime(folder / f"{age}.o", (1000 - age, 1000 - age))
    user_folders.trim_cache(user_folders.KERNELS_FOLDER, 250)
    assert {path.name for path in folder.iterdir()} == {"0.o", "1.o"}
    user_folders.trim_cache(user_folders.KERNELS_FOLDER, 10)
    assert [path.name for path in folder.iterdir()] == ["0.o"]


HEAVY = {"onnx", "onnxruntime", "pydantic", "networkx", "torch", "tvm", "flatbuffers"}


def test_cached_build_loads_no_heavy_library(images, process, store):
    assert process("build", "tiny.yaml", *INT8, "--json").code == 0
    program = (
        "import sys, tcc.compiler.cli\n"
        "try: tcc.compiler.cli.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    outcome = process("build", "tiny.yaml", *INT8, "--json", program=program)
    assert outcome.document["bundles"][0]["cached"] == ["integers", "bundle", "replay"]
    assert {name.partition(".")[0] for name in outcome.err.split()} & HEAVY == set()


@pytest.mark.slow
def test_killed_builds_do_not_affect_others(images, home, store, process):
    """Builds are killed at different moments next to others. The cache and the bundle stay
    complete.
    """
    args = [
        sys.executable,
        "-c",
        "from tcc.compiler.cli import main; main()",
        "build",
        "tiny.yaml",
    ]
    args += ["--target", "onnxruntime", "-q"]
    for wait in (0.3, 0.6, 0.9, 1.2, 1.6, 2.0):
        running = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        running.send_signal(signal.SIGKILL)
        running.wait()
    outcome = process("build", "tiny.yaml", "--target", "onnxruntime", "--json")
    assert outcome.code == 0, outcome.err
    first_files = read_files(home / "build")
    assert process("build", "tiny.yaml", "--target", "onnxruntime", "--no-cache").code == 0
    assert read_files(home / "build") == first_files
    assert not list((home / "cache").rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), PAIRS)
def test_each_target_and_each_precision(target, precision, tcc, store, images, home, no_docker):
    args = ("build", "tiny.yaml", "--target", target, "--precision", precision)
    if precision not in ("fp32", "fp16"):
        args = (*args, "--data", "set")
    outcome = tcc(*args, "--json")
    if outcome.code == 3:
        pytest.skip(outcome.err)
    if "no target is built as int8" in outcome.err:
        args = args[:-2]
        outcome = tcc(*args, "--json")
    assert outcome.code == 0, outcome.err
    first_files, kinds = read_files(home / "build"), read_modes(home / "build")
    second = tcc(*args, "--json")
    assert second.code == 0, second.err
    assert ("bundle" in second.document["bundles"][0]["cached"]) == (not target.startswith("ax"))
    assert read_files(home / "build") == first_files
    assert read_modes(home / "build") == kinds
