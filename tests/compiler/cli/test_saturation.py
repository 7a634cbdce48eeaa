"""`tcc eval --saturation`: levels at their end are counted, and compared with calibration's."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tcc.backends.arm.machine import MACHINES as EVERY
from tcc.compiler.driver.saturation import LEAST, TIMES, LayerSaturation

MACHINES = {machine.target.name: machine for machine in EVERY}
DATA = ("--data", "set")
INT8 = ("--precision", "int8", "-q")
COUNT = ("eval", "--saturation", "--json")


@pytest.fixture
def calibrated(tcc, home, images):
    """A calibration on dark images, and int8 bundles of it."""
    dark = home / "dark"
    # As many as say what is usual.
    for path in sorted(images.rglob("*.png"))[:16]:
        made = dark / path.relative_to(images)
        made.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).point(lambda level: level // 4).save(made)
    words = ("--method", "minmax", "-q", "-o", "c.json")
    assert tcc("calibrate", "tiny.yaml", "--data", dark, *words).code == 0

    def build(target, precision="int8"):
        words = ("--min-cosine", 0, "--min-correlation", 0, "--calibration", "c.json")
        integers = ("--precision", precision, "-q")
        found = tcc("build", "tiny.yaml", "--target", target, "--data", dark, *words, *integers)
        assert found.code == 0, found.err
        return f"build/tiny-{target}-{precision}"

    return build


def shares(document):
    return {one["layer"]: one["share"] for one in document["saturation"]["layers"]}


def by_hand(home, data):
    """The same of every value of the integer program, by the executor that is written in numpy."""
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import pipeline
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.quant import calibration_document, calibration_file
    from tcc.compiler.quant.program.quantize import quantize
    from tcc.compiler.reference import integer_program

    spec = load(home / "tiny.yaml", {})
    ready = pipeline.ready(spec, pipeline.random_weights(spec.graph))
    written = calibration_document.read(home / "c.json")
    program = quantize(ready, calibration_file.calibration(written, ready, "c"))
    images = read(data)
    (source,) = program.graph.inputs
    tensors = [images.tensor(i, source) for i in range(len(images))]
    found = {}
    for name, value in written.values.items():
        if name != source.name:
            low, high = (-128, 127) if value.signed else (None, 255)
            rows = [v[name] for v in integer_program.run(program, tensors, every=True)]
            if rows[0].dtype.kind != "f":
                assert rows[0].dtype == (np.int8 if value.signed else np.uint8)
                found[name] = np.mean([np.mean((r == low) | (r == high)) for r in rows])
    return found


def test_artifacts_and_the_reference_count_the_same(tcc, home, images, calibrated):
    onnx, lite = (tcc(*COUNT, calibrated(name), *DATA) for name in ("onnxruntime", "tflite"))
    reference = tcc(*COUNT, "tiny.yaml", *DATA, "--calibration", "c.json")
    assert onnx.code == lite.code == reference.code == 0, onnx.err + lite.err + reference.err
    wanted = by_hand(home, images)
    assert any(wanted.values())
    for found in (onnx, reference):
        assert shares(found.document) == pytest.approx(wanted)
    both = shares(lite.document).keys() & wanted.keys()
    assert len(both) >= len(wanted) - 1
    assert {n: shares(lite.document)[n] for n in both} == pytest.approx(
        {n: wanted[n] for n in both}
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "arm-a7"])
def test_programs_for_processors_count_the_same_to_the_unit(tcc, home, images, calibrated, target):
    """Looked into by the command, and by themselves where they are built to count."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    machine = MACHINES[target]
    if not (machine.native or shutil.which(machine.qemu)):
        pytest.skip("needs qemu")
    bundle = calibrated(target, "int8-counted")
    assert json.loads((home / bundle / "manifest.json").read_text())["precision"] == "int8-counted"
    found, wanted = tcc(*COUNT, bundle, *DATA), by_hand(home, images)
    assert found.code == 0, found.err
    assert not found.document["saturation"]["fits"]
    seen = shares(found.document)
    assert seen == pytest.approx(wanted)
    emulator = () if machine.native else (machine.qemu, "-cpu", machine.qemu_cpu)
    (program,) = (home / bundle).rglob("tiny-run")
    files = []
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        files.append(home / f"{number}.ppm")
        Image.open(path).convert("RGB").save(files[-1])
    said = subprocess.run([*emulator, program, *files], capture_output=True, text=True, check=True)
    lines = re.findall(r"%  (.+) \((\d+) of (\d+)\)", said.stdout)
    counts = {name: (int(ends), int(count)) for name, ends, count in lines}
    assert counts == {n: (round(share * counts[n][1]), counts[n][1]) for n, share in wanted.items()}
    assert all(ends / count == pytest.approx(seen[name]) for name, (ends, count) in counts.items())


def test_other_images_than_the_calibrations_are_noticed(tcc, home, calibrated):
    bundle = calibrated("onnxruntime")
    bright, dark = tcc(*COUNT, bundle, *DATA), tcc(*COUNT, bundle, "--data", "dark")
    assert not bright.document["saturation"]["fits"]
    assert "far more often than on the calibration's images: it no longer fits" in bright.err
    assert dark.document["saturation"]["fits"]
    assert "no longer fits" not in dark.err
    # By min-max nothing is held out: what is usual is of the calibration's images, which these are.
    for one in dark.document["saturation"]["layers"]:
        assert one["at_calibration"] == pytest.approx(one["share"])
        assert one["worst_image"] >= one["share"]


def test_the_table_marks_them(tcc, calibrated):
    found = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA)
    assert "levels at their end, over 24 images" in found.out
    assert "unusual" in found.out
    quiet = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA, "-q")
    assert "levels at" not in quiet.out
    assert "no longer fits" in quiet.err


@pytest.fixture
def blind(tcc, home, images):
    """A calibration, and an int8 bundle of it that was built without images."""
    words = ("--method", "minmax", "-q", "-o", "c.json")
    assert tcc("calibrate", "tiny.yaml", *DATA, *words).code == 0

    def build():
        words = ("--calibration", "c.json", "--min-cosine", 0, "--max-drop", 1)
        assert tcc("build", "tiny.yaml", "--target", "onnxruntime", *words, *INT8).code == 0
        return "build/tiny-onnxruntime-int8"

    return build


def test_a_bundle_without_images_knows_what_is_usual_of_its_calibration(tcc, home, images, blind):
    inverted = home / "inverted"
    for path in images.rglob("*.png"):
        made = inverted / path.relative_to(images)
        made.parent.mkdir(parents=True, exist_ok=True)
        Image.eval(Image.open(path), lambda level: 255 - level // 8).save(made)
    bundle = blind()
    fits = tcc(*COUNT, bundle, *DATA)
    assert fits.document["saturation"]["fits"]
    reference = tcc(*COUNT, "tiny.yaml", *DATA, "--calibration", "c.json")
    assert reference.document["saturation"] == fits.document["saturation"]
    assert not tcc(*COUNT, bundle, "--data", inverted).document["saturation"]["fits"]


def test_an_older_calibration_does_not_say_what_is_usual(tcc, home, blind):
    from tcc.compiler.quant import calibration_document

    bundle, path = blind, home / "c.json"
    older = replace(calibration_document.read(path), usual={}, seal="")
    path.write_bytes(calibration_document.encode(older))
    found = tcc(*COUNT, bundle(), *DATA)
    assert found.document["saturation"]["fits"] is None
    assert "it is not known what is usual" in found.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("build/tiny-onnxruntime-fp32",), "E1267", "this bundle computes in floats (fp32)"),
        (("tiny.yaml",), "E1267", "a spec has no integers to count"),
        (
            ("tiny.yaml", "tiny.yaml"),
            "E0601",
            "`--saturation` has no effect: it is for one network",
        ),
    ],
)
def test_where_nothing_can_be_counted(tcc, images, built, words, code, said):
    found = tcc("eval", "--saturation", *words, *DATA)
    assert found.code == 2
    assert f"error[{code}]" in found.err
    assert said in found.err


def test_a_calibration_is_for_counting_alone(tcc, images):
    found = tcc("eval", "tiny.yaml", *DATA, "--calibration", "c.json")
    assert "error[E0601]: `--calibration` has no effect: it needs `--saturation`" in found.err


@pytest.mark.parametrize(
    ("share", "error", "usual", "unusual"),
    [
        (0.5, 0.0, None, False),
        (0.5, 0.0, 0.0, True),
        (LEAST, 0.0, 0.0, False),
        (TIMES * 0.01, 0.0, 0.01, False),
        (TIMES * 0.011, 0.0, 0.01, True),
        (0.01, 0.01, 0.0, False),  # one image of many
    ],
)
def test_what_is_unusual(share, error, usual, unusual):
    assert LayerSaturation("relu", share, error, 1.0, usual).unusual == unusual
