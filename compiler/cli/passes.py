"""`tcc dev passes`: the passes, and the pipelines made of them."""

from tcc.compiler.cli.options import ReportOptions


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
