"""A bundle's model card: the manifest's content for readers, in Markdown.

The headings are those of Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), where
the compiler knows the content.
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
UNKNOWN_TEXT = "not known to the compiler; the author of the training must state it"
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def encode(manifest: Manifest, training: TrainingRecord | None = None) -> bytes:
    """Return the model card of a bundle.

    Args:
        manifest: Manifest of the bundle.
        training: The training record of its weights, if known.
    """
    return ("\n".join(_iterate_lines(manifest, training)) + "\n").encode()


def _iterate_lines(manifest: Manifest, training: TrainingRecord | None) -> Iterator[str]:
    yield f"# {_escape_markdown(manifest.model.name)} for {manifest.target} at {manifest.precision}"
    yield from _render_section("Model details", _list_details(manifest))
    yield from _render_section("Intended use", _describe_use(manifest))
    yield from _render_section("Input", _describe_input(manifest))
    yield from _render_section("Outputs", [_describe_output(output) for output in manifest.outputs])
    yield from _render_section("Training data", _describe_training(training))
    yield from _render_section(
        "Evaluation", [*_describe_accuracy(manifest, training), *_describe_calibration(manifest)]
    )
    yield from _render_section("Verification", _describe_goldens(manifest))
    yield from _render_section("Caveats", _list_caveats(manifest, training))


def _render_section(title: str, bullets: Sequence[str]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield from (f"- {bullet}" for bullet in bullets)


def _list_details(manifest: Manifest) -> list[str]:
    weights = manifest.weights
    params = ", ".join(
        f"{_escape_markdown(k)} = {_escape_markdown(v)}" for k, v in manifest.model.params.items()
    )
    origin = {
        "file": "a file",
        "zoo": f"the trained network {_escape_markdown(weights.file or '')} of the zoo",
        "random": f"random, seed {weights.seed}",
    }[weights.origin]
    return [
        f"network: {_escape_markdown(manifest.model.name)}, spec `{manifest.model.spec}`",
        *([f"parameters: {params}"] if params else []),
        f"weights: {origin}, digest `{weights.digest}`",
        f"built with {', '.join(f'{k} {v}' for k, v in manifest.made_with.items())}",
        *(
            f"files of the target: `{f.path}`, {f.bytes:,} bytes"
            for f in manifest.files
            if _is_model_file(f.path)
        ),
    ]


def _is_model_file(path: str) -> bool:
    return path.startswith("model/")


def _describe_use(manifest: Manifest) -> list[str]:
    intent = _escape_markdown(manifest.model.doc) if manifest.model.doc else UNKNOWN_TEXT
    medical = "not a medical device: do not base a diagnosis on the results"
    return [f"description in the spec: {intent}", medical]


def _describe_input(manifest: Manifest) -> list[str]:
    input_contract = manifest.input
    shape = " x ".join(map(str, input_contract.shape))
    preprocessing = (
        "none: the input is a tensor"
        if input_contract.preprocess is None
        else _describe_preprocess(input_contract.preprocess)
    )
    return [
        f"`{input_contract.name}`: {shape}, {input_contract.dtype}",
        f"preprocessing: {preprocessing}",
    ]


def _describe_preprocess(preprocess: Preprocess) -> str:
    settings = json_records.encode(preprocess)
    return "; ".join(
        f"{name} {_render_setting(setting)}"
        for name, setting in settings.items()
        if setting is not None
    )


def _render_setting(setting: object) -> str:
    """Return a value of the input contract as text, in the notation of a spec."""
    match setting:
        case bool():
            return "yes" if setting else "no"
        case dict():
            return ", ".join(f"{name} {_render_setting(inner)}" for name, inner in setting.items())
        case [single]:
            return _render_setting(single)
        case list() | tuple():
            return f"({', '.join(map(_render_setting, setting))})"
        case float():
            return f"{setting:.9g}"
        case _:
            return _escape_markdown(str(setting))


def _describe_training(training: TrainingRecord | None) -> list[str]:
    if training is None:
        return [UNKNOWN_TEXT]
    return [
        f"from {_escape_markdown(training.source)}, for weights with this digest",
        *map(_escape_markdown, training.images),
        *(f"training: {_escape_markdown(sentence)}" for sentence in training.method),
    ]


def _describe_output(output: OutputContract) -> str:
    shape = " x ".join(map(str, output.shape))
    labels = f": {', '.join(map(_escape_markdown, output.labels))}" if output.labels else ""
    return f"`{output.name}`: {shape}, {output.kind}, activation {output.activation}{labels}"


def _describe_accuracy(manifest: Manifest, training: TrainingRecord | None) -> list[str]:
    facts = list_accuracy(manifest, training)
    lines = [
        f"{metric}: {_escape_markdown(description) if is_known else description}"
        for metric, description, is_known in facts
    ]
    return [
        *lines,
        *(
            f"in float32, {_escape_markdown(description)}"
            for description in list_classes(manifest, training)
        ),
    ]


def list_accuracy(
    manifest: Manifest, training: TrainingRecord | None
) -> Iterator[tuple[str, str, bool]]:
    """Yield the accuracy of a network, if its training record is of the same spec.

    Args:
        manifest: Manifest of the bundle.
        training: The training record of its weights, if known.

    Yields:
        The metric, its value as text, and whether the value is known.
    """
    if training is None:
        yield "accuracy", f"{UNKNOWN_TEXT}, or `tcc eval` measures it", False
    elif training.spec != manifest.model.spec:
        reason = "the training record is of another spec or other parameters"
        yield "accuracy", f"not known: {reason}; `tcc eval` measures it", False
    else:
        yield from (("accuracy", sentence, True) for sentence in training.accuracy)
        if manifest.precision != FP32.name:
            measured = _find_int8_accuracy(manifest, training)
            description = measured or "not measured; `tcc eval` measures it"
            yield f"accuracy at {manifest.precision}", description, measured is not None


def list_classes(manifest: Manifest, training: TrainingRecord | None) -> Iterator[str]:
    """Yield the float32 accuracy of each class, if it is known."""
    if training is None or training.spec != manifest.model.spec:
        return
    yield from training.by_class
    for class_index, row in enumerate(training.confusion):
        name, images = training.classes[class_index], sum(row)
        bounds = confidence_intervals.compute_share_interval(row[class_index], images)
        false_positives = (
            sum(matrix_row[class_index] for matrix_row in training.confusion) - row[class_index]
        )
        if bounds is None:
            yield f"{name}: sensitivity not known, because no test image is of this class"
        else:
            yield (
                f"{name}: sensitivity {row[class_index] / images:.2%} "
                f"({row[class_index]:,} of {images:,} "
                f"images, 95 % confidence interval {bounds.low:.2%} to {bounds.high:.2%}); "
                f"{false_positives:,} images of other classes were classified as it"
            )


def _find_int8_accuracy(manifest: Manifest, training: TrainingRecord) -> str | None:
    calibration = manifest.calibration
    # Other scales or float layers give another int8 model than the measured one.
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
    return [scales, *_describe_measured(calibration.measured)]


def _describe_measured(measured: Measured | None) -> list[str]:
    if measured is None:
        return ["int8 against fp32: not measured"]
    lines = []
    for name, quality in measured.outputs.items():
        figures = {
            "mean cosine": quality.cosine,
            "lowest cosine": quality.least_cosine,
            "correlation": quality.correlation,
            "relative error": quality.error,
            "equal decisions": quality.agreement,
        }
        figure_list = ", ".join(
            f"{metric} {figure:.4f}" for metric, figure in figures.items() if figure is not None
        )
        lines.append(
            f"int8 against fp32, `{name}`, {quality.images} images {measured.where}: {figure_list}"
        )
    return lines


def _describe_goldens(manifest: Manifest) -> list[str]:
    goldens = manifest.goldens
    tolerance = goldens.tolerance
    allowed = (
        f"within {tolerance.relative:.0e} of the largest magnitude"
        if tolerance.relative
        else "bit for bit"
    )
    return [
        f"{len(goldens.cases)} goldens from the reference executor `{goldens.executor}`, to be"
        f" reproduced {allowed}: "
        f"{tolerance.reason}",
        "`tcc verify` replays them and checks every file against `manifest.json`",
    ]


def _list_caveats(manifest: Manifest, training: TrainingRecord | None) -> list[str]:
    caveats = [_escape_markdown(notice) for notice in manifest.notices]
    if manifest.calibration and manifest.calibration.in_float:
        caveats.append(
            f"layers in float: {', '.join(map(_escape_markdown, manifest.calibration.in_float))}"
        )
    caveats += [
        f"{w.code}: {_escape_markdown(w.message)}: {_escape_markdown(w.found)}"
        for w in manifest.warnings
    ]
    caveats += map(_escape_markdown, training.limits) if training else ()
    return [
        *caveats,
        "accuracy on images unlike the training and calibration images is not known",
    ]


def _escape_markdown(text: str) -> str:
    """Return text escaped for Markdown: no markup, no HTML, one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
