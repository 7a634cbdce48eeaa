"""Check the inputs in an AXERA package: calibration images, goldens and preprocessing."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tcc.backends.pulsar.chips import Chip, Toolchain
from tcc.compiler.bundle.bundle_folder import BundleContents
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver.build_plan import to_pixel_input
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import prototxt  # type: ignore[import-not-found]

Array = NDArray[Any]
Files = Mapping[str, bytes]
SUFFIX = {Toolchain.PULSAR: ".bin", Toolchain.PULSAR2: ".npy"}
"""The suffix of tensor files, by toolchain."""


class PackageError(AssertionError):
    """The content of a package is wrong."""


def check_equal(noun: str, actual: object, expected: object) -> None:
    """Check that two values are equal.

    Raises:
        PackageError: They differ.
    """
    if actual != expected:
        actual_text, expected_text = map(_describe, (actual, expected))
        raise PackageError(f"{noun}: the package has {actual_text}, expected {expected_text}")


def _describe(content: object) -> str:
    """Return a value as text; bytes by their number and hash."""
    match content:
        case bytes():
            return f"{len(content):,} bytes ({hashlib.sha256(content).hexdigest()[:12]})"
        case [*parts] if parts and all(isinstance(part, bytes) for part in parts):
            joined = b"".join(part for part in parts if isinstance(part, bytes))
            return f"{len(parts):,} items, {_describe(joined)}"
        case _:
            return str(content)[:200]


def check_pictures(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data_set: DataSet
) -> None:
    """Check a package's images and the preprocessing of its configuration."""
    pre = source.preprocess
    assert pre is not None
    packaged_images = [
        _read_pixels(io.BytesIO(file_bytes), pre.color) for file_bytes in _read_archive(files)
    ]
    calibration_images = [
        tensor.transpose(1, 2, 0).astype(np.uint8) for tensor in _read_calibration(source, data_set)
    ]
    check_equal("calibration images", _to_bytes(packaged_images), _to_bytes(calibration_images))
    mean, std = _read_statistics(files, chip, source.name)
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        image = _read_pixels(io.BytesIO(files[f"goldens/{number}.png"]), pre.color)
        check_equal("a golden", image.tobytes(), files[f"goldens/{number}.bin"])
        normalized = (image.astype(np.float64) - mean) / std
        expected = read_by_network(source, contents.files[case.image or ""])
        difference = float(np.abs(normalized.transpose(2, 0, 1) - expected).max())
        if not difference <= 1e-5:
            raise PackageError(
                f"the configuration's preprocessing of golden {number} differs by {difference:.1e}"
            )


def check_numbers(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data_set: DataSet
) -> None:
    """Check the tensors of a package, for a network without pixel inputs."""
    packaged_arrays = [_read_array(file_bytes, chip) for file_bytes in _read_archive(files)]
    check_equal(
        "calibration tensors",
        _to_bytes(packaged_arrays),
        _to_bytes(_read_calibration(source, data_set)),
    )
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        expected = read_by_network(source, contents.files[case.image or ""]).tobytes()
        check_equal("a golden", files[f"goldens/{number}.bin"], expected)
        file_numbers = _read_array(
            files[f"goldens/{number}{SUFFIX[chip.toolchain]}"], chip
        ).tobytes()
        check_equal("a golden's tensor file", file_numbers, expected)


def _read_archive(files: Files) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(files["calibration.tar"])) as tar:
        for member in tar.getmembers():
            stream = tar.extractfile(member)
            assert stream
            yield stream.read()


def _read_calibration(source: Input, data_set: DataSet) -> list[Array]:
    """Return the calibration tensors of the network."""
    fit_images, _ = data_set.split()
    return [
        fit_images.read_tensor(number, to_pixel_input(source)) for number in range(len(fit_images))
    ]


def _to_bytes(arrays: list[Array]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def _read_array(content: bytes, chip: Chip) -> Array:
    """Return the tensor in a file, in the format of the chip's toolchain."""
    match chip.toolchain:
        case Toolchain.PULSAR:
            return np.frombuffer(content, "<f4")
        case Toolchain.PULSAR2:
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        case _:
            assert_never(chip.toolchain)


def _read_pixels(stream: Any, color: str) -> Array:
    """Return an image's pixels (height, width, channels) in the network's channel order."""
    image = np.asarray(Image.open(stream))
    image = image[:, :, None] if image.ndim == 2 else image
    return image[:, :, ::-1] if color == "bgr" else image


def read_by_network(source: Input, picture: bytes) -> Array:
    """Return the network's input tensor for an image."""
    assert source.preprocess
    channels, height, width = source.type.shape
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return preprocess.apply(source.preprocess, image, (channels, height, width))


def _read_statistics(files: Files, chip: Chip, name: str) -> tuple[Array, Array]:
    """Return the mean and standard deviation in pixel values from the package's configuration."""
    match chip.toolchain:
        case Toolchain.PULSAR:
            config = prototxt.read(files["config.prototxt"].decode())
            (input_config,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
            scale, norm_step = input_config["attributes"]["input_modifications"]
            affine = {"slope": [1.0], "slope_divisor": [255.0], "bias": [0.0]}
            check_equal("levels", scale["affine_preprocess"], affine)
            norm = norm_step["input_normalization"]
            return 255 * np.asarray(norm["mean"]), 255 * np.asarray(norm["std"])
        case Toolchain.PULSAR2:
            configs = (json.loads(files[path]) for path in ("config.json", "config_native.json"))
            levels, floats = (config_file["quant"]["input_configs"][0] for config_file in configs)
            check_equal("inputs", (levels["tensor_name"], floats["tensor_name"]), (name, name))
            mean, std = levels["calibration_mean"], levels["calibration_std"]
            check_equal("normalization of pixel inputs", (set(mean), set(std)), ({0.0}, {1.0}))
            return np.asarray(floats["calibration_mean"]), np.asarray(floats["calibration_std"])
        case _:
            assert_never(chip.toolchain)
