"""What `tcc show` shows of a bundle: what it says of itself, and its graph."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tcc.compiler.cli.show_options import GraphFormat, ShowOptions, ShowResult
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.support.console import printable, size
from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import Manifest


MAX_BYTES = 1 << 26
"""Most bytes of a graph's text that are shown."""


def of_bundle(folder: Path, wanted: ShowOptions) -> ShowResult:
    """Return what a bundle says of itself, before the graph of one stage.

    Raises:
        UserError: It is no whole bundle, or has no such stage.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.support import json_records, regular_files
    from tcc.compiler.targets import devices

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
