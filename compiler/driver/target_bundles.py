"""The bundles of a build: each out of the cache or made, written, and kept for the next build."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver.built_integers import BuiltIntegers
from tcc.compiler.driver.int8_build import Int8Build
from tcc.compiler.driver.write_bundle import BundleCheck, WrittenBundle, write
from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import BundleContents
    from tcc.compiler.ir.device import Plan


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """A target of a build, the key of what is built for it, and that out of the cache, if any."""

    plan: "Plan"
    key: str
    stored: "BundleContents | None"


def planned(
    work: Int8Build, plans: "Sequence[Plan]", whole: BuiltIntegers | None
) -> tuple[BundlePlan, ...]:
    """Return what is known already of each target."""
    found = []
    for plan in plans:
        integers = None
        if plan.precision.calibrated:
            assert whole
            integers = whole.keys[plan.precision.real_ends]
        key = work.stored.bundle_key(plan, integers, images=work.asked.images)
        found.append(BundlePlan(plan, key, work.stored.bundle(key, plan)))
    return tuple(found)


def written(
    work: Int8Build,
    targets: Sequence[BundlePlan],
    whole: BuiltIntegers | None,
    out: Path,
    check: BundleCheck,
    told: Collection[str],
) -> Iterator[WrittenBundle]:
    """Build and write each bundle in turn."""
    for target, contents in zip(targets, _contents(work, targets, whole), strict=True):
        plan, compares = target.plan, _compares_size(work.report, target.plan)
        _remark(work.report, contents, told)
        made = write(contents, plan, out, check)
        if target.stored is None:
            # Only now that it is known to agree, where anything here knows it.
            work.stored.keep_bundle(target.key, contents)
        cached = ("bundle",) if target.stored else ()
        if plan.precision.calibrated and whole:
            cached = (*whole.stored[plan.precision.real_ends], *cached)
        yield replace(
            made,
            full=_full_size(work, plan) if compares else None,
            compares_size=compares,
            archive=_archive(made, plan),
            advice=plan.device.advice(plan.precision),
            cached=(*cached, *made.cached),
        )


def _contents(
    work: Int8Build, targets: Sequence[BundlePlan], whole: BuiltIntegers | None
) -> "Iterator[BundleContents]":
    """Yield what is built for each target."""
    fresh = [each.plan for each in targets if each.stored is None]
    made: Iterator[BundleContents] = iter(())
    if fresh:
        from tcc.compiler.driver import pipeline

        programs = whole.programs if whole else None
        made = pipeline.build(
            work.chosen.spec, work.given, fresh, work.stages, programs, work.passing,
            images=work.asked.images,
        )  # fmt: skip
        # The first says what any target refuses, before a bundle is written for another.
        first = next(made)
        made = _before(first, made)
    for each in targets:
        yield each.stored or next(made)


def _before(
    first: "BundleContents", others: "Iterator[BundleContents]"
) -> "Iterator[BundleContents]":
    yield first
    yield from others


def _compares_size(report: Report, plan: "Plan") -> bool:
    """Whether a build reports what its target's files would take at fp32."""
    # A second build, only for its size, is not for those who would not see the figure.
    offered = any(precision.full for precision in plan.device.target.precisions)
    return offered and not plan.precision.full and not (report.quiet and not report.json)


def _full_size(work: Int8Build, plan: "Plan") -> int | None:
    """Return what a target's files take in floats; None where it cannot build those."""

    def weighed() -> int | None:
        from tcc.compiler.driver import float_size

        return float_size.full_size(work.chosen.spec, work.given, plan.device, work.stages)

    return work.stored.size(plan.device, weighed)


def _remark(report: Report, contents: "BundleContents", told: Collection[str]) -> None:
    """Warn of what was not told before there were weights and integers."""
    for each in contents.manifest.warnings:
        if each.message not in told:
            report.notice(f"{each.message}: {each.found}; {each.rule}", each.code)


def _archive(made: WrittenBundle, plan: "Plan") -> Path | None:
    """Return the file of images of a package: in it, or beside it."""
    from tcc.compiler.bundle import bundle_folder

    if plan.device.packager is None:
        return None
    name = plan.device.packager.archive
    inside = made.folder / bundle_folder.MODEL / name
    return inside if inside.exists() else bundle_folder.beside(made.folder, name)


def keys(targets: Sequence[BundlePlan]) -> Mapping[str, str]:
    """Return the key of what is built for each target, by its name."""
    return {each.plan.device.name: each.key for each in targets}
