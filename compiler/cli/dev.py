"""`tcc dev cache` and `tcc dev passes`: the cache of builds, and the passes."""

from typing import Annotated

import typer

from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support import atomic_files, stage_cache, user_folders
from tcc.compiler.support.console import format_bytes
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_command_span
from tcc.compiler.support.stage_cache import STAGES, StageCache, StageUse
from tcc.compiler.support.user_folders import KERNELS_FOLDER

KERNELS_SUMMARY = "tcc's compiled kernels, which every build uses"
"""Description of the kernels. They are next to the stages, with their own size limit."""
StageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="STAGE",
        show_default=False,
        help=f"{', '.join(STAGES)} or {KERNELS_FOLDER}. Default: all except {KERNELS_FOLDER}.",
    ),
]


def show_cache(*, report: ReportOptions) -> None:
    """Show the cache of `tcc build`: later builds reuse its results."""
    cache = _open_cache()
    uses, kernels = cache.measure_usage(), _measure_kernels()
    described_uses = [(use, STAGES[use.stage]) for use in uses] + [(kernels, KERNELS_SUMMARY)]
    rows = [
        (use.stage, use.entries, format_bytes(use.bytes), summary)
        for use, summary in described_uses
    ]
    total = sum(use.bytes for use in uses)
    report.print_table(("stage", "entries", "size", "what"), rows)
    if not report.quiet:
        limit = (
            f"of at most {format_bytes(cache.limit)}"
            if cache.limit
            else "(the limit is 0: nothing is kept)"
        )
        folder = cache.folder or "no folder: there is no home folder"
        report.print_text(f"\n{format_bytes(total)} {limit} in {folder}")
        if obstacle := cache.folder and user_folders.find_obstacle(cache.folder):
            report.print_text(f"not used: {obstacle}")
    report.print_document(
        {
            "folder": cache.folder and str(cache.folder),
            "limit": cache.limit,
            "bytes": total,
            "stages": [_to_json(use) for use in uses],
            "kernels": {"entries": kernels.entries, "bytes": kernels.bytes},
        }
    )


def clear(stage: StageArgument = None, *, report: ReportOptions) -> None:
    """Remove cached results of `tcc build`; later builds compute them again."""
    known_stages = (*STAGES, KERNELS_FOLDER)
    if stage is not None and stage not in known_stages:
        nearest_name = find_nearest_name(stage, set(known_stages))
        stage_list = f"stages: {', '.join(known_stages)}"
        help = f"did you mean `{nearest_name}`? {stage_list}" if nearest_name else stage_list
        raise fail(
            "E1401",
            f"there is no stage `{stage[:80]}`",
            make_command_span(f"clear {stage}"),
            help=help,
        )
    cache = _open_cache()
    try:
        removed = _clear_kernels() if stage == KERNELS_FOLDER else cache.clear(stage)
    except OSError as error:
        raise atomic_files.explain(error, str(cache.folder), "clear this") from error
    if not report.quiet:
        count, total = sum(use.entries for use in removed), sum(use.bytes for use in removed)
        report.print_text(
            f"removed {count:,} {'entry' if count == 1 else 'entries'}, {format_bytes(total)}"
        )
    report.print_document({"removed": [_to_json(use) for use in removed]})


def _open_cache() -> StageCache:
    return StageCache(stage_cache.find_cache_folder(), stage_cache.read_limit())


def _measure_kernels() -> StageUse:
    paths = user_folders.list_cached_files(KERNELS_FOLDER)
    return StageUse(KERNELS_FOLDER, len(paths), user_folders.sum_sizes(paths))


def _clear_kernels() -> tuple[StageUse, ...]:
    removed = _measure_kernels()
    for path in user_folders.list_cached_files(KERNELS_FOLDER):
        path.unlink(missing_ok=True)
    return (removed,)


def _to_json(use: StageUse) -> dict[str, object]:
    return {"stage": use.stage, "entries": use.entries, "bytes": use.bytes}


def list_passes(*, report: ReportOptions) -> None:
    """List the passes and the pipelines that `--passes` accepts."""
    from tcc.compiler.passes import PASSES, PIPELINES, format_pipeline

    if report.quiet:
        report.print_text("\n".join(graph_pass.name for graph_pass in PASSES))
    else:
        rows = [
            (
                graph_pass.name,
                f"{graph_pass.bound:g}" if graph_pass.bound else "exact",
                graph_pass.doc,
            )
            for graph_pass in PASSES
        ]
        report.print_table(("pass", "bound", "what"), rows)
        for name, pipeline in PIPELINES.items():
            report.print_text(f"\n{name}: {format_pipeline(pipeline)}")
    report.print_document(
        {
            "passes": [{"name": p.name, "bound": p.bound, "what": p.doc} for p in PASSES],
            "pipelines": {name: format_pipeline(pipeline) for name, pipeline in PIPELINES.items()},
        }
    )
