"""Which of a network's classes are tumour, and how likely a patch is one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle.manifest import Manifest, OutputContract
from tcc.compiler.reference import decision_rule
from tcc.compiler.reference.output_activations import applied
from tcc.compiler.support.diagnostics import fail, nearest, whole_file

if TYPE_CHECKING:
    from tcc.compiler.ir.operating_point import OperatingPoint

WORDS = frozenset({"cancer", "malignant", "metastasis", "tumor", "tumour"})
"""Labels that name a tumour whatever the network."""


@dataclass(frozen=True, slots=True)
class TumourRule:
    """When a patch is tumour.

    `classes` are those of the output; `threshold` is the probability from which on it is one, None
    where the class that it is taken for says so. `said` is whether the user named the classes.
    """

    output: OutputContract
    labels: tuple[str, ...]
    classes: tuple[int, ...]
    threshold: float | None
    point: "OperatingPoint | None"
    said: bool

    def probabilities(self, raw: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each class, of raw outputs (patches, classes)."""
        temperature = self.point.temperature if self.point else 1.0
        found: NDArray[np.float64] = applied(self.output.activation, raw.T, temperature).T
        return found

    def tumour(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how likely each patch is tumour: a sum of classes, the largest of decisions."""
        own = probabilities[:, list(self.classes)]
        exclusive = self.output.activation == "softmax"
        return np.asarray(np.minimum(own.sum(axis=1), 1.0) if exclusive else own.max(axis=1))

    def positive(self, raw: NDArray[np.float32], tumour: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which patches are tumour.

        Args:
            raw: Raw outputs (patches, classes).
            tumour: How likely each is.
        """
        if self.threshold is not None:
            return tumour >= self.threshold
        if self.output.activation == "softmax":
            taken = decision_rule.class_taken("softmax", raw, self.point)
            return np.isin(taken, self.classes)
        decided = decision_rule.decided(raw, self.point)[:, list(self.classes)]
        return np.asarray(decided.any(axis=1), np.bool_)


def rule(about: Manifest, named: Sequence[str], threshold: float | None, place: str) -> TumourRule:
    """Return when a patch is tumour for a bundle.

    Args:
        about: The bundle's manifest.
        named: The classes that the user calls so; none, where the labels tell.
        threshold: The probability from which on a patch is one, if the user says it.
        place: The bundle's folder, for errors.

    Raises:
        UserError: The network gives no probabilities of classes (E1311), no label names a tumour
            (E1312), or there is no such class (E1312).
    """
    output = _output(about, place)
    labels = output.labels or tuple(map(str, range(output.shape[0])))
    if named:
        classes = tuple(sorted({_index(name, labels, place) for name in named}))
    else:
        classes = tuple(n for n, label in enumerate(labels) if label.casefold() in WORDS)
    if not classes:
        message = "which of this network's classes are tumour?"
        help = f"say it with --tumour, once or more often: classes are {', '.join(labels)[:200]}"
        raise fail("E1312", message, whole_file(place), help=help)
    point = about.operating_point(output.name)
    return TumourRule(output, labels, classes, threshold, point, bool(named))


def _output(about: Manifest, place: str) -> OutputContract:
    rows = [one for one in about.outputs if len(one.shape) == 1 and one.activation != "none"]
    wide = [one for one in rows if one.kind == "classes" and one.shape[0] > 1]
    decisions = [one for one in rows if one.kind == "decisions"]
    if not wide + decisions:
        message = "this network gives no probabilities of classes"
        help = "an output with `activation: softmax` or `sigmoid` does"
        raise fail("E1311", message, whole_file(place), help=help)
    return (wide + decisions)[0]


def _index(name: str, labels: tuple[str, ...], place: str) -> int:
    known = {label.casefold(): n for n, label in enumerate(labels)}
    if name.casefold() in known:
        return known[name.casefold()]
    close = nearest(name, set(labels))
    listed = f"classes are {', '.join(labels)[:200]}"
    help = f"did you mean `{close}`? {listed}" if close else listed
    raise fail("E1312", f"there is no class `{name[:80]}`", whole_file(place), help=help)
