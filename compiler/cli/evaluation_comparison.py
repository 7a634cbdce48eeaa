"""What `tcc eval` says of several networks: a table, and whether they differ by chance."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from tcc.compiler.cli.evaluation_report import EvaluationReport, Resampling, document
from tcc.compiler.cli.evaluation_tables import percent, shown
from tcc.compiler.support.console import Report, cell
from tcc.compiler.support.diagnostics import fail, whole_file


def print_all(
    report: Report, found: Sequence[EvaluationReport], drawn: Resampling
) -> dict[str, Any]:
    """Print a table of networks and one of their pairs; return the document that says it.

    Args:
        report: Where results and warnings are told.
        found: How each network did.
        drawn: How many resamples an interval takes, and their seed; none for exact intervals.

    Raises:
        UserError: They were not judged by the same images (E1266).
    """
    from tcc.compiler.reference.paired_test import mcnemar

    _check_same(found)
    averages = [each.averages(drawn) for each in found]
    rows = []
    for each, bounds in zip(found, averages, strict=True):
        scores, within = each.scores, each.judged.accuracy_bounds
        rows.append(
            (
                each.name,
                each.about["precision"],
                f"{scores.accuracy:.2%}" + (f" ({percent(within)})" if within else ""),
                shown(scores.macro.f1, bounds["macro_f1"]),
                shown(scores.weighted.f1, bounds["weighted_f1"]),
                shown(each.judged.area(False), bounds["macro_auc"]),
            )
        )
    images = f"{found[0].scores.images:,} images, 95% intervals"
    report.text(images)
    report.table(("", "", "accuracy", "macro F1", "weighted F1", "macro ROC-AUC"), rows)
    pairs = [(a, b, mcnemar(a.found.right, b.found.right)) for a, b in combinations(found, 2)]
    report.text("")
    report.text("McNemar's test: how likely so large a difference is by chance alone")
    report.table(
        ("first", "second", "only first right", "only second right", "p"),
        [(a.name, b.name, cell(t.first_only), cell(t.second_only), f"{t.p:.4g}")
         for a, b, t in pairs],
    )  # fmt: skip
    return {
        "networks": [document(e, None, b) for e, b in zip(found, averages, strict=True)],
        "pairs": [{"first": a.name, "second": b.name, **asdict(t)} for a, b, t in pairs],
    }


def _check_same(found: Sequence[EvaluationReport]) -> None:
    first = found[0].found.given
    for each in found[1:]:
        given = each.found.given
        digests = [item.data.digest for item in (first, given)]
        # McNemar's test counts the images that one is right about and the other is not: they must
        # be the same ones.
        if len(set(digests)) > 1 or first.labels != given.labels:
            message = "networks are compared on the same images of the same classes"
            names = f"{', '.join(first.labels[:8])} and {', '.join(given.labels[:8])}"
            raise fail("E1266", message, whole_file(each.name), label=f"classes are {names}")
