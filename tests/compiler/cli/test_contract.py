"""The input contract from a spec to every target: how image values are converted."""

import json
import subprocess

import numpy as np
import pytest
from PIL import Image

TARGET_ARGS = ("--target", "onnxruntime,host,tflite", "-q")


@pytest.fixture
def max_scale_folder(home):
    """The working folder with a spec that divides an image by its maximum."""
    text = (home / "tiny.yaml").read_text()
    text = text.replace("mode: stretch}", "mode: stretch}, scale: max, mean: [0.25], std: [0.5]")
    (home / "tiny.yaml").write_text(text)
    return home


def run_raw(tcc, bundle, *paths):
    outcome = tcc("run", bundle, *paths, "--json")
    assert outcome.code == 0, outcome.err
    return [image["outputs"]["logits"]["raw"] for image in outcome.document["images"]]


def test_brightness_does_not_matter_with_scale_max(tcc, max_scale_folder):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    dark = np.random.default_rng(3).integers(0, 60, (8, 8, 3), np.uint8)
    for name, factor in (("dark", 1), ("bright", 4), ("black", 0)):
        Image.fromarray(dark * factor).save(max_scale_folder / f"{name}.png")
    assert tcc("build", "tiny.yaml", *TARGET_ARGS).code == 0
    bundles = [max_scale_folder / f"build/tiny-{t}-fp32" for t in ("onnxruntime", "host", "tflite")]
    for bundle in bundles:
        dark_logits, bright_logits, black = run_raw(
            tcc, bundle, "dark.png", "bright.png", "black.png"
        )
        assert dark_logits == bright_logits != black
        assert np.isfinite(black).all()
        np.testing.assert_allclose(dark_logits, run_raw(tcc, bundles[0], "dark.png")[0], atol=1e-5)
    outcome = tcc("verify", *bundles, "--json")
    assert outcome.code == 0
    assert [pair["same"] for pair in outcome.document["pairs"]] == [2, 2, 2]


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_int8_with_scale_max_takes_floats_and_is_bit_exact(tcc, max_scale_folder, images, target):
    if target == "tflite":
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    args = ("--target", target, "--precision", "int8", "--data", images, "-q")
    assert tcc("build", "tiny.yaml", *args, "--floor", "min_cosine=0").code == 0
    bundle = max_scale_folder / f"build/tiny-{target}-int8"
    input_json = json.loads((bundle / "manifest.json").read_text())["input"]
    assert input_json["dtype"] == "float32"
    assert input_json["preprocess"]["scale"] == "max"
    assert input_json["preprocess"]["raw"] is False
    (bundle_report,) = tcc("verify", bundle, "--json").document["bundles"]
    assert bundle_report["holds"]
    assert bundle_report["tolerance"]["relative"] == 0


@pytest.mark.parametrize(
    ("scale", "label"),
    [("7", "this is 7"), ("min", "this is 'min'"), ("1/255", "this is 0.0039")],
)
def test_invalid_scale_is_refused(tcc, max_scale_folder, scale, label):
    spec = max_scale_folder / "tiny.yaml"
    spec.write_text(spec.read_text().replace("scale: max", f"scale: {scale}"))
    outcome = tcc("check", "tiny.yaml")
    assert outcome.code == 2
    assert "error[E0213]: `scale` must be one of 255, max\n" in outcome.err
    assert "tiny.yaml:8:64\n" in outcome.err
    assert label in outcome.err


def test_255_is_the_default_and_changes_no_manifest(tcc, max_scale_folder):
    spec = max_scale_folder / "tiny.yaml"
    spec.write_text(spec.read_text().replace("scale: max", "scale: 255"))
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    manifest_json = json.loads(
        (max_scale_folder / "build/tiny-onnxruntime-fp32/manifest.json").read_text()
    )
    assert "scale" not in manifest_json["input"]["preprocess"]


SIZES = """\
error[E0704]: the image is too large: at most 65536 pixels a side and 64 Mi in all are read
  --> set/cat/long.png
   = it is 1x70000 pixels
   = help: cut it into tiles

error[E0706]: the image is 9x8 pixels, but the network takes 8x8
  --> set/cat/other.png
   = help: give the image that size, or add `resize` to the spec's `preprocess`

error[E0706]: the image is 8x9 pixels, but the network takes 8x8
  --> set/cat/wrong.png
   = help: give the image that size, or add `resize` to the spec's `preprocess`
"""


def test_wrong_image_sizes_give_the_same_error_on_every_target(tcc, home):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    spec = home / "tiny.yaml"
    spec.write_text(spec.read_text().replace("{resize: {size: [8, 8], mode: stretch}}", "{}"))
    rng = np.random.default_rng(3)
    for name, height, width in (("fine", 8, 8), ("other", 8, 9), ("wrong", 9, 8)):
        path = home / f"set/cat/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    Image.new("L", (1, 70_000)).save(home / "set/cat/long.png")
    np.savez(home / "set.npz", images=np.zeros((2, 8, 9, 3), np.uint8), labels=[0, 1])
    assert tcc("build", "tiny.yaml", *TARGET_ARGS).code == 0
    for bundle in (home / f"build/tiny-{t}-fp32" for t in ("onnxruntime", "host", "tflite")):
        for args in (("run", bundle, "set"), ("eval", bundle, "--data", "set")):
            outcome = tcc(*args)
            assert (outcome.code, outcome.out) == (2, "")
            assert all(part.rstrip() in outcome.err for part in SIZES.split("\n\n"))
        outcome = tcc("eval", bundle, "--data", "set.npz")
        assert outcome.code == 2
        assert "the image is 9x8 pixels, but the network takes 8x8\n  --> set.npz[0]" in outcome.err
    (program,) = (home / "build/tiny-host-fp32/model").glob("*-run")
    (home / "x.ppm").write_bytes(b"P6 9 8 255\n" + bytes(9 * 8 * 3))
    completed = subprocess.run([program, "x.ppm"], capture_output=True, text=True, check=False)
    expected_stderr = f"{program.name}: x.ppm: the image is 9x8 pixels, but the network takes 8x8\n"
    assert (completed.returncode, completed.stdout, completed.stderr) == (2, "", expected_stderr)


def test_every_command_reports_skipped_and_reduced_images(tcc, home, built, images):
    picture = Image.effect_mandelbrot((20, 10), (-2, -1, 1, 1), 20).convert("RGB")
    picture.save(images / "cat/moving.gif")
    clear = picture.convert("RGBA")
    clear.putalpha(3)
    clear.save(images / "cat/clear.png")
    calibrate = ("calibrate", "tiny.yaml", "--data", images, "--method", "minmax")
    for args in (("run", built, images), ("eval", built, "--data", images), calibrate):
        outcome = tcc(*args)
        assert outcome.code == 0, outcome.err
        assert "warning[E0717]: 1 file that looks like an image is skipped" in outcome.err
        assert f"  --> {images}/cat/moving.gif\n   = GIF is not supported\n" in outcome.err
        assert "warning[E0718]: transparency is dropped" in outcome.err
        assert f"  --> {images}/cat/clear.png\n" in outcome.err


def test_folder_with_only_gif_files_is_refused(tcc, home, built):
    (home / "set").mkdir()
    Image.new("RGB", (8, 8)).save(home / "set/a.gif")
    for args in (("run", built, "set"), ("eval", built, "--data", "set")):
        outcome = tcc(*args)
        assert outcome.code == 2
        assert (
            "no image in this folder\n  --> set\n   = set/a.gif: GIF is not supported\n"
            in outcome.err
        )


def test_missing_preprocess_warning_has_the_line_to_add(tcc, home, picture):
    text = (home / "tiny.yaml").read_text()
    line = "    preprocess: {resize: {size: [8, 8], mode: stretch}}\n"
    assert line in text
    (home / "tiny.yaml").write_text(text.replace(line, ""))
    checked = tcc("check", "tiny.yaml")
    assert checked.code == 0
    assert "warning[W0513]: no `preprocess` converts an image to the input `image`" in checked.err
    assert tcc("check", "tiny.yaml", "--strict").code == 2
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    outcome = tcc("run", "build/tiny-onnxruntime-fp32", picture)
    assert outcome.code == 2
    assert "error[E0625]: this network does not take an image" in outcome.err
    # With the line from the message, the network accepts images.
    for stderr_text in (checked.err, outcome.err):
        advised = stderr_text.partition("add `")[2].partition("` under `image`")[0]
        assert advised.startswith("preprocess: {color: rgb, resize: {size: [8, 8]")
        (home / "tiny.yaml").write_text(text.replace(line, f"    {advised}\n"))
        assert "W0513" not in tcc("check", "tiny.yaml").err
        assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
        assert tcc("run", "build/tiny-onnxruntime-fp32", picture).code == 0


def test_non_image_inputs_get_no_preprocess_warning(tcc, home, picture):
    text = (home / "tiny.yaml").read_text().replace("shape: [3, 8, 8]", "shape: [5, 8, 8]")
    text = text.replace("    preprocess: {resize: {size: [8, 8], mode: stretch}}\n", "")
    (home / "tiny.yaml").write_text(text.replace("tests: {params: 135}", ""))
    assert "W0513" not in tcc("check", "tiny.yaml").err
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    outcome = tcc("run", "build/tiny-onnxruntime-fp32", picture)
    assert "help: give tensors of 5x8x8 in an .npz file" in outcome.err
