"""`tcc dev cache` and `tcc dev passes`: what builds kept, and what happens to a network."""

from typing import Annotated

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support import atomic_files, stage_cache, user_folders
from tcc.compiler.support.console import size
from tcc.compiler.support.diagnostics import fail, nearest, typed
from tcc.compiler.support.stage_cache import STAGES, StageCache, StageUse
from tcc.compiler.support.user_folders import KERNELS

OWN = "compiled kernels of tcc's own, which any build takes"
"""What the kernels are: kept beside the stages, and held to the limit by themselves."""
StageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="STAGE",
        show_default=False,
        help=f"{', '.join(STAGES)}; without it, all of these. Or {KERNELS}.",
    ),
]


def shown(*, report: ReportOptions) -> None:
    """Show what builds kept: the next ones take what the same inputs gave before."""
    kept = _kept()
    uses, kernels = kept.uses(), _kernels()
    shown = [(each, STAGES[each.stage]) for each in uses] + [(kernels, OWN)]
    rows = [(each.stage, each.entries, size(each.bytes), what) for each, what in shown]
    total = sum(each.bytes for each in uses)
    report.table(("stage", "entries", "size", "what"), rows)
    if not report.quiet:
        limit = f"of at most {size(kept.limit)}" if kept.limit else "and no more is kept"
        report.text(f"\n{size(total)} {limit} in {kept.folder or 'no folder: there is no home'}")
        if why := kept.folder and user_folders.obstacle(kept.folder):
            report.text(f"not used: {why}")
    report.document(
        {
            "folder": kept.folder and str(kept.folder),
            "limit": kept.limit,
            "bytes": total,
            "stages": [_plain(each) for each in uses],
            "kernels": {"entries": kernels.entries, "bytes": kernels.bytes},
        }
    )


def clear(stage: StageArgument = None, *, report: ReportOptions) -> None:
    """Remove what builds kept: the next ones make it anew."""
    known = (*STAGES, KERNELS)
    if stage is not None and stage not in known:
        close = nearest(stage, set(known))
        listed = f"stages: {', '.join(known)}"
        help = f"did you mean `{close}`? {listed}" if close else listed
        raise fail("E1401", f"there is no stage `{stage[:80]}`", typed(f"clear {stage}"), help=help)
    kept = _kept()
    try:
        gone = _cleared() if stage == KERNELS else kept.clear(stage)
    except OSError as error:
        raise atomic_files.explain(error, str(kept.folder), "clear this") from error
    if not report.quiet:
        count, total = sum(each.entries for each in gone), sum(each.bytes for each in gone)
        report.text(f"removed {count:,} {'entry' if count == 1 else 'entries'}, {size(total)}")
    report.document({"removed": [_plain(each) for each in gone]})


def _kept() -> StageCache:
    return StageCache(stage_cache.place(), stage_cache.bytes_of_limit())


def _kernels() -> StageUse:
    found = user_folders.cached_files(KERNELS)
    return StageUse(KERNELS, len(found), user_folders.total_size(found))


def _cleared() -> tuple[StageUse, ...]:
    gone = _kernels()
    for path in user_folders.cached_files(KERNELS):
        path.unlink(missing_ok=True)
    return (gone,)


def _plain(use: StageUse) -> dict[str, object]:
    return {"stage": use.stage, "entries": use.entries, "bytes": use.bytes}


def passes(*, report: ReportOptions) -> None:
    """List the passes and the pipelines that `--passes` takes."""
    from tcc.compiler.passes import PASSES, PIPELINES, spell

    if report.quiet:
        report.text("\n".join(one.name for one in PASSES))
    else:
        rows = [(one.name, f"{one.bound:g}" if one.bound else "exact", one.doc) for one in PASSES]
        report.table(("pass", "bound", "what"), rows)
        for name, pipeline in PIPELINES.items():
            report.text(f"\n{name}: {spell(pipeline)}")
    report.document(
        {
            "passes": [{"name": p.name, "bound": p.bound, "what": p.doc} for p in PASSES],
            "pipelines": {name: spell(pipeline) for name, pipeline in PIPELINES.items()},
        }
    )
