"""`tcc import`: a foreign ONNX classifier as a spec with weights."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose, words
from tcc.compiler.support.console import Report, doubt
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import fail, typed, whole_file

if TYPE_CHECKING:
    from tcc.compiler.foreign.onnx_import import ImportedModel, ImportOptions, PreprocessOptions
    from tcc.compiler.ir.graph import Graph


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


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="The spec to write, `.yaml` or `.json`; named after the model otherwise.",
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


def import_(
    model: Model,
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
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn an ONNX classifier into a spec and weights.

    The spec computes what the file does, which is tried out; what it cannot say is refused.
    """
    report = Report(json, quiet, verbose)

    from tcc.compiler.foreign.onnx_import import ImportOptions

    wanted = ImportOptions(
        _checked_name(name),
        words("--labels", labels),
        _preprocess(color, resize, scale, _numbers("--mean", mean), _numbers("--std", std)),
        _size(shape),
        tuple(until or ()),
        not flat,
        json=output is not None and output.suffix == ".json",
    )
    folder = output.parent if output else Path()
    _import(report, model, wanted, output, weights or folder / "weights.safetensors")


def _import(
    report: Report, model: Path, wanted: "ImportOptions", output: Path | None, values: Path
) -> None:
    """Import a file into a new spec and new weights, and report what became of its operators."""
    from tcc.compiler.data import weights as tensors
    from tcc.compiler.foreign.onnx_import import import_onnx
    from tcc.compiler.support import atomic_files

    # Before the import, which may take a minute: no spec or weights of the user are replaced.
    for path in (output or Path(f"{model.stem}.yaml"), values):
        atomic_files.check_target(path, atomic_files.nothing)
    found = import_onnx(model, wanted)
    spec = output or Path(f"{model.stem}{found.suffix}")
    if found.suffix == ".json" and spec.suffix != ".json":
        size = len(found.text.encode())
        message = f"this spec is too large for YAML: it has {size:,} bytes as JSON"
        help = f"write it as JSON: --output {spec.with_suffix('.json')}"
        raise fail("E0601", message, typed(f"--output {spec}"), help=help)
    # The name of a large spec is known only now.
    atomic_files.check_target(spec, atomic_files.nothing)
    origin = {
        tensors.SPEC_KEY: found.spec.name,
        "tcc.digest": found.spec.digest,
        "tcc.source": model.name.encode(errors="replace").decode(),
    }
    tensors.write(values, found.weights, origin)
    atomic_files.write_file(spec, found.text.encode(), atomic_files.nothing)
    notes = (*found.notes, *_cautions(found.spec.graph, wanted.preprocess))
    _print(report, found, (spec, values))
    # That nothing makes an input of an image is among the notes, with what only the user can know.
    doubts = (w for w in found.spec.warnings if w.kind != "no-preprocess")
    doubt(tuple(replace(w, at=whole_file(str(spec))) for w in doubts))
    for note in notes:
        report.notice(note)
    report.document(_document(found, notes, spec, values))


def _print(report: Report, found: "ImportedModel", paths: tuple[Path, Path]) -> None:
    if not report.quiet:
        rows = [
            (r.node, r.types, r.path or "-", r.word or "-", "x".join(map(str, r.shape)) or "-")
            for r in found.rows
        ]
        report.table(("ONNX node", "operators", "step", "op", "output"), rows)
        report.text("")
    report.note(
        "on random inputs the outputs differ from the file's by at most "
        f"{found.difference:.2g} of the largest"
    )
    report.text("\n".join(map(str, paths)))


def _cautions(graph: "Graph", preprocess: "PreprocessOptions | None") -> Iterator[str]:
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


def _document(
    found: "ImportedModel", notes: tuple[str, ...], spec: Path, values: Path
) -> dict[str, Any]:
    return {
        "output": str(spec),
        "weights": str(values),
        "name": found.spec.name,
        "digest": found.spec.digest,
        "difference": found.difference,
        "notes": list(notes),
        "nodes": [asdict(row) for row in found.rows],
    }


def _checked_name(name: str | None) -> str:
    import re

    if name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        help = "use letters, digits, `_`, `.` and `-`"
        raise fail("E0601", "this is no name of a network", typed(f"--name {name}"), help=help)
    return name or ""


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    at = typed(f"{option} {text}")
    try:
        found = tuple(parse_float(word.strip()) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or (option == "--std" and min(found) <= 0):
        above = " above 0" if option == "--std" else ""
        help = f"such as {option} 0.485,0.456,0.406"
        raise fail("E0601", f"`{option}` takes numbers{above}", at, help=help)
    return found


def _size(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        channels, height, width = (parse_int(p.strip()) for p in text.replace("x", ",").split(","))
    except ValueError:
        channels = height = width = 0
    if min(channels, height, width) > 0 and max(channels, height, width) < 1 << 20:
        return channels, height, width
    help = "such as --shape 3,224,224"
    raise fail("E0601", "a shape is three numbers", typed(f"--shape {text}"), help=help)


def _preprocess(
    color: Color | None,
    resize: Mode | None,
    scale: Divisor | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> "PreprocessOptions | None":
    """Return what the user says of preprocessing; what is left open is rgb and stretching."""
    from tcc.compiler.foreign.onnx_import import PreprocessOptions

    if color is None and resize is None and scale is None and not mean and not std:
        return None
    first = (color or Color.RGB).value, (resize or Mode.STRETCH).value
    return PreprocessOptions(*first, mean, std, (scale or Divisor.FULL).value)
