"""What a build asks of integers, by its options, the spec or default, and what it would refuse."""

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.driver import int8_program
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.reference.accuracy_floor import CORRELATION, AccuracyFloor


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
    judged = {name: one.quality for name, one in document.expected.items() if one.quality}
    least = floor(spec, Accuracy())
    if all(o.name in judged for o in spec.graph.outputs if not o.train_only):
        return least.broken(judged)
    # Of few images, and of outputs that are no numbers, nothing is expected.
    return least.broken(int8_program.compared(spec, given, document, images).quality)


def floor(spec: Spec, asked: Accuracy) -> AccuracyFloor:
    """Return the floor: what is asked for, or else the spec's, or else the default."""
    own = spec.accuracy
    correlation = _first(asked.min_correlation, own.min_correlation)
    return AccuracyFloor(
        _first(asked.min_cosine, own.min_cosine),
        _first(asked.max_drop, own.max_drop),
        CORRELATION if correlation is None else correlation,
        _first(asked.max_error, own.max_error),
    )


def _first(asked: float | None, own: float | None) -> float | None:
    return own if asked is None else asked
