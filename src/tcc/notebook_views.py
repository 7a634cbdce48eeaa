"""What notebooks show of values: HTML of one piece that loads nothing and runs nothing."""

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

MAX_PICTURE = 2_000_000
"""Most characters of a picture that is shown."""
MOST_IMAGES, MOST_BARS = 20, 10
"""Most images whose predictions are drawn, and most classes of each."""
_CELL = "padding:.1rem .6rem;text-align:left;border:none"


def render(value: object) -> str:
    """Return a value's summary with what else shows it: a picture, bars or a matrix."""
    draw = VIEWS.get(type(value).__name__)
    return f"<div>\n{_preformatted(repr(value))}{draw(value) if draw else ''}</div>\n"


def _preformatted(text: str) -> str:
    from html import escape

    return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>\n'


def _spec(spec: "Spec") -> str:
    return _graph(spec.graph)


def _model(model: "Model") -> str:
    return _graph(model.graph)


def _graph(graph: "Graph") -> str:
    from html import escape

    from tcc.compiler.figures.graph_picture import PictureOptions, draw

    picture = draw(graph, PictureOptions())
    if len(picture) > MAX_PICTURE:
        return "<p>The picture of this network is too large to show.</p>\n"
    return (
        '<div style="overflow:auto;max-height:40rem;background:#fff">'
        f'<img alt="layers of {escape(graph.name)} from input to output" style="max-width:none" '
        f'src="data:image/svg+xml;base64,{b64encode(picture.encode()).decode()}"></div>\n'
    )


def _check(check: "SpecCheck") -> str:
    return _graph(check.spec.graph)


def _evaluation(evaluated: "Evaluated") -> str:
    return _confusion(evaluated.given.labels, evaluated.scores.confusion)


def _training(report: "TrainingReport") -> str:
    return _confusion(report.data.classes, report.test.confusion) if report.test else ""


def _confusion(labels: Iterable[str], counts: tuple[tuple[int, ...], ...]) -> str:
    from tcc.compiler.driver.report_html import confusion

    # Decisions that do not exclude each other have no matrix, nor have several outputs together.
    names = tuple(labels)
    return confusion(names, counts) if len(counts) == len(names) else ""


def _predictions(predictions: "Predictions") -> str:
    shown = "".join(map(_image, predictions[:MOST_IMAGES]))
    hidden = len(predictions) - MOST_IMAGES
    return f"{shown}<p>and {hidden:,} more images</p>\n" if hidden > 0 else shown


def _image(image: "ImagePredictions") -> str:
    from html import escape

    return f"<p>{escape(image.name)}</p>\n" + "".join(map(_prediction, image.values()))


def _prediction(prediction: "Prediction") -> str:
    """Return a bar for each of the largest probabilities; numbers that are none have no bar."""
    from html import escape

    if prediction.values.ndim != 1:
        return _preformatted(repr(prediction))
    has_bars = prediction.output.activation != "none"
    rows = []
    ranked = prediction.ranked()
    for _, label, number in ranked[:MOST_BARS]:
        width = f"width:{10 * number:.2f}rem" if has_bars and 0 <= number <= 1 else "display:none"
        rows.append(
            f'<tr><td style="{_CELL}">{escape(label)}</td>'
            f'<td style="{_CELL};text-align:right">{number:.4f}</td><td style="{_CELL}">'
            f'<div style="height:.7rem;background:#0969da;{width}"></div></td></tr>\n'
        )
    hidden = len(ranked) - MOST_BARS
    more = f"<p>and {hidden:,} more</p>\n" if hidden > 0 else ""
    caption = f"<caption>{escape(prediction.output.name)}</caption>\n"
    return f"<table>\n{caption}<tbody>\n{''.join(rows)}</tbody></table>\n{more}"


VIEWS: Mapping[str, Callable[[Any], str]] = {
    "Evaluated": _evaluation,
    "Graph": _graph,
    "ImagePredictions": _image,
    "Model": _model,
    "Prediction": _prediction,
    "Predictions": _predictions,
    "Spec": _spec,
    "SpecCheck": _check,
    "TrainingReport": _training,
}
"""What is shown of values beside their summary, by the names of their classes."""
