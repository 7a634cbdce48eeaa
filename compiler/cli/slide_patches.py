"""`tcc slide patches`: cut training images from slides with annotated tumours."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.options import (
    AreaOptions,
    PatchOptions,
    ReportOptions,
    SlidesArgument,
    TissueOptions,
)
from tcc.compiler.support import atomic_files
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.slides.annotations import AreaClasses
    from tcc.compiler.slides.patch_request import PatchRequest
    from tcc.compiler.slides.training_patches import LabelledGrid

Folder = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="DIR",
        show_default=False,
        help="Folder of SLIDE.geojson or SLIDE.xml. Default: that of the slides.",
    ),
]
MostOf = Annotated[
    int | None,
    typer.Option(
        "--most",
        metavar="N",
        min=1,
        show_default=False,
        help="Largest number of patches per label.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the choice of patches.")]
PatchesOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the images.")
]


@dataclass(frozen=True)
class TrainingPatchOptions(PatchOptions):
    """The patches to cut for training; their side must be given."""

    patch: Annotated[
        int,
        typer.Option(
            "--patch",
            metavar="PIXELS",
            min=1,
            max=8192,
            help="Side of a patch, in pixels of --at.",
        ),
    ]


def write_patches(
    slides: SlidesArgument,
    annotations: Folder = None,
    max_patches: MostOf = None,
    seed: Seed = 0,
    out: PatchesOut = Path("patches"),
    *,
    cut: TrainingPatchOptions,
    drawing: AreaOptions,
    tissue: TissueOptions,
    report: ReportOptions,
) -> None:
    """Cut balanced training images from annotated slides.

    DIR gets the folders tumour and normal, with the same number of patches, and an index.csv. With
    it, `tcc train` keeps all patches of a slide in the same split.
    """
    from tcc.compiler.slides import annotations as areas
    from tcc.compiler.slides import patch_request, slide_file, training_patches

    patch_request.check_stems(slides)
    step = cut.find_stride(cut.patch)
    atomic_files.check_folder(out, training_patches.check_overwrite)
    mask_request = patch_request.MaskRequest(tissue.choose())
    area_classes = areas.build_area_classes(drawing.tumour or (), drawing.other_classes or ())
    request = patch_request.PatchRequest(
        mask_request, tissue.mpp, cut.at, cut.patch, step, tissue.least_tissue
    )
    for path in slides:
        slide_file.check_exists(path)
    annotated = {
        path: _AnnotatedSlide(areas.find_annotations_file(path, annotations), area_classes)
        for path in slides
    }
    for path, annotated_slide in annotated.items():
        if annotated_slide.file is None and not drawing.normal:
            _refuse_missing(path)
    with report.track_stages() as stages:
        labelled_grids = [
            _label_patches(report, stages, path, annotated[path], request) for path in slides
        ]
        selected_grids = training_patches.sample_balanced_patches(labelled_grids, max_patches, seed)
        atomic_files.fill_folder(
            out,
            lambda folder: training_patches.write_patches(folder, selected_grids, cut.patch),
            training_patches.check_overwrite,
        )
        stages.finish_stage()
    _report_patches(report, out, labelled_grids, selected_grids)


@dataclass(frozen=True)
class _AnnotatedSlide:
    """The annotations file of a slide, if any, and the meaning of its classes."""

    file: Path | None
    classes: "AreaClasses"


def _refuse_missing(path: Path) -> None:
    message = "this slide has no annotations"
    label = f"{path.stem}.geojson and {path.stem}.xml do not exist"
    help = (
        "name the folder of the annotations with --annotations; or add --normal if slides "
        "without annotations have no tumour"
    )
    raise fail("E1314", message, make_file_span(str(path)), label=label, help=help)


def _label_patches(
    report: Report,
    stages: Stages,
    path: Path,
    annotated_slide: _AnnotatedSlide,
    request: "PatchRequest",
) -> "LabelledGrid":
    import numpy as np

    from tcc.compiler.slides import annotations, patch_request, slide_file, training_patches

    with slide_file.open_slide(path, request.mpp) as slide:
        mpp = slide_file.get_resolution(slide)
        tissue, _ = patch_request.find_mask(report, stages, slide, request.mask)
        inside = np.zeros(tissue.inside.shape, np.bool_)
        if annotated_slide.file:
            inside = annotations.rasterize_tumour(
                annotated_slide.file, slide, tissue.side, annotated_slide.classes
            )
        return training_patches.label_patches(
            slide, mpp, request.build_grid(slide), tissue, inside, request.min_tissue
        )


def _report_patches(
    report: Report,
    out: Path,
    labelled_grids: "list[LabelledGrid]",
    selected_grids: "list[LabelledGrid]",
) -> None:
    from tcc.compiler.slides.training_patches import LABELS

    all_counts, written_counts = (
        {label: sum(len(grid.cells[label]) for grid in grids) for label in LABELS}
        for grids in (labelled_grids, selected_grids)
    )
    summary = ", ".join(
        f"{written_counts[label]:,} of {all_counts[label]:,} {label}" for label in LABELS
    )
    report.print_text(f"{out}: {summary} patches of {len(labelled_grids):,} slides")
    if not any(written_counts.values()):
        reason = (
            "only one label has patches, which is not enough to train on"
            if any(all_counts.values())
            else "no patch has enough tissue"
        )
        report.warn_text(f"no patch was written: {reason}")
    slides = [
        {"slide": grid.path.name, **{label: len(grid.cells[label]) for label in LABELS}}
        for grid in selected_grids
    ]
    report.print_document(
        {"folder": str(out), "found": all_counts, "taken": written_counts, "slides": slides}
    )
