"""The project file `tcc.toml`: defaults for what a command line leaves out.

It lies in the working directory or above it, up to the root of the repository. Its relative paths
start from its own folder. It is obeyed where only the user and root can change it.

    spec = "spec/ddsnet.yaml"      # a path, or the name of a spec of the package
    weights = "weights.safetensors"
    data = "images"
    targets = ["arm-a7"]
    precision = "fp32"
    out = "build"                  # inside the project
    require_signature = true       # a bundle without a signature is refused

    [params]                       # of that spec, as with --set, which goes before it
    classes = 5

`weights` and `params` belong to `spec`: they hold when it is the spec that is compiled.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.support import regular_files, trust_list, user_folders
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    nearest,
    whole_file,
)

NAME = "tcc.toml"
MAX_BYTES = 1 << 16
"""Largest project file that is read."""
MAX_DEPTH = 64
"""How many folders up a project file is looked for."""

REPOSITORY = ".git"
"""What a repository's root holds: above it no project file is looked for."""

_STRING, _STRINGS, _TABLE, _FLAG = "a string", "a list of strings", "a table", "true or false"
KEYS: Mapping[str, str] = {
    "spec": _STRING,
    "weights": _STRING,
    "data": _STRING,
    "targets": _STRINGS,
    "precision": _STRING,
    "out": _STRING,
    "require_signature": _FLAG,
    "params": _TABLE,
}
"""What a project file may say, and what kind of value each takes."""


@dataclass(frozen=True)
class Project:
    """What a project file says; without one, nothing. `params` hold text as `--set` takes it."""

    path: Path | None = None
    spec: str | None = None
    weights: Path | None = None
    data: Path | None = None
    targets: tuple[str, ...] = ()
    precision: str | None = None
    out: Path | None = None
    require_signature: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Span] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that the file's relative paths start from."""
        return self.path.parent if self.path else Path()

    @property
    def named_paths(self) -> Mapping[str, Path]:
        """The files and folders that it has commands read, by their keys."""
        # A spec may be the name of a known one: then no file of that name is there.
        spec = self.folder / self.spec if self.spec else None
        named = {"spec": spec, "weights": self.weights, "data": self.data}
        return {key: path for key, path in named.items() if path is not None}


def find(start: Path) -> Project:
    """Return the project of a folder: from its `tcc.toml`, or the nearest one above.

    Raises:
        UserError: The file cannot be read (E0610), is not TOML (E0611), has a key that is not
            known (E0612) or a value of the wrong kind (E0613); others than the user can change it
            (E1361) or what it names (E1363), or its `out` lies outside (E1362).
    """
    for folder in (start, *start.absolute().parents)[:MAX_DEPTH]:
        path = folder / NAME
        # os.path, which says no where a folder may not be looked into; Path.exists would raise.
        if os.path.lexists(path) and not os.path.isdir(path):
            check_file(path)
            project = parse(_text(path), path)
            check_paths(project.named_paths, project.out, path, project.places)
            return project
        if os.path.lexists(folder / REPOSITORY):
            break
    return Project()


def parse(text: str, path: Path) -> Project:
    """Return the project that the text of a project file says.

    Raises:
        UserError: As for `find`.
    """
    name = str(path)
    data = _toml(text, name)
    places = _places(text, name)
    problems = tuple(_problems(data, places, whole_file(name)))
    if problems:
        raise UserError(problems)
    folder = path.parent

    def below(key: str) -> Path | None:
        return folder / os.path.expanduser(data[key]) if key in data else None

    return Project(
        path=path,
        spec=os.path.expanduser(data["spec"]) if "spec" in data else None,
        weights=below("weights"),
        data=below("data"),
        targets=tuple(data.get("targets", ())),
        precision=data.get("precision"),
        out=below("out"),
        require_signature=data.get("require_signature", False),
        params={name: _word(value) for name, value in data.get("params", {}).items()},
        places=places,
    )


def _text(path: Path) -> str:
    data = regular_files.read_file(path, "read the project file", MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise fail("E0610", "the project file is too large", whole_file(str(path)))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise fail("E0610", "the project file is not UTF-8 text", whole_file(str(path))) from None


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise fail(
            "E0611", "the project file is not TOML", _at(text, name, str(error)), label=message
        ) from None
    except RecursionError:
        raise fail("E0611", "the project file is nested too deeply", whole_file(name)) from None


def _at(text: str, name: str, message: str) -> Span:
    """Return the place that tomllib's message ends with."""
    lines = text.splitlines() or [""]
    found = re.search(r"\(at line (\d+), column (\d+)\)$", message)
    line, column = map(int, found.groups()) if found else (len(lines), len(lines[-1]) + 1)
    line = min(line, len(lines))
    shown = lines[line - 1]
    return Span(name, line, min(column, len(shown) + 1), shown)


def _problems(
    data: Mapping[str, Any], places: Mapping[str, Span], whole: Span
) -> Iterator[Diagnostic]:
    for key, value in data.items():
        at = places.get(key, whole)
        if key not in KEYS:
            close = nearest(key, set(KEYS))
            help = f"did you mean `{close}`?" if close else f"known keys: {', '.join(KEYS)}"
            yield Diagnostic("E0612", f"the project file has no key `{key}`", at, help=help)
        elif not _fits(KEYS[key], value):
            label = f"this is {_kind(value)}"
            yield Diagnostic("E0613", f"`{key}` must be {KEYS[key]}", at, label=label)
    params = data.get("params")
    for key, value in params.items() if isinstance(params, dict) else ():
        if not _settable(value):
            at = places.get(f"params.{key}", whole)
            message = f"`{key}` must be a number, a string, true, false or a list of these"
            yield Diagnostic("E0613", message, at, label=f"this is {_kind(value)}")


def _fits(kind: str, value: Any) -> bool:
    match kind, value:
        case ("a string", str()):
            return bool(value) and "\0" not in value
        case ("a list of strings", list()):
            return bool(value) and all(isinstance(item, str) for item in value)
        case ("a table", dict()) | ("true or false", bool()):
            return True
    return False


def _settable(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_settable, value))
    return isinstance(value, bool | int | float | str)


def _word(value: Any) -> str:
    """Return a TOML value as the language writes it."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_word, value))}]"
    return str(value)


def _kind(value: Any) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "true or false"}
    names |= {int: "a whole number", float: "a number"}
    empty = "an empty " if value in ("", []) else ""
    kind = names.get(type(value), "a date or time")
    return empty + kind.removeprefix("a ") if empty else kind


def _places(text: str, name: str) -> dict[str, Span]:
    """Return where keys stand, which tomllib does not tell: `out`, `params.classes`."""
    found: dict[str, Span] = {}
    table = ""
    # A line of a longer text may look like a key: places are for messages alone, and the first
    # stays.
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.\"'-]+)\s*\]", line):
            table = header[1].strip("\"'")
            found.setdefault(table, _span(name, number, line, header, table))
            table += "."
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            path = table + key[1].strip("\"'")
            found.setdefault(path, _span(name, number, line, key, key[1]))
    return found


def _span(name: str, number: int, line: str, found: "re.Match[str]", word: str) -> Span:
    return Span(name, number, found.start(1) + 1, line, len(word))


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
