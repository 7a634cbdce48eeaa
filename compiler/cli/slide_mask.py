"""`tcc slide mask`: which parts of a slide are tissue, as a file that can be edited."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import PatchSide, ReportOptions, StepsOption, TissueOptions
from tcc.compiler.support import atomic_files

if TYPE_CHECKING:
    from tcc.compiler.slides.patch_grid import PatchGrid
    from tcc.compiler.slides.slide_file import Slide

SlideArgument = Annotated[Path, typer.Argument(metavar="SLIDE", help="A slide's file.")]
MaskOut = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="The mask: a .png or .geojson file."),
]
PatchMpp = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="With --steps and --patch: micrometres of a patch's pixel, to draw patches too.",
    ),
]


def mask(
    slide: SlideArgument,
    out: MaskOut = Path("mask.png"),
    steps: StepsOption = None,
    at: PatchMpp = None,
    patch: PatchSide = None,
    *,
    tissue: TissueOptions,
    report: ReportOptions,
) -> None:
    """Find the tissue of a slide, and write it as a mask that can be edited.

    A .png mask has a pixel for each 4 micrometres (`--mask-mpp`), white where tissue is; a .geojson
    one has outlines that QuPath reads and writes. `tcc slide run --mask` takes both.
    """
    from tcc.compiler.slides import (
        mask_files,
        patch_grid,
        patch_request,
        slide_file,
        slide_pictures,
    )

    mask_files.check_name(out)
    wish = patch_request.MaskWish(tissue.choose())
    with report.stages() as stages, slide_file.opened(slide, tissue.mpp) as file:
        found, way = patch_request.found_mask(report, stages, file, wish)
        grid = _grid(file, at, patch)
        pictures = slide_pictures.steps(way, grid, tissue.least_tissue) if steps and way else {}
        atomic_files.write_file(out, mask_files.encoded(out, file, found))
        if steps:
            patch_request.write_steps(steps, pictures)
        share, regions = float(found.inside.mean()), len(found.regions)
        area = share * found.inside.size * (found.side * slide_file.resolution(file)) ** 2 / 1e6
        report.text(f"{out}: {share:.1%} is tissue, {area:.2f} mm2 in {regions:,} regions")
        said = {"slide": slide.name, "mask": str(out), "steps": str(steps) if steps else None}
        figures = {"tissue_share": share, "tissue_mm2": area, "regions": regions}
        kept = int(patch_grid.kept(grid, found, tissue.least_tissue).sum()) if grid else None
        report.document({**said, **figures, "patches": kept})


def _grid(file: "Slide", at: float | None, patch: int | None) -> "PatchGrid | None":
    from tcc.compiler.slides import patch_grid, slide_file

    if at is None or patch is None:
        return None
    span = max(1, round(patch * at / slide_file.resolution(file)))
    return patch_grid.grid(file, span, span)
