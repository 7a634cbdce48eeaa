"""How pictures look and become files: the same data gives the same bytes."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.external_tools import MissingTool, Tool, installed_version

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933",
)  # fmt: skip
"""Told apart with any kind of colour blindness (Okabe and Ito's, its yellow darker)."""
MARKERS = "os^DvP*X<>phdH"
LINES = ("-", "--", ":", "-.")
SHADES = "cividis"
"""A map of colours of even lightness, which is the same to most of the colour-blind."""
DOTS = 100
"""Dots an inch: at 100 % the letters are as large as those of a page."""
LONGEST = 28
"""Most letters of a label."""
PATH = 60
"""Most letters of a layer's path, where there is room."""
FORMATS = (".png", ".svg")
_STYLE: dict[Any, Any] = {
    "axes.grid": False,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": DOTS,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": DOTS,
    # Names of parts of an SVG are random else.
    "svg.hashsalt": "tcc",
}


def check(path: Path) -> None:
    """Refuse what no picture can be written to, before any work (E1286).

    Raises:
        UserError: Its ending is none of a picture's.
        MissingTool: matplotlib, or scikit-learn, is not here.
    """
    if path.suffix.lower() not in FORMATS:
        label = f"the ending is `{path.suffix[:20]}`" if path.suffix else "it has no ending"
        help = "name a file that ends in .png or .svg"
        raise fail(
            "E1286", "pictures are PNG or SVG", whole_file(str(path)), label=label, help=help
        )
    needed()


def needed() -> None:
    """Refuse to go on without what draws.

    Raises:
        MissingTool: matplotlib, or scikit-learn, is not here.
    """
    for name in ("matplotlib", "scikit-learn"):
        if installed_version(name) is None:
            raise MissingTool(Tool(name, "draw pictures", None))


def drawn(make: "Callable[[], Figure]") -> "Figure":
    """Return a figure in this room's style, whatever the user's own settings are."""
    with _styled():
        return make()


def encoded(make: "Callable[[], Figure]", suffix: str) -> bytes:
    """Return a figure as the bytes of a file with an ending, `.png` or `.svg`."""
    stream = io.BytesIO()
    # Without them: the time, and the version of matplotlib, would make other bytes of the same
    # picture.
    nothing = ("Date", "Creator") if suffix.lower() == ".svg" else ("Software",)
    with _styled():
        make().savefig(stream, format=suffix[1:].lower(), metadata=dict.fromkeys(nothing))
    return stream.getvalue()


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib

    needed()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def write(make: "Callable[[], Figure]", path: Path) -> None:
    """Write a figure, whole, as a file.

    Raises:
        UserError: It is no file of a picture, or cannot be written.
    """
    check(path)
    atomic_files.write_file(path, encoded(make, path.suffix))


def figure(width: float, height: float, notice: str | None = None) -> "Figure":
    """Return an empty figure, in inches; `notice` is what must not be missed about it."""
    from matplotlib.figure import Figure

    # Not by pyplot, which keeps every figure and looks for a screen.
    made = Figure(figsize=(width, height))
    if notice:
        made.supxlabel(notice, color=COLOURS[1], fontsize=8, wrap=True)
    return made


def short(label: str, longest: int = LONGEST) -> str:
    """Return a label of no more letters than `longest`; the middle goes."""
    # Between two dollars matplotlib reads TeX, and fails at what is none.
    plain = "".join(c if c.isprintable() else "\ufffd" for c in label).replace("$", r"\$")
    if len(plain) <= longest:
        return plain
    half = (longest - 1) // 2
    return f"{plain[:half]}…{plain[-half:]}"
