"""What a new project begins with: a small spec with comments, and a project file."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.support.project_file import NAME

FOLDER = Path(__file__).parent
SIZES = range(8, 4097)
"""Heights and widths that its three halvings leave something of."""
OWN_NAME, OWN_LABELS, OWN_SIZE = "net", "[benign, malignant]", "64, 64]"
"""What the files themselves say, which are a spec and a project as they are."""
_PLAIN = re.compile(r"[A-Za-z]\w*", re.ASCII)
_RESERVED = frozenset({"true", "false", "null"})


def files(name: str, labels: Sequence[str], size: int) -> Mapping[str, bytes]:
    """Return the files of a new project by name: the spec, then the project file.

    Args:
        name: The network's name, and that of the spec's file.
        labels: Its classes, two or more; none for those of the example.
        size: Height and width of the images that it takes, in pixels, one of `SIZES`.
    """
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
