"""`tcc import-weights`: a foreign checkpoint under the spec's names."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Settings, Verbose
from tcc.compiler.driver.chosen_spec import choose, parsed, tell_project
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import UserError

if TYPE_CHECKING:
    from tcc.compiler.foreign.checkpoint import ImportedWeights
    from tcc.compiler.foreign.checkpoint.naming_schemes import PixelScaling
    from tcc.compiler.frontend.spec import Spec


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


SpecName = Annotated[
    str, typer.Argument(metavar="SPEC", help="A spec file or the name of a known spec.")
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="A PyTorch state dict or safetensors file.")
]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules", metavar="FILE", show_default=False, help="Which foreign name is which of ours."
    ),
]
EntryName = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME",
        show_default=False,
        help="Which part of the checkpoint to take, such as `model_ema`, where there are several.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The weights file to write.")
]


def import_weights(
    spec: SpecName,
    checkpoint: Checkpoint,
    rules: Rules = None,
    entry: EntryName = None,
    output: Output = Path("weights.safetensors"),
    settings: Settings = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring a checkpoint under a spec's names.

    Every tensor is listed with what it became; nothing is guessed where two would fit.
    """
    report = Report(json, quiet, verbose)
    choice = choose(spec, settings)
    tell_project(report, choice)
    chosen = choice.spec

    from tcc.compiler.data import weights
    from tcc.compiler.foreign.checkpoint import import_checkpoint
    from tcc.compiler.support import atomic_files, file_kinds, regular_files

    # Before the checkpoint is read, which may take a while: a file that must not be replaced is
    # told at once.
    atomic_files.check_target(output, _written_by_us)
    # An ONNX file or an image in place of a checkpoint is called what it is, with what takes it.
    others = (k for k in file_kinds.KINDS if k not in (file_kinds.PYTORCH, file_kinds.SAFETENSORS))
    file_kinds.refuse(checkpoint, "E0510", "a checkpoint", *others)
    found = import_checkpoint(checkpoint, chosen.graph, rules, entry)
    source = CheckpointSource(
        checkpoint.name, regular_files.hash_file(checkpoint), file_kinds.has_checksums(checkpoint)
    )
    origin = {
        weights.SPEC_KEY: chosen.name,
        # What the names are of, and where the numbers came from: a manifest repeats it.
        "tcc.digest": chosen.digest,
        "tcc.source": checkpoint.name,
    }
    weights.write(output, found.weights, origin)
    doubts = [_pixels(chosen, settings or (), found.pixels)] if found.pixels else []
    _print(report, found, output)
    report.note(str(source))
    for doubt in doubts:
        report.notice(doubt)
    report.document(_document(found, output, doubts) | {"checkpoint": asdict(source)})


def _print(report: Report, found: "ImportedWeights", output: Path) -> None:
    if not report.quiet:
        rows = [
            (row.source, row.name, "x".join(map(str, row.shape)) or "scalar", row.how)
            for row in found.rows
        ]
        report.table(("checkpoint", "spec", "shape", "how"), rows)
        report.text("")
    for note in found.notes:
        report.note(f"note: {note}")
    report.text(str(output))


def _document(found: "ImportedWeights", output: Path, doubts: Sequence[str]) -> dict[str, Any]:
    rows = [asdict(row) for row in found.rows]
    return {"output": str(output), "tensors": rows, "notes": [*found.notes, *doubts]}


def _pixels(spec: "Spec", settings: Sequence[str], wanted: "PixelScaling") -> str:
    """Say that weights may be for other pixels than the spec's, and how the spec takes theirs."""
    given = spec.graph.inputs[0].preprocess
    assert given is not None
    scale = {"255": "255", "max": "the image's largest value"}[given.scale]
    values = f"mean: {list(wanted.mean)}, std: {list(wanted.std)}"
    setting = _setting(spec, settings, wanted)
    if setting:
        remedy = f"for those, import and build with `--set {setting}`"
    else:
        remedy = f"for those, write `{values}` in the spec's `preprocess`, with `color: rgb`"
    return (
        f"torchvision's own weights of these names are for RGB pixels divided by 255, {values};"
        f" this spec gives {given.color} divided by {scale}, mean: {list(given.mean)},"
        f" std: {list(given.std)}: {remedy}"
    )


def _setting(spec: "Spec", settings: Sequence[str], wanted: "PixelScaling") -> str | None:
    """Return the setting of an enum with which the spec gives a network such pixels."""
    now = parsed(settings)
    for name, values in spec.choices.items():
        for value in values:
            # Other values of an enum may not compile with the settings that are given; then they
            # are no remedy.
            with suppress(UserError):
                other = spec.again({**now, name: value})
                if wanted.fit(other.graph.inputs[0].preprocess):
                    return f"{name}={value}"
    return None


def _written_by_us(path: Path) -> str | None:
    """Let weights that an earlier import wrote be replaced, and nothing else."""
    from tcc.compiler.data import safetensors_file, weights

    try:
        # A user's own checkpoint may be called weights.safetensors as well.
        ours = weights.SPEC_KEY in safetensors_file.read(path).metadata
    except UserError:
        ours = False
    return (
        None
        if ours or not path.stat().st_size
        else "it is there already, and not by `tcc import-weights`"
    )
