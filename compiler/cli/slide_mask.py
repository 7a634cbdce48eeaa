"""`tcc slide mask`: write the tissue of a slide as a mask that can be edited."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import PatchSide, ReportOptions, StepsOption, TissueOptions
from tcc.compiler.support import atomic_files

if TYPE_CHECKING:
    from tcc.compiler.slides.patch_grid import PatchGrid
    from tcc.compiler.slides.slide_file import Slide

SlideArgument = Annotated[Path, typer.Argument(metavar="SLIDE", help="The file of a slide.")]
MaskOut = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="Mask to write, a .png or .geojson file."),
]
PatchMpp = Annotated[
    float | None,
    typer.Option(
        "--at",
        metavar="UM",
        min=0.01,
        max=1000.0,
        show_default=False,
        help="With --steps and --patch: micrometres per pixel of a patch. Patches are then "
        "drawn too.",
    ),
]


def write_mask(
    slide: SlideArgument,
    out: MaskOut = Path("mask.png"),
    steps: StepsOption = None,
    at: PatchMpp = None,
    patch: PatchSide = None,
    *,
    tissue: TissueOptions,
    report: ReportOptions,
) -> None:
    """Find the tissue of a slide and write it as a mask that can be edited.

    A .png mask has one pixel per 4 micrometres (`--mask-mpp`), white for tissue. A .geojson mask
    has outlines that QuPath can read and write. `tcc slide run --mask` accepts both.
    """
    from tcc.compiler.slides import (
        mask_files,
        patch_grid,
        patch_request,
        slide_file,
        slide_images,
    )

    mask_files.check_name(out)
    request = patch_request.MaskRequest(tissue.choose())
    with report.track_stages() as stages, slide_file.open_slide(slide, tissue.mpp) as file:
        tissue_mask, mask_steps = patch_request.find_mask(report, stages, file, request)
        grid = _create_grid(file, at, patch)
        pictures = (
            slide_images.render_steps(mask_steps, grid, tissue.least_tissue)
            if steps and mask_steps
            else {}
        )
        atomic_files.write_file(out, mask_files.encode_mask(out, file, tissue_mask))
        if steps:
            patch_request.write_steps(steps, pictures)
        share, regions = float(tissue_mask.inside.mean()), len(tissue_mask.regions)
        area = (
            share
            * tissue_mask.inside.size
            * (tissue_mask.side * slide_file.get_resolution(file)) ** 2
            / 1e6
        )
        report.print_text(f"{out}: {share:.1%} is tissue, {area:.2f} mm2 in {regions:,} regions")
        paths = {"slide": slide.name, "mask": str(out), "steps": str(steps) if steps else None}
        figures = {"tissue_share": share, "tissue_mm2": area, "regions": regions}
        patch_count = (
            int(patch_grid.select_patches(grid, tissue_mask, tissue.least_tissue).sum())
            if grid
            else None
        )
        report.print_document({**paths, **figures, "patches": patch_count})


def _create_grid(file: "Slide", at: float | None, patch: int | None) -> "PatchGrid | None":
    from tcc.compiler.slides import patch_grid, slide_file

    if at is None or patch is None:
        return None
    span = max(1, round(patch * at / slide_file.get_resolution(file)))
    return patch_grid.build_grid(file, span, span)
