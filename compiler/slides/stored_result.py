"""What a run wrote of a slide, read again."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tcc.compiler.slides.patch_grid import MOST_PATCHES, PatchGrid
from tcc.compiler.slides.slide_results import SUMMARY, VERSION
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

PATCHES = "patches.csv"
MAX_BYTES = 1 << 24
"""Largest summary that is read."""
BEFORE, AFTER = ("row", "column", "x", "y", "side", "tissue"), ("probability", "tumour")
"""The columns of the table before and after those of the classes."""


@dataclass(frozen=True, eq=False)
class StoredResult:
    """The patches of a slide, in the order of the grid.

    `places` are their rows and columns (patches, 2), `numbers` the share of tissue, the probability
    of each class and of tumour (patches, 2 + classes), `positive` which are tumour.
    """

    summary: Mapping[str, Any]
    grid: PatchGrid
    places: "NDArray[np.int64]"
    numbers: "Values"
    positive: "NDArray[np.bool_]"

    @property
    def tumour(self) -> "Values":
        """How likely each patch is tumour."""
        return self.numbers[:, -1]

    @property
    def mpp(self) -> float:
        """Micrometres of a pixel of level 0."""
        return float(self.summary["slide"]["micrometres_per_pixel"])

    @property
    def name(self) -> str:
        """The slide's file, without its folder and ending."""
        return Path(str(self.summary["slide"]["name"])).stem

    def middle(self, row: int, column: int) -> tuple[int, int]:
        """Return the column and row of level 0 of the middle of a patch, within the slide."""
        grid = self.grid
        x, y = (n + grid.inset + grid.cell // 2 for n in grid.corner(row, column))
        return min(x, grid.width - 1), min(y, grid.height - 1)

    def raster(self) -> "Values":
        """Return how likely tumour is at each place of the grid, NaN where nothing was seen."""
        made = np.full(self.grid.shape, np.nan)
        made[self.places[:, 0], self.places[:, 1]] = self.tumour
        return made


def read(folder: Path) -> StoredResult:
    """Return what a run wrote into a slide's folder.

    Raises:
        UserError: It is no such folder (E1313).
    """
    try:
        with regular_files.opened(folder / SUMMARY) as file:
            summary = json.loads(file.read(MAX_BYTES))
        grid = _grid(summary)
        classes = [f"p({label})" for label in summary["classes"]]
        with regular_files.opened(folder / PATCHES) as file:
            lines = (line.decode() for line in file)
            table = _table(csv.reader(lines), [*BEFORE, *classes, *AFTER])
        return _result(summary, grid, table)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise _wrong(folder, str(error)[:200] or type(error).__name__) from None


def _grid(summary: Mapping[str, Any]) -> PatchGrid:
    if summary["tcc_slide"] != VERSION:
        raise ValueError(f"it is of form {summary['tcc_slide']}, and this is {VERSION}")
    size, about = summary["slide"], summary["grid"]
    numbers = size["width"], size["height"], about["span"], about["stride"]
    plain = (*numbers, about["patch"])
    if not all(type(n) is int and 0 < n < 1 << 24 for n in plain):
        raise ValueError("its grid is none")
    if not isinstance(size["name"], str):
        raise TypeError("its slide has no name")
    if not 0.001 <= float(size["micrometres_per_pixel"]) <= 1e4:
        raise ValueError("its resolution is none")
    made = PatchGrid(*numbers)
    if made.stride > made.span or made.shape[0] * made.shape[1] > MOST_PATCHES:
        raise ValueError("its grid is none")
    return made


def _table(rows: Any, names: Sequence[str]) -> "Values":
    found: list[Values] = []
    if next(rows, None) != list(names):
        raise ValueError(f"the columns of {PATCHES} are not {', '.join(names)[:100]}")
    for row in rows:
        if len(row) != len(names) or len(found) == MOST_PATCHES:
            raise ValueError(f"line {rows.line_num} of {PATCHES} is none of a patch")
        found.append(np.array(row, np.float64))
    return np.array(found, np.float64).reshape(len(found), len(names))


def _result(summary: Mapping[str, Any], grid: PatchGrid, table: "Values") -> StoredResult:
    numbers = table[:, len(BEFORE) - 1 : -1]
    places = table[:, :2].astype(np.int64)
    within = ((places >= 0) & (places < grid.shape)).all(axis=1)
    if not within.all() or not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError(f"a number of {PATCHES} is out of its range")
    return StoredResult(summary, grid, places, numbers, table[:, -1] == 1)


def _wrong(folder: Path, label: str) -> UserError:
    help = "name a folder that `tcc slide run` wrote of one slide"
    return fail(
        "E1313", "this is no result of a slide", whole_file(str(folder)), label=label, help=help
    )
