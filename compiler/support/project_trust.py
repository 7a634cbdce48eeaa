"""Whose project files are obeyed: those that only the user and root can change.

A project file chooses weights and where a build is written. One of another user, in a folder that
both work below, would choose them too. Git guards its own in the same way (`safe.directory`).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tcc.compiler.support import trust_list, user_folders
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, whole_file


def check_file(path: Path) -> None:
    """Refuse a project file that others can change.

    Raises:
        UserError: They can (E1361), and the user does not trust its folder.
    """
    folder = path.parent
    reason = user_folders.exposure(folder)
    if not reason and os.path.isfile(path):  # what is no file is refused when it is read
        reason = user_folders.exposure(path)
    if reason and not _is_trusted(folder):
        message = "this project file is not obeyed: others than you can change it"
        help = (
            f"work in another folder, or begin a project of your own with `tcc init`; if you trust "
            f"whoever writes here: `tcc trust folder {folder.absolute()}`"
        )
        raise fail("E1361", message, whole_file(str(path)), label=reason, help=help)


def check_paths(
    named: Mapping[str, Path], out: Path | None, path: Path, places: Mapping[str, Span]
) -> None:
    """Refuse paths of a project file that lead where it may not lead.

    Args:
        named: What it has commands read, by its keys.
        out: The folder that it has them write to.
        path: The project file.
        places: Where its keys stand.

    Raises:
        UserError: `out` lies outside the project (E1362), or others can change what is read
            (E1363).
    """
    problems = []
    if out is not None and not _is_inside(out, path.parent):
        message = "`out` leads out of the project's folder"
        at, label = places.get("out", whole_file(str(path))), str(os.path.realpath(out))
        help = "choose a folder inside; a folder elsewhere is typed: --output DIR"
        problems.append(Diagnostic("E1362", message, at, label=label, help=help))
    for key, target in named.items():
        reason = user_folders.exposure(target)
        if reason and not _is_trusted(path.parent):
            message = f"others than you can change what `{key}` names"
            at = places.get(key, whole_file(str(path)))
            help = f"remove the line and type {_OPTIONS[key]}, or copy it to a folder of yours"
            problems.append(Diagnostic("E1363", message, at, label=reason, help=help))
    if problems:
        raise UserError(tuple(problems))


_OPTIONS: Mapping[str, str] = {
    "spec": "`tcc COMMAND SPEC`",
    "weights": "--weights FILE",
    "data": "--data DIR",
}


def _is_inside(target: Path, folder: Path) -> bool:
    """Whether a path is below a folder, or the folder itself, once links are followed."""
    place = Path(os.path.realpath(target))
    return place.is_relative_to(os.path.realpath(folder))


def _is_trusted(folder: Path) -> bool:
    return os.path.realpath(folder) in trust_list.read().folders
