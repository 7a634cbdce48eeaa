"""Draw what the pages show: the picture of the front page's spec.

    python tools/make_pictures.py [--check]

`--check` writes nothing and fails when a picture is out of date.
"""

import sys
from pathlib import Path

from generated import write_or_check

from tcc.compiler.figures.graph_image import FigureOptions, draw
from tcc.compiler.frontend.spec import load

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {DOCS / "pictures" / "tiles.svg": DOCS / "examples" / "tiles.yaml"}
"""The pictures, and what each is a picture of."""


def draw_spec(path: Path) -> str:
    """Return a spec's picture as `tcc show --format svg` draws it."""
    spec = load(path)
    return draw(spec.graph, FigureOptions(), spec.doc)


def main() -> int:
    """Write or check the pictures; return the exit code."""
    return write_or_check({picture: draw_spec(spec) for picture, spec in PICTURES.items()})


if __name__ == "__main__":
    sys.exit(main())
