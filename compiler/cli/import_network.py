"""`tcc import`: an ONNX classifier as a spec with weights, or a checkpoint as weights of a spec."""

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
    """A checkpoint file: its name, its SHA-256, and whether it contains checksums."""

    file: str
    sha256: str
    checksums: bool

    def __str__(self) -> str:
        """Return name and SHA-256 as in `sha256sum`, and how the file's integrity was checked."""
        integrity = (
            "the checksums of the data that was read are correct"
            if self.checksums
            else (
                "the format has no checksums; compare the SHA-256 with the one that the "
                "source publishes"
            )
        )
        return f"checkpoint: {self.file}, SHA-256 {self.sha256}; {integrity}"


class Color(StrEnum):
    """The channel order of an image."""

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


class Divisor(StrEnum):
    """The divisor of an image's values."""

    FULL = "255"
    MAX = "max"


class Mode(StrEnum):
    """How an image is resized to the input's size."""

    STRETCH = "stretch"
    COVER = "cover"
    NONE = "none"


ImportedFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="An ONNX file. With --spec: a checkpoint (a PyTorch state dict or safetensors file).",
    ),
]
SpecOption = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="SPEC",
        show_default=False,
        help="Import a checkpoint as weights of this spec: a file, or the name of a known spec.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="Spec to write, `.yaml` or `.json`; default: named after the file. With --spec: "
        "weights to write; default: weights.safetensors.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights to write. Default: weights.safetensors next to the spec.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name", show_default=False, help="Name of the network. Default: the file's name."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="A,B,...", show_default=False, help="The classes, in order."),
]
Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="C,H,W",
        show_default=False,
        help="Size of the input, if the file does not fix it.",
    ),
]
Until = Annotated[
    list[str] | None,
    typer.Option(
        "--until",
        metavar="NAME",
        show_default=False,
        help="End the network after this value and make it an output. Can be repeated.",
    ),
]
Colors = Annotated[
    Color | None,
    typer.Option("--color", show_default=False, help="Preprocessing: channel order."),
]
Resize = Annotated[
    Mode | None,
    typer.Option("--resize", show_default=False, help="Preprocessing: how images are resized."),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="M,...",
        show_default=False,
        help="Preprocessing: mean of each channel, subtracted after the division by --scale.",
    ),
]
Scales = Annotated[
    Divisor | None,
    typer.Option(
        "--scale",
        show_default=False,
        help="Preprocessing: divide the values by 255, or by the image's largest value.",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="S,...",
        show_default=False,
        help="Preprocessing: standard deviation of each channel.",
    ),
]
Flat = Annotated[
    bool, typer.Option("--flat", help="Write every step; do not combine steps with `repeat`.")
]


@dataclass(frozen=True)
class CheckpointOptions:
    """Which tensors of a checkpoint are used, and their names in the spec."""

    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            show_default=False,
            help="With --spec: rules that map the checkpoint's names to the spec's.",
        ),
    ] = None
    entry: Annotated[
        str | None,
        typer.Option(
            "--entry",
            metavar="NAME",
            show_default=False,
            help="With --spec: the part of the checkpoint to use, such as `model_ema`, if it "
            "has several.",
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
    """Convert an ONNX classifier to a spec, or a checkpoint to weights.

    The spec is run to check that it computes the same outputs as the ONNX file. A file that a spec
    cannot express is refused. With --spec, every tensor is listed with its name in the spec; an
    ambiguous tensor is refused.
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
    """Convert a checkpoint to weights of a spec: the former name of `tcc import --spec`."""
    _import_weights(report, spec, file, output or DEFAULT_WEIGHTS, checkpoint)


def _import(
    report: Report, model: Path, options: "ImportOptions", output: Path | None, weights_path: Path
) -> None:
    """Import a file into a new spec and new weights, and report how each operator was imported."""
    from tcc.compiler.data import weights as tensors
    from tcc.compiler.importers.onnx_import import import_onnx
    from tcc.compiler.support import atomic_files

    # Check this before the import, which can take a minute: existing files are not replaced.
    for path in (output or Path(f"{model.stem}.yaml"), weights_path):
        atomic_files.check_target(path, atomic_files.refuse_replacing)
    imported = import_onnx(model, options)
    spec = output or Path(f"{model.stem}{imported.suffix}")
    if imported.suffix == ".json" and spec.suffix != ".json":
        size = len(imported.text.encode())
        message = f"this spec is too large for YAML: it has {size:,} bytes as JSON"
        help = f"write it as JSON: --output {spec.with_suffix('.json')}"
        raise fail("E0601", message, make_command_span(f"--output {spec}"), help=help)
    # The default name of a large spec is only known now.
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
    # The missing preprocessing is among the notes already.
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
        "on random inputs, the outputs of the spec and the file differ by at most "
        f"{imported.difference:.2g} of the largest value"
    )
    report.print_text("\n".join(map(str, paths)))


def _list_cautions(graph: "Graph", preprocess: "PreprocessOptions | None") -> Iterator[str]:
    """Yield warnings about preprocessing, which an ONNX file does not contain."""
    from tcc.compiler.ops import BatchNorm, Scale, ScaleShift

    network_input = graph.inputs[0]
    if preprocess is None:
        yield (
            "an ONNX file does not contain the preprocessing: add the `preprocess` of "
            f"the training to the input `{network_input.name}`, or predictions will be wrong"
        )
    # Some exporters put mean and standard deviation into the graph. Applied twice, they make
    # predictions wrong without an error.
    if any(
        isinstance(n.op, BatchNorm | Scale | ScaleShift) for n in graph.readers[network_input.name]
    ):
        yield (
            "the network begins with a scaling of its input, which may already apply mean "
            "and std: if so, leave them out of `preprocess`"
        )


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
            "E0601",
            "this is not a valid name of a network",
            make_command_span(f"--name {name}"),
            help=help,
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
        raise fail("E0601", f"`{option}` takes numbers{above}, separated by commas", at, help=help)
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
    raise fail(
        "E0601",
        "a shape is three positive integers C,H,W",
        make_command_span(f"--shape {text}"),
        help=help,
    )


def _create_preprocess(
    color: Color | None,
    resize: Mode | None,
    scale: Divisor | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> "PreprocessOptions | None":
    """Return the preprocessing options; the defaults are rgb and stretching."""
    from tcc.compiler.importers.onnx_import import PreprocessOptions

    if color is None and resize is None and scale is None and not mean and not std:
        return None
    layout = (color or Color.RGB).value, (resize or Mode.STRETCH).value
    return PreprocessOptions(*layout, mean, std, (scale or Divisor.FULL).value)


def _import_weights(
    report: Report, spec: str, file: Path, output: Path, names: CheckpointOptions
) -> None:
    """Write the tensors of a checkpoint under a spec's names, and list how each was imported."""
    choice = choose_spec(spec, names.settings)
    report_project(report, choice)
    loaded_spec = choice.spec

    from tcc.compiler.data import weights
    from tcc.compiler.importers.checkpoint import import_checkpoint
    from tcc.compiler.support import atomic_files, file_kinds, regular_files

    # Check this before the checkpoint is read, which can take long.
    atomic_files.check_target(output, _check_replaceable)
    # Report an ONNX file or an image by its kind, with the command for it.
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
        # The network of the names, and the source of the weights. The manifest records both.
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
    """Warn that weights may need another pixel scaling than the spec's."""
    preprocess = spec.graph.inputs[0].preprocess
    assert preprocess is not None
    scale = {"255": "255", "max": "the image's largest value"}[preprocess.scale]
    statistics = f"mean: {list(scaling.mean)}, std: {list(scaling.std)}"
    setting = _find_setting(spec, settings, scaling)
    if setting:
        remedy = f"if you use those weights, import and build with `--set {setting}`"
    else:
        remedy = (
            f"if you use those weights, write `{statistics}` in the spec's `preprocess`, "
            "with `color: rgb`"
        )
    return (
        "torchvision's weights with these names expect RGB pixels divided by 255, "
        f"{statistics}; this spec has {preprocess.color} pixels divided by {scale}, "
        f"mean: {list(preprocess.mean)}, std: {list(preprocess.std)}; {remedy}"
    )


def _find_setting(spec: "Spec", settings: Sequence[str], scaling: "PixelScaling") -> str | None:
    """Return the setting of an enum that gives the network this pixel scaling."""
    current_settings = parse_settings(settings)
    for name, choices in spec.choices.items():
        for choice in choices:
            # Other values of an enum may not compile with the given settings. Then they are no
            # remedy.
            with suppress(UserError):
                variant = spec.recompile({**current_settings, name: choice})
                if scaling.matches(variant.graph.inputs[0].preprocess):
                    return f"{name}={choice}"
    return None


def _check_replaceable(path: Path) -> str | None:
    """Allow replacing only weights that an earlier import wrote."""
    from tcc.compiler.data import safetensors_file, weights

    try:
        # A user's checkpoint can have the name weights.safetensors too.
        is_own = weights.SPEC_KEY in safetensors_file.open_safetensors(path).metadata
    except UserError:
        is_own = False
    return (
        None
        if is_own or not path.stat().st_size
        else "it exists already, and `tcc import` did not write it"
    )
