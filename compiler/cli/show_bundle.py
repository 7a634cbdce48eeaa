"""What `tcc show` prints of a bundle: its summary and its graph."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tcc.compiler.cli.show_options import GraphFormat, ShowOptions, ShowResult
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.support.console import format_bytes, replace_unprintable
from tcc.compiler.support.diagnostics import fail, make_command_span

if TYPE_CHECKING:
    from tcc.compiler.bundle.manifest import Manifest


MAX_BYTES = 1 << 26
"""Most bytes of a graph's text that are shown."""


def render_bundle(folder: Path, options: ShowOptions) -> ShowResult:
    """Return the summary of a bundle and the graph of one stage.

    Raises:
        UserError: The bundle is incomplete, or has no such stage.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.support import json_records, regular_files
    from tcc.compiler.targets import devices

    bundle = bundle_folder.read_bundle(
        folder, devices.find_precision, devices.create_signature_policy()
    )
    paths = [PurePosixPath(file.path) for file in bundle.manifest.files]
    graphs = [
        path for path in paths if str(path.parent) == bundle_folder.GRAPH and path.suffix == ".txt"
    ]
    stage_graphs = [path for path in graphs if path.stem == options.stage]
    if (
        options.format is not GraphFormat.TEXT
        or options.pass_options != PassOptions()
        or not stage_graphs
    ):
        stages = " and ".join(sorted(path.stem for path in graphs))
        message = f"a bundle contains its graph only as text, of the stages {stages}"
        raise fail(
            "E0601",
            message,
            make_command_span(str(folder)),
            help="show the spec instead, or choose one of these stages with --stage",
        )
    with regular_files.open_file(folder / stage_graphs[0]) as stream:
        graph = replace_unprintable(stream.read(MAX_BYTES).decode(errors="replace"))
    summary = "".join(f"# {line}\n" for line in _summarize(bundle.manifest))
    return ShowResult(f"{summary}{graph}".encode(), json_records.encode(bundle.manifest))


def _summarize(manifest: "Manifest") -> Iterator[str]:
    yield f"{manifest.model.name} for {manifest.target} at {manifest.precision}"
    yield f"spec {manifest.model.spec}"
    yield f"weights {manifest.weights.digest}"
    if not manifest.weights.notice:
        yield f"weights from {manifest.weights.file}"
    yield from manifest.notices
    yield (
        f"input {manifest.input.name}: {'x'.join(map(str, manifest.input.shape))} "
        f"{manifest.input.dtype}"
    )
    for output in manifest.outputs:
        shape = "x".join(map(str, output.shape))
        labels = f": {', '.join(output.labels)}" if output.labels else ""
        meaning = f"{output.activation}, {output.kind}{labels}"
        yield f"output {output.name}: {shape} {output.dtype}, {meaning}"
    yield f"made with {', '.join(f'{k} {v}' for k, v in manifest.made_with.items())}"
    yield f"{len(manifest.files)} files, {format_bytes(sum(file.bytes for file in manifest.files))}"
