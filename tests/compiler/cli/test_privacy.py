"""Patients' images: none is in what is handed on unless it is asked for, and never their names."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PERSON = "Doe-Jane-1962"
CAMERA = "Aperio ScanScope of ward 7"
NOTED = re.compile(rb"Exif\0|ScanScope|Jane|1962")


@pytest.fixture
def patients(home) -> Path:
    """Photographs whose names, folders and EXIF say whose they are."""
    rng = np.random.default_rng(3)
    folder = home / f"{PERSON}-slides"
    for number in range(18):
        kind = "cat" if number % 2 else "dog"
        place = folder / kind / f"{PERSON}-{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x010E] = CAMERA, 6, PERSON
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).save(place, exif=exif)
        assert NOTED.search(place.read_bytes())
    return folder


def pixels(folder: Path) -> set[bytes]:
    """What the network sees of each image, as it lies in a file: by rows or by planes."""
    from PIL import ImageOps

    seen = set()
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            levels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        seen |= {levels.tobytes(), levels.transpose(2, 0, 1).tobytes()}
    return seen


def written(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("words", [(), ("--probes", "--agree", "3")], ids=["plain", "looked at"])
def test_no_image_and_no_name_is_in_a_bundle(tcc, home, patients, words):
    # Without a resize what the network sees are the very pixels, so that they would be found.
    spec = (home / "tiny.yaml").read_text().replace("resize: {size: [8, 8], mode: stretch}", "")
    (home / "tiny.yaml").write_text(spec.replace("[3, 8, 8]", "[3, 12, 9]"))
    target = "onnxruntime,tflite,ax620,ax650"
    built = tcc("build", "tiny.yaml", "--target", target, "--precision", "int8", "--data",
                patients, "--floor", "min_cosine=0", "--no-tool", *words)  # fmt: skip
    assert built.code == 0, built.err
    seen = pixels(patients)
    for path, data in written(home / "build").items():
        assert not NOTED.search(path.encode()), path
        assert not NOTED.search(data), (path, NOTED.search(data))
        if not path.endswith(".calibration.tar"):
            assert not any(image in data for image in seen), path
    beside = [path.name for path in (home / "build").glob("*") if path.is_file()]
    assert sorted(beside) == [f"tiny-{t}-int8.calibration.tar" for t in ("ax620", "ax650")]
    for name in beside:
        assert f"{name} holds images of the calibration: no part of the package" in built.out


def test_images_are_in_a_package_when_they_are_asked_for(tcc, home, patients):
    words = ("build", "tiny.yaml", "--target", "ax620", "--precision", "int8", "--data", patients,
             "--floor", "min_cosine=0", "--no-tool")  # fmt: skip
    assert tcc(*words).code == 0
    apart = (home / "build/tiny-ax620-int8.calibration.tar").read_bytes()
    built = tcc(*words, "--include-images")
    assert "holds images of the calibration: they leave with the package" in built.out
    inside = home / "build/tiny-ax620-int8/model/calibration.tar"
    assert inside.read_bytes() == apart
    assert not NOTED.search(apart)
    idle = tcc("build", "tiny.yaml", "--target", "onnxruntime", "--include-images")
    assert (idle.code, "E0601" in idle.err) == (2, True)
