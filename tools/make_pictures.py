"""Draw the figures of the pages: the diagram of the spec on the front page.

    python tools/make_pictures.py [--check]

With `--check`, write nothing and fail if a figure is out of date.
"""

import sys
from pathlib import Path

from generated import write_or_check

from tcc.compiler.figures.graph_image import FigureOptions, draw
from tcc.compiler.frontend.spec import load

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {DOCS / "pictures" / "tiles.svg": DOCS / "examples" / "tiles.yaml"}
"""The files of the figures, and their sources."""


def draw_spec(path: Path) -> str:
    """Return a spec's diagram as `tcc show --format svg` draws it."""
    spec = load(path)
    return draw(spec.graph, FigureOptions(), spec.doc)


def main() -> int:
    """Write or check the figures; return the exit code."""
    return write_or_check({picture: draw_spec(spec) for picture, spec in PICTURES.items()})


if __name__ == "__main__":
    sys.exit(main())
