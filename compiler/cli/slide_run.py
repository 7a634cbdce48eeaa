"""`tcc slide run`: a bundle's own artifact over the tissue of whole slides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.failures import INPUT, OURS, Rejected
from tcc.compiler.cli.options import (
    BundleArgument,
    ClusterOptions,
    PatchOptions,
    ReportOptions,
    StepsOption,
    TissueOptions,
    Trust,
)
from tcc.compiler.cli.parameters import repeat_options
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report
from tcc.compiler.support.option_needs import ONE_SLIDE
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.device import Device
    from tcc.compiler.slides.slide_archive import ArchiveOutcome
    from tcc.compiler.slides.tumour_classes import TumourRule

NOT_OF_ONE = frozenset({"dask", "json", "out", "quiet", "slurm", "steps", "verbose", "workers"})
"""Options of an archive that each of its slides' own commands does not have, or differently."""
SlidesAndFolders = Annotated[
    list[Path],
    typer.Argument(metavar="SLIDE", help="Slides' files, and folders of them.", show_default=False),
]
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
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=256,
        help="How many processes classify: here in all, on a cluster for each slide.",
    ),
]
SlidesOut = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where each slide's folder goes.")
]


def run(
    context: typer.Context,
    bundle: BundleArgument,
    slides: SlidesAndFolders,
    mask: MaskFile = None,
    tumour: Tumour = None,
    threshold: Threshold = None,
    skip_damaged: SkipDamaged = False,
    workers: Workers = 1,
    out: SlidesOut = Path("slides"),
    steps: StepsOption = None,
    trust: Trust = False,
    *,
    cut: PatchOptions,
    tissue: TissueOptions,
    cluster: ClusterOptions,
    report: ReportOptions,
) -> None:
    """Classify the tissue of slides patch by patch, and draw where tumour is likely.

    It runs the artifact in the bundle; a program that was not built here only with --trust. A run
    that was interrupted goes on where it was, when it is given again; what is
    finished is not repeated.
    """
    from tcc.compiler.slides import slide_archive, slide_file
    from tcc.compiler.slides.one_slide import SlideRequest
    from tcc.compiler.slides.patch_request import MaskWish, PatchWish

    # Here, where it is told as what it is: what runs slides elsewhere has the same packages.
    slide_file.require(*slide_file.PACKAGES)
    place = cluster.task_place(out / ".tcc-slides", workers)
    archive = slide_archive.listed(slides, out)
    many = len(archive.slides) != 1 or bool(cluster.dask or cluster.slurm)
    option_needs.require({ONE_SLIDE: not many})
    wish = tissue.choose()
    found, device, judged = _judged(report, bundle, tumour or (), threshold, trust=trust)
    size = cut.patch or max(found.input.type.shape[1:])
    step = cut.find_stride(size)
    patches = PatchWish(MaskWish(wish, mask), tissue.mpp, cut.at, size, step, tissue.least_tissue)
    request = SlideRequest(found, device, judged, patches, skip_damaged, steps)
    with report.stages() as stages:
        if many:
            words = repeat_options(context, NOT_OF_ONE)
            asked = slide_archive.ArchiveRequest(request, words, place, workers)
            outcome = slide_archive.run(report, stages, asked, archive)
        else:
            outcome = slide_archive.alone(report, stages, request, archive.slides[0], workers)
        stages.end()
    conclude(report, outcome, {"bundle": str(bundle)}, stages.seconds)


def _judged(
    report: Report, bundle: Path, tumour: Sequence[str], threshold: float | None, *, trust: bool
) -> "tuple[Bundle, Device, TumourRule]":
    """Return the bundle, its target, and when a patch is tumour."""
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.slides import tumour_classes

    found, device = trusted_bundle.load(bundle, trust=trust)
    artifact_runs.check_images(found)
    for notice in found.manifest.notices:
        report.notice(notice)
    judged = tumour_classes.rule(found.manifest, tumour, threshold, str(bundle))
    if not judged.said:
        report.note(f"tumour by its label: {', '.join(judged.labels[n] for n in judged.classes)}")
    return found, device, judged


def conclude(
    report: Report,
    outcome: "ArchiveOutcome",
    about: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Print the document of a run, or raise what is wrong with some of its slides.

    Raises:
        Rejected: Not all slides have a result.
    """
    slides = range(len(outcome.slides))
    failed = [
        {"slide": str(outcome.slides[n].path), "state": outcome.state(n)}
        for n in slides
        if n not in outcome.documents
    ]
    document = {
        **about,
        "slides": [outcome.documents[n] for n in slides if n in outcome.documents],
        "failed": failed,
        "left_out": [str(path) for path in outcome.left_out],
        "seconds": dict(seconds),
    }
    problems = [each for n in slides for each in outcome.problems.get(n, ())]
    if problems or outcome.others:
        raise Rejected((*outcome.others, *problems), document, code=OURS if outcome.ours else INPUT)
    report.document(document)
