"""Check and describe prediction sets and abstention, on images that they were not fitted to."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.driver.counted_images import select_counted
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.driver.set_fitting import find_wrong
from tcc.compiler.ir.operating_point import (
    Abstention,
    AbstentionCheck,
    OperatingPoint,
    PredictionSets,
    SetsCheck,
)
from tcc.compiler.reference import confidence_intervals, prediction_sets

Raw = NDArray[np.float32]


def check_sets(point: OperatingPoint, images: LabelledImages, raw: Raw) -> SetsCheck | None:
    """Return how the prediction sets of a point do on images; None if it has none."""
    if point.sets is None:
        return None
    is_member = prediction_sets.find_sets(raw, point.sets.gaps)
    truth = images.truth
    groups = [truth[:, column] for column in range(truth.shape[1])]
    if not point.sets.by_class:
        groups = [np.ones(len(raw), np.bool_)]
    counted = [select_counted(images, members) for members in groups]
    is_covered: NDArray[np.bool_] = np.any(is_member & truth, axis=1)
    return SetsCheck(
        tuple(map(len, counted)),
        tuple(int(is_covered[indices].sum()) for indices in counted),
        float(is_member.sum(axis=1).mean()),
    )


def check_abstention(
    point: OperatingPoint, images: LabelledImages, raw: Raw
) -> AbstentionCheck | None:
    """Return how the abstention of a point does on images; None if it has none."""
    if point.abstention is None:
        return None
    is_answered = prediction_sets.find_answered(raw, point.abstention.margin)
    is_wrong = is_answered & find_wrong(images, raw)
    counted = select_counted(images, np.ones(len(raw), np.bool_))
    return AbstentionCheck(
        len(raw),
        int(is_answered.sum()),
        int(is_wrong.sum()),
        len(counted),
        int(is_wrong[counted].sum()),
    )


def describe_sets(sets: PredictionSets, labels: tuple[str, ...]) -> Iterator[str]:
    """Yield lines about prediction sets: the promise, what it rests on, and their size."""
    unit = "cases" if sets.cases else "images"
    of_what = "the images of each class" if sets.by_class else "images"
    promise = (
        f"prediction sets: on {of_what} like these, a share of {sets.coverage:g} or more have their"
        f" class in the set with {sets.confidence:.4g} confidence"
    )
    size = f"on these images, a set has {sets.mean_size:.2f} of {len(labels)} classes on average"
    if not sets.by_class:
        yield (
            f"{promise} ({sets.counted[0]:,} {unit}, {sets.allowed_misses[0]:,} of them may lack"
            f" it); {size}"
        )
        return
    yield f"{promise}; {size}"
    needed = confidence_intervals.count_images_needed(sets.coverage, 0, sets.confidence)
    for label, counted, gap, allowed in zip(
        labels, sets.counted, sets.gaps, sets.allowed_misses, strict=True
    ):
        if allowed is None:
            yield (
                f"  `{label}` is in every set: it has {counted:,} {unit}, and a smaller set needs"
                f" {needed:,}"
            )
        elif gap is None:
            yield f"  `{label}` is in every set"
        else:
            yield f"  `{label}`: {counted:,} {unit}, {allowed:,} of them may lack it"


def describe_abstention(abstention: Abstention) -> str:
    """Return one line about abstention: the promise, what it rests on, and its cost."""
    unit = "cases" if abstention.cases else "images"
    return (
        f"abstention: of all images like these, a share of {abstention.wrong_share:g} or less is"
        f" answered wrongly with {abstention.confidence:.4g} confidence"
        f" ({abstention.counted:,} {unit}, {abstention.allowed_wrong:,} of them may be answered"
        f" wrongly); of these images, {_describe_answers(abstention)}"
    )


def _describe_answers(counts: Abstention | AbstentionCheck) -> str:
    text = f"{counts.answered / counts.images:.2%} are answered"
    if not counts.answered:
        return text
    return (
        f"{text}, and {counts.wrong / counts.answered:.2%} of the answers are wrong"
        f" ({counts.wrong:,} of {counts.answered:,}), which has no promise"
    )


def describe_sets_check(point: OperatingPoint, labels: tuple[str, ...]) -> Iterator[str]:
    """Yield lines about sets and answers on images that they were not fitted on."""
    held_out = point.judged
    if held_out and held_out.sets and point.sets:
        names = [f"`{label}` " for label in labels] if point.sets.by_class else [""]
        shares = ", ".join(
            f"{name}{covered / counted:.4f} ({covered:,} of {counted:,})"
            for name, covered, counted in zip(
                names, held_out.sets.covered, held_out.sets.counted, strict=True
            )
            if counted
        )
        yield (
            f"prediction sets on the held-out images: coverage {shares}, promised"
            f" {point.sets.coverage:g}; {held_out.sets.mean_size:.2f} classes on average"
        )
    if held_out and held_out.abstention and point.abstention:
        check = held_out.abstention
        yield (
            "abstention on the held-out images:"
            f" {check.counted_wrong / check.counted:.2%} of all are answered wrongly, promised"
            f" {point.abstention.wrong_share:.2%} or less; {_describe_answers(check)}"
        )


def list_refuted_promises(point: OperatingPoint, labels: tuple[str, ...]) -> Iterator[str]:
    """Yield what the held-out images refute about sets and answers, with 95 % confidence."""
    held_out = point.judged
    if held_out is None:
        return
    if held_out.sets and point.sets:
        names = [f" for `{label}`" for label in labels] if point.sets.by_class else [""]
        for index in prediction_sets.list_refuted_coverages(point.sets, held_out.sets):
            yield (
                f"the promised coverage of {point.sets.coverage:g}{names[index]} is refuted:"
                f" {held_out.sets.covered[index]:,} of {held_out.sets.counted[index]:,} held-out"
                " images have their class in the set"
            )
    if held_out.abstention and point.abstention:
        check = held_out.abstention
        if prediction_sets.is_abstention_refuted(point.abstention, check):
            yield (
                f"the promise that at most {point.abstention.wrong_share:g} of all images are"
                f" answered wrongly is refuted: {check.counted_wrong:,} of"
                f" {check.counted:,} held-out images are"
            )
