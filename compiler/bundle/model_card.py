"""A bundle's model card: what its manifest says, for people, in Markdown.

The headings are those of Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), as
far as a compiler knows what belongs below them.
"""

import html
import re
from collections.abc import Iterator, Sequence

from tcc.compiler.bundle.manifest import Manifest, Measured, OutputContract
from tcc.compiler.data.training_record import TrainingRecord
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.reference import confidence_intervals
from tcc.compiler.support import json_records

NAME = "model-card.md"
UNKNOWN = "not known to the compiler: whoever trained it has to say"
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def encode(manifest: Manifest, training: TrainingRecord | None = None) -> bytes:
    """Return the card of a bundle.

    Args:
        manifest: Its manifest.
        training: What is known of the training of its weights.
    """
    return ("\n".join(_lines(manifest, training)) + "\n").encode()


def _lines(manifest: Manifest, training: TrainingRecord | None) -> Iterator[str]:
    yield f"# {_plain(manifest.model.name)} for {manifest.target} at {manifest.precision}"
    yield from _section("Model details", _details(manifest))
    yield from _section("Intended use", _use(manifest))
    yield from _section("Input", _input(manifest))
    yield from _section("Outputs", [_output(output) for output in manifest.outputs])
    yield from _section("Training data", _describe_training(training))
    yield from _section(
        "Evaluation", [*_describe_accuracy(manifest, training), *_describe_calibration(manifest)]
    )
    yield from _section("Proof", _proof(manifest))
    yield from _section("Caveats", _caveats(manifest, training))


def _section(title: str, items: Sequence[str]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield from (f"- {item}" for item in items)


def _details(manifest: Manifest) -> list[str]:
    weights = manifest.weights
    params = ", ".join(f"{_plain(k)} = {_plain(v)}" for k, v in manifest.model.params.items())
    named = {
        "file": "a file",
        "zoo": f"the trained network {_plain(weights.file or '')} of the zoo",
        "random": f"random, of seed {weights.seed}",
    }[weights.origin]
    return [
        f"network: {_plain(manifest.model.name)}, spec `{manifest.model.spec}`",
        *([f"parameters: {params}"] if params else []),
        f"weights: {named}, digest `{weights.digest}`",
        f"made with {', '.join(f'{k} {v}' for k, v in manifest.made_with.items())}",
        *(
            f"files of the target: `{f.path}`, {f.bytes:,} bytes"
            for f in manifest.files
            if _own(f.path)
        ),
    ]


def _own(path: str) -> bool:
    return path.startswith("model/")


def _use(manifest: Manifest) -> list[str]:
    intent = _plain(manifest.model.doc) if manifest.model.doc else UNKNOWN
    medical = "not a medical device: no diagnosis may rest on what it says"
    return [f"what the spec says of itself: {intent}", medical]


def _input(manifest: Manifest) -> list[str]:
    source = manifest.input
    shape = " x ".join(map(str, source.shape))
    made = (
        "none: tensors as they are" if source.preprocess is None else _contract(source.preprocess)
    )
    return [f"`{source.name}`: {shape}, {source.dtype}", f"preprocessing: {made}"]


def _contract(found: Preprocess) -> str:
    said = json_records.encode(found)
    return "; ".join(f"{name} {_spell(value)}" for name, value in said.items() if value is not None)


def _spell(value: object) -> str:
    """Return a value of a contract in words and numbers, as a spec has it."""
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name} {_spell(inner)}" for name, inner in value.items())
        case [single]:
            return _spell(single)
        case list() | tuple():
            return f"({', '.join(map(_spell, value))})"
        case float():
            return f"{value:.9g}"
        case _:
            return _plain(str(value))


def _describe_training(training: TrainingRecord | None) -> list[str]:
    if training is None:
        return [UNKNOWN]
    return [
        f"by {_plain(training.source)}, of weights of this digest",
        *map(_plain, training.images),
        *(f"training: {_plain(sentence)}" for sentence in training.method),
    ]


def _output(output: OutputContract) -> str:
    shape = " x ".join(map(str, output.shape))
    labels = f": {', '.join(map(_plain, output.labels))}" if output.labels else ""
    return f"`{output.name}`: {shape}, {output.kind}, activation {output.activation}{labels}"


def _describe_accuracy(manifest: Manifest, training: TrainingRecord | None) -> list[str]:
    facts = list_accuracy(manifest, training)
    lines = [f"{what}: {_plain(said) if is_known else said}" for what, said, is_known in facts]
    return [*lines, *(f"in float32, {_plain(said)}" for said in list_classes(manifest, training))]


def list_accuracy(
    manifest: Manifest, training: TrainingRecord | None
) -> Iterator[tuple[str, str, bool]]:
    """Yield how good a network is, as far as its training says so of this very spec.

    Args:
        manifest: The manifest of its bundle.
        training: What is known of the training of its weights.

    Yields:
        What is measured, how good it is, and whether that is known.
    """
    if training is None:
        yield "accuracy", f"{UNKNOWN}, by `tcc eval`", False
    elif training.spec != manifest.model.spec:
        unlike = "the training's figures are of another spec or other parameters"
        yield "accuracy", f"not known: {unlike}; `tcc eval` measures it", False
    else:
        yield from (("accuracy", sentence, True) for sentence in training.accuracy)
        if manifest.precision != FP32.name:
            measured = _find_int8_accuracy(manifest, training)
            said = measured or "not measured; `tcc eval` measures it"
            yield f"accuracy at {manifest.precision}", said, measured is not None


def list_classes(manifest: Manifest, training: TrainingRecord | None) -> Iterator[str]:
    """Yield how good a network is at each class in float32, as far as that is known."""
    if training is None or training.spec != manifest.model.spec:
        return
    yield from training.by_class
    for place, row in enumerate(training.confusion):
        name, images = training.classes[place], sum(row)
        bounds = confidence_intervals.of_share(row[place], images)
        taken = sum(other[place] for other in training.confusion) - row[place]
        if bounds is None:
            yield f"{name}: no test image is of it, so that its sensitivity is not known"
        else:
            yield (
                f"{name}: sensitivity {row[place] / images:.2%} ({row[place]:,} of {images:,} "
                f"images, 95% interval {bounds.low:.2%} to {bounds.high:.2%}); "
                f"{taken:,} images of others were taken for it"
            )


def _find_int8_accuracy(manifest: Manifest, training: TrainingRecord) -> str | None:
    calibration = manifest.calibration
    # Other scales, or layers in float, make another int8 model than the one that was measured.
    is_measured = (
        calibration and calibration.digest == training.calibration and not calibration.in_float
    )
    if is_measured and manifest.precision == "int8" and manifest.target in training.int8_accuracy:
        return training.int8_accuracy[manifest.target]
    return None


def _describe_calibration(manifest: Manifest) -> list[str]:
    calibration = manifest.calibration
    if calibration is None:
        return []
    scales = (
        f"scales: {calibration.method}, {calibration.images} images, digest `{calibration.data}`"
    )
    return [scales, *_measured(calibration.measured)]


def _measured(found: Measured | None) -> list[str]:
    if found is None:
        return ["integers against floats: not measured"]
    lines = []
    for name, one in found.outputs.items():
        figures = {
            "mean cosine": one.cosine,
            "least": one.least_cosine,
            "correlation": one.correlation,
            "relative error": one.error,
            "same decision": one.agreement,
        }
        said = ", ".join(
            f"{what} {value:.4f}" for what, value in figures.items() if value is not None
        )
        lines.append(
            f"integers against floats, `{name}`, {one.images} images {found.where}: {said}"
        )
    return lines


def _proof(manifest: Manifest) -> list[str]:
    goldens = manifest.goldens
    near = goldens.tolerance
    allowed = f"within {near.relative:.0e} of the largest" if near.relative else "to the bit"
    return [
        f"{len(goldens.cases)} goldens by {goldens.executor}, to be met {allowed}: {near.reason}",
        "`tcc verify` replays them, and checks every file against `manifest.json`",
    ]


def _caveats(manifest: Manifest, training: TrainingRecord | None) -> list[str]:
    caveats = [_plain(notice) for notice in manifest.notices]
    if manifest.calibration and manifest.calibration.in_float:
        caveats.append(f"in float: {', '.join(map(_plain, manifest.calibration.in_float))}")
    caveats += [f"{w.code}: {_plain(w.message)}: {_plain(w.found)}" for w in manifest.warnings]
    caveats += map(_plain, training.limits) if training else ()
    return [
        *caveats,
        "accuracy on images unlike those of training and calibration is not known",
    ]


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
