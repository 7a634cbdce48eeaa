"""`tcc slide eval`: compare slide results with annotations."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.cli.options import AreaOptions, ReportOptions
from tcc.compiler.report import evaluation_tables
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report, TableCell
from tcc.compiler.support.option_requirements import ANNOTATED_TRUTH

if TYPE_CHECKING:
    from tcc.compiler.reference.classification_metrics import ClassEvaluation
    from tcc.compiler.reference.froc_curve import FrocFigures
    from tcc.compiler.slides.slide_evaluation import EvaluatedSlide, EvaluatedSlides, LesionRule

ResultsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULT",
        show_default=False,
        help="Folders that `tcc slide run` wrote, one per slide.",
    ),
]
TruthOption = Annotated[
    Path,
    typer.Option(
        "--truth",
        metavar="DIR",
        show_default=False,
        help="Folder with the tumour areas of each slide: SLIDE.geojson, SLIDE.xml, or a "
        "mask SLIDE.png or SLIDE_mask.tif that is white for tumour.",
    ),
]
Subset = Annotated[
    bool,
    typer.Option("--subset", help="Evaluate only these slides if the folder has areas of more."),
]
MinProbability = Annotated[
    float,
    typer.Option(
        "--least", metavar="P", min=0.0, max=1.0, help="Smallest probability of a detection."
    ),
]
MinDistance = Annotated[
    float,
    typer.Option(
        "--apart", metavar="UM", min=0.0, max=1e5, help="Smallest distance between detections."
    ),
]
Join = Annotated[
    float,
    typer.Option(
        "--join",
        metavar="UM",
        min=0.0,
        max=1e4,
        help="Tumours with a smaller distance are one lesion.",
    ),
]
Shortest = Annotated[
    float,
    typer.Option(
        "--shortest",
        metavar="UM",
        min=0.0,
        max=1e5,
        help="Smallest length of a lesion that is counted, after joining.",
    ),
]
TIE_RULE = "of equal ones the first by rows"


def evaluate(
    result_folders: ResultsArgument,
    truth: TruthOption,
    subset: Subset = False,
    min_probability: MinProbability = 0.5,
    min_distance: MinDistance = 200.0,
    join: Join = 75.0,
    shortest: Shortest = 275.0,
    *,
    drawing: AreaOptions,
    report: ReportOptions,
) -> None:
    """Evaluate slide results against annotations: patches, slides and lesions.

    A patch is tumour if at least half of it is. The score of a slide is the highest probability of
    its patches. Lesions and the sensitivities at false positives per slide are those of CAMELYON16.
    Detections are the patches with the highest probability, none closer than --apart to a more
    probable one. The location of a detection is the centre of its patch.
    """
    from tcc.compiler.slides import annotations, saved_result, slide_evaluation, slide_truth
    from tcc.compiler.slides.slide_evaluation import EvaluatedSlides, LesionRule

    area_classes = annotations.build_area_classes(drawing.tumour or (), drawing.other_classes or ())
    folder = slide_truth.list_truth_folder(truth, area_classes, allows_missing=drawing.normal)
    option_requirements.report_facts({ANNOTATED_TRUTH: folder.has_class_names})
    stored_results = [(path, saved_result.read_result(path)) for path in result_folders]
    slide_evaluation.check_comparable(stored_results)
    if not subset:
        slide_truth.check_all_evaluated(folder, [read_result for _, read_result in stored_results])
    rule = LesionRule(join, shortest, min_distance, min_probability)
    judged_slides = []
    with report.track_stages() as stages:
        for number, (_, slide_result) in enumerate(stored_results):
            stages("slides", number, len(stored_results))
            judged_slides.append(
                slide_evaluation.evaluate_slide(
                    slide_result, *folder.rasterize_tumour(slide_result), rule
                )
            )
        stages.finish_stage()
    _report_slides(report, EvaluatedSlides(tuple(judged_slides)), rule)


def _report_slides(report: Report, judged_slides: "EvaluatedSlides", rule: "LesionRule") -> None:
    patches = judged_slides.evaluate_patches()
    averages = patches.estimate_average_intervals(None, 0)
    report.print_text(f"patches: {evaluation_tables.describe_accuracy(patches, 'patches')}")
    damaged = sum(slide.slide_result.summary.damaged for slide in judged_slides.slides)
    if damaged:
        report.warn_text(f"{damaged:,} damaged patches were not classified and are not evaluated")
    if not report.quiet:
        report.print_text(
            "the intervals assume independent patches; patches of one slide are not independent"
        )
        evaluation_tables.print_classes(report, patches, averages, "patches")
        report.print_text("")
    slides = _print_slides(report, judged_slides)
    lesions = _print_lesions(report, judged_slides, rule)
    report.print_document(
        {
            "patches": _describe_patches(patches, averages)
            | {"mixed": judged_slides.mixed, "damaged": damaged},
            "slides": slides,
            "lesions": lesions,
            "each": [_describe_slide(slide) for slide in judged_slides.slides],
        }
    )


def _describe_patches(class_evaluation: "ClassEvaluation", averages: Any) -> dict[str, Any]:
    scores = class_evaluation.scores
    return {
        "patches": scores.images,
        "accuracy": scores.accuracy if scores.images else None,
        "correct": scores.correct,
        **evaluation_tables.encode_figures(class_evaluation, averages),
    }


def _print_slides(report: Report, judged_slides: "EvaluatedSlides") -> dict[str, Any]:
    """Print how well slides with and without tumour are separated; return the document."""
    area, bounds = judged_slides.compute_auc()
    count, tumour = (
        len(judged_slides.slides),
        sum(slide.has_tumour for slide in judged_slides.slides),
    )
    text = f"slides: {count:,}, {tumour:,} with tumour"
    area_text = evaluation_tables.render_figure(area, bounds)
    report.print_text(
        f"{text}; ROC-AUC {area_text}" if area is not None
        else f"{text}: all slides are of one kind, so there is no ROC curve"
    )  # fmt: skip
    return {
        "slides": count,
        "tumour": tumour,
        "score": "the highest probability of a patch",
        "auc": area,
        "interval": evaluation_tables.encode_bounds(bounds),
    }


def _print_lesions(
    report: Report, judged_slides: "EvaluatedSlides", rule: "LesionRule"
) -> dict[str, Any]:
    """Print how many lesions are found; return the document."""
    from tcc.compiler.reference.froc_curve import RATES

    counted_flags = [
        counted for slide in judged_slides.slides for counted in slide.lesions.is_counted
    ]
    count, short = sum(counted_flags), len(counted_flags) - sum(counted_flags)
    short_note = f"; {short:,} shorter than {rule.shortest:g} um are not counted" if short else ""
    report.print_text(f"lesions: {count:,}{short_note}")
    froc, normal_froc = judged_slides.compute_froc(), judged_slides.compute_froc(normal_only=True)
    if froc:
        columns = ["false positives per slide", *(f"{rate:g}" for rate in RATES), "mean"]
        rows = [_create_row("sensitivity", froc)]
        if normal_froc:
            rows.append(_create_row("on slides without tumour", normal_froc))
        report.print_table(columns, rows)
    else:
        report.print_text("no lesion is counted, so there is no sensitivity")
    if not report.quiet:
        report.print_text("")
        _print_slide_table(report, judged_slides)
    return {
        "lesions": count,
        "short": short,
        "rule": asdict(rule) | {"ties": TIE_RULE},
        "rates": list(RATES),
        "all_slides": _describe_froc(froc),
        "slides_without_tumour": _describe_froc(normal_froc),
    }


def _create_row(name: str, figures: "FrocFigures") -> tuple[TableCell, ...]:
    cells = (f"{value:.4f}" for value in figures.sensitivities)
    return name, *cells, evaluation_tables.render_figure(figures.score, figures.bounds)


def _describe_froc(figures: "FrocFigures | None") -> dict[str, Any] | None:
    if figures is None:
        return None
    return {
        "sensitivities": list(figures.sensitivities),
        "mean": figures.score,
        "interval": evaluation_tables.encode_bounds(figures.bounds),
    }


def _print_slide_table(report: Report, judged_slides: "EvaluatedSlides") -> None:
    rows: list[tuple[TableCell, ...]] = []
    for slide in judged_slides.slides:
        likely = f"{slide.probability:.4f}" if len(slide.slide_result.tumour) else "no patch"
        probabilities = slide.build_froc_slide(False).lesions
        hits = int((probabilities == probabilities).sum())  # noqa: PLR0124 - NaN is none
        rows.append(
            (slide.slide_result.name, len(probabilities), hits, len(slide.false_positives), likely)
        )
    heads = ("slide", "lesions", "found", "false positives", "highest probability")
    report.print_table(heads, rows)


def _describe_slide(slide: "EvaluatedSlide") -> dict[str, Any]:
    """Return the found and the missed lesions of a slide, and the false positives."""
    lesions = slide.lesions
    lesion_documents = []
    for number, (axis, counted, (x, y)) in enumerate(
        zip(lesions.major_axes, lesions.is_counted, lesions.centers, strict=True), 1
    ):
        best = slide.find_lesion_probability(number)
        lesion_documents.append({"x": x, "y": y, "length_um": axis, "counted": counted,
                     "probability": best if best >= 0 else None})  # fmt: skip
    return {
        "slide": slide.slide_result.name,
        "patches": len(slide.slide_result.tumour),
        "tumour": slide.has_tumour,
        "probability": slide.probability,
        "lesions": lesion_documents,
        "false_positives": [
            {"x": spot.x, "y": spot.y, "probability": spot.probability}
            for spot in slide.false_positives
        ],
    }
