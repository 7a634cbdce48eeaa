"""Operating points in the libraries and the program of a bundle. They decide like `tcc run`."""

import ctypes
import subprocess

import numpy as np
import pytest
from arm_models import encode_ppm, make_random_image, make_small_model, write_artifact

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.codegen import operating_point
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import decision_odds, decision_rule
from tcc.compiler.reference.output_activations import apply_activation
from tcc.compiler.support.diagnostics import UserError

ARM = Arm()
(HOST,) = (t for t in ARM.targets if t.name == "host")
FILES = {"libsmall.a", "libsmall.so", "small-run"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    model = make_small_model()
    folder = write_artifact(tmp_path_factory.mktemp("small"), ARM.emit(HOST, model))
    (folder / "a.ppm").write_bytes(encode_ppm(make_random_image(31, 50)))
    (raw,) = Device(ARM, HOST).run(folder, model.graph.inputs[0], [make_random_image(31, 50)])
    return folder, raw["logits"]


@pytest.fixture
def fitted(artifact):
    """Writes operating points into the artifact, and removes them afterwards."""
    folder, _ = artifact
    original_files = {name: (folder / name).read_bytes() for name in FILES}

    def fit(*points):
        files = Device(ARM, HOST).encode_operating_points(folder, points)
        assert files.keys() == FILES
        for name, content in files.items():
            assert len(content) == len(original_files[name])
            (folder / name).write_bytes(content)
        return folder

    yield fit
    for name, content in original_files.items():
        (folder / name).write_bytes(content)


def make_point(temperature, positive=None, thresholds=()):
    return OperatingPoint(
        "logits", temperature, positive, thresholds, "", FittingData("", 0, "", None)
    )


def run_program(folder):
    command = [folder / "small-run", "--top", "0", folder / "a.ppm"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.7, 900.0])
def test_the_program_applies_the_temperature(artifact, fitted, temperature):
    completed = run_program(fitted(make_point(temperature)))
    probabilities = apply_activation("softmax", artifact[1], temperature)
    lines = completed.stdout.splitlines()[2:6]
    assert [float(line.split()[-1]) for line in lines] == pytest.approx(
        sorted(probabilities, reverse=True), abs=1.1e-6
    )
    assert "decision" not in completed.stdout
    assert completed.stderr == ""


@pytest.mark.parametrize("positive", range(4))
def test_the_program_and_tcc_decide_the_same(artifact, fitted, positive):
    folder, raw = artifact
    unfitted_output = run_program(folder).stdout
    for temperature in (1.0, 2.3):
        odds = float(
            decision_odds.compute_class_odds("softmax", raw[None], temperature, positive)[0]
        )
        for threshold in (odds, np.nextafter(odds, np.inf), odds - 1e-9):
            fitted_point = make_point(temperature, positive, (float(threshold),))
            (expected_class,) = decision_rule.predict_classes("softmax", raw[None], fitted_point)
            assert (expected_class == positive) == (threshold <= odds)
            completed = run_program(fitted(fitted_point))
            assert (
                f"\n  decision: {map_labels(unfitted_output, raw)[expected_class]}\n"
                in completed.stdout
            ), completed.stderr


def map_labels(text, raw):
    """Return printed labels, which are sorted by raw value, in the order of the network."""
    names = [line.rsplit(maxsplit=1)[0].strip() for line in text.splitlines()[2:6]]
    return dict(zip(np.argsort(-raw, kind="stable").tolist(), names, strict=True))


def test_a_loaded_library_uses_the_operating_point(artifact, fitted, tmp_path):
    _, raw = artifact
    fitted_point = make_point(2.3, 2, (-90.0,))
    copy = tmp_path / "fitted.so"  # a new name, so that the process loads it again
    copy.write_bytes((fitted(fitted_point) / "libsmall.so").read_bytes())
    library, header = ctypes.CDLL(str(copy)), (artifact[0] / "small.h").read_text()
    sizes = {
        name: int(header.partition(f"_{name}_SIZE ")[2].split()[0]) for name in ("ARENA", "OUTPUT")
    }
    arena = ctypes.create_string_buffer(sizes["ARENA"])
    library.small_create.restype = ctypes.c_void_p
    instance = ctypes.c_void_p(library.small_create(arena, ctypes.c_size_t(sizes["ARENA"])))
    pixels = make_random_image(31, 50).tobytes()
    probabilities, decisions = (
        (ctypes.c_float * sizes["OUTPUT"])(),
        (ctypes.c_ubyte * sizes["OUTPUT"])(),
    )
    assert library.small_predict(instance, pixels, 50, 31, probabilities, decisions) == 0
    assert list(probabilities)[:4] == pytest.approx(
        apply_activation("softmax", raw, 2.3).tolist(), rel=1e-6
    )
    assert list(decisions)[:4] == [0, 0, 1, 0]
    assert not any(list(decisions)[4:])  # a map output has no decision
    classified = (ctypes.c_float * sizes["OUTPUT"])()
    assert library.small_classify(instance, pixels, 50, 31, classified) == 0
    assert list(classified) == list(probabilities)
    assert (library.small_has_thresholds(0), library.small_has_thresholds(1)) == (1, 0)
    assert library.small_predict(instance, pixels, 50, 31, probabilities, None) == 1
    assert library.small_decide(None, decisions) == 1


def test_removing_the_operating_point_restores_the_library(artifact, fitted):
    folder, _ = artifact
    original_files = {name: (folder / name).read_bytes() for name in FILES}
    fitted(make_point(1.5, 2, (0.25,)))
    assert all((folder / name).read_bytes() != content for name, content in original_files.items())
    fitted()
    assert all((folder / name).read_bytes() == content for name, content in original_files.items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda mark, data: data.replace(mark, mark + mark),
        lambda mark, data: data[: data.index(mark) + 40],
        lambda mark, data: data.replace(mark + data.partition(mark)[2][:8], mark + b"\xff" * 8),
    ],
)
def test_a_library_whose_records_are_damaged_is_refused(artifact, fitted, spoil):
    folder, _ = artifact
    fitted()
    path = folder / "libsmall.so"
    _, create = operating_point.read_network(folder)
    path.write_bytes(spoil(operating_point.build_mark(create).encode(), path.read_bytes()))
    with pytest.raises(UserError, match="operating point records in this file are damaged"):
        Device(ARM, HOST).encode_operating_points(folder, (make_point(1.5),))


def test_older_bundles_store_the_operating_point_as_text(artifact, tmp_path):
    (tmp_path / "small.h").write_text((artifact[0] / "small.h").read_text())
    for name in FILES:
        (tmp_path / name).write_bytes(b"no records")
    files = Device(ARM, HOST).encode_operating_points(tmp_path, (make_point(1.5, 2, (0.25,)),))
    assert list(files) == ["small-operating-point.txt"]
    assert b"temperature 1.5\npositive 2\nthresholds 1\n0.25\n" in next(iter(files.values()))
    assert not ARM.has_operating_points_in_libraries(HOST, tmp_path)
    assert ARM.has_operating_points_in_libraries(HOST, artifact[0])
