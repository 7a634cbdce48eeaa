"""A whole slide through a bundle: what is asked for, and what is told of it."""

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
    slide_job,
    slide_pictures,
    slide_record,
    slide_results,
)
from tcc.compiler.slides.patch_request import PatchWish
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
    """What is done to each slide."""

    bundle: "Bundle"
    device: "Device"
    rule: "TumourRule"
    patches: PatchWish
    skips: bool
    steps: Path | None

    def digest(self, slide: Path) -> str | None:
        """Return what tells results apart that are of this and of others; None without a slide."""
        rule, cut, file = self.rule, self.patches, self.patches.mask.file
        words = [
            cut.mpp, cut.at, cut.size, cut.stride, cut.least, asdict(cut.mask.choices), self.skips,
            rule.output.name, rule.classes, rule.threshold,
        ]  # fmt: skip
        try:
            drawn = hashlib.sha256(file.read_bytes()).hexdigest() if file else None
            about = manifest.encode(self.bundle.manifest)
            return slide_record.digest(slide, about, [*words, drawn])
        except OSError:
            return None  # whoever opens it says what is wrong


def run(
    report: Report, stages: Stages, request: SlideRequest, path: Path, place: Path, workers: int
) -> dict[str, Any]:
    """Run a slide, unless it is finished, and tell of it; return its document.

    Args:
        report: Where it is told.
        stages: Told how far it is.
        request: What is done.
        path: The slide.
        place: The folder of its result.
        workers: How many processes classify.

    Raises:
        UserError: The slide, the mask or the options are wrong, or another run works on it (E1309).
        MachineError: The disk is full.
    """
    slide_record.check_name(place)
    atomic_files.check_folder(place, slide_results.ours)
    asked = request.digest(path)
    known = finished(request, place, asked)
    if known is None:
        with (
            slide_file.opened(path, request.patches.mpp, skips=request.skips) as slide,
            slide_record.held(slide_record.folder(place), path) as lease,
        ):
            known = finished(request, place, asked)  # by who had the lease before
            found = known or _made(report, stages, _Work(request, place, lease, workers), slide)
            if known is None and asked:
                slide_record.finish(place, asked)
    else:
        found = known
    tell(report, place, found, before=known is not None)
    return document(place, found, before=known is not None)


def finished(request: SlideRequest, place: Path, asked: str | None) -> dict[str, Any] | None:
    """Return the summary of a slide that is finished; None where there is something to do."""
    return slide_record.finished(place, asked) if asked and not request.steps else None


def document(place: Path, found: Mapping[str, Any], *, before: bool) -> dict[str, Any]:
    """Return what is said of a slide's result."""
    return {"folder": str(place), "finished_before": before, **found}


@dataclass(frozen=True)
class _Work:
    request: SlideRequest
    place: Path
    lease: "SlideLease"
    workers: int


def _made(report: Report, stages: Stages, work: _Work, slide: "Slide") -> dict[str, Any]:
    """Write a slide's result, and return its summary."""
    request, place = work.request, work.place
    job, mask = _job(report, stages, request, slide)
    cut = slide_job.blocks_of(job, slide)
    folder = slide_record.blocks(place, job.digest)
    progress = _heard(stages, work.lease, slide.path)
    picture = slide_pictures.small(slide, progress)
    before = slide_job.classify(job, slide, folder, cut, work.workers, progress)
    if before:
        report.note(f"{slide.path.name}: {before:,} patches were finished before")
    tissue_rule = request.patches.mask.origin
    raw = slide_job.collected(job, folder, cut)
    progress("files", 0, 1)
    files = slide_results.files(SlideResult(job, request.rule, mask, picture, tissue_rule, raw))
    atomic_files.write_tree(place, files, frozenset(), slide_results.ours)
    return slide_results.read_summary(files)


def _heard(stages: Stages, lease: "SlideLease", path: Path) -> "Progress":
    """Return what tells stages, and all who look at the lease, of patches; a lost one stops it."""

    def tell(what: str, done: int, total: int, /) -> None:
        stages(what, done, total)
        if what == "patches":
            lease.patches = (done, total)
        lease.check(path)

    return tell


def _job(
    report: Report, stages: Stages, request: SlideRequest, slide: "Slide"
) -> "tuple[SlideJob, TissueMask]":
    """Return what is done to a slide, with its mask."""
    mpp, wish = slide_file.resolution(slide), request.patches
    mask, way = patch_request.found_mask(report, stages, slide, wish.mask)
    grid = wish.grid(slide)
    if request.steps and way:
        pictures = slide_pictures.steps(way, grid, wish.least)
        patch_request.write_steps(request.steps, pictures)
    kept = patch_grid.kept(grid, mask, wish.least)
    about = request.rule.output
    job = SlideJob(
        slide.path, mpp, grid, wish.size, kept, request.bundle, request.device, about,
        request.skips,
    )  # fmt: skip
    return job, mask


def tell(report: Report, place: Path, found: Mapping[str, Any], *, before: bool) -> None:
    """Print what a slide's result says.

    Args:
        report: Where.
        place: Its folder.
        found: Its summary.
        before: Whether it was finished before.
    """
    ended = "; finished before" if before else ""
    tissue, background = found["tissue_mm2"], found["background_share"]
    if not found["patches"]:
        report.text(f"{place}: no patch is tissue ({tissue:.2f} mm2 in all){ended}")
        return
    report.text(
        f"{place}: {found['positive']:,} of {found['patches']:,} patches are tumour, "
        f"{found['positive_mm2']:.2f} of {tissue:.2f} mm2 of tissue; "
        f"{background:.1%} is background{ended}"
    )
    if found["damaged"]:
        report.notice(f"{place}: {found['damaged']:,} patches are damaged, and left out")
