"""Run a bundle on a slide and report the result."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tcc.compiler.bundle import manifest
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.slides import (
    patch_grid,
    patch_request,
    slide_file,
    slide_images,
    slide_job,
    slide_record,
    slide_results,
)
from tcc.compiler.slides.patch_request import PatchRequest
from tcc.compiler.slides.slide_file import Slide
from tcc.compiler.slides.slide_job import SlideJob
from tcc.compiler.slides.slide_record import SlideLease
from tcc.compiler.slides.slide_results import SlideResult
from tcc.compiler.slides.tissue_mask import TissueMask
from tcc.compiler.slides.tumour_classes import TumourRule
from tcc.compiler.support import atomic_files
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.progress import Progress


@dataclass(frozen=True)
class SlideRequest:
    """The processing of each slide."""

    bundle: "Bundle"
    device: "Device"
    rule: "TumourRule"
    patches: PatchRequest
    skips_damaged: bool
    steps_folder: Path | None

    def compute_digest(self, slide: Path) -> str | None:
        """Return a digest of everything that affects a slide's result; None if it is unreadable."""
        rule, patches, mask_file = self.rule, self.patches, self.patches.mask.file
        settings = [
            patches.mpp,
            patches.at,
            patches.size,
            patches.stride,
            patches.min_tissue,
            asdict(patches.mask.choices),
            self.skips_damaged,
            rule.output.name,
            rule.classes,
            rule.threshold,
        ]
        try:
            mask_digest = hashlib.sha256(mask_file.read_bytes()).hexdigest() if mask_file else None
            manifest_bytes = manifest.encode(self.bundle.manifest)
            return slide_record.compute_digest(slide, manifest_bytes, [*settings, mask_digest])
        except OSError:
            return None  # opening the slide reports the error


def run(
    report: Report,
    stages: Stages,
    request: SlideRequest,
    path: Path,
    result_folder: Path,
    workers: int,
) -> dict[str, Any]:
    """Run a slide unless it is finished, print its summary, and return its document.

    Args:
        report: Receives results and warnings.
        stages: Receives the progress.
        request: The processing of the slide.
        path: The slide.
        result_folder: The folder of its result.
        workers: The number of processes for the classification.

    Raises:
        UserError: The slide, the mask or the options are invalid, or another run is working on the
            slide (E1309).
        MachineError: The disk is full.
    """
    slide_record.check_name(result_folder)
    atomic_files.check_folder(result_folder, slide_results.check_overwrite)
    request_digest = request.compute_digest(path)
    finished_summary = find_finished_summary(request, result_folder, request_digest)
    if finished_summary is None:
        with (
            slide_file.open_slide(
                path, request.patches.mpp, skips_damaged=request.skips_damaged
            ) as slide,
            slide_record.lock_slide(slide_record.get_work_folder(result_folder), path) as lease,
        ):
            finished_summary = find_finished_summary(
                request, result_folder, request_digest
            )  # by the previous owner of the lease
            summary = finished_summary or _classify_slide(
                report, stages, _RunContext(request, result_folder, lease, workers), slide
            )
            if finished_summary is None and request_digest:
                slide_record.mark_finished(result_folder, request_digest)
    else:
        summary = finished_summary
    print_summary(report, result_folder, summary, was_finished=finished_summary is not None)
    return build_document(result_folder, summary, was_finished=finished_summary is not None)


def find_finished_summary(
    request: SlideRequest, result_folder: Path, request_digest: str | None
) -> dict[str, Any] | None:
    """Return the summary of a finished slide; None if the slide is to be run."""
    return (
        slide_record.read_finished_summary(result_folder, request_digest)
        if request_digest and not request.steps_folder
        else None
    )


def build_document(
    result_folder: Path, summary: Mapping[str, Any], *, was_finished: bool
) -> dict[str, Any]:
    """Return the document of a slide's result, for JSON output."""
    return {"folder": str(result_folder), "finished_before": was_finished, **summary}


@dataclass(frozen=True)
class _RunContext:
    request: SlideRequest
    result_folder: Path
    lease: "SlideLease"
    workers: int


def _classify_slide(
    report: Report, stages: Stages, run_context: _RunContext, slide: "Slide"
) -> dict[str, Any]:
    """Classify a slide, write its result and return its summary."""
    request, result_folder = run_context.request, run_context.result_folder
    job, mask = _build_job(report, stages, request, slide)
    blocks = slide_job.list_blocks(job, slide)
    block_folder = slide_record.get_block_folder(result_folder, job.digest)
    progress = _create_progress(stages, run_context.lease, slide.path)
    picture = slide_images.downscale_slide(slide, progress)
    finished_count = slide_job.classify(
        job, slide, block_folder, blocks, run_context.workers, progress
    )
    if finished_count:
        report.print_note(
            f"{slide.path.name}: {finished_count:,} patches were finished in an earlier run"
        )
    tissue_rule = request.patches.mask.origin
    raw = slide_job.collect_outputs(job, block_folder, blocks)
    progress("files", 0, 1)
    files = slide_results.encode_files(
        SlideResult(job, request.rule, mask, picture, tissue_rule, raw)
    )
    atomic_files.write_tree(result_folder, files, frozenset(), slide_results.check_overwrite)
    return slide_results.read_summary(files)


def _create_progress(stages: Stages, lease: "SlideLease", path: Path) -> "Progress":
    """Return a progress callback for stages and lease; it fails if the lease is lost."""

    def report_progress(stage: str, completed: int, total: int, /) -> None:
        stages(stage, completed, total)
        if stage == "patches":
            lease.patches = (completed, total)
        lease.check(path)

    return report_progress


def _build_job(
    report: Report, stages: Stages, request: SlideRequest, slide: "Slide"
) -> "tuple[SlideJob, TissueMask]":
    """Return the job of a slide, and its mask."""
    mpp, patches = slide_file.get_resolution(slide), request.patches
    mask, tissue_steps = patch_request.find_mask(report, stages, slide, patches.mask)
    grid = patches.build_grid(slide)
    if request.steps_folder and tissue_steps:
        images = slide_images.render_steps(tissue_steps, grid, patches.min_tissue)
        patch_request.write_steps(request.steps_folder, images)
    selected = patch_grid.select_patches(grid, mask, patches.min_tissue)
    output = request.rule.output
    job = SlideJob(
        slide.path, mpp, grid, patches.size, selected, request.bundle, request.device, output,
        request.skips_damaged,
    )  # fmt: skip
    return job, mask


def print_summary(
    report: Report, result_folder: Path, summary: Mapping[str, Any], *, was_finished: bool
) -> None:
    """Print the summary of a slide's result.

    Args:
        report: Receives the text.
        result_folder: The folder of the result.
        summary: The summary.
        was_finished: Whether the slide was finished before this run.
    """
    suffix = "; finished in an earlier run" if was_finished else ""
    tissue, background = summary["tissue_mm2"], summary["background_share"]
    if not summary["patches"]:
        report.print_text(
            f"{result_folder}: no patch was classified ({tissue:.2f} mm2 of tissue in the slide)"
            f"{suffix}"
        )
        return
    report.print_text(
        f"{result_folder}: {summary['positive']:,} of {summary['patches']:,} patches are tumour, "
        f"in all {summary['positive_mm2']:.2f} mm2; the slide has {tissue:.2f} mm2 of tissue, "
        f"and {background:.1%} of it is background{suffix}"
    )
    if summary["damaged"]:
        report.warn_text(f"{result_folder}: {summary['damaged']:,} damaged patches are skipped")
