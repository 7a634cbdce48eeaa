"""Check that a manifest is consistent, and that it follows the rules of what tcc builds.

A seal and hashes reveal damage, not forgery: whoever edits a bundle can compute them again. So
nothing is read from the manifest that can be known otherwise: the number of goldens, that they
differ, their tolerance, and the shapes of inputs and outputs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import prod

from tcc.compiler.bundle import agreement, operating_point_checks
from tcc.compiler.bundle.manifest import (
    KIND,
    BundleFile,
    Golden,
    InputContract,
    Manifest,
    OutputContract,
)
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.types import DType

# With one input, an artifact with a constant output would reproduce all of its goldens.
GOLDEN_COUNT = 2
"""Number of goldens that a build writes, with different inputs."""
MAX_BYTES = 1 << 32
"""Largest total size of a bundle's files; the largest formats end at 2 GB."""
MAX_TENSOR_ELEMENTS = 1 << 26
"""Most elements of an output, or of an input without preprocessing."""


PrecisionLookup = Callable[[str, str], Precision | None]
"""Returns the precision of a target, both by name; None if there is none."""


def check(manifest: Manifest, name: str, lookup_precision: PrecisionLookup) -> None:
    """Refuse an inconsistent manifest.

    Args:
        manifest: The manifest.
        name: The manifest's name in the error.
        lookup_precision: Returns the precision of a target; it decides what is allowed.

    Raises:
        UserError: It has content that no build of tcc writes (E0621); the first such is named.
    """
    for problem in _find_problems(manifest, lookup_precision):
        raise KIND.make_damage_error(name, problem)


def _find_problems(manifest: Manifest, lookup_precision: PrecisionLookup) -> Iterator[str]:
    yield from _check_input(manifest.input)
    yield from _check_outputs(manifest.outputs)
    yield from _check_files(manifest.files)
    yield from _check_precision(manifest, lookup_precision)
    if manifest.weights.origin == "random" and not manifest.weights.notice:
        # The user must see that the outputs are meaningless.
        yield "weights: they are random, but `notice` is empty"
    yield from _check_goldens(manifest)
    yield from _check_operating_points(manifest)


def _check_operating_points(manifest: Manifest) -> Iterator[str]:
    outputs = {output.name: output for output in manifest.outputs}
    yield from _find_duplicates(
        "operating_points", (point.output for point in manifest.operating_points)
    )
    for point in manifest.operating_points:
        problem = operating_point_checks.find_problem(point, outputs.get(point.output))
        if problem:
            yield f"operating_points/{point.output[:40]}: {problem}"


def _check_input(source: InputContract) -> Iterator[str]:
    if source.dtype not in {kind.value for kind in DType}:
        yield f"input/dtype: `{source.dtype[:40]}` is not a known element type"
    if len(source.shape) not in (1, 3) or min(source.shape) < 1:
        yield f"input/shape: {_describe_shape(source.shape)} is neither an image nor a vector"
    elif source.preprocess is None:
        if prod(source.shape) > MAX_TENSOR_ELEMENTS:
            yield f"input/shape: {_describe_shape(source.shape)} is too large"
    else:
        preprocessed_shape = preprocess.compute_output_shape(source.preprocess) or source.shape
        if preprocessed_shape != source.shape or source.shape[0] != source.preprocess.channels:
            yield (
                f"input/shape: preprocessing gives {_describe_shape(preprocessed_shape)}, not "
                f"{_describe_shape(source.shape)}"
            )


def _check_outputs(outputs: tuple[OutputContract, ...]) -> Iterator[str]:
    if not outputs:
        yield "outputs: there are none"
    yield from _find_duplicates("outputs", (output.name for output in outputs))
    for output in outputs:
        location = f"outputs/{output.name[:40]}"
        if output.dtype != "float32":
            yield f"{location}: raw outputs are float32, not `{output.dtype[:40]}`"
        shape = output.shape
        if not 1 <= len(shape) <= 4 or min(shape) < 1 or prod(shape) > MAX_TENSOR_ELEMENTS:
            yield f"{location}: {_describe_shape(shape)} is not a valid output shape"
        elif output.labels and len(output.labels) != shape[0]:
            yield f"{location}: there are {len(output.labels)} labels for {shape[0]} classes"
        yield from _find_duplicates(f"{location}/labels", output.labels)


def _check_files(files: tuple[BundleFile, ...]) -> Iterator[str]:
    yield from _find_duplicates("files", (file.path for file in files))
    if any(file.bytes < 0 for file in files):
        yield "files: one has a negative size"
    if sum(file.bytes for file in files) > MAX_BYTES:
        yield f"files: their total size is more than {MAX_BYTES >> 30} GiB"


def _check_precision(manifest: Manifest, lookup_precision: PrecisionLookup) -> Iterator[str]:
    calibration = manifest.calibration
    precision = lookup_precision(manifest.target, manifest.precision)
    if precision is None:
        yield f"precision: {manifest.target[:40]} has no precision {manifest.precision}"
        return
    max_tolerance = agreement.compute_max_stated(
        precision, calibration.inexact if calibration else ()
    )
    if (calibration is None) == precision.calibrated:
        has = "is missing" if calibration is None else "must not be present"
        yield f"calibration: it {has} at {manifest.precision}"
    tolerance = manifest.goldens.tolerance.relative
    if not 0 <= tolerance <= max_tolerance:
        yield (
            f"goldens/tolerance: {tolerance:g} is out of range; {manifest.target[:40]} allows at "
            f"most {max_tolerance:g} at {manifest.precision}"
        )


def _check_goldens(manifest: Manifest) -> Iterator[str]:
    cases = manifest.goldens.cases
    if len(cases) < GOLDEN_COUNT:
        yield f"goldens: there are {len(cases)}, but a bundle has at least {GOLDEN_COUNT}"
    yield from _find_duplicates("goldens", (case.name for case in cases))
    files = {file.path: file for file in manifest.files}
    for case in cases:
        yield from _check_golden(manifest, case, files)
    inputs = [files.get(case.image or case.tensor) for case in cases]
    digests = [file.sha256 for file in inputs if file]
    if len(set(digests)) < len(digests):
        yield "goldens: two of them have the same input"


def _check_golden(manifest: Manifest, case: Golden, files: dict[str, BundleFile]) -> Iterator[str]:
    location = f"goldens/{case.name[:40]}"
    if (case.image is None) != (manifest.input.preprocess is None):
        yield f"{location}: {'it has no image' if case.image is None else 'the input is no image'}"
    shape_by_output = {output.name: output.shape for output in manifest.outputs}
    if unmatched_names := sorted(set(case.outputs) ^ set(shape_by_output)):
        has = "has an" if unmatched_names[0] in case.outputs else "has no"
        yield f"{location}: it {has} output `{unmatched_names[0][:40]}`"
        return
    byte_counts = {case.tensor: prod(manifest.input.shape) * DType(manifest.input.dtype).size}
    byte_counts |= {path: prod(shape_by_output[name]) * 4 for name, path in case.outputs.items()}
    for path in (*([case.image] if case.image else []), *byte_counts):
        if path not in files:
            yield f"{location}: the bundle does not list {path[:80]}"
        elif (size := files[path].bytes) != byte_counts.get(path, size):
            yield (
                f"{location}: {path[:80]} has {size:,} bytes; its tensor has {byte_counts[path]:,}"
            )
    if len(byte_counts) <= len(case.outputs):
        yield f"{location}: two of its tensors are the same file"


def _find_duplicates(location: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{location}: `{name[:40]}` is listed {count} times"
            return


def _describe_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[:6]))[:60] or "()"
