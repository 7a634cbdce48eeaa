"""`tcc init`: create a new project."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from tcc.compiler.cli.options import ReportOptions, split_words
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_command_span

NEXT = {
    "tcc check": "show the layers and their cost",
    "tcc show --format svg -o {name}.svg": "draw the network",
    "tcc train --data images": "train it; `images` needs one folder of images per class",
    "tcc build": "build it for ONNX Runtime, with random weights if it is not trained",
}
"""The next commands for a new project, and the purpose of each."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        show_default=False,
        help="Folder to create, and name of the network. Default: the current folder.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option("--labels", metavar="A,B,...", show_default=False, help="The classes, in order."),
]
Size = Annotated[
    int,
    typer.Option(
        "--size", metavar="N", min=8, max=4096, help="Height and width of the images, in pixels."
    ),
]


def init(
    name: Name = None,
    labels: Labels = None,
    size: Size = 64,
    *,
    report: ReportOptions,
) -> None:
    """Create a project: a small spec with comments, and a project file.

    No existing file is replaced.
    """
    folder = Path(name or "")
    network = _choose_name(name)
    classes = split_words("--labels", labels)
    if len(classes) == 1:
        help = "name at least two classes: a classifier with one class has no choice"
        raise fail(
            "E0601",
            "`--labels` needs two or more classes",
            make_command_span(f"--labels {labels}"),
            help=help,
        )

    from tcc.compiler.zoo import shipped

    files = shipped.build_starter_files(network, classes, size)
    file_contents = {folder / file: content for file, content in files.items()}
    _write(file_contents)
    steps = {command.format(name=network): purpose for command, purpose in NEXT.items()}
    report.print_text("\n".join(_format_summary(name, file_contents, steps)))
    report.print_document(
        {"name": network, "files": [str(path) for path in file_contents], "next": list(steps)}
    )


def _choose_name(name: str | None) -> str:
    """Return the name of the network: that of the folder.

    Raises:
        UserError: The argument is not a valid name of a network (E0601).
    """
    # The last part of the path, also for `..`, a trailing slash, or no argument.
    folder_name = os.path.basename(os.path.abspath(name or ""))
    if name is not None and (stem := _strip_spec_suffix(folder_name)):
        message = f"`tcc init` creates a folder, but `{folder_name}` is the name of a spec"
        folder = os.path.join(os.path.dirname(name), stem)
        help = f"`tcc init {folder}` creates {os.path.join(folder, folder_name)}"
        raise fail("E0601", message, make_command_span(f"init {name}"), help=help)
    if _NAME.fullmatch(folder_name):
        return folder_name
    if name is None:  # a folder can have any name
        return "net"
    help = "use letters, digits, `_`, `.` and `-`, and begin with a letter"
    raise fail(
        "E0601",
        "this is not a valid name of a network",
        make_command_span(f"init {name}"),
        help=help,
    )


def _strip_spec_suffix(name: str) -> str:
    """Return a name without the suffix of a spec; empty if it has none."""
    stem, end = os.path.splitext(name)
    return stem if end.lower() in (".yaml", ".yml", ".json") else ""


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all the files, or none of them.

    Raises:
        UserError: Some exist, all of which are listed (E0602), or the folder is not writable.
        MachineError: The disk is full or broken.
    """
    problems = [d for path in files for d in _find_problems(path)]
    if problems:
        raise UserError(tuple(problems))
    written_paths: list[Path] = []
    try:
        for path, content in files.items():
            # Check again: another process may have created the file.
            atomic_files.write_file(path, content, atomic_files.refuse_replacing)
            written_paths.append(path)
    # Also on Ctrl-C: the next run would refuse the existing files of half a project.
    except BaseException:
        for path in written_paths:
            path.unlink(missing_ok=True)
        raise


def _find_problems(path: Path) -> Iterator[Diagnostic]:
    try:
        atomic_files.check_target(path, atomic_files.refuse_replacing)
    except UserError as error:
        yield from error.diagnostics


def _format_summary(
    name: str | None, files: Mapping[Path, bytes], steps: Mapping[str, str]
) -> Iterator[str]:
    yield f"written: {', '.join(map(str, files))}"
    yield "\nnext:"
    if name is not None:
        yield f"  cd {name}"
    width = max(map(len, steps))
    yield from (f"  {command:{width}}  # {purpose}" for command, purpose in steps.items())
