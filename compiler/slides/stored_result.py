"""The result of a slide in a folder: the record of its `summary.json`, and what is read back.

One record gives the summary's form, its check and its reader.
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
from tcc.compiler.slides.patch_grid import MOST_PATCHES, PatchGrid
from tcc.compiler.slides.tissue_mask import TissueRule
from tcc.compiler.support import json_records, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.json_records import OmitDefault, Record, RecordError

if TYPE_CHECKING:
    from typing import BinaryIO

Values = NDArray[np.float64]
Inside = NDArray[np.bool_]
VERSION = 1
SUMMARY = "summary.json"
MAX_BYTES = 1 << 24
"""Largest summary that is read."""
DISCLAIMER = "not a medical device; no diagnosis may rest on this"
_Length = Annotated[int, Meta(ge=1, le=(1 << 24) - 1)]
_Count = Annotated[int, Meta(ge=0, le=MOST_PATCHES)]
_Area = Annotated[float, Meta(ge=0)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Names = Annotated[tuple[str, ...], Meta(min_length=1)]


class SlideSize(Record, frozen=True):
    """A slide: its file's name, its pixels and their side in micrometres."""

    name: str
    width: _Length
    height: _Length
    micrometres_per_pixel: Annotated[float, Meta(ge=0.001, le=1e4)]


class BundleName(Record, frozen=True):
    """What classified it."""

    network: str
    target: str
    precision: str
    weights: str
    notice: str | None


class GridSize(Record, frozen=True):
    """How patches were cut, in pixels of level 0; a patch has `patch` pixels a side."""

    rows: _Length
    columns: _Length
    span: _Length
    stride: _Length
    inset: Annotated[int, Meta(ge=0)]
    patch: _Length


class TumourDecision(Record, frozen=True):
    """Which classes are tumour, and from which probability on; without one, the class taken."""

    classes: _Names
    threshold: _Share | None


class SlideSummary(Record, frozen=True):
    """The figures of a slide's result, and what they depend on."""

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
    """The rule that found the tissue, or `file`; None in results of before it was recorded."""

    @property
    def patch_grid(self) -> PatchGrid:
        """The grid that the patches lie on."""
        return PatchGrid(self.slide.width, self.slide.height, self.grid.span, self.grid.stride)


def encode(summary: SlideSummary) -> bytes:
    """Return the file of a summary."""
    plain = json_records.encode(summary)
    return (json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(text: bytes) -> SlideSummary:
    """Return the summary in a file's bytes.

    Raises:
        ValueError: It is none, or its figures contradict each other.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{SUMMARY} is larger than {MAX_BYTES >> 20} MiB")
    plain = json_records.parse(text)
    version = plain.get("tcc_slide") if isinstance(plain, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"`tcc_slide` of {SUMMARY} is `{str(version)[:40]}`, this tcc reads {VERSION}"
        )
    try:
        summary = json_records.decode(SlideSummary, plain)
    except RecordError as error:
        raise ValueError(f"{SUMMARY}: {str(error)[:200]}") from None
    _check_grid(summary)
    _check_summary(summary)
    return summary


def _check_grid(summary: SlideSummary) -> None:
    about, grid = summary.grid, summary.patch_grid
    if about.stride > about.span:
        raise ValueError(f"grid of {SUMMARY}: stride {about.stride} is larger than {about.span}")
    rows, columns = grid.shape
    if rows * columns > MOST_PATCHES:
        raise ValueError(f"grid of {SUMMARY}: it has more than {MOST_PATCHES:,} patches")
    if (about.rows, about.columns, about.inset) != (rows, columns, grid.inset):
        label = f"{rows} rows, {columns} columns and an inset of {grid.inset}"
        raise ValueError(f"grid of {SUMMARY}: the slide's size and the patches' make {label}")


def _check_summary(summary: SlideSummary) -> None:
    for names in (summary.classes, summary.tumour.classes):
        if len(set(names)) < len(names):
            raise ValueError(f"{SUMMARY}: a class is there twice")
    unknown = set(summary.tumour.classes) - set(summary.classes)
    if unknown:
        raise ValueError(f"tumour of {SUMMARY}: there is no class `{min(unknown)[:40]}`")
    rows, columns = summary.patch_grid.shape
    if summary.patches + summary.damaged + summary.left_out != rows * columns:
        raise ValueError(
            f"{SUMMARY}: patches, damaged and left_out add up to "
            f"{summary.patches + summary.damaged + summary.left_out:,}, the grid has "
            f"{rows * columns:,}"
        )
    slide = summary.slide
    area = slide.width * slide.height * (slide.micrometres_per_pixel / 1000) ** 2
    if not isclose(summary.tissue_mm2, (1 - summary.background_share) * area, rel_tol=1e-6):
        raise ValueError(f"{SUMMARY}: tissue_mm2 and background_share contradict each other")


PATCHES = "patches.csv"
MOST_NUMBERS = 1 << 25
"""Most numbers of a table that is read: 256 MiB."""
ROUNDED = 1e-6
"""How far a figure may be from that of the table, whose probabilities have six digits."""
_WHOLE, _NUMBER = rb"[0-9]{1,8}", rb"[0-9](?:\.[0-9]{1,20})?(?:[eE]-[0-9]{1,3})?"
BEFORE, AFTER = ("row", "column", "x", "y", "side", "tissue"), ("probability", "tumour")
"""The columns of the table before and after those of the classes."""


@dataclass(frozen=True, eq=False)
class StoredResult:
    """The patches of a slide, in the order of the grid.

    `places` are their rows and columns (patches, 2), `numbers` the share of tissue, the probability
    of each class and of tumour (patches, 2 + classes), `positive` which are tumour.
    """

    summary: SlideSummary
    grid: PatchGrid
    places: NDArray[np.int64]
    numbers: Values
    positive: NDArray[np.bool_]

    @property
    def tumour(self) -> Values:
        """How likely each patch is tumour."""
        return self.numbers[:, -1]

    @property
    def mpp(self) -> float:
        """Micrometres of a pixel of level 0."""
        return self.summary.slide.micrometres_per_pixel

    @property
    def name(self) -> str:
        """The slide's file, without its folder and ending."""
        return Path(self.summary.slide.name).stem

    def middle(self, row: int, column: int) -> tuple[int, int]:
        """Return the column and row of level 0 of the middle of a patch, within the slide."""
        grid = self.grid
        x, y = (n + grid.inset + grid.cell // 2 for n in grid.corner(row, column))
        return min(x, grid.width - 1), min(y, grid.height - 1)

    def raster(self) -> Values:
        """Return how likely tumour is at each place of the grid, NaN where nothing was seen."""
        made = np.full(self.grid.shape, np.nan)
        made[self.places[:, 0], self.places[:, 1]] = self.tumour
        return made


def read(folder: Path) -> StoredResult:
    """Return what a run wrote into a slide's folder.

    Raises:
        UserError: It is no such folder, or was edited so that its files contradict each other
            (E1313).
    """
    try:
        with regular_files.opened(folder / SUMMARY) as file:
            summary = decode(file.read(MAX_BYTES + 1))
        with regular_files.opened(folder / PATCHES) as file:
            table = _read_table(file, summary)
        return _join(summary, table)
    except (OSError, ValueError) as error:
        raise _refuse(folder, str(error)[:300] or type(error).__name__) from None


def _read_table(file: "BinaryIO", summary: SlideSummary) -> Values:
    """Return the numbers of each patch's line (patches, columns)."""
    names = [*BEFORE, *(f"p({label})" for label in summary.classes), *AFTER]
    header = StringIO()
    csv.writer(header, lineterminator="\n").writerow(names)
    wanted = header.getvalue().encode()
    if file.read(len(wanted)).replace(b"\r", b"") != wanted:
        raise ValueError(f"the columns of {PATCHES} are not {', '.join(names)[:100]}")
    if summary.patches * len(names) > MOST_NUMBERS:
        raise ValueError(f"{PATCHES} has more than {MOST_NUMBERS:,} numbers")
    table = np.empty((summary.patches, len(names)))
    # Whole numbers, then shares and probabilities, then yes or no.
    columns = [_WHOLE] * (len(BEFORE) - 1) + [_NUMBER] * (len(summary.classes) + 2) + [rb"[01]"]
    line = re.compile(rb",".join(columns) + rb"\r?\n")
    number, longest = 0, 64 * len(names)
    while text := file.readline(longest):
        if number == summary.patches or not line.fullmatch(text):
            raise ValueError(_explain_line(number, text, summary.patches))
        table[number] = np.fromstring(text, sep=",")  # the line is checked
        number += 1
    if number < summary.patches:
        raise ValueError(
            f"{PATCHES} has {number:,} of the {summary.patches:,} patches of {SUMMARY}"
        )
    return table


def _explain_line(number: int, text: bytes, patches: int) -> str:
    place = f"line {number + 2} of {PATCHES}"
    if number == patches:
        return f"{place} is one more than the {patches:,} patches of {SUMMARY}"
    return f"{place} is none of a patch: `{text[:60].decode(errors='replace').strip()}`"


def _join(summary: SlideSummary, table: Values) -> StoredResult:
    """Return a result whose table and summary agree."""
    grid = summary.patch_grid
    places = table[:, :2].astype(np.int64)
    rows, columns = grid.shape
    _refuse_lines((places >= (rows, columns)).any(axis=1), "lies outside the grid")
    corners = places[:, ::-1] * grid.stride
    is_moved = (table[:, 2:4] != corners).any(axis=1) | (table[:, 4] != grid.span)
    _refuse_lines(is_moved, "has another place than its row and column")
    numbers = table[:, len(BEFORE) - 1 : -1]
    _refuse_lines((numbers > 1).any(axis=1), "has a share or probability above 1")
    index = places[:, 0] * columns + places[:, 1]
    order = np.argsort(index, kind="stable")
    is_again = np.zeros(len(index), np.bool_)
    is_again[order[1:]] = np.diff(index[order]) == 0
    _refuse_lines(is_again, "is of a patch that an earlier line has")
    positive = table[:, -1] == 1
    _check_figures(summary, places, numbers[:, -1], positive)
    return StoredResult(summary, grid, places[order], numbers[order], positive[order])


def _refuse_lines(is_wrong: NDArray[np.bool_] | np.bool_, why: str) -> None:
    if is_wrong.any():
        raise ValueError(f"line {int(np.argmax(is_wrong)) + 2} of {PATCHES} {why}")


def _check_figures(
    summary: SlideSummary, places: NDArray[np.int64], tumour: Values, positive: Inside
) -> None:
    """Refuse figures of a summary that are not those of its table."""
    cells = patch_grid.cell_areas(summary.patch_grid)[places[:, 0], places[:, 1]]
    mm2 = (summary.slide.micrometres_per_pixel / 1000) ** 2
    mean = float(tumour.mean()) if len(tumour) else None
    highest = float(tumour.max()) if len(tumour) else None
    figures = {
        "positive": (summary.positive, int(positive.sum())),
        "positive_mm2": (summary.positive_mm2, float(cells[positive].sum() * mm2)),
        "mean_probability": (summary.mean_probability, mean),
        "highest_probability": (summary.highest_probability, highest),
    }
    for name, (written, counted) in figures.items():
        if written is None or counted is None:
            is_same = written is counted
        else:
            is_same = isclose(written, counted, rel_tol=1e-6, abs_tol=ROUNDED)
        if not is_same:
            raise ValueError(f"`{name}` of {SUMMARY} is {written}, {PATCHES} has {counted}")


def _refuse(folder: Path, label: str) -> UserError:
    help = "name a folder that `tcc slide run` wrote of one slide"
    return fail(
        "E1313", "this is no result of a slide", whole_file(str(folder)), label=label, help=help
    )
