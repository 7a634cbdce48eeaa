"""Patches of slides to train on: which are tumour, which are normal, and a sample of both."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import patch_grid, slide_file
from tcc.compiler.slides.patch_grid import GridPlace, PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.slide_pictures import png
from tcc.compiler.slides.tissue_mask import TissueMask

NORMAL, TUMOUR = LABELS = ("normal", "tumour")
INDEX = "index.csv"
HEADER = ("file", "label", "group")


@dataclass(frozen=True, eq=False)
class LabelledGrid:
    """The patches of a slide that can be trained on, by label: rows and columns of the grid."""

    path: Path
    mpp: float
    grid: PatchGrid
    places: dict[str, list[GridPlace]]


def labelled(
    slide: Slide, mpp: float, grid: PatchGrid, tissue: TissueMask, inside: NDArray[np.bool_],
    least: float,
) -> LabelledGrid:  # fmt: skip
    """Return the patches of a slide with a label, by the weights of two regions (equation 4).

    Tumour is what was drawn around, normal the rest of the tissue. A patch is tumour where a share
    of `least` of it lies in the one; it is normal where that lies in the other and nothing of it
    in a tumour, since a patch of both would teach neither.

    Args:
        slide: The slide.
        mpp: Micrometres of its pixels.
        grid: Its patches.
        tissue: What is tissue.
        inside: What lies in a tumour, squares as those of the mask.
        least: The share of a patch from which on it is of a region.
    """
    tumour = TissueMask(tissue.side, inside)
    normal = TissueMask(tissue.side, tissue.inside & ~inside)
    clean = patch_grid.weights(grid, tumour) == 0
    rows, columns = grid.shape
    down, across = np.arange(rows) * grid.stride, np.arange(columns) * grid.stride
    # Whole patches alone: what lies beyond the slide's edge is white, and no tissue is.
    whole = (down + grid.span <= grid.height)[:, None] & (across + grid.span <= grid.width)
    found = {
        TUMOUR: patch_grid.kept(grid, tumour, least) & whole,
        NORMAL: patch_grid.kept(grid, normal, least) & clean & whole,
    }
    places = {
        label: [(row, column) for row, column in np.argwhere(mask).tolist()]
        for label, mask in found.items()
    }
    return LabelledGrid(slide.path, mpp, grid, places)


def balanced(grids: Sequence[LabelledGrid], most: int | None, seed: int) -> list[LabelledGrid]:
    """Return as many patches of one label as of the other, spread evenly over slides.

    Which ones does not depend on the order of the slides.

    Args:
        grids: What there is.
        most: Most patches of a label.
        seed: Another one gives another sample.
    """
    counts = [sum(len(one.places[label]) for one in grids) for label in LABELS]
    count = min([*counts, *([most] if most else [])])
    taken: list[dict[str, list[GridPlace]]] = [{} for _ in grids]
    for label in LABELS:
        queue = []
        for number, one in enumerate(grids):
            order = sorted((_rank(seed, one, place), place) for place in one.places[label])
            queue += [(turn, rank, number, place) for turn, (rank, place) in enumerate(order)]
        for _, _, number, place in sorted(queue)[:count]:
            taken[number].setdefault(label, []).append(place)
    return [
        LabelledGrid(
            one.path, one.mpp, one.grid, {label: sorted(own.get(label, ())) for label in LABELS}
        )
        for one, own in zip(grids, taken, strict=True)
    ]


def _rank(seed: int, one: LabelledGrid, place: GridPlace) -> bytes:
    return hashlib.sha256(f"{seed}/{one.path.stem}/{place[0]}/{place[1]}".encode()).digest()


def images(slide: Slide, one: LabelledGrid, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each patch's file, below the table's folder, and the file: a PNG.

    Raises:
        UserError: The slide is damaged (E1302), or has no such resolution (E1308).
    """
    reader = PatchReader(slide, one.grid, size)
    reader.check()
    for label in LABELS:
        wanted = np.zeros(one.grid.shape, np.bool_)
        for place in one.places[label]:
            wanted[place] = True
        for block in patch_grid.blocks(reader, wanted):
            for place, pixels in zip(block, reader.read(block), strict=True):
                yield file_name(one, label, place), png(pixels)


def write(folder: Path, grids: Sequence[LabelledGrid], size: int) -> None:
    """Fill an empty folder with the patches, `size` pixels each, and their table.

    Raises:
        UserError: As for `images`.
    """
    for label in LABELS:
        (folder / label).mkdir()
    for one in grids:
        with slide_file.opened(one.path, one.mpp) as slide:
            for name, data in images(slide, one, size):
                (folder / name).write_bytes(data)
    (folder / INDEX).write_bytes(table(grids))


def file_name(one: LabelledGrid, label: str, place: GridPlace) -> str:
    """Return a patch's file."""
    return f"{label}/{one.path.stem}_{place[0]}_{place[1]}.png"


def table(grids: Sequence[LabelledGrid]) -> bytes:
    """Return the table for `tcc train`, whose groups are slides, so that it splits by slide."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for one in grids:
        for label in LABELS:
            for place in one.places[label]:
                writer.writerow([file_name(one, label, place), label, one.path.stem])
    return out.getvalue().encode()


def ours(path: Path) -> str | None:
    """Say why a folder is not replaced by patches; None where it holds some itself."""
    names = {each.name for each in path.iterdir()} if path.is_dir() else {""}
    known = INDEX in names and names <= {INDEX, *LABELS}
    return None if known else "it is no folder of patches"
