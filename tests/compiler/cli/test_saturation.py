"""`tcc eval --saturation`: levels at their end are counted, and compared with calibration's."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tcc.backends.arm.machine import MACHINES as EVERY
from tcc.compiler.driver.saturation import MIN_SHARE, LayerSaturation, Saturation, UsualShare
from tcc.compiler.reference import exceedance

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
        floors = ("--floor", "min_cosine=0", "--floor", "min_correlation=0")
        words = (*floors, "--calibration", "c.json")
        integers = ("--precision", precision, "-q")
        found = tcc("build", "tiny.yaml", "--target", target, "--data", dark, *words, *integers)
        assert found.code == 0, found.err
        return f"build/tiny-{target}-{precision}"

    return build


def shares(document):
    return {one["layer"]: one["share"] for one in document["saturation"]["layers"]}


def by_hand(home, data):
    """The same of every value of the integer program, by the executor that is written in numpy."""
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import pipeline
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.quant import calibration_document, calibration_file
    from tcc.compiler.quant.program.quantize import quantize
    from tcc.compiler.reference import integer_program

    spec = load(home / "tiny.yaml", {})
    ready = pipeline.lower_for_int8(spec, pipeline.create_random_weights(spec.graph))
    written = calibration_document.read_document(home / "c.json")
    program = quantize(ready, calibration_file.decode_calibration(written, ready, "c"))
    images = read_dataset(data)
    (source,) = program.graph.inputs
    tensors = [images.read_tensor(i, source) for i in range(len(images))]
    found = {}
    for name, value in written.values.items():
        if name != source.name:
            low, high = (-128, 127) if value.signed else (None, 255)
            rows = [v[name] for v in integer_program.run(program, tensors, keep_all=True)]
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
    assert found.document["saturation"]["compared"]
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


def deviating(document):
    return [one["layer"] for one in document["saturation"]["layers"] if one["clips_more"]]


def test_more_clipping_than_on_the_calibrations_images_is_said(tcc, home, calibrated):
    bundle = calibrated("onnxruntime")
    bright, dark = tcc(*COUNT, bundle, *DATA), tcc(*COUNT, bundle, "--data", "dark")
    assert deviating(bright.document)
    assert "more values clip than on the calibration's images, in" in bright.err
    assert "in 24 of 24 images `" in bright.err
    assert "each of the calibration's 16 images" in bright.err
    assert dark.document["saturation"]["compared"]
    assert not deviating(dark.document)
    assert "more values clip" not in dark.err
    # By min-max nothing is held out: what is usual is of the calibration's images, which these are.
    for one in dark.document["saturation"]["layers"]:
        assert one["at_calibration"] == pytest.approx(one["share"])
        assert one["worst_image"] >= one["share"]
        assert one["images_above"] == 0


def test_nothing_is_concluded_of_how_images_fit(tcc, home, calibrated):
    bundle = calibrated("onnxruntime")
    for data in ("set", "dark"):
        found = tcc("eval", "--saturation", bundle, "--data", data)
        assert " fits" not in found.out + found.err
        assert "fit these" not in found.out + found.err
        assert "These are counts. Images of another kind may clip no more" in found.out


def test_the_table_marks_them(tcc, calibrated):
    found = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA)
    assert "saturated values, over 24 images" in found.out
    assert "clips more" in found.out
    quiet = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA, "-q")
    assert "saturated values" not in quiet.out
    assert "more values clip" in quiet.err


@pytest.fixture
def unlabelled(home, images):
    """The same images in a flat folder, and in folders that are no classes."""
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        for place in (home / "flat", home / "visits" / f"visit {number % 2}"):
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / f"{number}.png")
    return home


@pytest.mark.parametrize(
    ("folder", "why"),
    [("flat", "these images have no labels"), ("visits", "the network has no class `visit 0`")],
)
def test_images_need_no_labels(tcc, unlabelled, calibrated, folder, why):
    bundle = calibrated("onnxruntime")
    for network in ((bundle,), ("tiny.yaml", "--calibration", "c.json")):
        labelled = tcc(*COUNT, *network, *DATA).document
        found = tcc(*COUNT, *network, "--data", folder)
        assert found.code == 0, found.err
        assert found.document["saturation"] == labelled["saturation"]
        assert found.document["accuracy"] is None
        assert found.document["data"]["images"] == 24
        assert f"accuracy is not measured on {folder}: {why}" in found.err
    text = tcc("eval", "--saturation", bundle, "--data", folder)
    assert "accuracy" not in text.out.replace("how accurate", "")
    assert "more values clip" in text.err


def test_what_needs_labels_asks_for_them(tcc, unlabelled, calibrated):
    bundle = calibrated("onnxruntime")
    for words in ((), ("--saturation", "--bootstrap", "100")):
        found = tcc("eval", bundle, "--data", "flat", *words)
        assert found.code == 2
        assert "error[E0714]" in found.err


@pytest.fixture
def blind(tcc, home, images):
    """A calibration, and an int8 bundle of it that was built without images."""
    words = ("--method", "minmax", "-q", "-o", "c.json")
    assert tcc("calibrate", "tiny.yaml", *DATA, *words).code == 0

    def build():
        words = ("--calibration", "c.json", "--floor", "min_cosine=0", "--floor", "max_drop=1")
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
    assert fits.document["saturation"]["compared"]
    assert not deviating(fits.document)
    reference = tcc(*COUNT, "tiny.yaml", *DATA, "--calibration", "c.json")
    assert reference.document["saturation"] == fits.document["saturation"]
    assert deviating(tcc(*COUNT, bundle, "--data", inverted).document)


@pytest.mark.parametrize("kept", [True, False])
def test_an_older_calibration_is_counted_but_not_compared(tcc, home, blind, kept):
    """Files of older versions have means alone, or nothing at all."""
    from tcc.compiler.quant import calibration_document

    bundle, path = blind, home / "c.json"
    document = json.loads(path.read_text())
    for name in ("usual_largest", "usual_images", *(() if kept else ("usual",)), "seal"):
        del document[name]
    document = calibration_document.decode(sealed(document), "c.json")
    path.write_bytes(calibration_document.encode(document))
    found = tcc(*COUNT, bundle(), *DATA)
    assert found.code == 0, found.err
    assert not found.document["saturation"]["compared"]
    assert not any(one["clips_more"] for one in found.document["saturation"]["layers"])
    known = [one["at_calibration"] is not None for one in found.document["saturation"]["layers"]]
    assert all(known) == any(known) == kept
    assert "its file does not say them image by image" in found.err


def sealed(document):
    from tcc.compiler.support.json_records import seal

    return json.dumps(document | {"seal": seal(document)}).encode()


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


def layer(shares, largest=0.0, images=16):
    return LayerSaturation("relu", tuple(shares), UsualShare(largest, largest, images))


@pytest.mark.parametrize(
    ("one", "layers", "more"),
    [
        (LayerSaturation("relu", (0.5,) * 99), 1, False),  # nothing is known
        (layer([0.5] * 99, images=0), 1, False),
        (layer([0.5] * 4), 1, True),
        (layer([0.5]), 1, False),
        (layer([MIN_SHARE] * 99), 1, False),
        (layer([0.01] * 99, largest=0.01), 1, False),
        (layer([0.011] * 99, largest=0.01), 1, True),
        (layer([1.0] + [0.0] * 98), 1, False),  # one odd image
        (layer([0.5] * 4), 62, False),
        (layer([0.5] * 5), 62, True),
        (layer([0.5] * 50 + [0.0] * 50), 62, False),
        (layer([0.5] * 99, images=2), 62, False),  # too few to say it
    ],
)
def test_what_clips_more(one, layers, more):
    assert one.has_more_clipping(layers) == more


def test_too_few_images_are_said_to_be(tcc, home, calibrated):
    found = tcc(*COUNT, calibrated("onnxruntime"), "--data", few(home, 2))
    assert not found.document["saturation"]["compared"]
    assert "2 images beside 16 of the calibration are too few" in found.err


def few(home, count):
    folder = home / "few"
    folder.mkdir()
    for path in sorted((home / "set").rglob("*.png"))[:count]:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize("reference", [1, 4, 16])
@pytest.mark.parametrize("layers", [1, 20])
def test_few_groups_of_usual_images_are_reported_whatever_their_size(reference, layers):
    """Of images drawn as the calibration's, over all layers, looked at after each image.

    Layers are independent here, the worst case for their number; shares have heavy tails.
    """
    rng = np.random.default_rng(reference)
    draws, reports, images = 400, 0, 300
    for _ in range(draws):
        usual = rng.lognormal(-6, 2, (layers, reference)).max(axis=1)
        above = (rng.lognormal(-6, 2, (layers, images)) > usual[:, None]).cumsum(axis=1)
        reports += any(
            exceedance.is_shifted(int(most), number, reference, layers)
            for number, most in enumerate(above.max(axis=0), 1)
        )
    assert reports <= 10  # 1 in 100 of 400 is 4: more than 10 has a chance of 0.3 %


def test_a_shift_of_all_images_is_reported_from_five_on():
    saturation = Saturation(tuple(layer([0.01] * 5) for _ in range(62)), 5)
    assert len(saturation.deviating) == 62
    assert not Saturation(tuple(layer([0.01] * 4) for _ in range(62)), 4).can_deviate
