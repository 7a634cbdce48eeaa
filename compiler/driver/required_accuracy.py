"""What a build asks of integers, by its options, the spec or default, and what it would refuse."""

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import floor_evidence, int8_program, pipeline
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.reference.accuracy_floor import CORRELATION, ENOUGH, AccuracyFloor


def refused(
    spec: Spec, given: WeightSource, document: CalibrationDocument, images: DataSet
) -> tuple[str, ...]:
    """Return why a build would refuse a fresh calibration, in words; nothing where it would not.

    Images that it had not learnt from judge, as far as there are enough.

    Args:
        spec: The network, with what it asks of integers.
        given: Its weights.
        document: The calibration.
        images: Those that it was made with.
    """
    minimum, (learn, judge) = floor(spec, Accuracy()), document.data.parts(images)
    different = floor_evidence.split_images(learn, judge, mixed=False).different
    few = (
        (f"{different} different images judge them, and it takes {ENOUGH} or `--allow-few`",)
        if different < ENOUGH and minimum.needs_images(o.meaning for o in spec.graph.outputs)
        else ()
    )
    model = pipeline.ready(spec, given)
    losses = floor_evidence.read_stated_losses(document, model)
    if bounds := floor_evidence.compute_calibration_bounds(document, model):
        quality = {name: loss.quality for name, loss in losses.items() if loss.quality}
        return (*minimum.broken(quality, bounds), *few)
    # Few images state nothing, nor do outputs that are no numbers.
    comparison = int8_program.compared(spec, given, document, images)
    return (*minimum.broken(comparison.quality, comparison.bounds), *few)


def floor(spec: Spec, requested: Accuracy, *, allow_few: bool = False) -> AccuracyFloor:
    """Return the floor: what is asked for, or else the spec's, or else the default.

    Args:
        spec: The network, with what it asks of integers.
        requested: What the user asks.
        allow_few: Judge by however few images there are.
    """
    own = spec.accuracy
    correlation = _first(requested.min_correlation, own.min_correlation)
    return AccuracyFloor(
        _first(requested.min_cosine, own.min_cosine),
        _first(requested.max_drop, own.max_drop),
        CORRELATION if correlation is None else correlation,
        _first(requested.max_error, own.max_error),
        0 if allow_few else ENOUGH,
    )


def _first(asked: float | None, own: float | None) -> float | None:
    return own if asked is None else asked
