"""`tcc slide patches`: images to train on, cut from slides on which tumours are drawn around."""

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
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from tcc.compiler.slides.annotations import AreaClasses
    from tcc.compiler.slides.patch_request import PatchWish
    from tcc.compiler.slides.training_patches import LabelledGrid

Folder = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="DIR",
        show_default=False,
        help="Where SLIDE.geojson or SLIDE.xml lie; without it, beside the slides.",
    ),
]
MostOf = Annotated[
    int | None,
    typer.Option("--most", metavar="N", min=1, show_default=False, help="Most patches of a label."),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Another one takes other patches.")]
PatchesOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="The folder of the images.")
]


@dataclass(frozen=True)
class TrainingPatchOptions(PatchOptions):
    """The patches that are cut to train on, whose side is always said."""

    patch: Annotated[
        int,
        typer.Option(
            "--patch",
            metavar="PIXELS",
            min=1,
            max=8192,
            help="The side of a patch, in pixels of --at.",
        ),
    ]


def patches(
    slides: SlidesArgument,
    annotations: Folder = None,
    most: MostOf = None,
    seed: Seed = 0,
    out: PatchesOut = Path("patches"),
    *,
    cut: TrainingPatchOptions,
    drawing: AreaOptions,
    tissue: TissueOptions,
    report: ReportOptions,
) -> None:
    """Cut images to train on from slides with annotations: as many of tumour as of normal tissue.

    DIR gets the folders tumour and normal, and an index.csv, by which `tcc train` keeps the patches
    of a slide on one side of its split.
    """
    from tcc.compiler.slides import annotations as areas
    from tcc.compiler.slides import patch_request, slide_file, training_patches

    patch_request.check_stems(slides)
    step = cut.find_stride(cut.patch)
    atomic_files.check_folder(out, training_patches.ours)
    wish = patch_request.MaskWish(tissue.choose())
    known = areas.classes(drawing.tumour or (), drawing.other or ())
    request = patch_request.PatchWish(
        wish, tissue.mpp, cut.at, cut.patch, step, tissue.least_tissue
    )
    for path in slides:
        slide_file.check_there(path)
    drawn = {path: _Drawn(areas.beside(path, annotations), known) for path in slides}
    for path, each in drawn.items():
        if each.file is None and not drawing.normal:
            _missing(path)
    with report.stages() as stages:
        found = [_labelled(report, stages, path, drawn[path], request) for path in slides]
        taken = training_patches.balanced(found, most, seed)
        atomic_files.write_grown(
            out,
            lambda folder: training_patches.write(folder, taken, cut.patch),
            training_patches.ours,
        )
        stages.end()
    _tell(report, out, found, taken)


@dataclass(frozen=True)
class _Drawn:
    """The file that says what of a slide is tumour, if one does, and what its classes mean."""

    file: Path | None
    classes: "AreaClasses"


def _missing(path: Path) -> None:
    message = "nobody drew on this slide what is tumour"
    label = f"there is no {path.stem}.geojson or {path.stem}.xml"
    help = "name their folder with --annotations; with --normal such slides are free of tumour"
    raise fail("E1314", message, whole_file(str(path)), label=label, help=help)


def _labelled(
    report: Report, stages: Stages, path: Path, drawn: _Drawn, wish: "PatchWish"
) -> "LabelledGrid":
    import numpy as np

    from tcc.compiler.slides import annotations, patch_request, slide_file, training_patches

    with slide_file.opened(path, wish.mpp) as slide:
        mpp = slide_file.resolution(slide)
        tissue, _ = patch_request.found_mask(report, stages, slide, wish.mask)
        inside = np.zeros(tissue.inside.shape, np.bool_)
        if drawn.file:
            inside = annotations.tumour(drawn.file, slide, tissue.side, drawn.classes)
        return training_patches.labelled(slide, mpp, wish.grid(slide), tissue, inside, wish.least)


def _tell(
    report: Report, out: Path, found: "list[LabelledGrid]", taken: "list[LabelledGrid]"
) -> None:
    from tcc.compiler.slides.training_patches import LABELS

    there, kept = (
        {label: sum(len(one.places[label]) for one in grids) for label in LABELS}
        for grids in (found, taken)
    )
    each = ", ".join(f"{kept[label]:,} of {there[label]:,} {label}" for label in LABELS)
    report.text(f"{out}: {each} patches of {len(found):,} slides")
    if not any(kept.values()):
        reason = (
            "patches of one label alone teach nothing"
            if any(there.values())
            else "no patch of either label holds enough tissue"
        )
        report.notice(f"{reason}: none was written")
    slides = [
        {"slide": one.path.name, **{label: len(one.places[label]) for label in LABELS}}
        for one in taken
    ]
    report.document({"folder": str(out), "found": there, "taken": kept, "slides": slides})
