"""Read a slide's result folder: `summary.json` and `patches.csv`.

One record defines the summary's format, validation and reader.
"""

import csv
import json
import re
from dataclasses import dataclass
from io import StringIO
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from tcc.compiler.slides import patch_grid
from tcc.compiler.slides.patch_grid import MAX_PATCHES, PatchGrid
from tcc.compiler.slides.tissue_mask import TissueRule
from tcc.compiler.support import json_records, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.json_records import OmitDefault, Record, RecordError

if TYPE_CHECKING:
    from typing import BinaryIO

FloatArray = NDArray[np.float64]
Inside = NDArray[np.bool_]
VERSION = 1
SUMMARY = "summary.json"
MAX_BYTES = 1 << 24
"""Maximum size of a summary in bytes."""
DISCLAIMER = "not a medical device: do not base a diagnosis on the results"
_Length = Annotated[int, Meta(ge=1, le=(1 << 24) - 1)]
_Count = Annotated[int, Meta(ge=0, le=MAX_PATCHES)]
_Area = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Names = Annotated[tuple[str, ...], Meta(min_length=1)]


class SlideSize(Record, frozen=True):
    """A slide: its file name, its size in pixels, and its resolution."""

    name: str
    width: _Length
    height: _Length
    micrometres_per_pixel: Annotated[float, Meta(ge=0.001, le=1e4)]


class BundleName(Record, frozen=True):
    """The bundle that classified the slide."""

    network: str
    target: str
    precision: str
    weights: str
    notice: str | None


class GridSize(Record, frozen=True):
    """The grid of patches, in pixels of level 0; patches are scaled to `patch` pixels a side."""

    rows: _Length
    columns: _Length
    span: _Length
    stride: _Length
    inset: Annotated[int, Meta(ge=0)]
    patch: _Length


class TumourDecision(Record, frozen=True):
    """The tumour classes, and the threshold; without a threshold, the predicted class decides."""

    classes: _Names
    threshold: _Share | None


class SlideSummary(Record, frozen=True):
    """The figures of a slide's result, and the parameters that they depend on."""

    tcc_slide: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    notice: str
    slide: SlideSize
    bundle: BundleName
    grid: GridSize
    tumour: TumourDecision
    classes: _Names
    tissue_mm2: _Area
    background_share: _Share
    patches: _Count
    damaged: _Count
    left_out: _Count
    positive: _Count
    positive_mm2: _Area
    mean_probability: _Share | None
    highest_probability: _Share | None
    tissue_rule: OmitDefault[TissueRule | Literal["file"] | None] = None
    """The rule that found the tissue, or `file`; None in results from before it was recorded."""

    @property
    def patch_grid(self) -> PatchGrid:
        """The grid of the patches."""
        return PatchGrid(self.slide.width, self.slide.height, self.grid.span, self.grid.stride)


def encode_summary(summary: SlideSummary) -> bytes:
    """Return a summary as the contents of its file."""
    document = json_records.encode(summary)
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode_summary(text: bytes) -> SlideSummary:
    """Return the summary from a file's bytes.

    Raises:
        ValueError: The bytes are not a summary, or its figures contradict each other.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{SUMMARY} is larger than {MAX_BYTES >> 20} MiB")
    document = json_records.parse(text)
    version = document.get("tcc_slide") if isinstance(document, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"`tcc_slide` of {SUMMARY} is `{str(version)[:40]}`, "
            f"but this version of tcc reads {VERSION}"
        )
    try:
        summary = json_records.decode(SlideSummary, document)
    except RecordError as error:
        raise ValueError(f"{SUMMARY}: {str(error)[:200]}") from None
    _check_grid(summary)
    _check_summary(summary)
    return summary


def _check_grid(summary: SlideSummary) -> None:
    grid_size, grid = summary.grid, summary.patch_grid
    if grid_size.stride > grid_size.span:
        raise ValueError(
            f"grid of {SUMMARY}: stride {grid_size.stride} is larger than span {grid_size.span}"
        )
    rows, columns = grid.shape
    if rows * columns > MAX_PATCHES:
        raise ValueError(f"grid of {SUMMARY}: it has more than {MAX_PATCHES:,} patches")
    if (grid_size.rows, grid_size.columns, grid_size.inset) != (rows, columns, grid.inset):
        label = f"{rows} rows, {columns} columns and inset {grid.inset}"
        raise ValueError(f"grid of {SUMMARY}: the sizes of slide and patches require {label}")


def _check_summary(summary: SlideSummary) -> None:
    for names in (summary.classes, summary.tumour.classes):
        if len(set(names)) < len(names):
            raise ValueError(f"{SUMMARY}: a class is listed twice")
    unknown = set(summary.tumour.classes) - set(summary.classes)
    if unknown:
        raise ValueError(f"tumour of {SUMMARY}: there is no class `{min(unknown)[:40]}`")
    rows, columns = summary.patch_grid.shape
    if summary.patches + summary.damaged + summary.left_out != rows * columns:
        raise ValueError(
            f"{SUMMARY}: patches, damaged and left_out add up to "
            f"{summary.patches + summary.damaged + summary.left_out:,}, but the grid has "
            f"{rows * columns:,} patches"
        )
    slide = summary.slide
    area = slide.width * slide.height * (slide.micrometres_per_pixel / 1000) ** 2
    if not isclose(summary.tissue_mm2, (1 - summary.background_share) * area, rel_tol=1e-6):
        raise ValueError(f"{SUMMARY}: tissue_mm2 and background_share contradict each other")


PATCHES = "patches.csv"
MAX_NUMBERS = 1 << 25
"""Maximum number of values in a table: 256 MiB."""
ROUNDING_ERROR = 1e-6
"""Tolerance between summary and table, because probabilities in the table have six digits."""
_INTEGER, _NUMBER = rb"[0-9]{1,8}", rb"[0-9](?:\.[0-9]{1,20})?(?:[eE]-[0-9]{1,3})?"
LEADING_COLUMNS, TRAILING_COLUMNS = (
    ("row", "column", "x", "y", "side", "tissue"),
    ("probability", "tumour"),
)
"""The columns of the table before and after the class columns."""


@dataclass(frozen=True, eq=False)
class StoredResult:
    """The result of a slide; patches are in the order of the grid.

    Attributes:
        summary: The summary.
        grid: The grid of the patches.
        cells: Row and column of each patch (patches, 2).
        numbers: Share of tissue, and probability of each class and of tumour (patches, 2 +
            classes).
        is_positive: Whether each patch is tumour.
    """

    summary: SlideSummary
    grid: PatchGrid
    cells: NDArray[np.int64]
    numbers: FloatArray
    is_positive: NDArray[np.bool_]

    @property
    def tumour(self) -> FloatArray:
        """The tumour probability of each patch."""
        return self.numbers[:, -1]

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of level 0."""
        return self.summary.slide.micrometres_per_pixel

    @property
    def name(self) -> str:
        """The slide's file name, without folder and suffix."""
        return Path(self.summary.slide.name).stem

    def compute_center(self, row: int, column: int) -> tuple[int, int]:
        """Return the column and row of level 0 of a patch's centre, within the slide."""
        grid = self.grid
        x, y = (n + grid.inset + grid.cell // 2 for n in grid.compute_corner(row, column))
        return min(x, grid.width - 1), min(y, grid.height - 1)

    def to_raster(self) -> FloatArray:
        """Return the tumour probability at each grid cell, NaN where no patch was classified."""
        heat_map = np.full(self.grid.shape, np.nan)
        heat_map[self.cells[:, 0], self.cells[:, 1]] = self.tumour
        return heat_map


def read_result(folder: Path) -> StoredResult:
    """Return the result in a slide's folder.

    Raises:
        UserError: The folder has no valid result, or its files contradict each other (E1313).
    """
    try:
        with regular_files.open_file(folder / SUMMARY) as file:
            summary = decode_summary(file.read(MAX_BYTES + 1))
        with regular_files.open_file(folder / PATCHES) as file:
            table = _read_table(file, summary)
        return _join(summary, table)
    except (OSError, ValueError) as error:
        raise _build_error(folder, str(error)[:300] or type(error).__name__) from None


def _read_table(file: "BinaryIO", summary: SlideSummary) -> FloatArray:
    """Return the numbers of all lines (patches, columns)."""
    names = [*LEADING_COLUMNS, *(f"p({label})" for label in summary.classes), *TRAILING_COLUMNS]
    header = StringIO()
    csv.writer(header, lineterminator="\n").writerow(names)
    header_bytes = header.getvalue().encode()
    if file.read(len(header_bytes)).replace(b"\r", b"") != header_bytes:
        raise ValueError(f"the columns of {PATCHES} must be {', '.join(names)[:100]}")
    if summary.patches * len(names) > MAX_NUMBERS:
        raise ValueError(f"{PATCHES} has more than {MAX_NUMBERS:,} numbers")
    table = np.empty((summary.patches, len(names)))
    # Integers, then shares and probabilities, then 0 or 1.
    columns = (
        [_INTEGER] * (len(LEADING_COLUMNS) - 1)
        + [_NUMBER] * (len(summary.classes) + 2)
        + [rb"[01]"]
    )
    line_pattern = re.compile(rb",".join(columns) + rb"\r?\n")
    line_count, max_line_bytes = 0, 64 * len(names)
    while line_bytes := file.readline(max_line_bytes):
        if line_count == summary.patches or not line_pattern.fullmatch(line_bytes):
            raise ValueError(_explain_line(line_count, line_bytes, summary.patches))
        table[line_count] = np.fromstring(line_bytes, sep=",")  # the line is validated
        line_count += 1
    if line_count < summary.patches:
        raise ValueError(
            f"{PATCHES} has {line_count:,} patches, but {SUMMARY} has {summary.patches:,}"
        )
    return table


def _explain_line(number: int, text: bytes, patches: int) -> str:
    location = f"line {number + 2} of {PATCHES}"
    if number == patches:
        return f"{location} is one too many: {SUMMARY} has {patches:,} patches"
    return f"{location} is invalid: `{text[:60].decode(errors='replace').strip()}`"


def _join(summary: SlideSummary, table: FloatArray) -> StoredResult:
    """Return the result of a table and a summary, if they agree."""
    grid = summary.patch_grid
    cells = table[:, :2].astype(np.int64)
    rows, columns = grid.shape
    _refuse_lines((cells >= (rows, columns)).any(axis=1), "is outside the grid")
    corners = cells[:, ::-1] * grid.stride
    is_misplaced = (table[:, 2:4] != corners).any(axis=1) | (table[:, 4] != grid.span)
    _refuse_lines(is_misplaced, "has a position that does not match its row and column")
    numbers = table[:, len(LEADING_COLUMNS) - 1 : -1]
    _refuse_lines((numbers > 1).any(axis=1), "has a share or probability above 1")
    index = cells[:, 0] * columns + cells[:, 1]
    order = np.argsort(index, kind="stable")
    is_duplicate = np.zeros(len(index), np.bool_)
    is_duplicate[order[1:]] = np.diff(index[order]) == 0
    _refuse_lines(is_duplicate, "repeats the patch of an earlier line")
    positive = table[:, -1] == 1
    _check_figures(summary, cells, numbers[:, -1], positive)
    return StoredResult(summary, grid, cells[order], numbers[order], positive[order])


def _refuse_lines(is_wrong: NDArray[np.bool_] | np.bool_, reason: str) -> None:
    if is_wrong.any():
        raise ValueError(f"line {int(np.argmax(is_wrong)) + 2} of {PATCHES} {reason}")


def _check_figures(
    summary: SlideSummary, cells: NDArray[np.int64], tumour: FloatArray, positive: Inside
) -> None:
    """Check that the figures of a summary match its table."""
    areas = patch_grid.compute_cell_areas(summary.patch_grid)[cells[:, 0], cells[:, 1]]
    mm2 = (summary.slide.micrometres_per_pixel / 1000) ** 2
    mean = float(tumour.mean()) if len(tumour) else None
    highest = float(tumour.max()) if len(tumour) else None
    figures = {
        "positive": (summary.positive, int(positive.sum())),
        "positive_mm2": (summary.positive_mm2, float(areas[positive].sum() * mm2)),
        "mean_probability": (summary.mean_probability, mean),
        "highest_probability": (summary.highest_probability, highest),
    }
    for name, (summary_figure, table_figure) in figures.items():
        if summary_figure is None or table_figure is None:
            is_same = summary_figure is table_figure
        else:
            is_same = isclose(summary_figure, table_figure, rel_tol=1e-6, abs_tol=ROUNDING_ERROR)
        if not is_same:
            raise ValueError(
                f"`{name}` of {SUMMARY} is {summary_figure}, but {PATCHES} gives {table_figure}"
            )


def _build_error(folder: Path, label: str) -> UserError:
    help = "give the folder that `tcc slide run` wrote for one slide"
    message = "this is not a valid result of a slide"
    return fail("E1313", message, make_file_span(str(folder)), label=label, help=help)
