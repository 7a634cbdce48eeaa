"""`tcc slide eval`: how well results of slides agree with what is known of them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import AreaOptions, ReportOptions
from tcc.compiler.report import evaluation_tables
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report, TableCell
from tcc.compiler.support.option_needs import ANNOTATED_TRUTH

if TYPE_CHECKING:
    from tcc.compiler.reference.classification_metrics import JudgedClasses
    from tcc.compiler.reference.froc_curve import FrocFigures
    from tcc.compiler.slides.slide_judgement import JudgedSlide, JudgedSlides, LesionRule

ResultsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULT",
        show_default=False,
        help="Folders that `tcc slide run` wrote, a slide each.",
    ),
]
TruthOption = Annotated[
    Path,
    typer.Option(
        "--truth",
        metavar="DIR",
        show_default=False,
        help="Where SLIDE.geojson, SLIDE.xml, or SLIDE.png or SLIDE_mask.tif, white where tumour "
        "is, say what of each slide is tumour.",
    ),
]
Subset = Annotated[
    bool, typer.Option("--subset", help="Judge these slides alone, where truth is given of more.")
]
Least = Annotated[
    float,
    typer.Option(
        "--least", metavar="P", min=0.0, max=1.0, help="The least probability of a detection."
    ),
]
Apart = Annotated[
    float,
    typer.Option(
        "--apart", metavar="UM", min=0.0, max=1e5, help="How far detections lie apart, or farther."
    ),
]
Join = Annotated[
    float,
    typer.Option(
        "--join", metavar="UM", min=0.0, max=1e4, help="Tumours that lie closer are one lesion."
    ),
]
Shortest = Annotated[
    float,
    typer.Option(
        "--shortest",
        metavar="UM",
        min=0.0,
        max=1e5,
        help="The length, so joined, from which on a lesion is counted.",
    ),
]
TIES = "of equal ones the first by rows"


def evaluate(
    results: ResultsArgument,
    truth: TruthOption,
    subset: Subset = False,
    least: Least = 0.5,
    apart: Apart = 200.0,
    join: Join = 75.0,
    shortest: Shortest = 275.0,
    *,
    drawing: AreaOptions,
    report: ReportOptions,
) -> None:
    """Judge results of slides by what is known of these: patches, slides and lesions.

    A patch is tumour where half of it is. A slide is as likely tumour as its likeliest patch.
    Lesions and sensitivities at false positives a slide are those of CAMELYON16. Detections are the
    likeliest patches, none closer than --apart to a likelier one; each lies where its middle does.
    """
    from tcc.compiler.slides import annotations, slide_judgement, slide_truth, stored_result
    from tcc.compiler.slides.slide_judgement import JudgedSlides, LesionRule

    known = annotations.classes(drawing.tumour or (), drawing.other or ())
    folder = slide_truth.folder(truth, known, normal=drawing.normal)
    option_needs.require({ANNOTATED_TRUTH: folder.annotated})
    found = [(path, stored_result.read(path)) for path in results]
    slide_judgement.check_alike(found)
    if not subset:
        slide_truth.check_all(folder, [one for _, one in found])
    rule = LesionRule(join, shortest, apart, least)
    judged = []
    with report.stages() as stages:
        for number, (_, result) in enumerate(found):
            stages("slides", number, len(found))
            judged.append(slide_judgement.judge(result, *folder.tumour(result), rule))
        stages.end()
    _tell(report, JudgedSlides(tuple(judged)), rule)


def _tell(report: Report, found: "JudgedSlides", rule: "LesionRule") -> None:
    patches = found.patches()
    averages = patches.averages(None, 0)
    report.text(f"patches: {evaluation_tables.accuracy(patches, 'patches')}")
    damaged = sum(one.result.summary.damaged for one in found.slides)
    if damaged:
        report.notice(f"{damaged:,} damaged patches were not classified, and are not judged")
    if not report.quiet:
        report.text("intervals take patches for independent; those of one slide are not")
        evaluation_tables.print_classes(report, patches, averages, "patches")
        report.text("")
    slides = _print_slides(report, found)
    lesions = _print_lesions(report, found, rule)
    report.document(
        {
            "patches": _patches(patches, averages) | {"mixed": found.mixed, "damaged": damaged},
            "slides": slides,
            "lesions": lesions,
            "each": [_document(one) for one in found.slides],
        }
    )


def _patches(found: "JudgedClasses", averages: Any) -> dict[str, Any]:
    scores = found.scores
    return {
        "patches": scores.images,
        "accuracy": scores.accuracy if scores.images else None,
        "correct": scores.correct,
        **evaluation_tables.figures(found, averages),
    }


def _print_slides(report: Report, found: "JudgedSlides") -> dict[str, Any]:
    """Print how well slides are told apart; return the document of it."""
    area, bounds = found.area()
    count, tumour = len(found.slides), sum(one.tumour for one in found.slides)
    text = f"slides: {count:,}, {tumour:,} with tumour"
    shown = evaluation_tables.shown(area, bounds)
    report.text(
        f"{text}; ROC-AUC {shown}" if area is not None
        else f"{text}: of one kind alone, which no ROC curve is of"
    )  # fmt: skip
    return {
        "slides": count,
        "tumour": tumour,
        "score": "the highest probability of a patch",
        "auc": area,
        "interval": evaluation_tables.bounds(bounds),
    }


def _print_lesions(report: Report, found: "JudgedSlides", rule: "LesionRule") -> dict[str, Any]:
    """Print how many lesions are found; return the document of it."""
    from tcc.compiler.reference.froc_curve import RATES

    drawn = [counted for one in found.slides for counted in one.lesions.counted]
    count, short = sum(drawn), len(drawn) - sum(drawn)
    left = f"; {short:,} shorter than {rule.shortest:g} um are not counted" if short else ""
    report.text(f"lesions: {count:,}{left}")
    every, normal = found.froc(), found.froc(normal=True)
    if every:
        columns = ["false positives a slide", *(f"{rate:g}" for rate in RATES), "mean"]
        rows = [_row("sensitivity", every)]
        if normal:
            rows.append(_row("on slides without tumour", normal))
        report.table(columns, rows)
    else:
        report.text("no lesion is counted: there is no sensitivity")
    if not report.quiet:
        report.text("")
        _print_each(report, found)
    return {
        "lesions": count,
        "short": short,
        "rule": asdict(rule) | {"ties": TIES},
        "rates": list(RATES),
        "all_slides": _froc(every),
        "slides_without_tumour": _froc(normal),
    }


def _row(name: str, found: "FrocFigures") -> tuple[TableCell, ...]:
    each = (f"{value:.4f}" for value in found.sensitivities)
    return name, *each, evaluation_tables.shown(found.score, found.bounds)


def _froc(found: "FrocFigures | None") -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "sensitivities": list(found.sensitivities),
        "mean": found.score,
        "interval": evaluation_tables.bounds(found.bounds),
    }


def _print_each(report: Report, found: "JudgedSlides") -> None:
    rows: list[tuple[TableCell, ...]] = []
    for one in found.slides:
        likely = f"{one.probability:.4f}" if len(one.result.tumour) else "no patch"
        probabilities = one.froc(False).lesions
        hits = int((probabilities == probabilities).sum())  # noqa: PLR0124 - NaN is none
        rows.append((one.result.name, len(probabilities), hits, len(one.false), likely))
    heads = ("slide", "lesions", "found", "false positives", "highest probability")
    report.table(heads, rows)


def _document(one: "JudgedSlide") -> dict[str, Any]:
    """Return what of a slide was found, what was not, and what should not have been."""
    drawn = one.lesions
    each = []
    for number, (axis, counted, (x, y)) in enumerate(
        zip(drawn.axes, drawn.counted, drawn.middles, strict=True), 1
    ):
        best = one.found(number)
        each.append({"x": x, "y": y, "length_um": axis, "counted": counted,
                     "probability": best if best >= 0 else None})  # fmt: skip
    return {
        "slide": one.result.name,
        "patches": len(one.result.tumour),
        "tumour": one.tumour,
        "probability": one.probability,
        "lesions": each,
        "false_positives": [
            {"x": spot.x, "y": spot.y, "probability": spot.probability} for spot in one.false
        ],
    }
