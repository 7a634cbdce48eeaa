"""Patients' images: no distributed file has their names, or their pixels unless requested."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PERSON = "Doe-Jane-1962"
CAMERA = "Aperio ScanScope of ward 7"
PRIVATE_TEXT = re.compile(rb"Exif\0|ScanScope|Jane|1962")


@pytest.fixture
def patients(home) -> Path:
    """Photographs with a person's name in file names, folders and EXIF."""
    rng = np.random.default_rng(3)
    folder = home / f"{PERSON}-slides"
    for number in range(18):
        kind = "cat" if number % 2 else "dog"
        image_path = folder / kind / f"{PERSON}-{number}.jpg"
        image_path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x010E] = CAMERA, 6, PERSON
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).save(image_path, exif=exif)
        assert PRIVATE_TEXT.search(image_path.read_bytes())
    return folder


def read_pixels(folder: Path) -> set[bytes]:
    """Return the pixels of each image as the network reads them, by rows and by planes."""
    from PIL import ImageOps

    pixel_bytes = set()
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            rgb_pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        pixel_bytes |= {rgb_pixels.tobytes(), rgb_pixels.transpose(2, 0, 1).tobytes()}
    return pixel_bytes


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("options", [(), ("--probes", "--agree", "3")], ids=["plain", "probes"])
def test_bundle_contains_no_image_and_no_name(tcc, home, patients, options):
    # Without a resize the network reads the original pixels, so the test would find them.
    spec = (home / "tiny.yaml").read_text().replace("resize: {size: [8, 8], mode: stretch}", "")
    (home / "tiny.yaml").write_text(spec.replace("[3, 8, 8]", "[3, 12, 9]"))
    target = "onnxruntime,tflite,ax620,ax650"
    built = tcc("build", "tiny.yaml", "--target", target, "--precision", "int8", "--data",
                patients, "--floor", "min_cosine=0", "--no-tool", *options)  # fmt: skip
    assert built.code == 0, built.err
    image_bytes = read_pixels(patients)
    for path, data in read_files(home / "build").items():
        assert not PRIVATE_TEXT.search(path.encode()), path
        assert not PRIVATE_TEXT.search(data), (path, PRIVATE_TEXT.search(data))
        if not path.endswith(".calibration.tar"):
            assert not any(image in data for image in image_bytes), path
    sibling_names = [path.name for path in (home / "build").glob("*") if path.is_file()]
    assert sorted(sibling_names) == [f"tiny-{t}-int8.calibration.tar" for t in ("ax620", "ax650")]
    for name in sibling_names:
        assert f"{name} contains calibration images; it is not part of the package" in built.out


def test_package_contains_images_only_if_requested(tcc, home, patients):
    args = ("build", "tiny.yaml", "--target", "ax620", "--precision", "int8", "--data", patients,
             "--floor", "min_cosine=0", "--no-tool")  # fmt: skip
    assert tcc(*args).code == 0
    archive_bytes = (home / "build/tiny-ax620-int8.calibration.tar").read_bytes()
    built = tcc(*args, "--include-images")
    assert "contains calibration images; it is distributed with the package" in built.out
    inside = home / "build/tiny-ax620-int8/model/calibration.tar"
    assert inside.read_bytes() == archive_bytes
    assert not PRIVATE_TEXT.search(archive_bytes)
    idle = tcc("build", "tiny.yaml", "--target", "onnxruntime", "--include-images")
    assert (idle.code, "E0601" in idle.err) == (2, True)
