"""Plot style and file output. The same data gives the same bytes."""

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
"""Distinct with any kind of colour blindness (Okabe and Ito's palette with a darker yellow)."""
MARKERS = "os^DvP*X<>phdH"
LINE_STYLES = ("-", "--", ":", "-.")
COLORMAP = "cividis"
"""A perceptually uniform colour map that looks the same with most colour blindness."""
NOTICE_COLOR = "#9A3412"
"""Dark orange: 7:1 contrast on white."""
DPI = 150
"""Dots per inch of PNG files."""
MAX_LABEL_LENGTH = 28
"""Maximum characters of a label."""
MAX_PATH_LENGTH = 60
"""Maximum characters of a layer's path, where there is room."""
FORMATS = (".png", ".svg")
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.prop_cycle": f"cycler('color', {list(COLORS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.dpi": DPI,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    # Without a fixed salt, the ids in an SVG are random.
    "svg.hashsalt": "tcc",
}


def check(path: Path) -> None:
    """Check the output file's format and the plot libraries before any work.

    Raises:
        UserError: The file name does not end in .png or .svg (E1286).
        MissingTool: matplotlib or scikit-learn is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        extension = f"the file extension is `{path.suffix[:20]}`"
        label = extension if path.suffix else "the file name has no extension"
        help = "choose an output file that ends in .png or .svg"
        message = "plots can only be written as PNG or SVG"
        raise fail("E1286", message, make_file_span(str(path)), label=label, help=help)
    require_tools()


def require_tools() -> None:
    """Check that the plot libraries are installed.

    Raises:
        MissingTool: matplotlib or scikit-learn is not installed.
    """
    for name in ("matplotlib", "scikit-learn"):
        if installed_version(name) is None:
            raise MissingTool(Tool(name, "draw plots", None))


def draw_styled(build_figure: "Callable[[], Figure]") -> "Figure":
    """Return a figure in tcc's style. The user's matplotlib settings have no effect."""
    with _use_style():
        return build_figure()


def encode_figure(build_figure: "Callable[[], Figure]", suffix: str) -> bytes:
    """Return a figure as the bytes of a `.png` or `.svg` file."""
    stream = io.BytesIO()
    # Remove metadata that changes the bytes of the same plot: the date and matplotlib's version.
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
    """Write a figure to a file, atomically.

    Raises:
        UserError: The format is not supported (E1286), or the file cannot be written.
    """
    check(path)
    atomic_files.write_file(path, encode_figure(build_figure, path.suffix))


def create_figure(width: float, height: float, notice: str | None = None) -> "Figure":
    """Return an empty figure of a size in inches. `notice` is a warning shown below the plot."""
    from matplotlib.figure import Figure

    # Not by pyplot, which keeps every figure and looks for a display.
    fig = Figure(figsize=(width, height))
    if notice:
        fig.supxlabel(notice, color=NOTICE_COLOR, fontsize=9, wrap=True)
    return fig


def trim_label(label: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    """Return a label of at most `max_length` characters; an ellipsis replaces the middle."""
    # matplotlib reads text between two dollar signs as TeX, and fails if it is not.
    text = "".join(c if c.isprintable() else "\ufffd" for c in label).replace("$", r"\$")
    if len(text) <= max_length:
        return text
    half = (max_length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
