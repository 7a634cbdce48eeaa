"""Reliability and decision curves of an evaluated network."""

from collections.abc import Sequence

import numpy as np

from tcc.compiler.data.dataset import MAX_LISTED, find_class_index
from tcc.compiler.data.probability_quality import DecisionCurve, Reliability
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import CLASS_SEPARATOR, LabelledImages
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.reference import decision_curve, reliability
from tcc.compiler.reference.decision_curve import PERCENTS
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_command_span

MAX_CURVES = 12
"""Most classes with a decision curve, unless the user names some."""


def has_probabilities(evaluated: Evaluated) -> bool:
    """Whether the outputs are probabilities, and are kept."""
    return evaluated.raw is not None and evaluated.images.output.activation != "none"


def measure_reliability(
    evaluated: Evaluated, temperature: float, seed: int
) -> tuple[Reliability, ...]:
    """Return the reliability of the classes, or of each decision; empty without probabilities.

    Args:
        evaluated: The network's outputs for labelled images.
        temperature: Divisor of the raw outputs.
        seed: Seed of the random numbers.
    """
    odds = evaluated.compute_log_odds(temperature)
    if odds is None or not has_probabilities(evaluated):
        return ()
    images = evaluated.images
    return reliability.measure_reliability(
        images.labels,
        odds,
        images.truth,
        evaluated.predicted,
        images.exclusive,
        images.cases,
        seed,
    )


def compute_curves(
    evaluated: Evaluated,
    temperature: float,
    targets: Sequence[tuple[int, ...]],
    percents: Sequence[int] = PERCENTS,
) -> tuple[DecisionCurve, ...]:
    """Return the decision curve of each set of target classes; empty without probabilities.

    Args:
        evaluated: The network's outputs for labelled images.
        temperature: Divisor of the raw outputs.
        targets: Indices of the target classes of each curve.
        percents: The thresholds, in per cent.
    """
    odds = evaluated.compute_log_odds(temperature)
    images = evaluated.images
    if odds is None or not has_probabilities(evaluated) or not len(images.dataset):
        return ()
    truth = images.truth
    return tuple(
        decision_curve.compute_curve(
            [images.labels[k] for k in columns],
            decision_curve.compute_probability(odds, columns),
            np.asarray(truth[:, list(columns)].any(axis=1)),
            images.cases,
            percents,
        )
        for columns in targets
    )


def choose_targets(
    images: LabelledImages, point: OperatingPoint | None, name: str | None
) -> tuple[tuple[int, ...], ...]:
    """Return the target classes of each decision curve.

    Those that the user names; or else the positive class of a single decision or of the operating
    point; or else each class, if they are at most `MAX_CURVES`.

    Args:
        images: The labelled images.
        point: The operating point, if any.
        name: The user's classes, joined with `+`; None for the default.

    Raises:
        UserError: The network has no such class, or several decisions are named (E1262).
    """
    if name is not None:
        return (find_target_classes(images, name),)
    if images.single:
        return ((1,),)
    if point is not None and point.positive is not None:
        return ((point.positive,),)
    count = len(images.labels)
    return tuple((k,) for k in range(count)) if count <= MAX_CURVES else ()


def find_target_classes(images: LabelledImages, name: str) -> tuple[int, ...]:
    """Return the indices of the classes in a name, in the network's order.

    Raises:
        UserError: The network has no such class, or several decisions are named (E1262).
    """
    by_name = {label.casefold(): index for index, label in enumerate(images.labels)}
    # Class names may contain the separator, so the whole name is looked up first.
    parts = [name]
    if find_class_index(name, by_name) is None:
        parts = [part.strip() for part in name.split(CLASS_SEPARATOR)]
    indices = {part: find_class_index(part, by_name) for part in parts}
    at = make_command_span(f"--class {name[:80]}")
    for part, index in indices.items():
        if index is None or index >= len(images.labels):
            nearest_name = find_nearest_name(part, images.labels)
            help = f"did you mean `{nearest_name}`? " if nearest_name else ""
            help += f"its classes are {', '.join(images.labels[:MAX_LISTED])}"
            raise fail("E1262", f"the network has no class `{part[:80]}`", at, help=help)
    columns = tuple(sorted({index for index in indices.values() if index is not None}))
    if len(columns) > 1 and not images.exclusive:
        message = "the network does not state how likely any of several decisions is"
        raise fail("E1262", message, at, help="name one decision")
    if len(columns) == len(images.labels):
        message = "these are all classes of the network, so that every image is positive"
        raise fail("E1262", message, at, help="leave out at least one class")
    return columns
