"""Specs, samples and starter files of the package, and the lookup of a spec by name or path.

User input may be too long for a file name or contain a null byte. `os.path` reports such a path as
missing, and `Path` raises.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tcc.compiler.support.diagnostics import Span, fail, find_nearest_name
from tcc.compiler.support.image_folders import list_images
from tcc.compiler.support.project_file import FILE_NAME

SUFFIXES = (".yaml", ".yml", ".json")
FOLDER = Path(__file__).parent
STARTER_SIZES = range(8, 4097)
"""Image sizes that the three halvings of the starter network allow."""
STARTER_NAME, STARTER_LABELS, STARTER_SIZE = "net", "[benign, malignant]", "64, 64]"
"""Texts in the starter files to replace. The files themselves are a valid spec and project."""
_PLAIN_LABEL = re.compile(r"[A-Za-z]\w*", re.ASCII)
_RESERVED = frozenset({"true", "false", "null"})


def list_specs() -> dict[str, Path]:
    """Return the specs of the package by name, sorted: `ddsnet` is spec/ddsnet.yaml."""
    root = get_package_folder("spec")
    paths = [*root.glob("*.yaml"), *root.glob("baselines/*.yaml")]
    return {path.stem: path for path in sorted(paths, key=lambda p: p.stem)}


def list_trained() -> tuple[Path, ...]:
    """Return the files that describe the trained networks, sorted by name."""
    return tuple(sorted(get_package_folder("zoo").glob("trained/*/network.yaml")))


def list_recipes() -> dict[str, Path]:
    """Return the training recipes of the package by name, sorted."""
    paths = sorted((get_package_folder("zoo") / "recipes").glob("*.yaml"))
    return {path.stem: path for path in paths}


def list_samples() -> tuple[Path, ...]:
    """Return the sample images of the package, sorted; they are synthetic, not photographs."""
    return list_images(get_samples_folder()).images


def get_samples_folder() -> Path:
    """Return the folder of the sample tiles; it may not exist."""
    return get_package_folder("zoo") / "samples"


def list_synthetic_folders() -> tuple[Path, ...]:
    """Return the folders of synthetic images: the sample tiles and cells."""
    return tuple(
        path for name in ("samples", "cells") if (path := get_package_folder("zoo") / name).is_dir()
    )


def find_spec(name: str, at: Span, base: Path = Path()) -> Path:
    """Return the file of a spec that the user named by path or by the name of a package's spec.

    Args:
        name: The user's input.
        at: Its position.
        base: The folder for a relative path.

    Raises:
        UserError: There is no such file and no such name (E0608).
    """
    path = base / name
    # A file takes precedence over a known name, such as `ddsnet` in the user's folder.
    if os.path.exists(path) and not os.path.isdir(path):
        return path
    specs_by_name = list_specs()
    known_names = {*specs_by_name, *(path.parent.name for path in list_trained())}
    if name in specs_by_name:
        return specs_by_name[name]
    if os.path.isdir(path):
        raise fail(
            "E0608",
            f"`{_trim_name(name)}` is a folder, not a spec",
            at,
            help=_describe_known_specs(known_names),
        )
    if path.suffix.lower() in SUFFIXES or "/" in name:
        nearest_name = _find_similar_file(path) or find_nearest_name(path.stem, known_names)
        help = (
            f"did you mean `{nearest_name}`?"
            if nearest_name
            else _describe_known_specs(known_names)
        )
        raise fail("E0608", f"the file `{_trim_name(name)}` does not exist", at, help=help)
    nearest_name = find_nearest_name(name, known_names)
    help = (
        f"did you mean `{nearest_name}`? {_describe_known_specs(known_names)}"
        if nearest_name
        else _describe_known_specs(known_names)
    )
    message = f"`{_trim_name(name)}` is neither a file nor a known spec"
    raise fail("E0608", message, at, help=help)


def _find_similar_file(path: Path) -> str | None:
    """Return the most similar file name in the folder of a missing file."""
    try:
        names = {p.name for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES}
    except OSError:
        return None
    nearest_name = find_nearest_name(path.name, names)
    return str(path.with_name(nearest_name)) if nearest_name else None


def _describe_known_specs(known_names: set[str]) -> str:
    return f"known specs: {', '.join(sorted(known_names))}"


def _trim_name(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def get_package_folder(folder: str) -> Path:
    """Return the path of a folder of the package, such as `zoo`."""
    return Path(str(files("tcc"))) / folder


def build_starter_files(name: str, labels: Sequence[str], size: int) -> Mapping[str, bytes]:
    """Return the files of a new project by name: the spec, then the project file.

    Args:
        name: The name of the network, and of the spec file.
        labels: At least two class labels; empty for those of the example.
        size: Height and width of the input images in pixels, from `STARTER_SIZES`.
    """
    from tcc.compiler.frontend.formatter import format_spec

    spec = (FOLDER / "starter.yaml").read_text(encoding="utf-8")
    spec = spec.replace(f"name: {STARTER_NAME}\n", f"name: {name}\n")
    spec = spec.replace(STARTER_SIZE, f"{size}, {size}]")
    if labels:
        spec = spec.replace(STARTER_LABELS, f"[{', '.join(map(_format_label, labels))}]")
    project = (FOLDER / "starter.toml").read_text(encoding="utf-8")
    project = project.replace(f'"{STARTER_NAME}.yaml"', f'"{name}.yaml"')
    return {f"{name}.yaml": format_spec(spec, name).encode(), FILE_NAME: project.encode()}


def _format_label(label: str) -> str:
    """Return a label in YAML syntax."""
    is_plain = _PLAIN_LABEL.fullmatch(label) and label.lower() not in _RESERVED
    # YAML reads `yes`, `1e3` or `a: b` as other types; quotes are always safe.
    return label if is_plain else json.dumps(label, ensure_ascii=False)
