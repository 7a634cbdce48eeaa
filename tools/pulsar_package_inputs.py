"""The inputs of a package of AXERA's, looked into: what it calibrates with, goldens, numbers."""

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
"""What files of numbers end with."""


class PackageError(AssertionError):
    """A package is not what it should be."""


def same(what: str, one: object, other: object) -> None:
    """Refuse what is not the same.

    Raises:
        PackageError: It is not.
    """
    if one != other:
        raise PackageError(f"{what}: {str(one)[:200]}, not {str(other)[:200]}")


def check_pictures(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data: DataSet
) -> None:
    """Check the images of a package, and what its configuration makes of them."""
    pre = source.preprocess
    assert pre is not None
    held = [_pixels(io.BytesIO(each), pre.color) for each in _archive(files)]
    seen = [tensor.transpose(1, 2, 0).astype(np.uint8) for tensor in _learnt(source, data)]
    same("images to calibrate with", _bytes(held), _bytes(seen))
    mean, std = _numbers(files, chip, source.name)
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        image = _pixels(io.BytesIO(files[f"goldens/{number}.png"]), pre.color)
        same("a golden", image.tobytes(), files[f"goldens/{number}.bin"])
        near = (image.astype(np.float64) - mean) / std
        wanted = read_by_network(source, contents.files[case.image or ""])
        apart = float(np.abs(near.transpose(2, 0, 1) - wanted).max())
        if not apart <= 1e-5:
            raise PackageError(f"the configuration makes a golden {apart:.1e} off")


def check_numbers(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data: DataSet
) -> None:
    """Check the numbers of a package whose network takes no grey levels."""
    held = [_plain(each, chip) for each in _archive(files)]
    same("numbers to calibrate with", _bytes(held), _bytes(_learnt(source, data)))
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        wanted = read_by_network(source, contents.files[case.image or ""]).tobytes()
        same("a golden", files[f"goldens/{number}.bin"], wanted)
        own = _plain(files[f"goldens/{number}{SUFFIX[chip.toolchain]}"], chip).tobytes()
        same("a golden's file", own, wanted)


def _archive(files: Files) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(files["calibration.tar"])) as tar:
        for each in tar.getmembers():
            stream = tar.extractfile(each)
            assert stream
            yield stream.read()


def _learnt(source: Input, data: DataSet) -> list[Array]:
    """Return what the network is calibrated with."""
    learn, _ = data.split()
    return [learn.read_tensor(number, to_pixel_input(source)) for number in range(len(learn))]


def _bytes(arrays: list[Array]) -> list[bytes]:
    return [each.tobytes() for each in arrays]


def _plain(data: bytes, chip: Chip) -> Array:
    """Return the numbers of a file, as each tool reads them."""
    match chip.toolchain:
        case Toolchain.PULSAR:
            return np.frombuffer(data, "<f4")
        case Toolchain.PULSAR2:
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        case _:
            assert_never(chip.toolchain)


def _pixels(stream: Any, color: str) -> Array:
    """Return a picture's levels (height, width, channels) in the order of a network's colours."""
    image = np.asarray(Image.open(stream))
    image = image[:, :, None] if image.ndim == 2 else image
    return image[:, :, ::-1] if color == "bgr" else image


def read_by_network(source: Input, picture: bytes) -> Array:
    """Return what a network reads of a picture."""
    assert source.preprocess
    channels, height, width = source.type.shape
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return preprocess.apply(source.preprocess, image, (channels, height, width))


def _numbers(files: Files, chip: Chip, name: str) -> tuple[Array, Array]:
    """Return mean and deviation in grey levels, by the package's configuration read back."""
    match chip.toolchain:
        case Toolchain.PULSAR:
            config = prototxt.read(files["config.prototxt"].decode())
            (item,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
            scale, one = item["attributes"]["input_modifications"]
            affine = {"slope": [1.0], "slope_divisor": [255.0], "bias": [0.0]}
            same("levels", scale["affine_preprocess"], affine)
            norm = one["input_normalization"]
            return 255 * np.asarray(norm["mean"]), 255 * np.asarray(norm["std"])
        case Toolchain.PULSAR2:
            configs = (json.loads(files[path]) for path in ("config.json", "config_native.json"))
            levels, floats = (each["quant"]["input_configs"][0] for each in configs)
            same("inputs", (levels["tensor_name"], floats["tensor_name"]), (name, name))
            mean, std = levels["calibration_mean"], levels["calibration_std"]
            same("numbers of grey levels", (set(mean), set(std)), ({0.0}, {1.0}))
            return np.asarray(floats["calibration_mean"]), np.asarray(floats["calibration_std"])
        case _:
            assert_never(chip.toolchain)
