"""`tcc slide run`: a bundle's own artifact over the tissue of whole slides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli import slide_options, trusted_bundle
from tcc.compiler.cli.common_options import Json, Quiet, Verbose, typed
from tcc.compiler.cli.failures import Rejected
from tcc.compiler.cli.report import Report, Stages
from tcc.compiler.cli.run import BundleArgument
from tcc.compiler.cli.slide_options import (
    At,
    FillHoles,
    Grow,
    LeastRegion,
    LeastTissue,
    MaskMpp,
    MaskWish,
    Mpp,
    PatchOption,
    PatchWish,
    Rule,
    SlidesArgument,
    StepsOption,
    Stride,
)
from tcc.compiler.cli.trusted_bundle import Trust
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.device import Device
    from tcc.compiler.slides.slide_file import Slide
    from tcc.compiler.slides.slide_job import SlideJob
    from tcc.compiler.slides.tissue_mask import TissueMask
    from tcc.compiler.slides.tumour_classes import TumourRule

MaskFile = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        show_default=False,
        help="What is tissue: a file of `tcc slide mask`, edited or not. For one slide.",
    ),
]
Tumour = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        show_default=False,
        help="A class that is tumour; may be repeated. Without it, labels must say so themselves.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        min=0.0,
        max=1.0,
        show_default=False,
        help="The probability of tumour from which on a patch is; without it, the class that it "
        "is taken for decides.",
    ),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out, and count, patches that are damaged.")
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=256, help="How many processes classify.")
]
SlidesOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where each slide's folder goes.")
]


@dataclass(frozen=True)
class SlideRequest:
    """What is done to each slide."""

    bundle: "Bundle"
    device: "Device"
    rule: "TumourRule"
    patches: PatchWish
    skips: bool
    workers: int
    out: Path
    steps: Path | None


def run(
    bundle: BundleArgument,
    slides: SlidesArgument,
    at: At,
    patch: PatchOption = None,
    stride: Stride = None,
    mpp: Mpp = None,
    mask: MaskFile = None,
    mask_mpp: MaskMpp = 4.0,
    rule: Rule = "paper",
    least_region: LeastRegion = 0.0,
    fill_holes: FillHoles = 0.0,
    grow: Grow = 0.0,
    least_tissue: LeastTissue = 0.5,
    tumour: Tumour = None,
    threshold: Threshold = None,
    skip_damaged: SkipDamaged = False,
    workers: Workers = 1,
    out: SlidesOut = Path("slides"),
    steps: StepsOption = None,
    trust: Trust = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Classify the tissue of slides patch by patch, and draw where tumour is likely.

    It runs the artifact in the bundle; a program that was not built here only with --trust. A run
    that was interrupted goes on where it was, when it is given again.
    """
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.slides import tumour_classes

    report = Report(json, quiet, verbose)
    _check(slides, mask, steps)
    wish = slide_options.choices(mask_mpp, rule, least_region, fill_holes, grow)
    found, device = trusted_bundle.load(bundle, trust=trust)
    artifact_runs.check_images(found)
    if found.manifest.weights.notice:
        report.notice(found.manifest.weights.notice)
    judged = tumour_classes.rule(found.manifest, tumour or (), threshold, str(bundle))
    if not judged.said:
        report.note(f"tumour by its label: {', '.join(judged.labels[n] for n in judged.classes)}")
    size = patch or max(found.input.type.shape[1:])
    step = slide_options.stride_within(size, stride)
    cut = PatchWish(MaskWish(wish, mask), mpp, at, size, step, least_tissue)
    request = SlideRequest(found, device, judged, cut, skip_damaged, workers, out, steps)
    with report.stages() as stages:
        documents, problems = _each(report, stages, request, slides)
        stages.end()
    document = {"bundle": str(bundle), "slides": documents, "seconds": stages.seconds}
    if problems:
        raise Rejected(tuple(problems), document)
    report.document(document)


def _check(slides: Sequence[Path], mask: Path | None, steps: Path | None) -> None:
    """Refuse slides whose results would lie in one place, and files that are for one slide."""
    slide_options.check_stems(slides)
    for option, value in (("--mask", mask), ("--steps", steps)):
        if value and len(slides) > 1:
            raise fail("E0601", f"{option} is for one slide, and these are several", typed(option))


def _each(
    report: Report, stages: Stages, request: SlideRequest, slides: Sequence[Path]
) -> tuple[list[dict[str, Any]], list[Diagnostic]]:
    """Run each slide; one that fails does not stop the others."""
    documents: list[dict[str, Any]] = []
    problems: list[Diagnostic] = []
    for path in slides:
        try:
            documents.append(_one(report, stages, request, path))
        except UserError as error:
            problems += error.diagnostics
    return documents, problems


def _one(report: Report, stages: Stages, request: SlideRequest, path: Path) -> dict[str, Any]:
    from tcc.compiler.slides import slide_file, slide_job, slide_results, slide_workers
    from tcc.compiler.slides.slide_results import SlideResult

    place = request.out / path.stem
    atomic_files.check_folder(place, slide_results.ours)
    with slide_file.opened(path, request.patches.mpp, skips=request.skips) as slide:
        job, mask = _job(report, stages, request, slide)
        blocks = slide_job.blocks_of(job, slide)
        with slide_job.working_folder(request.out, job) as folder:
            before = slide_workers.classify(job, slide, folder, blocks, request.workers, stages)
            if before:
                report.note(f"{path.name}: {before:,} patches were finished before")
            raw = slide_job.collected(job, folder, blocks)
            result = SlideResult(job, request.rule, mask, raw)
            files = slide_results.files(result, slide, stages)
            atomic_files.write_tree(place, files, frozenset(), slide_results.ours)
    document: dict[str, Any] = slide_results.read_summary(files)
    _tell(report, place, document)
    return {"folder": str(place), **document}


def _job(
    report: Report, stages: Stages, request: SlideRequest, slide: "Slide"
) -> "tuple[SlideJob, TissueMask]":
    """Return what is done to a slide, with its mask."""
    from tcc.compiler.slides import patch_grid, slide_file, slide_pictures
    from tcc.compiler.slides.slide_job import SlideJob

    mpp, wish = slide_file.resolution(slide), request.patches
    mask, way = slide_options.found_mask(report, stages, slide, wish.mask)
    grid = wish.grid(slide)
    if request.steps and way:
        pictures = slide_pictures.steps(way, grid, wish.least)
        slide_options.write_steps(request.steps, pictures)
    kept = patch_grid.kept(grid, mask, wish.least)
    about = request.rule.output
    job = SlideJob(
        slide.path, mpp, grid, wish.size, kept, request.bundle, request.device, about,
        request.skips,
    )  # fmt: skip
    return job, mask


def _tell(report: Report, place: Path, found: dict[str, Any]) -> None:
    tissue, background = found["tissue_mm2"], found["background_share"]
    if not found["patches"]:
        report.text(f"{place}: no patch is tissue ({tissue:.2f} mm2 in all)")
        return
    report.text(
        f"{place}: {found['positive']:,} of {found['patches']:,} patches are tumour, "
        f"{found['positive_mm2']:.2f} of {tissue:.2f} mm2 of tissue; "
        f"{background:.1%} is background"
    )
    if found["damaged"]:
        report.notice(f"{place}: {found['damaged']:,} patches are damaged, and left out")
