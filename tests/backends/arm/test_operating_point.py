"""The program of a bundle reads outputs as the file beside it says, like `tcc run`."""

import shutil
import subprocess
import zlib

import numpy as np
import pytest
from arm_models import image, ppm, small, written

from tcc.backends.arm.backend import Arm
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import decision_rule, roc_curve
from tcc.compiler.reference.output_activations import applied

ARM = Arm()
(HOST,) = (t for t in ARM.targets if t.name == "host")
FILE = "small-operating-point.txt"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    model = small()
    folder = written(tmp_path_factory.mktemp("small"), ARM.emit(HOST, model))
    (folder / "a.ppm").write_bytes(ppm(image(31, 50)))
    (raw,) = Device(ARM, HOST).run(folder, model.graph.inputs[0], [image(31, 50)])
    return folder, raw["logits"]


def point(temperature, positive=None, thresholds=()):
    return OperatingPoint(
        "logits", temperature, positive, thresholds, "", FittingData("", 0, "", None)
    )


def printed(folder, *points, spoiled=lambda data: data):
    files = Device(ARM, HOST).operating_point_files(folder, points)
    assert set(files) == {FILE}
    (folder / FILE).write_bytes(spoiled(files[FILE]))
    command = [folder / "small-run", "--top", "0", folder / "a.ppm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    (folder / FILE).unlink()
    return done


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.7, 900.0])
def test_it_prints_the_probabilities_of_a_temperature(made, temperature):
    folder, raw = made
    done = printed(folder, point(temperature))
    assert done.returncode == 0, done.stderr
    values = applied("softmax", raw, temperature)
    lines = done.stdout.splitlines()[2:6]
    assert [float(line.split()[-1]) for line in lines] == pytest.approx(
        sorted(values, reverse=True), abs=1.1e-6
    )
    assert "decision" not in done.stdout


@pytest.mark.parametrize("positive", range(4))
def test_it_decides_as_tcc_does_on_both_sides_of_a_threshold(made, positive):
    folder, raw = made
    plain = printed(folder).stdout
    for temperature in (1.0, 2.3):
        odds = float(roc_curve.log_odds("softmax", raw[None], temperature)[0, positive])
        for threshold in (odds - 1e-9, odds + 1e-9):
            at = point(temperature, positive, (threshold,))
            (wanted,) = decision_rule.class_taken("softmax", raw[None], at)
            assert (wanted == positive) == (threshold < odds)
            done = printed(folder, at)
            assert f"\n  decision: {labels(plain, raw)[wanted]}\n" in done.stdout, done.stderr


def labels(text, raw):
    """The labels as printed, which is by their raw values, in the network's order."""
    names = [line.rsplit(maxsplit=1)[0].strip() for line in text.splitlines()[2:6]]
    return dict(zip(np.argsort(-raw, kind="stable").tolist(), names, strict=True))


def test_a_program_without_its_file_says_that_nothing_fitted_holds(made):
    folder, _ = made
    done = subprocess.run(
        [folder / "small-run", folder / "a.ppm", folder / "a.ppm"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said = f"small-run: nothing that was fitted holds: no {FILE} beside this program\n"
    assert done.stderr == said
    assert printed(folder, point(1.5)).stderr == ""


def resealed(change):
    def spoil(data):
        body = change(data[:-14])
        return body + b"seal %08x\n" % zlib.crc32(body)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[:-20], "damaged"),
        (lambda data: b"", "damaged"),
        (lambda data: data.replace(b"1.5", b"1.6"), "damaged"),
        (lambda data: data + b"\n", "damaged"),
        (resealed(lambda data: data.replace(b"_create_", b"_create_0")), "of another network"),
        (resealed(lambda data: data.replace(b"logits", b"other")), "that is not here"),
        (resealed(lambda data: data.replace(b"1.5", b"-1.5")), "damaged"),
        (resealed(lambda data: data.replace(b"1.5", b"nan")), "damaged"),
        (resealed(lambda data: data.replace(b"positive 2", b"positive 4")), "damaged"),
        (resealed(lambda data: data.replace(b"positive 2", b"positive -1")), "damaged"),
        (resealed(lambda data: data.replace(b"thresholds 1", b"thresholds 9")), "damaged"),
        (resealed(lambda data: data.replace(b"thresholds 1", b"thresholds 2")), "damaged"),
        (resealed(lambda data: data.replace(b"1.5", b"1\x00.5")), "damaged"),
    ],
)
def test_it_refuses_a_file_that_is_not_whole_or_not_its_own(made, spoil, why):
    done = printed(made[0], point(1.5, 2, (0.25,)), spoiled=spoil)
    assert (done.returncode, done.stdout) == (2, "")
    assert FILE in done.stderr
    assert why in done.stderr


def test_the_file_goes_with_the_program_alone(made, tmp_path):
    folder, _ = made
    shutil.copy(folder / "small-run", tmp_path / "other-name")
    files = Device(ARM, HOST).operating_point_files(folder, (point(1.5, 2, (-90.0,)),))
    (tmp_path / FILE).write_bytes(files[FILE])
    command = [tmp_path / "other-name", folder / "a.ppm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "\n  decision: " in done.stdout
