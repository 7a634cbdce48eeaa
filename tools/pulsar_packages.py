"""Write the second table of docs/pulsar.md: whole packages of every network, looked into.

    python tools/pulsar_packages.py [--check] [NETWORK ...]

`--check` writes nothing and fails when a row is another one; networks that are named are looked at
alone. Each network is calibrated with samples, of minimum and maximum, and built for the three
chips as `tcc build` does it. Of each package every file is read back:

- its configurations by their strict readers; the numbers in them make the goldens' images what
  the network reads in training;
- the images to calibrate with and the goldens, bit by bit those that the network sees;
- the networks by the rules of the chip; the floats run in ONNX Runtime beside the goldens, the
  integers layer by layer and as a whole beside the reference (see `pulsar_qdq.py`).

Weights are random, and let no value vanish: classes are near to each other, and likelier to change
than with trained ones.
"""

import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from generated import settle
from numpy.typing import NDArray
from PIL import Image
from pulsar_qdq import Difference, difference
from pulsar_zoo import spread

from tcc.backends.pulsar.calibration_data import takes_levels
from tcc.backends.pulsar.chips import CHIPS, Chip, Toolchain
from tcc.backends.pulsar.pulsar2 import schema
from tcc.backends.pulsar.rules.check import check_file
from tcc.backends.pulsar.rules.rule import Severity
from tcc.backends.pulsar.v1 import reader
from tcc.backends.pulsar.v1.schema import Affine
from tcc.compiler.bundle.bundle_folder import MODEL, BundleContents
from tcc.compiler.cli import devices
from tcc.compiler.data.dataset import DataSet, read
from tcc.compiler.driver import int8_program, pipeline
from tcc.compiler.driver.build_plan import Int8Programs, sampled
from tcc.compiler.driver.pipeline import CalibrationRequest, WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import whole_file
from tcc.compiler.support.progress import silent
from tcc.compiler.zoo.shipped import samples_folder, specs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pulsar.md"
HEAD = (
    "| network | packages, MB | floats off by | layers | one layer, steps"
    " | whole, values that differ | by steps | classes |",
    "|---|---|---|---|---|---|---|---|",
)
IMAGES = 4
"""Images that each network is calibrated with and run on."""
BOTH = {
    "README.txt", "build.sh", "calibration.tar", "compile.sh", "goldens/1.bin", "goldens/2.bin",
    "labels.json", "model.onnx", "runner/classify.cc", "runner/contract.h", "runner/network_io.h",
}  # fmt: skip
SUFFIX = {Toolchain.PULSAR: ".bin", Toolchain.PULSAR2: ".npy"}
"""What files of numbers end with."""
OWN = {
    Toolchain.PULSAR: {"config.prototxt"},
    Toolchain.PULSAR2: {
        "config.json", "config_native.json", "goldens/list.txt", "model_qdq.onnx",
        "runner/classify.py", "runner/contract.json",
    },
}  # fmt: skip
"""The files of a package."""
REFUSED = frozenset({Severity.REFUSED})
Array = NDArray[Any]
Files = Mapping[str, bytes]


class PackageError(AssertionError):
    """A package is not what it should be."""


@dataclass(frozen=True, slots=True)
class PackageRow:
    """What is found in a network's packages."""

    megabytes: tuple[float, ...]
    moved: float
    integers: Difference

    @property
    def row(self) -> str:
        """The row of the table, behind the network."""
        sizes = ", ".join(f"{each:.1f}" for each in self.megabytes)
        return f"{sizes} | {self.moved:.0e} | {self.integers.row}"


def found(network: str) -> PackageRow:
    """Return what is in a network's packages.

    Raises:
        PackageError: Something in there is wrong.
    """
    spec = load(specs()[network], {})
    data = read(samples_folder()).first(IMAGES)
    programs, built = packages(spec, data)
    sizes: list[float] = []
    moved = 0.0
    integers: dict[bytes, Difference] = {}
    for chip, contents in zip(CHIPS, built, strict=True):
        files = package(contents)
        sizes.append(sum(map(len, files.values())) / 1e6)
        moved = max(moved, looked_into(contents, chip, spec, data))
        if qdq := files.get("model_qdq.onnx"):
            (program,) = (each.program for each in programs.values())
            (source,) = program.graph.inputs
            kind = source.type.dtype.value
            tensors = [data.tensor(n, source).astype(kind) for n in range(len(data))]
            key = hashlib.sha256(qdq).digest()
            if key not in integers:
                integers[key] = difference(program, tensors, qdq)
    (only,) = integers.values()  # both chips of Pulsar2 are given the same network
    return PackageRow(tuple(sizes), moved, only)


def package(contents: BundleContents) -> Files:
    """Return the files of a bundle's package."""
    start = f"{MODEL}/"
    listed = contents.files.items()
    return {path.removeprefix(start): data for path, data in listed if path.startswith(start)}


def looked_into(contents: BundleContents, chip: Chip, spec: Spec, data: DataSet) -> float:
    """Return how far a package's floats are from the network's.

    Raises:
        PackageError: Something in the package is wrong.
    """
    files = package(contents)
    source = spec.graph.inputs[0]
    levels = takes_levels(source)
    _files(files, chip, ".png" if levels else SUFFIX[chip.toolchain])
    if levels:
        _pictures(files, contents, chip, source, data)
    else:
        _ready(files, contents, chip, source, data)
    return _moved(files["model.onnx"], spec, contents)


def weights(spec: Spec) -> WeightSource:
    """Return weights that let no value vanish."""
    return replace(pipeline.random_weights(spec.graph), tensors=spread(spec.graph))


def packages(spec: Spec, data: DataSet) -> tuple[Int8Programs, Iterator[BundleContents]]:
    """Return a network's integers, and its package for each chip as it is built."""
    at = whole_file(spec.name)
    plans = devices.find_all([(chip.target, at) for chip in CHIPS], (FP32.name, at), asked=False)
    plans = tuple(replace(plan, compiles=False) for plan in plans)
    given = weights(spec)
    wanted = CalibrationRequest(int8_program.ANY, MINMAX, RunOptions())
    source = int8_program.from_images(spec, given, data, wanted)
    none = int8_program.floor(spec, Accuracy(0.0, 1.0, 0.0, 1e9))
    ends = {plan.precision.real_ends for plan in plans}
    programs = int8_program.integers(pipeline.ready(spec, given), source, none, ends)
    return programs, pipeline.build(spec, given, plans, silent, programs)


def _files(files: Files, chip: Chip, suffix: str) -> None:
    """Check that the files of a package are there, and that no network breaks a rule."""
    goldens = {f"goldens/{number}{suffix}" for number in (1, 2)}
    _same("files", set(files), BOTH | OWN[chip.toolchain] | goldens)
    for path in (path for path in files if path.endswith(".onnx")):
        broken = [each for each in check_file(files[path], chip) if each.severity in REFUSED]
        _same(f"{path}: broken rules", broken, [])


def _pictures(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data: DataSet
) -> None:
    """Check the images of a package, and what its configuration makes of them."""
    pre = source.preprocess
    assert pre is not None
    held = [_pixels(io.BytesIO(each), pre.color) for each in _archive(files)]
    seen = [tensor.transpose(1, 2, 0).astype(np.uint8) for tensor in _learnt(source, data)]
    _same("images to calibrate with", _bytes(held), _bytes(seen))
    mean, std = _numbers(files, chip, source.name)
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        image = _pixels(io.BytesIO(files[f"goldens/{number}.png"]), pre.color)
        _same("a golden", image.tobytes(), files[f"goldens/{number}.bin"])
        near = (image.astype(np.float64) - mean) / std
        wanted = _read(source, contents.files[case.image or ""])
        apart = float(np.abs(near.transpose(2, 0, 1) - wanted).max())
        if not apart <= 1e-5:
            raise PackageError(f"the configuration makes a golden {apart:.1e} off")


def _ready(
    files: Files, contents: BundleContents, chip: Chip, source: Input, data: DataSet
) -> None:
    """Check the numbers of a package whose network takes no grey levels."""
    held = [_plain(each, chip) for each in _archive(files)]
    _same("numbers to calibrate with", _bytes(held), _bytes(_learnt(source, data)))
    for number, case in enumerate(contents.manifest.goldens.cases, 1):
        wanted = _read(source, contents.files[case.image or ""]).tobytes()
        _same("a golden", files[f"goldens/{number}.bin"], wanted)
        own = _plain(files[f"goldens/{number}{SUFFIX[chip.toolchain]}"], chip).tobytes()
        _same("a golden's file", own, wanted)


def _archive(files: Files) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(files["calibration.tar"])) as tar:
        for each in tar.getmembers():
            stream = tar.extractfile(each)
            assert stream
            yield stream.read()


def _learnt(source: Input, data: DataSet) -> list[Array]:
    """Return what the network is calibrated with."""
    learn, _ = data.split()
    return [learn.tensor(number, sampled(source)) for number in range(len(learn))]


def _bytes(arrays: list[Array]) -> list[bytes]:
    return [each.tobytes() for each in arrays]


def _plain(data: bytes, chip: Chip) -> Array:
    """Return the numbers of a file, as each tool reads them."""
    if chip.toolchain is Toolchain.PULSAR:
        return np.frombuffer(data, "<f4")
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))


def _pixels(stream: Any, color: str) -> Array:
    """Return a picture's levels (height, width, channels) in the order of a network's colours."""
    image = np.asarray(Image.open(stream))
    image = image[:, :, None] if image.ndim == 2 else image
    return image[:, :, ::-1] if color == "bgr" else image


def _read(source: Input, picture: bytes) -> Array:
    """Return what a network reads of a picture."""
    assert source.preprocess
    channels, height, width = source.type.shape
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return preprocess.apply(source.preprocess, image, (channels, height, width))


def _numbers(files: Files, chip: Chip, name: str) -> tuple[Array, Array]:
    """Return mean and deviation in grey levels, by the package's configuration read back."""
    if chip.toolchain is Toolchain.PULSAR:
        config = reader.decode(files["config.prototxt"])
        assert config.neuwizard_conf
        assert config.neuwizard_conf.operator_conf
        (item,) = config.neuwizard_conf.operator_conf.input_conf_items
        assert item.attributes
        scale, one = item.attributes.input_modifications
        norm = one.input_normalization
        assert norm
        _same("levels", scale.affine_preprocess, Affine((1.0,), (255.0,), (0.0,)))
        return 255 * np.asarray(norm.mean), 255 * np.asarray(norm.std)
    texts = [schema.decode(files[path]) for path in ("config.json", "config_native.json")]
    (levels, floats) = (each.quant.input_configs[0] for each in texts)
    _same("inputs", (levels.tensor_name, floats.tensor_name), (name, name))
    mean, std = levels.calibration_mean or (), levels.calibration_std or ()
    _same("numbers of grey levels", (set(mean), set(std)), ({0.0}, {1.0}))
    return np.asarray(floats.calibration_mean), np.asarray(floats.calibration_std)


def _moved(data: bytes, spec: Spec, contents: BundleContents) -> float:
    """Return how far the floats' outputs are from the network's, of each the largest number."""
    session = onnxruntime.InferenceSession(data)
    (source,) = spec.graph.inputs
    given = weights(spec)
    names = [each.name for each in session.get_outputs()]
    most, answers = 0.0, set()
    for case in contents.manifest.goldens.cases:
        assert case.image
        x = _read(source, contents.files[case.image])
        (wanted,) = float_program.run(Model(spec.graph, given.tensors), [x])
        for name, (got,) in zip(names, session.run(names, {source.name: x[None]}), strict=True):
            expected = wanted[name]
            most = max(most, float(np.abs(got - expected).max() / np.abs(expected).max()))
            answers.add(expected.tobytes())
    _same("answers", len(answers), len(names) * len(contents.manifest.goldens.cases))
    return most


def _same(what: str, one: object, other: object) -> None:
    if one != other:
        raise PackageError(f"{what}: {str(one)[:200]}, not {str(other)[:200]}")


def row(network: str) -> str:
    """Return the row of a network."""
    return f"| `{network}` | {found(network).row}"


def table(text: str, names: list[str]) -> str:
    """Return a page with the rows of networks written anew; without names, of all."""
    head = "\n".join(HEAD) + "\n"
    before, start, rest = text.partition(head)
    assert start, "the page has no table of packages"
    lines = rest.splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    old = {line.split(" | ")[0].strip("| `"): line for line in lines[:count]}
    new = {name: row(name) + "\n" for name in names or specs()}
    rows = [(old | new)[name] for name in specs() if name in old | new]
    return "".join([before, head, *rows, *lines[count:]])


def main() -> int:
    """Write or check the page; return the exit code."""
    names = [word for word in sys.argv[1:] if word != "--check"]
    return settle({PAGE: table(PAGE.read_text(), names)})


if __name__ == "__main__":
    sys.exit(main())
