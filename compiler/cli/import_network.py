"""`tcc import`: an ONNX classifier as a spec with weights, or a checkpoint as a spec's weights."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import ReportOptions, Settings, split_words
from tcc.compiler.driver.chosen_spec import choose_spec, parse_settings, report_project
from tcc.compiler.support.console import Report, warn_about_spec
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import UserError, fail, make_command_span, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.importers.checkpoint import ImportedWeights
    from tcc.compiler.importers.checkpoint.naming_schemes import PixelScaling
    from tcc.compiler.importers.onnx_import import ImportedModel, ImportOptions, PreprocessOptions
    from tcc.compiler.ir.graph import Graph


DEFAULT_WEIGHTS = Path("weights.safetensors")


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """The file that was read: its name, its SHA-256, and whether it has checksums of its own."""

    file: str
    sha256: str
    checksums: bool

    def __str__(self) -> str:
        """What `sha256sum` says of it too, and how to know that the file is whole."""
        integrity = (
            "the checksums of what was read hold"
            if self.checksums
            else ("the format has no checksums: compare this with what its source states")
        )
        return f"checkpoint: {self.file}, SHA-256 {self.sha256}; {integrity}"


class Color(StrEnum):
    """The order of an image's channels."""

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


class Divisor(StrEnum):
    """What an image's values are divided by."""

    FULL = "255"
    MAX = "max"


class Mode(StrEnum):
    """How an image is brought to the input's size."""

    STRETCH = "stretch"
    COVER = "cover"
    NONE = "none"


ImportedFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="An ONNX file; with --spec, a checkpoint: a PyTorch state dict or safetensors file.",
    ),
]
SpecOption = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="SPEC",
        show_default=False,
        help="Take the weights of a checkpoint for this spec: a file, or the name of a known one.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="The spec to write, `.yaml` or `.json`, by default named after the file; with --spec, "
        "the weights, weights.safetensors by default.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="The weights to write; weights.safetensors beside the spec otherwise.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", show_default=False, help="The network's name; the file's otherwise."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="A,B,...", show_default=False, help="The classes, in their order."
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="C,H,W",
        show_default=False,
        help="The input's size, where the file leaves it open.",
    ),
]
Until = Annotated[
    list[str] | None,
    typer.Option(
        "--until",
        metavar="NAME",
        show_default=False,
        help="Cut the file after this value and take it as output; may be repeated.",
    ),
]
Colors = Annotated[
    Color | None,
    typer.Option("--color", show_default=False, help="Preprocessing: the channels' order."),
]
Resize = Annotated[
    Mode | None,
    typer.Option(
        "--resize", show_default=False, help="Preprocessing: how images get the input's size."
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="M,...",
        show_default=False,
        help="Preprocessing: subtracted per channel, after division.",
    ),
]
Scales = Annotated[
    Divisor | None,
    typer.Option(
        "--scale",
        show_default=False,
        help="Preprocessing: values are divided by 255, or by the image's own maximum.",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std", metavar="S,...", show_default=False, help="Preprocessing: divided by per channel."
    ),
]
Flat = Annotated[bool, typer.Option("--flat", help="Write every step, without `repeat`.")]


@dataclass(frozen=True)
class CheckpointOptions:
    """Which tensors of a checkpoint are taken, and what they are in the spec."""

    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            show_default=False,
            help="With --spec: which of the checkpoint's names is which of the spec's.",
        ),
    ] = None
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry",
            metavar="NAME",
            show_default=False,
            help="With --spec: which part of the checkpoint to take, such as `model_ema`, where "
            "there are several.",
        ),
    ] = None
    settings: Settings = None


def import_(
    file: ImportedFile,
    spec: SpecOption = None,
    output: Output = None,
    weights: WeightsFile = None,
    name: Name = None,
    labels: Labels = None,
    shape: Shape = None,
    until: Until = None,
    color: Colors = None,
    resize: Resize = None,
    scale: Scales = None,
    mean: Mean = None,
    std: Std = None,
    flat: Flat = False,
    *,
    checkpoint: CheckpointOptions,
    report: ReportOptions,
) -> None:
    """Turn an ONNX classifier into a spec, or a checkpoint into weights.

    The spec computes what the ONNX file does, which is tried out; what it cannot say is refused.
    With --spec every tensor is listed with what it became; nothing is guessed where two would fit.
    """
    if spec is not None:
        _import_weights(report, spec, file, output or DEFAULT_WEIGHTS, checkpoint)
        return

    from tcc.compiler.importers.onnx_import import ImportOptions

    options = ImportOptions(
        _check_name(name),
        split_words("--labels", labels),
        _create_preprocess(
            color, resize, scale, _parse_numbers("--mean", mean), _parse_numbers("--std", std)
        ),
        _parse_size(shape),
        tuple(until or ()),
        not flat,
        json=output is not None and output.suffix == ".json",
    )
    folder = output.parent if output else Path()
    _import(report, file, options, output, weights or folder / DEFAULT_WEIGHTS)


def import_weights(
    spec: Annotated[str, typer.Argument(metavar="SPEC")],
    file: Annotated[Path, typer.Argument(metavar="CHECKPOINT")],
    output: Output = None,
    *,
    checkpoint: CheckpointOptions,
    report: ReportOptions,
) -> None:
    """Turn a checkpoint into a spec's weights: the former name of `tcc import --spec`."""
    _import_weights(report, spec, file, output or DEFAULT_WEIGHTS, checkpoint)


def _import(
    report: Report, model: Path, options: "ImportOptions", output: Path | None, weights_path: Path
) -> None:
    """Import a file into a new spec and new weights, and report what became of its operators."""
    from tcc.compiler.data import weights as tensors
    from tcc.compiler.importers.onnx_import import import_onnx
    from tcc.compiler.support import atomic_files

    # Before the import, which may take a minute: no spec or weights of the user are replaced.
    for path in (output or Path(f"{model.stem}.yaml"), weights_path):
        atomic_files.check_target(path, atomic_files.refuse_replacing)
    imported = import_onnx(model, options)
    spec = output or Path(f"{model.stem}{imported.suffix}")
    if imported.suffix == ".json" and spec.suffix != ".json":
        size = len(imported.text.encode())
        message = f"this spec is too large for YAML: it has {size:,} bytes as JSON"
        help = f"write it as JSON: --output {spec.with_suffix('.json')}"
        raise fail("E0601", message, make_command_span(f"--output {spec}"), help=help)
    # The name of a large spec is known only now.
    atomic_files.check_target(spec, atomic_files.refuse_replacing)
    origin = {
        tensors.SPEC_KEY: imported.spec.name,
        "tcc.digest": imported.spec.digest,
        "tcc.source": model.name.encode(errors="replace").decode(),
    }
    tensors.write(weights_path, imported.weights, origin)
    atomic_files.write_file(spec, imported.text.encode(), atomic_files.refuse_replacing)
    notes = (*imported.notes, *_list_cautions(imported.spec.graph, options.preprocess))
    _print(report, imported, (spec, weights_path))
    # That nothing makes an input of an image is among the notes, with what only the user can know.
    doubts = (w for w in imported.spec.warnings if w.kind != "no-preprocess")
    warn_about_spec(tuple(replace(w, at=make_file_span(str(spec))) for w in doubts))
    for note in notes:
        report.warn_text(note)
    report.print_document(_build_document(imported, notes, spec, weights_path))


def _print(report: Report, imported: "ImportedModel", paths: tuple[Path, Path]) -> None:
    if not report.quiet:
        rows = [
            (r.node, r.types, r.path or "-", r.word or "-", "x".join(map(str, r.shape)) or "-")
            for r in imported.rows
        ]
        report.print_table(("ONNX node", "operators", "step", "op", "output"), rows)
        report.print_text("")
    report.print_note(
        "on random inputs the outputs differ from the file's by at most "
        f"{imported.difference:.2g} of the largest"
    )
    report.print_text("\n".join(map(str, paths)))


def _list_cautions(graph: "Graph", preprocess: "PreprocessOptions | None") -> Iterator[str]:
    """Yield what only the user can know: how an image becomes the input."""
    from tcc.compiler.ops import BatchNorm, Scale, ScaleShift

    source = graph.inputs[0]
    if preprocess is None:
        yield (
            f"an ONNX file does not say how an image becomes its input: add `preprocess` to "
            f"`{source.name}` as the network was trained with, or predictions will be wrong"
        )
    # Some exporters put mean and deviation into the graph; done twice, predictions are wrong in
    # silence.
    if any(isinstance(n.op, BatchNorm | Scale | ScaleShift) for n in graph.readers[source.name]):
        yield "the network begins by scaling its input: its mean and std may be in there already"


def _build_document(
    imported: "ImportedModel", notes: tuple[str, ...], spec: Path, weights_path: Path
) -> dict[str, Any]:
    return {
        "output": str(spec),
        "weights": str(weights_path),
        "name": imported.spec.name,
        "digest": imported.spec.digest,
        "difference": imported.difference,
        "notes": list(notes),
        "nodes": [asdict(row) for row in imported.rows],
    }


def _check_name(name: str | None) -> str:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        help = "use letters, digits, `_`, `.` and `-`"
        raise fail(
            "E0601", "this is no name of a network", make_command_span(f"--name {name}"), help=help
        )
    return name or ""


def _parse_numbers(option: str, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    at = make_command_span(f"{option} {text}")
    try:
        numbers = tuple(parse_float(part.strip()) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (option == "--std" and min(numbers) <= 0):
        above = " above 0" if option == "--std" else ""
        help = f"such as {option} 0.485,0.456,0.406"
        raise fail("E0601", f"`{option}` takes numbers{above}", at, help=help)
    return numbers


def _parse_size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        channels, height, width = (parse_int(p.strip()) for p in text.replace("x", ",").split(","))
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) > 0 and max(channels, height, width) < 1 << 20:
        return channels, height, width
    help = "such as --shape 3,224,224"
    raise fail("E0601", "a shape is three numbers", make_command_span(f"--shape {text}"), help=help)


def _create_preprocess(
    color: Color | None,
    resize: Mode | None,
    scale: Divisor | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> "PreprocessOptions | None":
    """Return what the user says of preprocessing; what is left open is rgb and stretching."""
    from tcc.compiler.importers.onnx_import import PreprocessOptions

    if color is None and resize is None and scale is None and not mean and not std:
        return None
    layout = (color or Color.RGB).value, (resize or Mode.STRETCH).value
    return PreprocessOptions(*layout, mean, std, (scale or Divisor.FULL).value)


def _import_weights(
    report: Report, spec: str, file: Path, output: Path, names: CheckpointOptions
) -> None:
    """Write the tensors of a checkpoint under a spec's names, and list what each became."""
    choice = choose_spec(spec, names.settings)
    report_project(report, choice)
    loaded_spec = choice.spec

    from tcc.compiler.data import weights
    from tcc.compiler.importers.checkpoint import import_checkpoint
    from tcc.compiler.support import atomic_files, file_kinds, regular_files

    # Before the checkpoint is read, which may take a while: a file that must not be replaced is
    # told at once.
    atomic_files.check_target(output, _check_replaceable)
    # An ONNX file or an image in place of a checkpoint is called what it is, with what takes it.
    other_kinds = (
        k for k in file_kinds.KINDS if k not in (file_kinds.PYTORCH, file_kinds.SAFETENSORS)
    )
    file_kinds.refuse(file, "E0510", "a checkpoint", *other_kinds)
    imported = import_checkpoint(file, loaded_spec.graph, names.rules, names.entry)
    source = CheckpointSource(
        file.name, regular_files.hash_file(file), file_kinds.has_checksums(file)
    )
    origin = {
        weights.SPEC_KEY: loaded_spec.name,
        # What the names are of, and where the numbers came from: a manifest repeats it.
        "tcc.digest": loaded_spec.digest,
        "tcc.source": file.name,
    }
    weights.write(output, imported.weights, origin)
    doubts = (
        [_describe_pixel_mismatch(loaded_spec, names.settings or (), imported.pixels)]
        if imported.pixels
        else []
    )
    _print_tensors(report, imported, output)
    report.print_note(str(source))
    for warning in doubts:
        report.warn_text(warning)
    report.print_document(
        _describe_tensors(imported, output, doubts) | {"checkpoint": asdict(source)}
    )


def _print_tensors(report: Report, imported: "ImportedWeights", output: Path) -> None:
    if not report.quiet:
        rows = [
            (row.source, row.name, "x".join(map(str, row.shape)) or "scalar", row.how)
            for row in imported.rows
        ]
        report.print_table(("checkpoint", "spec", "shape", "how"), rows)
        report.print_text("")
    for note in imported.notes:
        report.print_note(f"note: {note}")
    report.print_text(str(output))


def _describe_tensors(
    imported: "ImportedWeights", output: Path, doubts: Sequence[str]
) -> dict[str, Any]:
    rows = [asdict(row) for row in imported.rows]
    return {"output": str(output), "tensors": rows, "notes": [*imported.notes, *doubts]}


def _describe_pixel_mismatch(spec: "Spec", settings: Sequence[str], scaling: "PixelScaling") -> str:
    """Say that weights may be for other pixels than the spec's, and how the spec takes theirs."""
    preprocess = spec.graph.inputs[0].preprocess
    assert preprocess is not None
    scale = {"255": "255", "max": "the image's largest value"}[preprocess.scale]
    statistics = f"mean: {list(scaling.mean)}, std: {list(scaling.std)}"
    setting = _find_setting(spec, settings, scaling)
    if setting:
        remedy = f"for those, import and build with `--set {setting}`"
    else:
        remedy = f"for those, write `{statistics}` in the spec's `preprocess`, with `color: rgb`"
    return (
        f"torchvision's own weights of these names are for RGB pixels divided by 255, {statistics};"
        f" this spec gives {preprocess.color} divided by {scale}, mean: {list(preprocess.mean)},"
        f" std: {list(preprocess.std)}: {remedy}"
    )


def _find_setting(spec: "Spec", settings: Sequence[str], scaling: "PixelScaling") -> str | None:
    """Return the setting of an enum with which the spec gives a network such pixels."""
    current_settings = parse_settings(settings)
    for name, choices in spec.choices.items():
        for choice in choices:
            # Other values of an enum may not compile with the settings that are given; then they
            # are no remedy.
            with suppress(UserError):
                variant = spec.recompile({**current_settings, name: choice})
                if scaling.matches(variant.graph.inputs[0].preprocess):
                    return f"{name}={choice}"
    return None


def _check_replaceable(path: Path) -> str | None:
    """Let weights that an earlier import wrote be replaced, and nothing else."""
    from tcc.compiler.data import safetensors_file, weights

    try:
        # A user's own checkpoint may be called weights.safetensors as well.
        is_own = weights.SPEC_KEY in safetensors_file.open_safetensors(path).metadata
    except UserError:
        is_own = False
    return (
        None
        if is_own or not path.stat().st_size
        else "it is there already, and not by `tcc import`"
    )
