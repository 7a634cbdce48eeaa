"""The specs, samples and starter files that come with the package, and what names a spec.

What users type may be too long for a file's name or hold a null: `os.path` says of such a path
that there is none, where `Path` raises.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tcc.compiler.support.diagnostics import Span, fail, nearest
from tcc.compiler.support.image_folders import listing
from tcc.compiler.support.project_file import NAME

SUFFIXES = (".yaml", ".yml", ".json")
FOLDER = Path(__file__).parent
SIZES = range(8, 4097)
"""Heights and widths that the three halvings of the starter leave something of."""
OWN_NAME, OWN_LABELS, OWN_SIZE = "net", "[benign, malignant]", "64, 64]"
"""What the starter files say, which are a spec and a project as they are."""
_PLAIN = re.compile(r"[A-Za-z]\w*", re.ASCII)
_RESERVED = frozenset({"true", "false", "null"})


def specs() -> dict[str, Path]:
    """Return the specs of the package by name, in order: `ddsnet` is spec/ddsnet.yaml."""
    root = packaged("spec")
    found = [*root.glob("*.yaml"), *root.glob("baselines/*.yaml")]
    return {path.stem: path for path in sorted(found, key=lambda p: p.stem)}


def trained() -> tuple[Path, ...]:
    """Return the files that describe the trained networks, in the order of their names."""
    return tuple(sorted(packaged("zoo").glob("trained/*/network.yaml")))


def recipes() -> dict[str, Path]:
    """Return the training recipes of the package by name, in order."""
    found = sorted((packaged("zoo") / "recipes").glob("*.yaml"))
    return {path.stem: path for path in found}


def samples() -> tuple[Path, ...]:
    """Return the sample images of the package, sorted; they are generated, not photographed."""
    return listing(samples_folder()).images


def samples_folder() -> Path:
    """Return where the sample tiles lie, if they do."""
    return packaged("zoo") / "samples"


def drawings() -> tuple[Path, ...]:
    """Return the folders of the images that a program drew: the sample tiles and cells."""
    return tuple(path for name in ("samples", "cells") if (path := packaged("zoo") / name).is_dir())


def find_spec(name: str, at: Span, base: Path = Path()) -> Path:
    """Return the file that a user calls `name`: a path, or the name of a spec of the package.

    Args:
        name: What the user wrote.
        at: Where the user wrote it.
        base: The folder that a relative path starts from.

    Raises:
        UserError: There is no such file and no such name (E0608).
    """
    path = base / name
    # A file goes before a known name: `ddsnet` without suffix in the user's folder is theirs.
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    known = specs()
    words = {*known, *(path.parent.name for path in trained())}
    if name in known:
        return known[name]
    if os.path.isdir(path):
        raise fail("E0608", f"`{_short(name)}` is a folder, not a spec", at, help=_names(words))
    if path.suffix.lower() in SUFFIXES or "/" in name:
        close = _neighbour(path) or nearest(path.stem, words)
        help = f"did you mean `{close}`?" if close else _names(words)
        raise fail("E0608", f"there is no file `{_short(name)}`", at, help=help)
    close = nearest(name, words)
    help = f"did you mean `{close}`? {_names(words)}" if close else _names(words)
    raise fail("E0608", f"there is no file and no known spec `{_short(name)}`", at, help=help)


def _neighbour(path: Path) -> str | None:
    """Return the file beside a missing one with the most similar name."""
    try:
        names = {p.name for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES}
    except OSError:
        return None
    close = nearest(path.name, names)
    return str(path.with_name(close)) if close else None


def _names(words: set[str]) -> str:
    return f"known specs: {', '.join(sorted(words))}"


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def packaged(folder: str) -> Path:
    """Return a folder of the package, such as `zoo`."""
    return Path(str(files("tcc"))) / folder


def starter_files(name: str, labels: Sequence[str], size: int) -> Mapping[str, bytes]:
    """Return the files of a new project by name: the spec, then the project file.

    Args:
        name: The network's name, and that of the spec's file.
        labels: Its classes, two or more; none for those of the example.
        size: Height and width of the images that it takes, in pixels, one of `SIZES`.
    """
    from tcc.compiler.frontend.formatter import format_spec

    spec = (FOLDER / "starter.yaml").read_text(encoding="utf-8")
    spec = spec.replace(f"name: {OWN_NAME}\n", f"name: {name}\n")
    spec = spec.replace(OWN_SIZE, f"{size}, {size}]")
    if labels:
        spec = spec.replace(OWN_LABELS, f"[{', '.join(map(_written, labels))}]")
    project = (FOLDER / "starter.toml").read_text(encoding="utf-8")
    project = project.replace(f'"{OWN_NAME}.yaml"', f'"{name}.yaml"')
    return {f"{name}.yaml": format_spec(spec, name).encode(), NAME: project.encode()}


def _written(label: str) -> str:
    """Return a label as YAML."""
    plain = _PLAIN.fullmatch(label) and label.lower() not in _RESERVED
    # YAML reads `yes`, `1e3` or `a: b` as something else than a text; quotes do no harm.
    return label if plain else json.dumps(label, ensure_ascii=False)
