"""What `tcc show` shows of a bundle: what it says of itself, and its graph."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.cli.options import typed
from tcc.compiler.cli.passes import Passing
from tcc.compiler.cli.report import size
from tcc.compiler.cli.shown import Format, Shown, Wanted
from tcc.compiler.source import fail

if TYPE_CHECKING:
    from tcc.compiler.manifest import Manifest


def bundle_folder(name: str | None) -> Path | None:
    """Return the folder that a user means, if it is a bundle's and not a spec."""
    from tcc.compiler import files

    if not name:
        return None
    folder = Path(name)
    if not (os.path.isfile(folder) or _has_manifest(folder)):
        files.recover(folder)  # it waits for whoever replaces the folder
    return folder if _has_manifest(folder) else None


def _has_manifest(folder: Path) -> bool:
    return os.path.isfile(folder / "manifest.json")


def of_bundle(folder: Path, wanted: Wanted) -> Shown:
    """Return what a bundle says of itself, before the graph of one stage.

    Raises:
        UserError: It is no whole bundle, or has no such stage.
    """
    from tcc.compiler import bundle, records

    found = bundle.read(folder)
    file = folder / bundle.GRAPH / f"{wanted.stage}.txt"
    if wanted.format is not Format.TEXT or wanted.passing != Passing() or not file.exists():
        stages = " and ".join(sorted(path.stem for path in file.parent.glob("*.txt")))
        message = f"a bundle holds its graph as text of the stages {stages}"
        raise fail("E0601", message, typed(str(folder)), help="show the spec itself")
    graph = file.read_text()
    summary = "".join(f"# {line}\n" for line in _summary(found.manifest))
    return Shown(f"{summary}{graph}".encode(), records.encode(found.manifest))


def _summary(about: "Manifest") -> Iterator[str]:
    yield f"{about.model.name} for {about.target} at {about.precision}"
    yield f"spec {about.model.spec}"
    yield f"weights {about.weights.digest}"
    yield about.weights.notice or f"weights from {about.weights.file}"
    yield f"input {about.input.name}: {'x'.join(map(str, about.input.shape))} {about.input.dtype}"
    for output in about.outputs:
        shape = "x".join(map(str, output.shape))
        labels = f": {', '.join(output.labels)}" if output.labels else ""
        yield f"output {output.name}: {shape} {output.dtype}, {output.activation}{labels}"
    yield f"made with {', '.join(f'{k} {v}' for k, v in about.made_with.items())}"
    yield f"{len(about.files)} files, {size(sum(file.bytes for file in about.files))}"
