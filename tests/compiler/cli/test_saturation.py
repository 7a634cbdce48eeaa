"""`tcc eval --saturation` counts saturated values and compares them with the calibration."""

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
    """A calibration on dark images, and a function that builds int8 bundles with it."""
    dark = home / "dark"
    # As many images as the usual saturation needs.
    for path in sorted(images.rglob("*.png"))[:16]:
        image_path = dark / path.relative_to(images)
        image_path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).point(lambda level: level // 4).save(image_path)
    args = ("--method", "minmax", "-q", "-o", "c.json")
    assert tcc("calibrate", "tiny.yaml", "--data", dark, *args).code == 0

    def build(target, precision="int8"):
        floors = ("--floor", "min_cosine=0", "--floor", "min_correlation=0")
        args = (*floors, "--calibration", "c.json")
        precision_args = ("--precision", precision, "-q")
        outcome = tcc(
            "build", "tiny.yaml", "--target", target, "--data", dark, *args, *precision_args
        )
        assert outcome.code == 0, outcome.err
        return f"build/tiny-{target}-{precision}"

    return build


def read_shares(document):
    return {layer["layer"]: layer["share"] for layer in document["saturation"]["layers"]}


def compute_shares(home, data):
    """Compute the saturated share of each value with the numpy reference executor."""
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.driver import pipeline
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.quant import calibration_document, calibration_file
    from tcc.compiler.quant.program.quantize import quantize
    from tcc.compiler.reference import integer_program

    spec = load(home / "tiny.yaml", {})
    lowered_model = pipeline.lower_for_int8(spec, pipeline.create_random_weights(spec.graph))
    calibration = calibration_document.read_document(home / "c.json")
    program = quantize(
        lowered_model, calibration_file.decode_calibration(calibration, lowered_model, "c")
    )
    images = read_dataset(data)
    (source,) = program.graph.inputs
    tensors = [images.read_tensor(i, source) for i in range(len(images))]
    shares = {}
    for name, value in calibration.values.items():
        if name != source.name:
            low, high = (-128, 127) if value.signed else (None, 255)
            rows = [v[name] for v in integer_program.run(program, tensors, keep_all=True)]
            if rows[0].dtype.kind != "f":
                assert rows[0].dtype == (np.int8 if value.signed else np.uint8)
                shares[name] = np.mean([np.mean((r == low) | (r == high)) for r in rows])
    return shares


def test_artifacts_and_reference_count_the_same(tcc, home, images, calibrated):
    onnx, lite = (tcc(*COUNT, calibrated(name), *DATA) for name in ("onnxruntime", "tflite"))
    reference = tcc(*COUNT, "tiny.yaml", *DATA, "--calibration", "c.json")
    assert onnx.code == lite.code == reference.code == 0, onnx.err + lite.err + reference.err
    expected_shares = compute_shares(home, images)
    assert any(expected_shares.values())
    for outcome in (onnx, reference):
        assert read_shares(outcome.document) == pytest.approx(expected_shares)
    both = read_shares(lite.document).keys() & expected_shares.keys()
    assert len(both) >= len(expected_shares) - 1
    assert {n: read_shares(lite.document)[n] for n in both} == pytest.approx(
        {n: expected_shares[n] for n in both}
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "arm-a7"])
def test_processor_programs_count_exactly_the_same(tcc, home, images, calibrated, target):
    """Counted by the command, and by the program itself in an instrumented build."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    machine = MACHINES[target]
    if not (machine.native or shutil.which(machine.qemu)):
        pytest.skip("needs qemu")
    bundle = calibrated(target, "int8-counted")
    assert json.loads((home / bundle / "manifest.json").read_text())["precision"] == "int8-counted"
    outcome, expected_shares = tcc(*COUNT, bundle, *DATA), compute_shares(home, images)
    assert outcome.code == 0, outcome.err
    assert outcome.document["saturation"]["compared"]
    share_by_layer = read_shares(outcome.document)
    assert share_by_layer == pytest.approx(expected_shares)
    emulator = () if machine.native else (machine.qemu, "-cpu", machine.qemu_cpu)
    (program,) = (home / bundle).rglob("tiny-run")
    files = []
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        files.append(home / f"{number}.ppm")
        Image.open(path).convert("RGB").save(files[-1])
    completed = subprocess.run(
        [*emulator, program, *files], capture_output=True, text=True, check=True
    )
    lines = re.findall(r"%  (.+) \((\d+) of (\d+)\)", completed.stdout)
    counts = {name: (int(saturated_count), int(count)) for name, saturated_count, count in lines}
    assert counts == {
        n: (round(share * counts[n][1]), counts[n][1]) for n, share in expected_shares.items()
    }
    assert all(
        saturated_count / count == pytest.approx(share_by_layer[name])
        for name, (saturated_count, count) in counts.items()
    )


def list_deviating(document):
    return [layer["layer"] for layer in document["saturation"]["layers"] if layer["clips_more"]]


def test_more_clipping_than_in_calibration_is_reported(tcc, home, calibrated):
    bundle = calibrated("onnxruntime")
    bright, dark = tcc(*COUNT, bundle, *DATA), tcc(*COUNT, bundle, "--data", "dark")
    assert list_deviating(bright.document)
    assert "more values clip than on the calibration images" in bright.err
    assert "On 24 of 24 images, `" in bright.err
    assert "any of the 16 calibration images" in bright.err
    assert dark.document["saturation"]["compared"]
    assert not list_deviating(dark.document)
    assert "more values clip" not in dark.err
    # Min-max uses all images, so the usual saturation is from these calibration images.
    for layer in dark.document["saturation"]["layers"]:
        assert layer["at_calibration"] == pytest.approx(layer["share"])
        assert layer["worst_image"] >= layer["share"]
        assert layer["images_above"] == 0


def test_report_draws_no_conclusion_about_accuracy(tcc, home, calibrated):
    bundle = calibrated("onnxruntime")
    for data in ("set", "dark"):
        outcome = tcc("eval", "--saturation", bundle, "--data", data)
        assert " fits" not in outcome.out + outcome.err
        assert "fit these" not in outcome.out + outcome.err
        assert "These counts do not show how accurate the network is" in outcome.out


def test_table_marks_layers_that_clip_more(tcc, calibrated):
    outcome = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA)
    assert "saturated values, on 24 images" in outcome.out
    assert "clips more" in outcome.out
    quiet = tcc("eval", "--saturation", calibrated("onnxruntime"), *DATA, "-q")
    assert "saturated values" not in quiet.out
    assert "more values clip" in quiet.err


@pytest.fixture
def unlabelled(home, images):
    """The same images in a flat folder, and in folders that are not classes."""
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        for folder_path in (home / "flat", home / "visits" / f"visit {number % 2}"):
            folder_path.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder_path / f"{number}.png")
    return home


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("flat", "these images have no labels"), ("visits", "the network has no class `visit 0`")],
)
def test_saturation_needs_no_labels(tcc, unlabelled, calibrated, folder, reason):
    bundle = calibrated("onnxruntime")
    for network in ((bundle,), ("tiny.yaml", "--calibration", "c.json")):
        labelled = tcc(*COUNT, *network, *DATA).document
        outcome = tcc(*COUNT, *network, "--data", folder)
        assert outcome.code == 0, outcome.err
        assert outcome.document["saturation"] == labelled["saturation"]
        assert outcome.document["accuracy"] is None
        assert outcome.document["data"]["images"] == 24
        assert f"accuracy on {folder} is not measured: {reason}" in outcome.err
    text = tcc("eval", "--saturation", bundle, "--data", folder)
    assert "accuracy" not in text.out.replace("how accurate", "")
    assert "more values clip" in text.err


def test_accuracy_options_need_labels(tcc, unlabelled, calibrated):
    bundle = calibrated("onnxruntime")
    for args in ((), ("--saturation", "--bootstrap", "100")):
        outcome = tcc("eval", bundle, "--data", "flat", *args)
        assert outcome.code == 2
        assert "error[E0714]" in outcome.err


@pytest.fixture
def build_without_images(tcc, home, images):
    """A calibration, and a function that builds an int8 bundle with it without images."""
    args = ("--method", "minmax", "-q", "-o", "c.json")
    assert tcc("calibrate", "tiny.yaml", *DATA, *args).code == 0

    def build():
        args = ("--calibration", "c.json", "--floor", "min_cosine=0", "--floor", "max_drop=1")
        assert tcc("build", "tiny.yaml", "--target", "onnxruntime", *args, *INT8).code == 0
        return "build/tiny-onnxruntime-int8"

    return build


def test_bundle_built_without_images_has_the_usual_saturation(
    tcc, home, images, build_without_images
):
    inverted = home / "inverted"
    for path in images.rglob("*.png"):
        image_path = inverted / path.relative_to(images)
        image_path.parent.mkdir(parents=True, exist_ok=True)
        Image.eval(Image.open(path), lambda level: 255 - level // 8).save(image_path)
    bundle = build_without_images()
    fits = tcc(*COUNT, bundle, *DATA)
    assert fits.document["saturation"]["compared"]
    assert not list_deviating(fits.document)
    reference = tcc(*COUNT, "tiny.yaml", *DATA, "--calibration", "c.json")
    assert reference.document["saturation"] == fits.document["saturation"]
    assert list_deviating(tcc(*COUNT, bundle, "--data", inverted).document)


@pytest.mark.parametrize("has_means", [True, False])
def test_older_calibration_is_counted_but_not_compared(tcc, home, build_without_images, has_means):
    """Files of older versions have only means, or no saturation."""
    from tcc.compiler.quant import calibration_document

    bundle, path = build_without_images, home / "c.json"
    document = json.loads(path.read_text())
    for name in ("usual_largest", "usual_images", *(() if has_means else ("usual",)), "seal"):
        del document[name]
    document = calibration_document.decode(seal_document(document), "c.json")
    path.write_bytes(calibration_document.encode(document))
    outcome = tcc(*COUNT, bundle(), *DATA)
    assert outcome.code == 0, outcome.err
    assert not outcome.document["saturation"]["compared"]
    assert not any(layer["clips_more"] for layer in outcome.document["saturation"]["layers"])
    has_calibration_share = [
        layer["at_calibration"] is not None for layer in outcome.document["saturation"]["layers"]
    ]
    assert all(has_calibration_share) == any(has_calibration_share) == has_means
    assert "the calibration file has no counts per image" in outcome.err


def seal_document(document):
    from tcc.compiler.support.json_records import seal

    return json.dumps(document | {"seal": seal(document)}).encode()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("build/tiny-onnxruntime-fp32",), "E1267", "this bundle computes in float (fp32)"),
        (("tiny.yaml",), "E1267", "a spec without a calibration has no quantized values to count"),
        (
            ("tiny.yaml", "tiny.yaml"),
            "E0601",
            "`--saturation` has no effect: it is for one network",
        ),
    ],
)
def test_inputs_without_int8_values_are_refused(tcc, images, built, arguments, code, message):
    outcome = tcc("eval", "--saturation", *arguments, *DATA)
    assert outcome.code == 2
    assert f"error[{code}]" in outcome.err
    assert message in outcome.err


def test_calibration_option_needs_saturation(tcc, images):
    outcome = tcc("eval", "tiny.yaml", *DATA, "--calibration", "c.json")
    assert "error[E0601]: `--calibration` has no effect: it needs `--saturation`" in outcome.err


def make_layer(shares, largest=0.0, images=16):
    return LayerSaturation("relu", tuple(shares), UsualShare(largest, largest, images))


@pytest.mark.parametrize(
    ("layer", "layers", "expected"),
    [
        (LayerSaturation("relu", (0.5,) * 99), 1, False),  # the usual saturation is unknown
        (make_layer([0.5] * 99, images=0), 1, False),
        (make_layer([0.5] * 4), 1, True),
        (make_layer([0.5]), 1, False),
        (make_layer([MIN_SHARE] * 99), 1, False),
        (make_layer([0.01] * 99, largest=0.01), 1, False),
        (make_layer([0.011] * 99, largest=0.01), 1, True),
        (make_layer([1.0] + [0.0] * 98), 1, False),  # one unusual image
        (make_layer([0.5] * 4), 62, False),
        (make_layer([0.5] * 5), 62, True),
        (make_layer([0.5] * 50 + [0.0] * 50), 62, False),
        (make_layer([0.5] * 99, images=2), 62, False),  # too few images
    ],
)
def test_layers_with_more_clipping(layer, layers, expected):
    assert layer.has_more_clipping(layers) == expected


def test_too_few_images_are_reported(tcc, home, calibrated):
    outcome = tcc(*COUNT, calibrated("onnxruntime"), "--data", copy_few_images(home, 2))
    assert not outcome.document["saturation"]["compared"]
    assert "2 images and 16 calibration images are too few" in outcome.err


def copy_few_images(home, count):
    folder = home / "few"
    folder.mkdir()
    for path in sorted((home / "set").rglob("*.png"))[:count]:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.parametrize("reference", [1, 4, 16])
@pytest.mark.parametrize("layers", [1, 20])
def test_false_alarm_rate_is_low_for_any_number_of_images(reference, layers):
    """Images come from the calibration's distribution. All layers are checked after each image.

    Layers are independent here, the worst case for their number. Shares have heavy tails.
    """
    rng = np.random.default_rng(reference)
    trials, reports, images = 400, 0, 300
    for _ in range(trials):
        usual = rng.lognormal(-6, 2, (layers, reference)).max(axis=1)
        above = (rng.lognormal(-6, 2, (layers, images)) > usual[:, None]).cumsum(axis=1)
        reports += any(
            exceedance.is_shifted(int(max_count), number, reference, layers)
            for number, max_count in enumerate(above.max(axis=0), 1)
        )
    assert reports <= 10  # 1 in 100 of 400 is 4: more than 10 has a chance of 0.3 %


def test_shift_of_all_images_is_reported_from_five_images():
    saturation = Saturation(tuple(make_layer([0.01] * 5) for _ in range(62)), 5)
    assert len(saturation.deviating) == 62
    assert not Saturation(tuple(make_layer([0.01] * 4) for _ in range(62)), 4).can_deviate
