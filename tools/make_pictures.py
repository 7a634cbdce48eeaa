"""Draw what the pages show: the picture of the front page's spec.

    python tools/make_pictures.py [--check]

`--check` writes nothing and fails when a picture is out of date.
"""

import sys
from pathlib import Path

from tcc.compiler.figures.graph_picture import PictureOptions, draw
from tcc.compiler.frontend.spec import load

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {DOCS / "pictures" / "tiles.svg": DOCS / "examples" / "tiles.yaml"}
"""The pictures, and what each is a picture of."""


def drawn(path: Path) -> str:
    """Return a spec's picture as `tcc show --format svg` draws it."""
    spec = load(path)
    return draw(spec.graph, PictureOptions(), spec.doc)


def main() -> int:
    """Write or check the pictures; return the exit code."""
    wanted = {picture: drawn(spec) for picture, spec in PICTURES.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if '--check' in sys.argv else 'written'}: {path.name}")
        if "--check" not in sys.argv:
            path.write_text(wanted[path])
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
