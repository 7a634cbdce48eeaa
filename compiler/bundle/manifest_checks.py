"""Whether a manifest holds together: with itself, and with the rules of what tcc builds.

A seal and hashes show what was damaged, not what was forged: whoever edits a bundle can make them
anew. So nothing is taken on the manifest's own word that can be known otherwise: how many goldens
there are, that they are different, how far they may be off, and what goes in and comes out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import isfinite, prod

from tcc.compiler.bundle import agreement
from tcc.compiler.bundle.manifest import (
    KIND,
    BundleFile,
    Golden,
    InputContract,
    Manifest,
    OutputContract,
)
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.operating_point import (
    LARGEST,
    JudgedPoint,
    OperatingPoint,
    ThresholdCheck,
)
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.types import DType
from tcc.compiler.reference import confidence_intervals

# With one input, an artifact that always answers the same would give all of its goldens.
GOLDENS = 2
"""How many goldens a build writes: their inputs are different ones."""
MAX_BYTES = 1 << 32
"""Most bytes of a bundle's files together; the largest formats end at 2 GB."""
MAX_TENSOR = 1 << 26
"""Most elements of an output, or of an input that no image becomes."""


Known = Callable[[str, str], Precision | None]
"""Returns what the precision of a target, both by name, is; None where there is none."""


def check(about: Manifest, name: str, known: Known) -> None:
    """Refuse a manifest that does not hold together.

    What its precision allows, `known` says, and not the manifest.

    Args:
        about: The manifest.
        name: What the error calls it.
        known: Says what the precisions of targets allow.

    Raises:
        UserError: It says what no bundle of tcc says (E0621); the first such thing is named.
    """
    for problem in _problems(about, known):
        raise KIND.damaged(name, problem)


def _problems(about: Manifest, known: Known) -> Iterator[str]:
    yield from _input(about.input)
    yield from _outputs(about.outputs)
    yield from _files(about.files)
    yield from _precision(about, known)
    if about.weights.origin == "random" and not about.weights.notice:
        # Whoever runs it has to see that its answers mean nothing.
        yield "weights: they are random, and `notice` does not say so"
    yield from _goldens(about)
    yield from _points(about)


def _points(about: Manifest) -> Iterator[str]:
    outputs = {output.name: output for output in about.outputs}
    yield from _twice("operating_points", (point.output for point in about.operating_points))
    for point in about.operating_points:
        problem = _point(point, outputs.get(point.output))
        if problem:
            yield f"operating_points/{point.output[:40]}: {problem}"


def _point(point: OperatingPoint, output: OutputContract | None) -> str:
    if output is None or len(output.shape) != 1 or output.kind == "regression":
        return "there is no such row of classes or decisions"
    if not all(map(isfinite, (point.temperature, *point.thresholds))):
        return "a number is not finite"
    if not 1 / LARGEST <= point.temperature <= LARGEST:
        return f"its temperature is {point.temperature:g}"
    wanted = output.shape[0] if output.kind == "decisions" else int(point.positive is not None)
    if len(point.thresholds) != wanted:
        return f"it has {len(point.thresholds)} thresholds, not {wanted}"
    limit = 0 if output.kind == "decisions" else output.shape[0]
    if point.positive is not None and not 0 <= point.positive < limit:
        return f"there is no class {point.positive} to be positive"
    return _find_judged_problem(point, point.judged) if point.judged else ""


def _find_judged_problem(point: OperatingPoint, judged: JudgedPoint) -> str:
    if len(judged.thresholds) != len(point.thresholds):
        return f"{len(judged.thresholds)} of its thresholds are judged, not {len(point.thresholds)}"
    for check in judged.thresholds:
        if check.target != point.target or not 0 <= (check.target or 0.0) <= 1:
            return f"`{check.label[:40]}` is judged by another target"
        if not 0 <= check.detected <= check.positives:
            return f"{check.detected} of {check.positives} images are detected"
        if check.reached != _reaches_target(check):
            return f"`{check.label[:40]}` does not reach its target as it is said"
    if any(check.reached is False for check in judged.thresholds) and not judged.notice:
        # Whoever runs it has to see that it does not do what was asked for.
        return "it misses its target, and `notice` does not say so"
    return ""


def _reaches_target(check: ThresholdCheck) -> bool | None:
    if check.target is None:
        return None
    return confidence_intervals.is_shown(check.target, check.detected, check.positives)


def _input(source: InputContract) -> Iterator[str]:
    if source.dtype not in {kind.value for kind in DType}:
        yield f"input/dtype: `{source.dtype[:40]}` is no type of an element"
    if len(source.shape) not in (1, 3) or min(source.shape) < 1:
        yield f"input/shape: {_shown(source.shape)} is no image and no row of numbers"
    elif source.preprocess is None:
        if prod(source.shape) > MAX_TENSOR:
            yield f"input/shape: {_shown(source.shape)} is too large"
    else:
        made = preprocess.result_shape(source.preprocess) or source.shape
        if made != source.shape or source.shape[0] != source.preprocess.channels:
            yield f"input/shape: preprocessing gives {_shown(made)}, not {_shown(source.shape)}"


def _outputs(outputs: tuple[OutputContract, ...]) -> Iterator[str]:
    if not outputs:
        yield "outputs: there is none"
    yield from _twice("outputs", (output.name for output in outputs))
    for output in outputs:
        place = f"outputs/{output.name[:40]}"
        if output.dtype != "float32":
            yield f"{place}: raw outputs are float32, not `{output.dtype[:40]}`"
        shape = output.shape
        if not 1 <= len(shape) <= 4 or min(shape) < 1 or prod(shape) > MAX_TENSOR:
            yield f"{place}: {_shown(shape)} is no shape of an output"
        elif output.labels and len(output.labels) != shape[0]:
            yield f"{place}: there are {len(output.labels)} labels for {shape[0]} classes"
        yield from _twice(f"{place}/labels", output.labels)


def _files(files: tuple[BundleFile, ...]) -> Iterator[str]:
    yield from _twice("files", (file.path for file in files))
    if any(file.bytes < 0 for file in files):
        yield "files: one has fewer than 0 bytes"
    if sum(file.bytes for file in files) > MAX_BYTES:
        yield f"files: they are larger than {MAX_BYTES >> 30} GiB together"


def _precision(about: Manifest, known: Known) -> Iterator[str]:
    calibrated = about.calibration
    precision = known(about.target, about.precision)
    if precision is None:
        yield f"precision: there is no precision {about.precision}"
        return
    most = agreement.most_said(precision, calibrated.inexact if calibrated else ())
    if (calibrated is None) == precision.calibrated:
        has = "none" if calibrated is None else "one"
        yield f"calibration: at {about.precision} there is {has}"
    found = about.goldens.tolerance.relative
    if not 0 <= found <= most:
        yield (
            f"goldens/tolerance: {found:g} is not what {about.target[:40]} is allowed at "
            f"{about.precision}: {most:g}"
        )


def _goldens(about: Manifest) -> Iterator[str]:
    cases = about.goldens.cases
    if len(cases) < GOLDENS:
        yield f"goldens: there are {len(cases)}, a bundle has {GOLDENS}"
    yield from _twice("goldens", (case.name for case in cases))
    files = {file.path: file for file in about.files}
    for case in cases:
        yield from _golden(about, case, files)
    inputs = [files.get(case.image or case.tensor) for case in cases]
    digests = [file.sha256 for file in inputs if file]
    if len(set(digests)) < len(digests):
        yield "goldens: two of them are of one input"


def _golden(about: Manifest, case: Golden, files: dict[str, BundleFile]) -> Iterator[str]:
    place = f"goldens/{case.name[:40]}"
    if (case.image is None) != (about.input.preprocess is None):
        yield f"{place}: {'it has no image' if case.image is None else 'the input is no image'}"
    results = {output.name: output.shape for output in about.outputs}
    if unlike := sorted(set(case.outputs) ^ set(results)):
        has = "has an" if unlike[0] in case.outputs else "has no"
        yield f"{place}: it {has} output `{unlike[0][:40]}`"
        return
    wanted = {case.tensor: prod(about.input.shape) * DType(about.input.dtype).size}
    wanted |= {path: prod(results[name]) * 4 for name, path in case.outputs.items()}
    for path in (*([case.image] if case.image else []), *wanted):
        if path not in files:
            yield f"{place}: {path[:80]} is none of the bundle's files"
        elif (size := files[path].bytes) != wanted.get(path, size):
            yield f"{place}: {path[:80]} has {size:,} bytes, which is not its tensor's size"
    if len(wanted) <= len(case.outputs):
        yield f"{place}: two of its tensors are one file"


def _twice(place: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{place}: `{name[:40]}` is there {count} times"
            return


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[:6]))[:60] or "()"
