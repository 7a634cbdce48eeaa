"""What `tcc show` shows of a bundle: what it says of itself, and its graph."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tcc.compiler.cli.common_options import typed
from tcc.compiler.cli.passes import PassOptions
from tcc.compiler.cli.report import printable, size
from tcc.compiler.cli.show_options import GraphFormat, ShowOptions, ShowResult
from tcc.compiler.support.diagnostics import fail

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import Manifest


MAX_BYTES = 1 << 26
"""Most bytes of a graph's text that are shown."""


def bundle_folder(name: str | None) -> Path | None:
    """Return the folder that a user means, if it is a bundle's and not a spec.

    Raises:
        UserError: It is a folder, and neither a bundle nor the name of a known spec (E0620).
    """
    from tcc.compiler.support import atomic_files

    if not name:
        return None
    folder = Path(name)
    if not (os.path.isfile(folder) or _has_manifest(folder)):
        atomic_files.recover(folder)  # it waits for whoever replaces the folder
    if _has_manifest(folder):
        return folder
    if os.path.isdir(folder) and not _is_known(name):
        from tcc.compiler.bundle import mistaken_paths

        raise mistaken_paths.no_bundle(folder)
    return None


def _is_known(name: str) -> bool:
    from tcc.compiler.zoo import shipped, trained

    return name in shipped.specs() or trained.named(name) is not None


def _has_manifest(folder: Path) -> bool:
    # Not `Path.is_file`, which raises where a name is too long for the system.
    return os.path.isfile(folder / "manifest.json")


def of_bundle(folder: Path, wanted: ShowOptions) -> ShowResult:
    """Return what a bundle says of itself, before the graph of one stage.

    Raises:
        UserError: It is no whole bundle, or has no such stage.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.cli import devices
    from tcc.compiler.support import json_records, regular_files

    found = bundle_folder.read(folder, devices.precision, devices.signature_policy())
    listed = [PurePosixPath(file.path) for file in found.manifest.files]
    graphs = [
        path for path in listed if str(path.parent) == bundle_folder.GRAPH and path.suffix == ".txt"
    ]
    own = [path for path in graphs if path.stem == wanted.stage]
    if wanted.format is not GraphFormat.TEXT or wanted.passing != PassOptions() or not own:
        stages = " and ".join(sorted(path.stem for path in graphs))
        message = f"a bundle holds its graph as text of the stages {stages}"
        raise fail("E0601", message, typed(str(folder)), help="show the spec itself")
    with regular_files.opened(folder / own[0]) as stream:
        graph = printable(stream.read(MAX_BYTES).decode(errors="replace"))
    summary = "".join(f"# {line}\n" for line in _summary(found.manifest))
    return ShowResult(f"{summary}{graph}".encode(), json_records.encode(found.manifest))


def _summary(about: "Manifest") -> Iterator[str]:
    yield f"{about.model.name} for {about.target} at {about.precision}"
    yield f"spec {about.model.spec}"
    yield f"weights {about.weights.digest}"
    if not about.weights.notice:
        yield f"weights from {about.weights.file}"
    yield from about.notices
    yield f"input {about.input.name}: {'x'.join(map(str, about.input.shape))} {about.input.dtype}"
    for output in about.outputs:
        shape = "x".join(map(str, output.shape))
        labels = f": {', '.join(output.labels)}" if output.labels else ""
        meaning = f"{output.activation}, {output.kind}{labels}"
        yield f"output {output.name}: {shape} {output.dtype}, {meaning}"
    yield f"made with {', '.join(f'{k} {v}' for k, v in about.made_with.items())}"
    yield f"{len(about.files)} files, {size(sum(file.bytes for file in about.files))}"
