"""Tumour classes of a network, and the tumour probability of patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle.manifest import Manifest, OutputContract
from tcc.compiler.reference import decision_rule
from tcc.compiler.reference.output_activations import apply_activation
from tcc.compiler.support.diagnostics import fail, find_nearest_name, make_file_span

if TYPE_CHECKING:
    from tcc.compiler.ir.operating_point import OperatingPoint

TUMOUR_LABELS = frozenset({"cancer", "malignant", "metastasis", "tumor", "tumour"})
"""Labels that mean tumour for any network."""


@dataclass(frozen=True, slots=True)
class TumourRule:
    """Rule for deciding whether a patch is tumour.

    Attributes:
        output: The output with the classes.
        labels: The labels of the output.
        classes: The indices of the tumour classes.
        threshold: The minimum probability of tumour; None if the predicted class decides.
        point: The output's operating point, if any.
        is_user_named: Whether the user named the classes.
    """

    output: OutputContract
    labels: tuple[str, ...]
    classes: tuple[int, ...]
    threshold: float | None
    point: "OperatingPoint | None"
    is_user_named: bool

    def compute_probabilities(self, raw_outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each class for raw outputs (patches, classes)."""
        temperature = self.point.temperature if self.point else 1.0
        probabilities: NDArray[np.float64] = apply_activation(
            self.output.activation, raw_outputs.T, temperature
        ).T
        return probabilities

    def sum_tumour_probabilities(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each patch's tumour probability: the sum over classes, or the maximum decision."""
        class_probabilities = probabilities[:, list(self.classes)]
        is_exclusive = self.output.activation == "softmax"
        return np.asarray(
            np.minimum(class_probabilities.sum(axis=1), 1.0)
            if is_exclusive
            else class_probabilities.max(axis=1)
        )

    def classify_patches(
        self, raw_outputs: NDArray[np.float32], tumour: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return whether each patch is tumour.

        Args:
            raw_outputs: Raw outputs (patches, classes).
            tumour: The tumour probability of each patch.
        """
        if self.threshold is not None:
            return tumour >= self.threshold
        if self.output.activation == "softmax":
            predicted_classes = decision_rule.predict_classes("softmax", raw_outputs, self.point)
            return np.isin(predicted_classes, self.classes)
        decisions = decision_rule.predict_decisions(raw_outputs, self.point)[:, list(self.classes)]
        return np.asarray(decisions.any(axis=1), np.bool_)


def build_rule(
    manifest: Manifest, tumour_names: Sequence[str], threshold: float | None, bundle_path: str
) -> TumourRule:
    """Return the tumour rule of a bundle.

    Args:
        manifest: The bundle's manifest.
        tumour_names: The tumour classes that the user names; if empty, labels are recognized.
        threshold: The minimum probability of a tumour patch, if the user gives it.
        bundle_path: The bundle's folder, for errors.

    Raises:
        UserError: The network has no class probabilities (E1311), no label is recognized as tumour
            (E1312), or a named class does not exist (E1312).
    """
    output = _select_output(manifest, bundle_path)
    labels = output.labels or tuple(map(str, range(output.shape[0])))
    if tumour_names:
        classes = tuple(sorted({_find_class(name, labels, bundle_path) for name in tumour_names}))
    else:
        classes = tuple(n for n, label in enumerate(labels) if label.casefold() in TUMOUR_LABELS)
    if not classes:
        message = "it is unknown which of this network's classes are tumour"
        help = f"name each with --tumour; the classes are {', '.join(labels)[:200]}"
        raise fail("E1312", message, make_file_span(bundle_path), help=help)
    point = manifest.find_operating_point(output.name)
    return TumourRule(output, labels, classes, threshold, point, bool(tumour_names))


def _select_output(manifest: Manifest, bundle_path: str) -> OutputContract:
    rows = [
        output
        for output in manifest.outputs
        if len(output.shape) == 1 and output.activation != "none"
    ]
    class_outputs = [output for output in rows if output.kind == "classes" and output.shape[0] > 1]
    decisions = [output for output in rows if output.kind == "decisions"]
    if not class_outputs + decisions:
        message = "this network has no output with class probabilities"
        help = "use a network with an output with `activation: softmax` or `sigmoid`"
        raise fail("E1311", message, make_file_span(bundle_path), help=help)
    return (class_outputs + decisions)[0]


def _find_class(name: str, labels: tuple[str, ...], bundle_path: str) -> int:
    index_by_name = {label.casefold(): n for n, label in enumerate(labels)}
    if name.casefold() in index_by_name:
        return index_by_name[name.casefold()]
    suggestion = find_nearest_name(name, set(labels))
    class_list = f"the classes are {', '.join(labels)[:200]}"
    help = f"did you mean `{suggestion}`? {class_list}" if suggestion else class_list
    raise fail("E1312", f"there is no class `{name[:80]}`", make_file_span(bundle_path), help=help)
