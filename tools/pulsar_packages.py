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
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from generated import settle
from numpy.typing import NDArray
from pulsar_package_inputs import (
    SUFFIX,
    Files,
    check_numbers,
    check_pictures,
    read_by_network,
    same,
)
from pulsar_qdq import Difference, difference
from pulsar_zoo import spread

from tcc.backends.pulsar.calibration_data import has_pixel_input
from tcc.backends.pulsar.chips import CHIPS, Chip, Toolchain
from tcc.backends.pulsar.rules.check import check_file
from tcc.backends.pulsar.rules.rule import Severity
from tcc.compiler.bundle.bundle_folder import MODEL, BundleContents
from tcc.compiler.data.dataset import DataSet, read_dataset
from tcc.compiler.driver import floor_evidence, int8_program, pipeline
from tcc.compiler.driver.build_plan import Int8Programs
from tcc.compiler.driver.pipeline import CalibrationRequest, WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.support.progress import silent
from tcc.compiler.targets import devices
from tcc.compiler.zoo.shipped import get_samples_folder, list_specs

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
    spec = load(list_specs()[network], {})
    data = read_dataset(get_samples_folder()).select_first(IMAGES)
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
            tensors = [data.read_tensor(n, source).astype(kind) for n in range(len(data))]
            key = hashlib.sha256(qdq).digest()
            if key not in integers:
                integers[key] = difference(program, tensors, qdq)
    (only,) = integers.values()  # both chips of Pulsar2 are given the same network
    return PackageRow(tuple(sizes), moved, only)


def package(contents: BundleContents) -> Files:
    """Return the files of a bundle's package."""
    start, listed = f"{MODEL}/", contents.files.items()
    own = {path.removeprefix(start): data for path, data in listed if path.startswith(start)}
    return {**own, **contents.sidecar_files}


def looked_into(contents: BundleContents, chip: Chip, spec: Spec, data: DataSet) -> float:
    """Return how far a package's floats are from the network's.

    Raises:
        PackageError: Something in the package is wrong.
    """
    files = package(contents)
    source = spec.graph.inputs[0]
    levels = has_pixel_input(source)
    _files(files, chip, ".png" if levels else SUFFIX[chip.toolchain])
    if levels:
        check_pictures(files, contents, chip, source, data)
    else:
        check_numbers(files, contents, chip, source, data)
    return _moved(files["model.onnx"], spec, contents)


def weights(spec: Spec) -> WeightSource:
    """Return weights that let no value vanish."""
    return replace(pipeline.create_random_weights(spec.graph), tensors=spread(spec.graph))


def packages(spec: Spec, data: DataSet) -> tuple[Int8Programs, Iterator[BundleContents]]:
    """Return a network's integers, and its package for each chip as it is built."""
    at = make_file_span(spec.name)
    plans = devices.find_all(
        [(chip.target, at) for chip in CHIPS], (FP32.name, at), is_explicit=False
    )
    plans = tuple(replace(plan, compiles=False) for plan in plans)
    given = weights(spec)
    wanted = CalibrationRequest(int8_program.ANY_TARGET, MINMAX, RunOptions())
    source = int8_program.from_images(spec, given, data, wanted)
    none = floor_evidence.resolve_floor(spec, Accuracy(0.0, 1.0, 0.0, 1e9), allow_few=True)
    ends = {plan.precision.float_io for plan in plans}
    programs = int8_program.build_programs(pipeline.lower_for_int8(spec, given), source, none, ends)
    return programs, pipeline.build(spec, given, plans, silent, programs)


def _files(files: Files, chip: Chip, suffix: str) -> None:
    """Check that the files of a package are there, and that no network breaks a rule."""
    goldens = {f"goldens/{number}{suffix}" for number in (1, 2)}
    same("files", set(files), BOTH | OWN[chip.toolchain] | goldens)
    for path in (path for path in files if path.endswith(".onnx")):
        broken = [each for each in check_file(files[path], chip) if each.severity in REFUSED]
        same(f"{path}: broken rules", broken, [])


def _moved(data: bytes, spec: Spec, contents: BundleContents) -> float:
    """Return how far the floats' outputs are from the network's, of each the largest number."""
    import onnxruntime  # after tcc, which switches its telemetry off

    session = onnxruntime.InferenceSession(data)
    (source,) = spec.graph.inputs
    given = weights(spec)
    names = [each.name for each in session.get_outputs()]
    most, answers = 0.0, set()
    for case in contents.manifest.goldens.cases:
        assert case.image
        x = read_by_network(source, contents.files[case.image])
        (wanted,) = float_program.run(Model(spec.graph, given.tensors), [x])
        for name, (got,) in zip(names, session.run(names, {source.name: x[None]}), strict=True):
            expected = wanted[name]
            most = max(most, float(np.abs(got - expected).max() / np.abs(expected).max()))
            answers.add(expected.tobytes())
    same("answers", len(answers), len(names) * len(contents.manifest.goldens.cases))
    return most


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
    new = {name: row(name) + "\n" for name in names or list_specs()}
    rows = [(old | new)[name] for name in list_specs() if name in old | new]
    return "".join([before, head, *rows, *lines[count:]])


def main() -> int:
    """Write or check the page; return the exit code."""
    names = [word for word in sys.argv[1:] if word != "--check"]
    return settle({PAGE: table(PAGE.read_text(), names)})


if __name__ == "__main__":
    sys.exit(main())
