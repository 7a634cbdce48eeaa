"""Diagnose a path that is no bundle (E0620): what it is instead, and what the user can do."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tcc.compiler.bundle import manifest
from tcc.compiler.support import file_kinds, image_folders, regular_files
from tcc.compiler.support.diagnostics import (
    MAX_LISTED,
    UserError,
    fail,
    find_nearest_name,
    make_file_span,
)
from tcc.compiler.zoo import shipped

MAX_ENTRIES = 1000
"""Most entries of a folder that are examined."""
DEFAULT_OUT = "build"
"""Default output folder of `tcc build`."""
BUILD = "name the folder that `tcc build` wrote"


def build_missing_error(path: Path) -> UserError:
    """Return the error E0620 for a path that is no bundle, with what it is and what to do."""
    label, help = _describe(path)
    return fail(
        "E0620", "there is no bundle here", make_file_span(str(path)), label=label, help=help
    )


def list_bundles(folder: Path) -> list[Path]:
    """Return the bundles in a folder and in its subfolders, sorted."""
    inner = [child for child in _list_folder(folder) if os.path.isdir(child)]
    nested = [below for child in inner if not is_bundle(child) for below in _list_folder(child)]
    return sorted(filter(is_bundle, [*inner, *nested]))


def is_bundle(folder: Path) -> bool:
    """Whether a folder has a manifest."""
    # `Path.is_file` raises if a name is too long for the system.
    return os.path.isfile(folder / manifest.NAME)


def _describe(path: Path) -> tuple[str, str]:
    """Return what a path is, and what to do."""
    outer = next((parent for parent in path.parents if is_bundle(parent)), None)
    if outer and os.path.exists(path):
        return "it is part of a bundle", f"name the bundle's folder, `{outer}`"
    if os.path.isdir(path):
        return _describe_folder(path)
    if os.path.isfile(path):
        return _describe_file(path)
    if os.path.lexists(path):
        return "it is not a folder", _list_near(path)
    if str(path) in {*shipped.list_specs(), *(file.parent.name for file in shipped.list_trained())}:
        return "it is the name of a known network, not a bundle", _build_first(path, str(path))
    return "it does not exist", _list_near(path)


def _describe_file(path: Path) -> tuple[str, str]:
    try:
        with regular_files.open_file(path) as file:
            kind = file_kinds.detect_kind(path, file.read(file_kinds.HEAD_BYTES))
    except OSError:
        kind = None
    if kind is not file_kinds.SPEC:
        return f"it is {kind.name if kind else 'a file'}, not a folder", _list_near(path)
    return "it is a spec, not a bundle", _build_first(path, path.stem)


def _build_first(path: Path, name: str) -> str:
    nearby = [bundle for bundle in _find_nearby(path) if bundle.name.startswith(f"{name}-")]
    names = f", or name what it wrote: {_list(nearby)}" if nearby else ""
    return f"build it first: `tcc build {path}`{names}"


def _describe_folder(folder: Path) -> tuple[str, str]:
    if inner := list_bundles(folder):
        count = "one bundle" if len(inner) == 1 else f"{len(inner)} bundles"
        return f"this folder contains {count}", f"name one: {_list(inner)}"
    children = list(_list_folder(folder))
    if not children:
        return "the folder is empty", "`tcc init` starts a project; `tcc build` writes bundles"
    return _describe_contents(folder, children)


def _describe_contents(folder: Path, children: list[Path]) -> tuple[str, str]:
    if folder / "tcc.toml" in children:
        return "it is a project without bundles", "run `tcc build` in this folder"
    if specs := sorted(child for child in children if child.suffix in (".yaml", ".yml")):
        return "it has specs but no bundle", f"build one first: `tcc build {specs[0]}`"
    if weights := next((e for e in children if e.suffix == ".safetensors"), None):
        return "it has weights but no bundle", f"build one: `tcc build SPEC --weights {weights}`"
    if any(child.suffix.lower() in image_folders.READ_SUFFIXES for child in children):
        return "it has images but no bundle", f"{BUILD}, and the images after it"
    return f"it has no {manifest.NAME}", BUILD


def _find_nearby(path: Path) -> list[Path]:
    """Return bundles that the user may mean: near a path, and in the default folder there."""
    nearby = [*list_bundles(path.parent), *list_bundles(path.parent / DEFAULT_OUT)]
    return list(dict.fromkeys(nearby))


def _list_near(path: Path) -> str:
    nearby = _find_nearby(path)
    if not nearby:
        return f"{BUILD}; `tcc init` starts a project"
    name = find_nearest_name(path.name, {bundle.name for bundle in nearby})
    bundles = [bundle for bundle in nearby if bundle.name == name] or nearby
    return f"did you mean `{bundles[0]}`?" if name else f"name a bundle: {_list(nearby)}"


def _list(paths: list[Path]) -> str:
    suffix = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return f"{', '.join(f'`{path}`' for path in paths[:MAX_LISTED])}{suffix}"


def _list_folder(folder: Path) -> Iterator[Path]:
    """Yield the visible entries of a folder, up to `MAX_ENTRIES`; none if it cannot be read."""
    try:
        with os.scandir(folder) as children:
            names = [child.name for child in islice(children, MAX_ENTRIES)]
    except (OSError, ValueError):
        return
    # Hidden entries are not the user's, such as bundles that are being written.
    yield from (folder / name for name in names if not name.startswith("."))
