"""Render values as self-contained HTML for notebooks: it loads nothing and runs nothing."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.predictions import ImagePredictions, Prediction, Predictions
    from tcc.compiler.driver.spec_check import SpecCheck
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.graph import Graph, Model
    from tcc.compiler.train.run_folder import TrainingReport

MAX_FIGURE_LENGTH = 2_000_000
"""Largest figure that is shown, in characters of SVG."""
MAX_IMAGES, MAX_BARS = 20, 10
"""Most images with predictions shown, and most classes of each."""
_CELL = "padding:.1rem .6rem;text-align:left;border:none"


def render(value: object) -> str:
    """Return a value's summary, with a figure, bars or a matrix if it has one."""
    draw = VIEWS.get(type(value).__name__)
    return f"<div>\n{_render_text(repr(value))}{draw(value) if draw else ''}</div>\n"


def _render_text(text: str) -> str:
    from html import escape

    return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>\n'


def _render_spec(spec: "Spec") -> str:
    return _render_graph(spec.graph)


def _render_model(model: "Model") -> str:
    return _render_graph(model.graph)


def _render_graph(graph: "Graph") -> str:
    from html import escape

    from tcc.compiler.figures.graph_image import FigureOptions, draw

    svg_text = draw(graph, FigureOptions())
    if len(svg_text) > MAX_FIGURE_LENGTH:
        return "<p>The figure of this network is too large to show.</p>\n"
    return (
        '<div style="overflow:auto;max-height:40rem;background:#fff">'
        f'<img alt="layers of {escape(graph.name)} from input to output" style="max-width:none" '
        f'src="data:image/svg+xml;base64,{b64encode(svg_text.encode()).decode()}"></div>\n'
    )


def _render_check(check: "SpecCheck") -> str:
    return _render_graph(check.spec.graph)


def _render_evaluation(evaluated: "Evaluated") -> str:
    return _render_confusion(evaluated.images.labels, evaluated.scores.confusion)


def _render_training(report: "TrainingReport") -> str:
    return _render_confusion(report.data.classes, report.test.confusion) if report.test else ""


def _render_confusion(labels: Iterable[str], counts: tuple[tuple[int, ...], ...]) -> str:
    from tcc.compiler.driver.report_html import render_confusion

    # Decisions that do not exclude each other have no confusion matrix; nor do several outputs.
    names = tuple(labels)
    return render_confusion(names, counts) if len(counts) == len(names) else ""


def _render_predictions(predictions: "Predictions") -> str:
    image_views = "".join(map(_render_image, predictions[:MAX_IMAGES]))
    hidden_count = len(predictions) - MAX_IMAGES
    return (
        f"{image_views}<p>and {hidden_count:,} more images</p>\n"
        if hidden_count > 0
        else image_views
    )


def _render_image(image: "ImagePredictions") -> str:
    from html import escape

    return f"<p>{escape(image.name)}</p>\n" + "".join(map(_render_prediction, image.values()))


def _render_prediction(prediction: "Prediction") -> str:
    """Return the largest values of an output, with a bar for each probability."""
    from html import escape

    if prediction.values.ndim != 1:
        return _render_text(repr(prediction))
    has_bars = prediction.output.activation != "none"
    rows = []
    ranked = prediction.ranked()
    for _, label, number in ranked[:MAX_BARS]:
        width = f"width:{10 * number:.2f}rem" if has_bars and 0 <= number <= 1 else "display:none"
        rows.append(
            f'<tr><td style="{_CELL}">{escape(label)}</td>'
            f'<td style="{_CELL};text-align:right">{number:.4f}</td><td style="{_CELL}">'
            f'<div style="height:.7rem;background:#0969da;{width}"></div></td></tr>\n'
        )
    hidden_count = len(ranked) - MAX_BARS
    remainder = f"<p>and {hidden_count:,} more</p>\n" if hidden_count > 0 else ""
    caption = f"<caption>{escape(prediction.output.name)}</caption>\n"
    return f"<table>\n{caption}<tbody>\n{''.join(rows)}</tbody></table>\n{remainder}"


VIEWS: Mapping[str, Callable[[Any], str]] = {
    "Evaluated": _render_evaluation,
    "Graph": _render_graph,
    "ImagePredictions": _render_image,
    "Model": _render_model,
    "Prediction": _render_prediction,
    "Predictions": _render_predictions,
    "Spec": _render_spec,
    "SpecCheck": _render_check,
    "TrainingReport": _render_training,
}
"""What is shown after the summary of a value, by the name of its class."""
