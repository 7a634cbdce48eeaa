"""Cut training patches from slides: label them tumour or normal, and sample both equally."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import patch_grid, slide_file
from tcc.compiler.slides.patch_grid import GridCell, PatchGrid, PatchReader
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.slide_images import encode_png
from tcc.compiler.slides.tissue_mask import TissueMask

NORMAL, TUMOUR = LABELS = ("normal", "tumour")
INDEX_FILE = "index.csv"
INDEX_COLUMNS = ("file", "label", "group")


@dataclass(frozen=True, eq=False)
class LabelledGrid:
    """The usable training patches of a slide; `cells` has their grid cells by label."""

    path: Path
    mpp: float
    grid: PatchGrid
    cells: dict[str, list[GridCell]]


def label_patches(
    slide: Slide, mpp: float, grid: PatchGrid, tissue: TissueMask, inside: NDArray[np.bool_],
    min_share: float,
) -> LabelledGrid:  # fmt: skip
    """Return the labelled patches of a slide, by their share of two regions (equation 4).

    Annotated areas are tumour; the rest of the tissue is normal. A patch is tumour if at least
    `min_share` of it is tumour. It is normal if at least `min_share` of it is normal tissue and it
    has no tumour. Other patches are ambiguous and not used.

    Args:
        slide: The slide.
        mpp: Micrometres per pixel of the slide.
        grid: The grid of patches.
        tissue: The tissue mask.
        inside: Whether each square of the mask is in a tumour.
        min_share: The minimum share of a region in a patch.
    """
    tumour = TissueMask(tissue.side, inside)
    normal = TissueMask(tissue.side, tissue.inside & ~inside)
    is_clean = patch_grid.count_patch_pixels(grid, tumour) == 0
    rows, columns = grid.shape
    row_offsets, column_offsets = np.arange(rows) * grid.stride, np.arange(columns) * grid.stride
    # Only complete patches: pixels beyond the slide's edge are white, unlike tissue.
    is_complete = (row_offsets + grid.span <= grid.height)[:, None] & (
        column_offsets + grid.span <= grid.width
    )
    mask_by_label = {
        TUMOUR: patch_grid.select_patches(grid, tumour, min_share) & is_complete,
        NORMAL: patch_grid.select_patches(grid, normal, min_share) & is_clean & is_complete,
    }
    cells = {
        label: [(row, column) for row, column in np.argwhere(mask).tolist()]
        for label, mask in mask_by_label.items()
    }
    return LabelledGrid(slide.path, mpp, grid, cells)


def sample_balanced_patches(
    grids: Sequence[LabelledGrid], max_patches: int | None, seed: int
) -> list[LabelledGrid]:
    """Return equally many patches of both labels, spread evenly over the slides.

    The selection does not depend on the order of the slides.

    Args:
        grids: The labelled patches of all slides.
        max_patches: The maximum number of patches per label; None for no limit.
        seed: The seed of the sample.
    """
    counts = [sum(len(labelled_grid.cells[label]) for labelled_grid in grids) for label in LABELS]
    count = min([*counts, *([max_patches] if max_patches else [])])
    selected_cells: list[dict[str, list[GridCell]]] = [{} for _ in grids]
    for label in LABELS:
        queue = []
        for number, labelled_grid in enumerate(grids):
            ranked_cells = sorted(
                (_hash_patch(seed, labelled_grid, cell), cell)
                for cell in labelled_grid.cells[label]
            )
            queue += [
                (position, rank, number, cell) for position, (rank, cell) in enumerate(ranked_cells)
            ]
        for _, _, number, cell in sorted(queue)[:count]:
            selected_cells[number].setdefault(label, []).append(cell)
    return [
        LabelledGrid(
            labelled_grid.path,
            labelled_grid.mpp,
            labelled_grid.grid,
            {label: sorted(label_cells.get(label, ())) for label in LABELS},
        )
        for labelled_grid, label_cells in zip(grids, selected_cells, strict=True)
    ]


def _hash_patch(seed: int, labelled_grid: LabelledGrid, cell: GridCell) -> bytes:
    return hashlib.sha256(f"{seed}/{labelled_grid.path.stem}/{cell[0]}/{cell[1]}".encode()).digest()


def iterate_images(
    slide: Slide, labelled_grid: LabelledGrid, size: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the file name, relative to the table's folder, and the PNG file of each patch.

    Raises:
        UserError: The slide is damaged (E1302), or does not have this resolution (E1308).
    """
    reader = PatchReader(slide, labelled_grid.grid, size)
    reader.check()
    for label in LABELS:
        selected = np.zeros(labelled_grid.grid.shape, np.bool_)
        for cell in labelled_grid.cells[label]:
            selected[cell] = True
        for block in patch_grid.split_into_blocks(reader, selected):
            for cell, pixels in zip(block, reader.read_patches(block), strict=True):
                yield build_file_name(labelled_grid, label, cell), encode_png(pixels)


def write_patches(folder: Path, grids: Sequence[LabelledGrid], size: int) -> None:
    """Fill an empty folder with the patches of `size` pixels a side, and their table.

    Raises:
        UserError: As for `iterate_images`.
    """
    for label in LABELS:
        (folder / label).mkdir()
    for labelled_grid in grids:
        with slide_file.open_slide(labelled_grid.path, labelled_grid.mpp) as slide:
            for name, content in iterate_images(slide, labelled_grid, size):
                (folder / name).write_bytes(content)
    (folder / INDEX_FILE).write_bytes(encode_index(grids))


def build_file_name(labelled_grid: LabelledGrid, label: str, cell: GridCell) -> str:
    """Return the file name of a patch."""
    return f"{label}/{labelled_grid.path.stem}_{cell[0]}_{cell[1]}.png"


def encode_index(grids: Sequence[LabelledGrid]) -> bytes:
    """Return the table for `tcc train`; its groups are the slides, so that it splits by slide."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(INDEX_COLUMNS)
    for labelled_grid in grids:
        for label in LABELS:
            for cell in labelled_grid.cells[label]:
                writer.writerow(
                    [build_file_name(labelled_grid, label, cell), label, labelled_grid.path.stem]
                )
    return buffer.getvalue().encode()


def check_overwrite(path: Path) -> str | None:
    """Return the reason not to replace a folder by patches; None if it is a folder of patches."""
    names = {child.name for child in path.iterdir()} if path.is_dir() else {""}
    is_patch_folder = INDEX_FILE in names and names <= {INDEX_FILE, *LABELS}
    return None if is_patch_folder else "it is not a folder of patches"
