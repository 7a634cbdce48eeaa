"""`tcc slide run`: run a bundle's artifact on the tissue of whole slides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.failures import GENERAL_FAILURE, INPUT, Rejected
from tcc.compiler.cli.options import (
    BundleArgument,
    ClusterOptions,
    PatchOptions,
    ReportOptions,
    StepsOption,
    TissueOptions,
    Trust,
)
from tcc.compiler.cli.parameters import list_typed_options
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report
from tcc.compiler.support.option_requirements import ONE_SLIDE
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.device import Device
    from tcc.compiler.slides.slide_archive import ArchiveOutcome
    from tcc.compiler.slides.tumour_classes import TumourRule

ARCHIVE_OPTIONS = frozenset(
    {"dask", "json", "out", "quiet", "slurm", "steps", "verbose", "workers"}
)
"""Options of a run over several slides that the command of one slide lacks or has differently."""
SlidesAndFolders = Annotated[
    list[Path],
    typer.Argument(metavar="SLIDE", help="Slide files, and folders of them.", show_default=False),
]
MaskFile = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        show_default=False,
        help="Tissue mask of one slide: a file that `tcc slide mask` wrote, edited or not.",
    ),
]
Tumour = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        show_default=False,
        help="Class of the network that is tumour. Can be repeated. Default: the classes "
        "with a label that means tumour.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        min=0.0,
        max=1.0,
        show_default=False,
        help="A patch is tumour from this probability on. Default: the predicted class decides.",
    ),
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Skip and count damaged patches.")
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=256,
        help="Number of classifying processes: in total on this machine, per slide on a cluster.",
    ),
]
SlidesOut = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for the results, with one subfolder per slide.",
    ),
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
    """Classify slides patch by patch, and draw tumour heat maps.

    Only patches with tissue are classified. The artifact in the bundle runs. A program that was not
    built on this machine runs only with --trust. Repeat the command to continue an interrupted run;
    finished slides are not repeated.
    """
    from tcc.compiler.slides import slide_archive, slide_file
    from tcc.compiler.slides.patch_request import MaskRequest, PatchRequest
    from tcc.compiler.slides.slide_processing import SlideRequest

    # Check this here for a clear error; other processes of the run use the same packages.
    slide_file.require_modules(*slide_file.PACKAGES)
    task_place = cluster.create_task_place(out / ".tcc-slides", workers)
    archive = slide_archive.list_slides(slides, out)
    many = len(archive.slides) != 1 or bool(cluster.dask or cluster.slurm)
    option_requirements.report_facts({ONE_SLIDE: not many})
    tissue_choices = tissue.choose()
    loaded_bundle, device, tumour_rule = _load_rule(
        report, bundle, tumour or (), threshold, trust=trust
    )
    size = cut.patch or max(loaded_bundle.input.type.shape[1:])
    step = cut.find_stride(size)
    patches = PatchRequest(
        MaskRequest(tissue_choices, mask), tissue.mpp, cut.at, size, step, tissue.least_tissue
    )
    request = SlideRequest(loaded_bundle, device, tumour_rule, patches, skip_damaged, steps)
    with report.track_stages() as stages:
        if many:
            option_texts = list_typed_options(context, ARCHIVE_OPTIONS)
            archive_request = slide_archive.ArchiveRequest(
                request, option_texts, task_place, workers
            )
            outcome = slide_archive.run(report, stages, archive_request, archive)
        else:
            outcome = slide_archive.run_alone(report, stages, request, archive.slides[0], workers)
        stages.finish_stage()
    finish_run(report, outcome, {"bundle": str(bundle)}, stages.seconds)


def _load_rule(
    report: Report, bundle: Path, tumour: Sequence[str], threshold: float | None, *, trust: bool
) -> "tuple[Bundle, Device, TumourRule]":
    """Return the bundle, its target, and the rule for a tumour patch."""
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.slides import tumour_classes

    loaded_bundle, device = trusted_bundle.load(bundle, trust=trust)
    artifact_runs.check_images(loaded_bundle)
    for notice in loaded_bundle.manifest.notices:
        report.warn_text(notice)
    tumour_rule = tumour_classes.build_rule(loaded_bundle.manifest, tumour, threshold, str(bundle))
    if not tumour_rule.is_user_named:
        report.print_note(
            "classes that are tumour, by their labels: "
            f"{', '.join(tumour_rule.labels[n] for n in tumour_rule.classes)}"
        )
    return loaded_bundle, device, tumour_rule


def finish_run(
    report: Report,
    outcome: "ArchiveOutcome",
    run_info: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> None:
    """Print the document of a run, or raise the errors of its slides.

    Raises:
        Rejected: Some slides have no result.
    """
    slides = range(len(outcome.slides))
    failed = [
        {"slide": str(outcome.slides[n].path), "state": outcome.describe_state(n)}
        for n in slides
        if n not in outcome.documents
    ]
    document = {
        **run_info,
        "slides": [outcome.documents[n] for n in slides if n in outcome.documents],
        "failed": failed,
        "left_out": [str(path) for path in outcome.left_out],
        "seconds": dict(seconds),
    }
    problems = [problem for n in slides for problem in outcome.problems.get(n, ())]
    if problems or outcome.folder_problems:
        raise Rejected(
            (*outcome.folder_problems, *problems),
            document,
            code=GENERAL_FAILURE if outcome.has_internal_error else INPUT,
        )
    report.print_document(document)
