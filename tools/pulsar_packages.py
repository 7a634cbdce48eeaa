"""Write the second table of docs/pulsar.md: checks of the packages of every network.

    python tools/pulsar_packages.py [--check] [NETWORK ...]

With `--check`, write nothing and fail if a row differs. If you name networks, only these are
checked. Each network is calibrated with sample images by minimum and maximum, and built for the
three chips as in `tcc build`. Every file of each package is read back:

- the configurations, by their strict readers; their preprocessing must turn the goldens' images
  into the network's training inputs;
- the calibration images and the goldens, bit for bit against the network's inputs;
- the networks, by the rules of the chip. ONNX Runtime compares the fp32 model with the goldens, and
  the int8 model with the reference, layer by layer and end to end (see `pulsar_qdq.py`).

Weights are random, chosen so that no value vanishes. Class scores are close together, so they
change more often than with trained weights.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from generated import write_or_check
from numpy.typing import NDArray
from pulsar_package_inputs import (
    SUFFIX,
    Files,
    check_equal,
    check_numbers,
    check_pictures,
    read_by_network,
)
from pulsar_qdq import Difference, measure_difference
from pulsar_zoo import sample_weights

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
    "| network | packages, MB | fp32 differs by | layers | one layer, steps"
    " | complete file, values that differ | by steps | classes |",
    "|---|---|---|---|---|---|---|---|",
)
IMAGES = 4
"""The number of images that each network is calibrated with."""
BOTH = {
    "README.txt", "build.sh", "calibration.tar", "compile.sh", "goldens/1.bin", "goldens/2.bin",
    "labels.json", "model.onnx", "runner/classify.cc", "runner/contract.h", "runner/network_io.h",
}  # fmt: skip
TOOLCHAIN_FILES = {
    Toolchain.PULSAR: {"config.prototxt"},
    Toolchain.PULSAR2: {
        "config.json", "config_native.json", "goldens/list.txt", "model_qdq.onnx",
        "runner/classify.py", "runner/contract.json",
    },
}  # fmt: skip
"""The files of a package that depend on the toolchain."""
REFUSED = frozenset({Severity.REFUSED})
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class PackageRow:
    """The measurements of a network's packages."""

    megabytes: tuple[float, ...]
    max_difference: float
    integers: Difference

    @property
    def row(self) -> str:
        """The row of the table after the network's name."""
        sizes = ", ".join(f"{size:.1f}" for size in self.megabytes)
        return f"{sizes} | {self.max_difference:.0e} | {self.integers.row}"


def check_network(network: str) -> PackageRow:
    """Build and check a network's packages.

    Raises:
        PackageError: A package is wrong.
    """
    spec = load(list_specs()[network], {})
    data_set = read_dataset(get_samples_folder()).select_first(IMAGES)
    programs, built = build_packages(spec, data_set)
    sizes: list[float] = []
    max_difference = 0.0
    integers: dict[bytes, Difference] = {}
    for chip, contents in zip(CHIPS, built, strict=True):
        files = get_package_files(contents)
        sizes.append(sum(map(len, files.values())) / 1e6)
        max_difference = max(max_difference, check_package(contents, chip, spec, data_set))
        if qdq := files.get("model_qdq.onnx"):
            (program,) = (int8_program.program for int8_program in programs.values())
            (source,) = program.graph.inputs
            kind = source.type.dtype.value
            tensors = [data_set.read_tensor(n, source).astype(kind) for n in range(len(data_set))]
            key = hashlib.sha256(qdq).digest()
            if key not in integers:
                integers[key] = measure_difference(program, tensors, qdq)
    (only,) = integers.values()  # both Pulsar2 chips get the same network
    return PackageRow(tuple(sizes), max_difference, only)


def get_package_files(contents: BundleContents) -> Files:
    """Return the files of a bundle's package."""
    prefix, bundle_files = f"{MODEL}/", contents.files.items()
    model_files = {
        path.removeprefix(prefix): content
        for path, content in bundle_files
        if path.startswith(prefix)
    }
    return {**model_files, **contents.sidecar_files}


def check_package(contents: BundleContents, chip: Chip, spec: Spec, data_set: DataSet) -> float:
    """Check a package; return the largest relative difference of its fp32 outputs.

    Raises:
        PackageError: The package is wrong.
    """
    files = get_package_files(contents)
    source = spec.graph.inputs[0]
    levels = has_pixel_input(source)
    _check_files(files, chip, ".png" if levels else SUFFIX[chip.toolchain])
    if levels:
        check_pictures(files, contents, chip, source, data_set)
    else:
        check_numbers(files, contents, chip, source, data_set)
    return _measure_difference(files["model.onnx"], spec, contents)


def make_weights(spec: Spec) -> WeightSource:
    """Return random weights that keep every value from vanishing."""
    return replace(pipeline.create_random_weights(spec.graph), tensors=sample_weights(spec.graph))


def build_packages(spec: Spec, data_set: DataSet) -> tuple[Int8Programs, Iterator[BundleContents]]:
    """Return a network's int8 programs, and its package for each chip."""
    at = make_file_span(spec.name)
    plans = devices.find_all(
        [(chip.target, at) for chip in CHIPS], (FP32.name, at), is_explicit=False
    )
    plans = tuple(replace(plan, compiles=False) for plan in plans)
    weight_source = make_weights(spec)
    request = CalibrationRequest(int8_program.ANY_TARGET, MINMAX, RunOptions())
    source = int8_program.from_images(spec, weight_source, data_set, request)
    no_floor = floor_evidence.resolve_floor(spec, Accuracy(0.0, 1.0, 0.0, 1e9), allow_few=True)
    io_forms = {plan.precision.float_io for plan in plans}
    programs = int8_program.build_programs(
        pipeline.lower_for_int8(spec, weight_source), source, no_floor, io_forms
    )
    return programs, pipeline.build(spec, weight_source, plans, silent, programs)


def _check_files(files: Files, chip: Chip, suffix: str) -> None:
    """Check that a package has its files, and that its networks comply with the chip's rules."""
    goldens = {f"goldens/{number}{suffix}" for number in (1, 2)}
    check_equal("files", set(files), BOTH | TOOLCHAIN_FILES[chip.toolchain] | goldens)
    for path in (path for path in files if path.endswith(".onnx")):
        broken = [
            finding for finding in check_file(files[path], chip) if finding.severity in REFUSED
        ]
        check_equal(f"{path}: violated rules", broken, [])


def _measure_difference(model_bytes: bytes, spec: Spec, contents: BundleContents) -> float:
    """Return the difference of the fp32 outputs, relative to each output's largest value."""
    import onnxruntime  # after tcc, which switches its telemetry off

    session = onnxruntime.InferenceSession(model_bytes)
    (source,) = spec.graph.inputs
    weight_source = make_weights(spec)
    names = [session_output.name for session_output in session.get_outputs()]
    max_difference, answers = 0.0, set()
    for case in contents.manifest.goldens.cases:
        assert case.image
        tensor = read_by_network(source, contents.files[case.image])
        (network_outputs,) = float_program.run(Model(spec.graph, weight_source.tensors), [tensor])
        for name, (got,) in zip(
            names, session.run(names, {source.name: tensor[None]}), strict=True
        ):
            expected = network_outputs[name]
            max_difference = max(
                max_difference, float(np.abs(got - expected).max() / np.abs(expected).max())
            )
            answers.add(expected.tobytes())
    check_equal("answers", len(answers), len(names) * len(contents.manifest.goldens.cases))
    return max_difference


def format_row(network: str) -> str:
    """Return the row of a network."""
    return f"| `{network}` | {check_network(network).row}"


def update_table(text: str, names: list[str]) -> str:
    """Return a page with new rows for the named networks, or for all without names."""
    head = "\n".join(HEAD) + "\n"
    text_above, start, text_below = text.partition(head)
    assert start, f"{PAGE.name} has no table with the header {HEAD[0]}"
    lines = text_below.splitlines(keepends=True)
    count = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    old = {line.split(" | ")[0].strip("| `"): line for line in lines[:count]}
    new = {name: format_row(name) + "\n" for name in names or list_specs()}
    rows = [(old | new)[name] for name in list_specs() if name in old | new]
    return "".join([text_above, head, *rows, *lines[count:]])


def main() -> int:
    """Write or check the page; return the exit code."""
    names = [argument for argument in sys.argv[1:] if argument != "--check"]
    return write_or_check({PAGE: update_table(PAGE.read_text(), names)})


if __name__ == "__main__":
    sys.exit(main())
