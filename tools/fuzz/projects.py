"""Fuzz project files of other users, or with paths outside the project, here and in parent folders.

It is known which of them may be used. A case fails if another one is used, or if something is
written outside the project.
"""

import os
from functools import partial
from pathlib import Path
from random import Random

from bundles import SPEC
from case import Case, Front, Outcome
from own_places import CASE_FOLDERS

OTHER_USER = 65534
OUTS = (
    "o", ".", "a/../o", "in", "..", "../..", "/", "~", "~/o", "a/../../o", "outside", "outside/o",
    "o\\u0000", "", "../case/o", "./././o", "in/../../o",
)  # fmt: skip
INSIDE = frozenset({"o", ".", "a/../o", "in", "../case/o", "./././o"})
TEXTS = ("", "[", "out = 3", "x = 1", 'out = "o"\nout = "p"', "\ufeff", "require_signature = 1")
CHANGES = ("mode", "mode", "owner", "owner", "link", "none", "none", "none")


def _make_case(numbers: Random) -> Case:
    out = numbers.choice(OUTS)
    lines = ['spec = "tiny.yaml"', 'targets = ["onnxruntime"]', f'out = "{out}"']
    if numbers.random() < 0.2:
        lines.append(numbers.choice(('weights = "../theirs/w"', 'data = "../theirs"')))
    if numbers.random() < 0.2:
        lines.append(numbers.choice(TEXTS))
    numbers.shuffle(lines)
    change = numbers.choice(CHANGES) if os.getuid() == 0 else "none"
    location = numbers.choice((".", "tcc.toml", "in/..", ".."))
    mode = numbers.choice((0o777, 0o770, 0o707, 0o775, 0o1777, 0o755, 0o700, 0o666, 0o644))
    arguments = numbers.choice((("check",), ("check",), ("check", "tiny.yaml"), ("build", "-q")))
    prepare = partial(_prepare_case, "\n".join(lines) + "\n", change, location, mode)
    check = partial(_check_project, out, change, location, mode)
    return Case(arguments, {"tiny.yaml": SPEC.encode()}, prepare, check)


def _prepare_case(text: str, change: str, location: str, mode: int, folder: Path) -> None:
    other_folder = folder.parent / "theirs"
    for path in (other_folder, folder / "o", folder / "home"):
        path.mkdir()
    (other_folder / "w").write_bytes(b"w")
    (folder / "in").symlink_to("o")
    (folder / "outside").symlink_to("..")
    (folder / "tcc.toml").write_text(text)
    if os.getuid() == 0:
        os.chown(other_folder, OTHER_USER, OTHER_USER)
    match change:
        case "mode":
            (folder / location).chmod(mode)
        case "owner":
            os.chown(folder / location, OTHER_USER, OTHER_USER)
        case "link":
            (folder / "tcc.toml").rename(other_folder / "tcc.toml")
            (folder / "tcc.toml").symlink_to("../theirs/tcc.toml")
    CASE_FOLDERS.set(folder, "HOME", "XDG_CONFIG_HOME")


def _check_project(
    out: str, change: str, location: str, mode: int, outcome: Outcome, folder: Path
) -> str:
    manifests = [p for p in folder.parent.rglob("manifest.json") if not p.is_relative_to(folder)]
    if manifests:
        return f"wrote {manifests[0]}"
    safe = change == "none" or (change == "mode" and not _is_writable(location, mode))
    if outcome.code == 0 and not (safe and out in INSIDE):
        return "used a project file that must be ignored"
    return ""


def _is_writable(location: str, mode: int) -> bool:
    """Return whether others can change a project file that has this mode here."""
    sticky = mode & 0o1000 and location == ".."
    return bool(mode & 0o022) and not sticky


PROJECTS = Front("projects", 1000, _make_case)
