"""The return values of `tcc` functions: short as text, a figure in a notebook, safe HTML."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tcc
from tcc.compiler.support.value_views import MAX_LINE_CHARS, MAX_LINES

ROOT = Path(__file__).resolve().parents[1]
TILES, SAMPLES = ROOT / "docs/examples/tiles.yaml", ROOT / "zoo/samples"
CLASSES = ["ADI", "MUC", "MUS", "STR", "STU", "TUM"]
ODD = '<b onload="x">&'


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """All return values of the functions for one small network, by name."""
    folder = tmp_path_factory.mktemp("values")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = tcc.load(TILES, labels=[ODD, *CLASSES[1:]])
        scales = tcc.calibrate(spec, SAMPLES, method="minmax")
        options = {
            "precision": "int8",
            "data": SAMPLES,
            "method": "minmax",
            "floors": {"min_cosine": 0},
        }
        bundle = tcc.build(spec, "onnxruntime", out=folder / "one", **options)
        several = tcc.build(spec, ["onnxruntime", "tflite"], out=folder / "two", **options)
        classes_spec = tcc.load(TILES, labels=CLASSES)
        returned_values = {
            "spec": spec,
            "graph": spec.graph,
            "scales": scales,
            "check": tcc.check(spec, ["onnxruntime", "ax620", "tflite"], precision="int8"),
            "floats": tcc.lower(spec, "arm-a7"),
            "integers": tcc.lower(spec, "onnxruntime", precision="int8", data=SAMPLES),
            "bundle": bundle,
            "manifest": bundle.manifest,
            "several": several,
            "predictions": tcc.run(bundle, sorted(SAMPLES.rglob("*.png"))[:7]),
            "verified": tcc.verify(bundle, spec),
            "evaluated": tcc.evaluate(classes_spec, SAMPLES),
        }
        if pytest.importorskip("torch"):
            returned_values["trained"] = tcc.train(
                classes_spec, SAMPLES, folder / "run", epochs=1, threads=1
            )
    returned_values["prediction"] = returned_values["predictions"][0]["tissue"]
    returned_values["target"], returned_values["data"] = (
        several.targets[0],
        returned_values["evaluated"].images.dataset,
    )
    returned_values["program"] = returned_values["verified"].program
    return returned_values


def test_values_have_short_text_and_safe_html(values):
    for name, value in values.items():
        lines = repr(value).splitlines()
        assert 1 <= len(lines) <= MAX_LINES, name
        assert all(0 < len(line) <= MAX_LINE_CHARS for line in lines), (name, lines)
        page = value._repr_html_()
        assert ODD not in page, name
        assert "<script" not in page, name
        assert all(source.startswith("data:") for source in page.split('src="')[1:]), name


def test_summaries_contain_the_main_figures(values):
    text = {name: repr(value) for name, value in values.items()}
    assert f"{len(values['spec'].graph.nodes)} layers" in text["spec"]
    assert "the weights are random (seed 0): predictions mean nothing" in text["bundle"]
    assert "the weights are random" in text["predictions"]
    assert "the weights are random" in text["evaluated"]
    assert "these images are synthetic" in " ".join(values["evaluated"].notices)
    assert "same decision" in text["bundle"]
    assert "accepts it" in text["check"]
    assert "nothing disagrees" in text["several"]
    assert "nothing disagrees" in text["verified"]
    scores = values["evaluated"].scores
    assert (
        f"({scores.correct} of {scores.images} images), 95 % confidence interval"
        in text["evaluated"]
    )
    assert text["predictions"].endswith("and 5 more images")


def test_notebooks_show_figures_bars_and_matrices(values):
    for name in ("spec", "graph", "check", "floats", "integers"):
        assert "data:image/svg+xml;base64," in values[name]._repr_html_(), name
    bars = values["predictions"]._repr_html_()
    assert bars.count("background:#0969da") == 7 * len(CLASSES)
    for name in ("evaluated", "trained"):
        page = values[name]._repr_html_()
        assert "images by true class" in page
        assert all(f">{label}</th>" in page for label in CLASSES)


def test_nothing_is_reported_equal_without_a_comparison(values):
    from dataclasses import replace

    bare = replace(values["verified"], replayed=None, program=None, constants=None)
    assert "no golden was compared" in repr(bare)
    assert "no layers compared" in repr(bare)
    unchecked = replace(values["target"], replayed=None, unchecked="it does not run here")
    assert "not compared with the reference: it does not run here" in repr(unchecked)


def test_file_pillow_image_and_array_give_the_same_outputs(values, tmp_path):
    file = sorted(SAMPLES.rglob("*.png"))[0]
    picture = Image.open(file)
    array = np.asarray(picture.convert("RGB"))
    images = [str(file), file, picture, array, np.asfortranarray(array)]
    for network in (values["bundle"], values["bundle"].folder, values["spec"]):
        batch_predictions = tcc.run(network, images)
        single_predictions = [tcc.run(network, image)[0] for image in images]
        for prediction in (*batch_predictions, *single_predictions):
            assert (
                prediction["tissue"].raw.tobytes() == batch_predictions[0]["tissue"].raw.tobytes()
            )


def test_unusual_pillow_images_give_the_outputs_of_their_files(values, tmp_path):
    """EXIF-rotated, gray, palette, alpha and CMYK images. The image is not modified."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    colors = Image.fromarray(pixels)
    rotation_exif = Image.Exif()
    rotation_exif[274] = 6
    colors.save(tmp_path / "turned.png", exif=rotation_exif)
    for mode, name in (("L", "grey.png"), ("P", "palette.png"), ("RGBA", "alpha.png"),
                       ("CMYK", "inks.jpg"), ("1", "bits.png")):  # fmt: skip
        colors.convert(mode).save(tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            file, memory = tcc.run(values["bundle"], [path, image])
            assert image.size == colors.size
        assert file["tissue"].raw.tobytes() == memory["tissue"].raw.tobytes(), path
    with Image.open(tmp_path / "grey.png") as grey:
        file, memory = tcc.run(values["bundle"], [tmp_path / "grey.png", np.asarray(grey)])
    assert file["tissue"].raw.tobytes() == memory["tissue"].raw.tobytes()


@pytest.mark.parametrize(
    ("image", "code", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "E1450", "255 \\* array"),
        (np.zeros((3, 8, 8), np.uint8), "E1450", "transpose"),
        (np.zeros((3, 8, 3), np.uint8), "E1450", "first or last"),
        (np.zeros((8, 8, 4), np.uint8), "E1450", "fourth channel"),
        (np.zeros((8, 8, 5), np.uint8), "E1450", "one image, or a list"),
        (np.zeros((0, 8, 3), np.uint8), "E1450", "which is empty"),
        (np.zeros((8, 8, 3), bool), "E1450", "bool"),
        ([7], "E1450", "builtins.int"),
        (Image.new("I;16", (8, 8)), "E0705", "8 bits"),
        (Image.new("F", (8, 8)), "E0705", "8 bits"),
    ],
)
def test_ambiguous_images_are_refused(values, image, code, message):
    with pytest.raises(tcc.UserError, match=message) as caught:
        tcc.run(values["bundle"], image)
    assert caught.value.diagnostics[0].code == code


def test_a_batch_gives_the_outputs_of_its_images(values):
    array = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), np.uint8)
    predictions = tcc.run(values["bundle"], array)
    assert len(predictions) == 3
    for prediction, image in zip(predictions, array, strict=True):
        (single_prediction,) = tcc.run(values["bundle"], image)
        assert prediction["tissue"].raw.tobytes() == single_prediction["tissue"].raw.tobytes()


def test_a_spec_needs_weights_and_a_bundle_takes_none(values, tmp_path):
    from tcc.compiler.data import weights

    spec, path = values["spec"], tmp_path / "w.safetensors"
    weights.write(path, weights.initialize_random(spec.graph, 3), {})
    image = sorted(SAMPLES.rglob("*.png"))[0]
    with_file, seeded = tcc.run(spec, image, path), tcc.run(spec, image, seed=3)
    assert with_file[0]["tissue"].raw.tobytes() == seeded[0]["tissue"].raw.tobytes()
    assert with_file.notices == ()
    assert "random (seed 3)" in seeded.notices[0]
    bundle = tcc.build(spec, "onnxruntime", path, out=tmp_path)
    (built,) = tcc.run(bundle, image)
    assert np.allclose(built["tissue"].raw, with_file[0]["tissue"].raw, rtol=1e-4, atol=1e-5)
    with pytest.raises(tcc.UserError, match="E0601"):
        tcc.run(bundle, image, path)
    with pytest.raises(tcc.UserError, match="E0601"):
        tcc.run(spec, image, trust=True)


def test_plots_are_imported_lazily():
    program = (
        "import sys, tcc; assert 'plot' in dir(tcc);"
        "assert not {'tcc.plot', 'numpy', 'matplotlib'} & sys.modules.keys();"
        "assert tcc.plot.curves; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
