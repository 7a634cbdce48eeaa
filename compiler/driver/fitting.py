"""Fitting how a bundle's outputs are read, to images that nothing is judged by."""

from collections.abc import Sequence
from dataclasses import dataclass

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.bundle_comparison import unlike
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.driver.evaluation import Evaluated
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.reference import decision_odds, decision_rule
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, nearest, whole_file

MOST_LISTED = 10
"""Images that are named where the same are on two sides."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """How thresholds are chosen: by Youden's J, or the least `sensitivity`; for which class."""

    positive: str | None = None
    sensitivity: float | None = None

    def __str__(self) -> str:
        """Say it."""
        if self.sensitivity is None:
            return "largest sensitivity + specificity (Youden's J)"
        return f"sensitivity of {self.sensitivity:g} or more"


def fit(found: Evaluated, program: str, wanted: Criterion) -> OperatingPoint:
    """Return what fits outputs best: the temperature, and the threshold of each decision.

    A row of classes has a threshold for the class that is asked for.

    Args:
        found: What a network gave for labelled images.
        program: Names what ran.
        wanted: How thresholds are chosen.

    Raises:
        UserError: There are too many outputs or no probabilities to fit (E1263), no such class
            (E1262), or a class or all others have no image (E1263).
    """
    given, raw = found.given, found.raw
    where = whole_file(str(given.path))
    output = given.output
    if raw is None or output.kind == "regression":
        message = f"`{output.name}` is a row of numbers, and no classes"
        if raw is None:
            message = f"{len(given.data):,} images are too many to fit to"
        raise fail("E1263", message, where, help="take fewer" if raw is None else "")
    positive = _positive(found, wanted)
    holds = given.holds[:, 1:] if given.single else given.holds
    _check_classes(found)
    sharp = None
    if output.activation != "none":
        sharp = _temperature(output.activation, raw, holds)
    # Thresholds are of the probabilities that are shown, so that they come after the temperature.
    temperature = sharp or 1.0
    columns = threshold_columns(given, positive)
    chosen = [_threshold(found, temperature, column, wanted) for column in columns]
    thresholds = tuple(threshold for threshold in chosen if threshold is not None)
    if len(thresholds) < len(chosen):  # the row's only one: without it the largest output decides
        positive = None
    before_after = None
    if output.activation != "none":
        at = [decision_rule.likelihood(output.activation, raw, holds, t) for t in (1, temperature)]
        before_after = (at[0], at[1])
    criterion = str(wanted) if thresholds else "none"
    data = FittingData(given.data.digest, len(given.data), program, before_after)
    target = wanted.sensitivity if thresholds else None
    return OperatingPoint(output.name, temperature, positive, thresholds, criterion, data, target)


def _temperature(
    activation: OutputActivation, raw: decision_rule.Raw, holds: decision_rule.Truth
) -> float | None:
    """Return the best temperature, None where no other is better than 1 on these images."""
    best = decision_rule.best_temperature(activation, raw, holds)
    if best is None:
        return None
    fitted, plain = (decision_rule.likelihood(activation, raw, holds, t) for t in (best, 1.0))
    return best if fitted < plain else None


def _check_classes(found: Evaluated) -> None:
    """Refuse images of one class alone, by which any network that knows it is too unsure (E1263).

    Raises:
        UserError: They are.
    """
    given = found.given
    there = sorted(frozenset.union(*given.sets))
    if given.exclusive and len(there) == 1:
        message = f"these images are all of `{given.labels[there[0]]}`"
        help = "give images of every class"
        raise fail("E1263", message, whole_file(str(given.path)), help=help)


def _positive(found: Evaluated, wanted: Criterion) -> int | None:
    """Return the class that a threshold is for, None where there is none or each has one."""
    given, name = found.given, wanted.positive
    where = whole_file(str(given.path))
    if given.single or not given.exclusive:
        if name is not None:
            message = f"`{given.output.name}` decides by itself, so that `--positive` says nothing"
            raise fail("E1262", message, where, help="leave it out")
        return None
    if name is None:
        if wanted.sensitivity is not None:
            message = "a sensitivity is that of one class, and it is not said of which"
            help = f"say --positive with one of {', '.join(given.labels[:20])}"
            raise fail("E1262", message, where, help=help)
        return None
    # Typed by hand: `--positive tumor` means `Tumor`.
    folded = {label.casefold(): index for index, label in enumerate(given.labels)}
    if name.casefold() in folded:
        return folded[name.casefold()]
    close = nearest(name, set(given.labels))
    help = f"its classes are {', '.join(given.labels[:20])}"
    help = f"did you mean `{close}`? {help}" if close else help
    raise fail("E1262", f"the network has no class `{name[:80]}`", where, help=help)


def threshold_columns(given: LabelledImages, positive: int | None) -> Sequence[int]:
    """Return the classes that thresholds are for; `positive` is a row's class with one."""
    if given.single:
        return (1,)
    if not given.exclusive:
        return range(len(given.labels))
    return () if positive is None else (positive,)


def _threshold(
    found: Evaluated, temperature: float, column: int, wanted: Criterion
) -> float | None:
    """Return the threshold that does what is wanted on these images, and no less than no threshold.

    None where the rule without a threshold does better than each of them.
    """
    given = found.given
    where, name = whole_file(str(given.path)), given.labels[column]
    holds = given.holds[:, column]
    if holds.all() or not holds.any():
        message = f"a threshold for `{name}` needs images that are of it and others"
        label = f"{int(holds.sum())} of {len(holds)} are"
        raise fail("E1263", message, where, label=label)
    assert found.raw is not None
    # By the very numbers that decide later; of a single decision, which is yes, the only one.
    row = 0 if given.single else column
    odds = decision_odds.class_odds(given.output.activation, found.raw, temperature, row)
    taken = found.taken[:, column]  # by the rule without a threshold
    if wanted.sensitivity is not None:
        # What the default rule detects already, a threshold must not lose.
        least = max(wanted.sensitivity, float(taken[holds].mean()))
        return decision_rule.by_sensitivity(odds, holds, least)
    threshold = decision_rule.by_youden(odds, holds)
    default = decision_rule.youden(taken, holds)
    if threshold is None and default <= decision_rule.CHANCE:
        message = f"no threshold tells images of `{name}` from others better than chance"
        raise fail("E1263", message, where, help="train the network first")
    if threshold is None:
        return None
    gain = decision_rule.youden(odds >= threshold, holds)
    return threshold if gain >= default - decision_rule.CHANCE else None


def check_apart(fitted: Evaluated, judged: Evaluated) -> None:
    """Refuse images that are on both sides (E1261), by their pixels.

    Raises:
        UserError: They are listed.
    """
    known = {
        digest: item.name
        for digest, item in zip(fitted.inputs, fitted.given.data.items, strict=True)
    }
    same = [
        (known[digest], item.name)
        for digest, item in zip(judged.inputs, judged.given.data.items, strict=True)
        if digest in known
    ]
    if same:
        count = f"{len(same):,} images are" if len(same) > 1 else "an image is"
        notes = tuple(f"{first} is {second}" for first, second in same[:MOST_LISTED])
        message = f"{count} among those that values are fitted to and among those that judge them"
        help = "keep the images of `val` and `test` apart, and those of a patient on one side"
        where = whole_file(str(judged.given.path))
        raise UserError((Diagnostic("E1261", message, where, notes=notes, help=help),))


def carried(found: Bundle, other: Bundle) -> tuple[OperatingPoint, ...]:
    """Return what was fitted of another bundle of the same network.

    Raises:
        UserError: It is of another network, or nothing was fitted of it (E1264).
    """
    where = whole_file(str(other.folder))
    if why := unlike(found, other):
        message = "what was fitted of another network says nothing of this one"
        raise fail("E1264", message, where, label=why)
    if not other.manifest.operating_points:
        message, help = "nothing was fitted of this bundle", "`tcc eval --fit` does"
        raise fail("E1264", message, where, help=help)
    return other.manifest.operating_points


def store(found: Bundle, device: Device, points: Sequence[OperatingPoint]) -> Bundle:
    """Write a bundle anew that says how its outputs are read; its artifact stays as it is.

    Args:
        found: The bundle as it was read.
        device: Its target.
        points: How its outputs are to be read.

    Returns:
        The bundle as it is now.

    Raises:
        UserError: The folder cannot be written.
    """
    files = device.operating_point_files(found.model, points)
    signature = device.runner_signature(found.model)
    # It was of the program before.
    dropped = (signature.file,) if signature else ()
    return bundle_folder.refit(found, points, files, dropped)
