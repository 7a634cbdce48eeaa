"""The project file `tcc.toml`: defaults for options that a command line leaves out.

It is in the working directory or above it, up to the root of the repository. Its relative paths
start from its own folder. It is used only if nobody except the user and root can change it.

    spec = "spec/ddsnet.yaml"      # a path, or the name of a spec of the package
    weights = "weights.safetensors"
    data = "images"
    targets = ["arm-a7"]
    precision = "fp32"
    out = "build"                  # inside the project
    require_signature = true       # bundles without a signature are refused

    [params]                       # of that spec, like --set, which takes precedence
    classes = 5

`weights` and `params` belong to `spec`: they apply when that spec is compiled.
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
    find_nearest_name,
    make_file_span,
)

FILE_NAME = "tcc.toml"
MAX_BYTES = 1 << 16
"""Largest project file that is read."""
MAX_DEPTH = 64
"""Number of folders, upwards, in which a project file is looked for."""

REPOSITORY_MARK = ".git"
"""The entry that marks a repository's root: no project file is looked for above it."""

_STRING, _STRINGS, _TABLE, _FLAG = "a string", "a list of strings", "a table", "true or false"
KEY_KINDS: Mapping[str, str] = {
    "spec": _STRING,
    "weights": _STRING,
    "data": _STRING,
    "targets": _STRINGS,
    "precision": _STRING,
    "out": _STRING,
    "require_signature": _FLAG,
    "params": _TABLE,
}
"""The keys of a project file, with the kind of value of each."""


@dataclass(frozen=True)
class Project:
    """The content of a project file, or empty defaults; `params` are texts as for `--set`."""

    path: Path | None = None
    spec: str | None = None
    weights: Path | None = None
    data: Path | None = None
    targets: tuple[str, ...] = ()
    precision: str | None = None
    out: Path | None = None
    require_signature: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    spans: Mapping[str, Span] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder in which the file's relative paths start."""
        return self.path.parent if self.path else Path()

    @property
    def named_paths(self) -> Mapping[str, Path]:
        """The files and folders that commands read because of it, by key."""
        # A spec may be the name of a known one: then there is no file of that name.
        spec = self.folder / self.spec if self.spec else None
        paths_by_key = {"spec": spec, "weights": self.weights, "data": self.data}
        return {key: path for key, path in paths_by_key.items() if path is not None}


def find_project(start: Path) -> Project:
    """Return the project of a folder, from its `tcc.toml` or the nearest one above.

    Raises:
        UserError: The file cannot be read (E0610), is not TOML (E0611), has an unknown key (E0612)
            or a value of the wrong kind (E0613); other users can change it (E1361) or the files it
            names (E1363), or its `out` is outside the project (E1362).
    """
    for folder in (start, *start.absolute().parents)[:MAX_DEPTH]:
        path = folder / FILE_NAME
        # os.path returns False if the folder is not accessible; Path.exists would raise.
        if os.path.lexists(path) and not os.path.isdir(path):
            check_file(path)
            project = parse(_read_text(path), path)
            check_paths(project.named_paths, project.out, path, project.spans)
            return project
        if os.path.lexists(folder / REPOSITORY_MARK):
            break
    return Project()


def parse(text: str, path: Path) -> Project:
    """Return the project that a project file's text defines.

    Raises:
        UserError: As for `find_project`.
    """
    name = str(path)
    table = _parse_toml(text, name)
    spans = _locate_keys(text, name)
    problems = tuple(_find_problems(table, spans, make_file_span(name)))
    if problems:
        raise UserError(problems)
    folder = path.parent

    def resolve_path(key: str) -> Path | None:
        return folder / os.path.expanduser(table[key]) if key in table else None

    return Project(
        path=path,
        spec=os.path.expanduser(table["spec"]) if "spec" in table else None,
        weights=resolve_path("weights"),
        data=resolve_path("data"),
        targets=tuple(table.get("targets", ())),
        precision=table.get("precision"),
        out=resolve_path("out"),
        require_signature=table.get("require_signature", False),
        params={name: _render_value(param) for name, param in table.get("params", {}).items()},
        spans=spans,
    )


def _read_text(path: Path) -> str:
    content = regular_files.read_file(path, "read the project file", MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        message = f"the project file is larger than {MAX_BYTES >> 10} KiB"
        raise fail("E0610", message, make_file_span(str(path)))
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise fail(
            "E0610",
            "the project file is not UTF-8 text",
            make_file_span(str(path)),
            help="save it as UTF-8",
        ) from None


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise fail(
            "E0611",
            "the project file is not TOML",
            _locate_error(text, name, str(error)),
            label=message,
        ) from None
    except RecursionError:
        raise fail("E0611", "the project file is nested too deeply", make_file_span(name)) from None


def _locate_error(text: str, name: str, message: str) -> Span:
    """Return the location that is at the end of tomllib's message."""
    lines = text.splitlines() or [""]
    location_match = re.search(r"\(at line (\d+), column (\d+)\)$", message)
    line, column = (
        map(int, location_match.groups()) if location_match else (len(lines), len(lines[-1]) + 1)
    )
    line = min(line, len(lines))
    source_line = lines[line - 1]
    return Span(name, line, min(column, len(source_line) + 1), source_line)


def _find_problems(
    table: Mapping[str, Any], spans: Mapping[str, Span], file_span: Span
) -> Iterator[Diagnostic]:
    for key, toml_value in table.items():
        at = spans.get(key, file_span)
        if key not in KEY_KINDS:
            nearest_key = find_nearest_name(key, set(KEY_KINDS))
            help = (
                f"did you mean `{nearest_key}`?"
                if nearest_key
                else f"known keys: {', '.join(KEY_KINDS)}"
            )
            yield Diagnostic("E0612", f"unknown key `{key}` in the project file", at, help=help)
        elif not _matches_kind(KEY_KINDS[key], toml_value):
            label = f"this is {_describe_kind(toml_value)}"
            yield Diagnostic("E0613", f"`{key}` must be {KEY_KINDS[key]}", at, label=label)
    params = table.get("params")
    for key, toml_value in params.items() if isinstance(params, dict) else ():
        if not _is_settable(toml_value):
            at = spans.get(f"params.{key}", file_span)
            message = f"`{key}` must be a number, a string, true, false or a list of these"
            yield Diagnostic("E0613", message, at, label=f"this is {_describe_kind(toml_value)}")


def _matches_kind(kind: str, toml_value: Any) -> bool:
    match kind, toml_value:
        case ("a string", str()):
            return bool(toml_value) and "\0" not in toml_value
        case ("a list of strings", list()):
            return bool(toml_value) and all(isinstance(member, str) for member in toml_value)
        case ("a table", dict()) | ("true or false", bool()):
            return True
    return False


def _is_settable(toml_value: Any) -> bool:
    if isinstance(toml_value, list):
        return all(map(_is_settable, toml_value))
    return isinstance(toml_value, bool | int | float | str)


def _render_value(toml_value: Any) -> str:
    """Return a TOML value in the syntax of specs."""
    match toml_value:
        case bool():
            return str(toml_value).lower()
        case list():
            return f"[{', '.join(map(_render_value, toml_value))}]"
    return str(toml_value)


def _describe_kind(toml_value: Any) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "true or false"}
    names |= {int: "a whole number", float: "a number"}
    empty = "an empty " if toml_value in ("", []) else ""
    kind = names.get(type(toml_value), "a date or time")
    return empty + kind.removeprefix("a ") if empty else kind


def _locate_keys(text: str, name: str) -> dict[str, Span]:
    """Return the spans of keys, such as `out` or `params.classes`; tomllib does not give them."""
    spans: dict[str, Span] = {}
    table = ""
    # A line of a multi-line string may look like a key. Spans are only for messages, and the
    # first one is kept.
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.\"'-]+)\s*\]", line):
            table = header[1].strip("\"'")
            spans.setdefault(table, _make_key_span(name, number, line, header, table))
            table += "."
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            path = table + key[1].strip("\"'")
            spans.setdefault(path, _make_key_span(name, number, line, key, key[1]))
    return spans


def _make_key_span(
    name: str, number: int, line: str, key_match: "re.Match[str]", key_text: str
) -> Span:
    return Span(name, number, key_match.start(1) + 1, line, len(key_text))


def check_file(path: Path) -> None:
    """Refuse a project file that other users can change.

    Raises:
        UserError: Others can change it (E1361), and the user does not trust its folder.
    """
    folder = path.parent
    reason = user_folders.find_exposure(folder)
    if not reason and os.path.isfile(path):  # anything else is refused when it is read
        reason = user_folders.find_exposure(path)
    if reason and not _is_trusted(folder):
        message = "this project file is not used: other users can change it"
        help = (
            f"work in another folder, or start your own project with `tcc init`; if you trust "
            f"everyone who can write here: `tcc trust folder {folder.absolute()}`"
        )
        raise fail("E1361", message, make_file_span(str(path)), label=reason, help=help)


def check_paths(
    read_paths: Mapping[str, Path], out: Path | None, path: Path, spans: Mapping[str, Span]
) -> None:
    """Refuse paths of a project file that it may not use.

    Args:
        read_paths: The files and folders that commands read because of it, by key.
        out: The folder to which commands write because of it.
        path: The project file.
        spans: The spans of its keys.

    Raises:
        UserError: `out` is outside the project (E1362), or other users can change what is read
            (E1363).
    """
    problems = []
    if out is not None and not _is_inside(out, path.parent):
        message = "`out` is outside the project's folder"
        at, label = spans.get("out", make_file_span(str(path))), str(os.path.realpath(out))
        help = "choose a folder in the project; for another folder, type `--output DIR`"
        problems.append(Diagnostic("E1362", message, at, label=label, help=help))
    for key, target in read_paths.items():
        reason = user_folders.find_exposure(target)
        if reason and not _is_trusted(path.parent):
            message = f"other users can change the path in `{key}`"
            at = spans.get(key, make_file_span(str(path)))
            help = f"remove the line and type {_OPTIONS[key]}, or copy it to a folder of your own"
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
    real_path = Path(os.path.realpath(target))
    return real_path.is_relative_to(os.path.realpath(folder))


def _is_trusted(folder: Path) -> bool:
    return os.path.realpath(folder) in trust_list.read_trust_list().folders
