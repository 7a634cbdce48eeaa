"""How pictures look and become files: the same data gives the same bytes."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool, installed_version

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933",
)  # fmt: skip
"""Told apart with any kind of colour blindness (Okabe and Ito's, its yellow darker)."""
MARKERS = "os^DvP*X<>phdH"
LINE_STYLES = ("-", "--", ":", "-.")
COLORMAP = "cividis"
"""A map of colours of even lightness, which is the same to most of the colour-blind."""
DPI = 100
"""Dots an inch: at 100 % the letters are as large as those of a page."""
MAX_LABEL_LENGTH = 28
"""Most letters of a label."""
MAX_PATH_LENGTH = 60
"""Most letters of a layer's path, where there is room."""
FORMATS = (".png", ".svg")
_STYLE: dict[Any, Any] = {
    "axes.grid": False,
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.dpi": DPI,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": DPI,
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
            "E1286", "pictures are PNG or SVG", make_file_span(str(path)), label=label, help=help
        )
    require_tools()


def require_tools() -> None:
    """Refuse to go on without what draws.

    Raises:
        MissingTool: matplotlib, or scikit-learn, is not here.
    """
    for name in ("matplotlib", "scikit-learn"):
        if installed_version(name) is None:
            raise MissingTool(Tool(name, "draw pictures", None))


def draw_styled(build_figure: "Callable[[], Figure]") -> "Figure":
    """Return a figure in this room's style, whatever the user's own settings are."""
    with _use_style():
        return build_figure()


def encode_figure(build_figure: "Callable[[], Figure]", suffix: str) -> bytes:
    """Return a figure as the bytes of a file with an ending, `.png` or `.svg`."""
    stream = io.BytesIO()
    # Without them: the time, and the version of matplotlib, would make other bytes of the same
    # picture.
    nothing = ("Date", "Creator") if suffix.lower() == ".svg" else ("Software",)
    with _use_style():
        build_figure().savefig(stream, format=suffix[1:].lower(), metadata=dict.fromkeys(nothing))
    return stream.getvalue()


@contextmanager
def _use_style() -> Iterator[None]:
    import matplotlib

    require_tools()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def write(build_figure: "Callable[[], Figure]", path: Path) -> None:
    """Write a figure, whole, as a file.

    Raises:
        UserError: It is no file of a picture, or cannot be written.
    """
    check(path)
    atomic_files.write_file(path, encode_figure(build_figure, path.suffix))


def create_figure(width: float, height: float, notice: str | None = None) -> "Figure":
    """Return an empty figure, in inches; `notice` is what must not be missed about it."""
    from matplotlib.figure import Figure

    # Not by pyplot, which keeps every figure and looks for a screen.
    fig = Figure(figsize=(width, height))
    if notice:
        fig.supxlabel(notice, color=COLORS[1], fontsize=8, wrap=True)
    return fig


def trim_label(label: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """Return a label of no more letters than `max_length`; the middle goes."""
    # Between two dollars matplotlib reads TeX, and fails at what is none.
    text = "".join(c if c.isprintable() else "\ufffd" for c in label).replace("$", r"\$")
    if len(text) <= max_length:
        return text
    half = (max_length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
