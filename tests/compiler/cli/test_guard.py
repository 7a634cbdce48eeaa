"""Guards: fitted by a build, the same on every target, reported by commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tcc as library
from tcc.compiler.bundle import guard_readings
from tcc.compiler.targets import trusted_bundle

SPEC = """\
tcc: 1
name: small
input: {image: {shape: [3, 32, 32], preprocess: {resize: {size: [32, 32], mode: stretch}}}}
graph:
  - conv: {filters: 16, kernel: 3, padding: 1, stride: 2}
  - relu
  - conv: {filters: 16, kernel: 3, padding: 1, stride: 4}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output: {logits: {activation: softmax, labels: [normal, tumour]}}
"""
BUILD = ("build", "small.yaml", "--precision", "int8", "--allow-few", "--data", "set", "-q")
CAL, GUARD = 40, 60


def _draw(rng, kind):
    if kind == "noise":
        return rng.integers(0, 256, (32, 32, 3), np.uint8)
    y, x = np.mgrid[:32, :32] / 32
    waves = [np.sin(rng.uniform(2, 9) * (x * rng.normal() + y * rng.normal())) for _ in range(3)]
    image = 128 + 60 * np.stack(waves, 2) + rng.normal(0, 4, (32, 32, 3)) + rng.normal(0, 8)
    return image.clip(0, 255).astype(np.uint8)


def _write(folder, count, seed, kind="waves"):
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        Image.fromarray(_draw(rng, kind)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def guarded(tcc, home):
    """A folder with a spec and images: calibration, guard, normal and foreign ones."""
    (home / "small.yaml").write_text(SPEC)
    _write(home / "set", CAL, 1)
    _write(home / "field", GUARD, 2)
    _write(home / "normal", 40, 3)
    _write(home / "foreign", 20, 4, "noise")
    return home


def _read_bundle(target):
    return trusted_bundle.load(Path(f"build/small-{target}-int8"), trust=False, isa=None)


def _list_images():
    """Flat, uniform, noisy and normal images, of the input's size."""
    rng = np.random.default_rng(9)
    flat = [np.full((32, 32, 3), grey, np.uint8) for grey in (0, 128, 255)]
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (32, 32, 3))
    drawn_images = [_draw(rng, kind) for kind in ("noise", "waves") for _ in range(6)]
    return [*flat, np.ascontiguousarray(ramp), *drawn_images]


def _list_numbers(target):
    bundle, device = _read_bundle(target)
    guard = guard_readings.find_guard(bundle)
    pixels = _list_images()
    measured = guard_readings.measure_pixels(bundle, device, guard, pixels)
    rows = [list(guard_readings.list_numbers(guard, measured))]
    by_target = device.run_guard(bundle.model, bundle.input, pixels)
    return [*rows, *([by_target] if by_target is not None else [])]


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["onnxruntime,tflite,web", "host,arm-a7,onnxruntime"])
def test_every_target_computes_the_same_numbers(tcc, guarded, targets):
    outcome = tcc(*BUILD, "--guard-data", "field", "--target", targets)
    assert outcome.code == 0, outcome.err
    computed = [rows for target in targets.split(",") for rows in _list_numbers(target)]
    assert len(computed) > len(targets.split(","))  # some targets have code of their own
    for rows in computed[1:]:
        np.testing.assert_array_equal(np.stack(rows), np.stack(computed[0]))


def test_build_stores_the_guard_and_verify_compares_it(tcc, guarded):
    outcome = tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime")
    assert outcome.code == 0, outcome.err
    folder = guarded / "build/small-onnxruntime-int8"
    guard = json.loads((folder / "guard.json").read_text())
    assert guard["calibrated"]["images"] == GUARD
    assert guard["layer"]["tap"]
    verified = library.verify(folder)
    assert verified.holds
    compared = [check for check in verified.agreement if check.output == "guard"]
    assert compared
    assert all(check.values > 40 and check.allowed == 0 for check in compared)


def test_verify_reports_changed_numbers(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime").code == 0
    bundle, device = _read_bundle("onnxruntime")
    path = bundle.folder / guard_readings.get_golden_path("1")
    numbers = np.frombuffer(path.read_bytes(), "<i8").copy()
    numbers[-1] += 1
    path.write_bytes(numbers.tobytes())
    (first, *_) = guard_readings.compare_goldens(bundle, device, bundle.manifest.goldens.cases)
    assert (first.differing, first.holds) == (1, False)


def test_the_same_inputs_give_the_same_guard(tcc, guarded):
    for out in ("a", "b"):
        arguments = ("--guard-data", "field", "--target", "tflite", "-o", out, "--no-cache")
        assert tcc(*BUILD, *arguments).code == 0
    first, second = (guarded / f"{out}/small-tflite-int8/manifest.json" for out in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_guard_changes_no_file_of_the_model(tcc, guarded):
    assert tcc(*BUILD, "--target", "onnxruntime", "-o", "plain").code == 0
    assert tcc(*BUILD, "--target", "onnxruntime", "--guard-data", "field").code == 0
    plain_files, guarded_files = (
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.onnx")}
        for folder in (guarded / "plain", guarded / "build")
    )
    assert plain_files == guarded_files
    assert not list((guarded / "plain").rglob("guard*"))


def test_foreign_images_raise_the_alarm_and_normal_ones_do_not(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime").code == 0
    folder = "build/small-onnxruntime-int8"
    normal = tcc("run", folder, "normal")
    assert "differ" not in normal.err
    assert "sees something else" not in normal.err
    assert normal.out.count("unlike the calibration images") <= 8
    foreign = tcc("run", folder, "foreign")
    assert foreign.out.count("unlike the calibration images (at most 1 in 20") == 20
    assert "differ" in foreign.err
    assert "a false alarm within N cases has a probability of at most N/100,000" in foreign.err
    assert "if cases come as those did; silence promises nothing" in foreign.err
    document = tcc("run", folder, "foreign", "--json").document
    assert document["guard"]["alarm"] in ("pictures", "network")
    assert document["images"][0]["guard"]["unusual"] is True


def test_eval_judges_images_without_labels(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime").code == 0
    outcome = tcc("eval", "build/small-onnxruntime-int8", "--data", "foreign")
    assert outcome.code == 0, outcome.err
    assert "guard: 20 of 20 images are unlike the calibration images" in outcome.err
    assert "differ" in outcome.err


def test_python_judges_cases(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime").code == 0
    stream = library.guard("build/small-onnxruntime-int8")
    rng = np.random.default_rng(5)
    for _ in range(20):
        readings = stream.judge([_draw(rng, "noise"), _draw(rng, "noise")])
        assert all(reading.is_unusual for reading in readings)
        stream.end_case()
    assert stream.alarm
    assert stream.describe()


def test_field_makes_tables_of_a_site(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "onnxruntime").code == 0
    folder = "build/small-onnxruntime-int8"
    _write(guarded / "site", 50, 6, "noise")
    outcome = tcc("field", folder, "site", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["images"] == 50
    assert library.verify(folder).holds
    assert "differ" not in tcc("run", folder, "foreign").err


@pytest.mark.slow
def test_field_writes_tables_into_a_library(tcc, guarded):
    assert tcc(*BUILD, "--guard-data", "field", "--target", "host").code == 0
    _write(guarded / "site", 50, 6, "noise")
    before = [np.stack(rows) for rows in _list_numbers("host")]
    outcome = tcc("field", "build/small-host-int8", "site")
    assert outcome.code == 0, outcome.err
    after = [np.stack(rows) for rows in _list_numbers("host")]
    np.testing.assert_array_equal(after[0], after[1])
    assert not np.array_equal(before[1], after[1])
    assert library.verify("build/small-host-int8").holds


def test_refusals(tcc, guarded):
    target = ("--target", "onnxruntime")
    _write(guarded / "few", 49, 7)
    few = tcc(*BUILD, *target, "--guard-data", "few")
    assert (few.code, "E0741" in few.err, "49" in few.err) == (2, True, True)
    shutil.copy(guarded / "set/0.png", guarded / "field/copy.png")
    used = tcc(*BUILD, *target, "--guard-data", "field")
    assert (used.code, "E0745" in used.err, "calibration" in used.err) == (2, True, True)
    floats = tcc("build", "small.yaml", *target, "--guard-data", "field")
    assert (floats.code, "E0601" in floats.err) == (2, True)
    assert tcc(*BUILD, *target).code == 0
    absent = tcc("field", "build/small-onnxruntime-int8", "normal")
    assert (absent.code, "E0746" in absent.err) == (2, True)
