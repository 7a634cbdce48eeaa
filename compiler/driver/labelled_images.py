"""Labelled images with the network's classes of each image.

The classes are those of the first output that is a row of classes, or else of decisions, or else of
numbers. A single decision has two classes, no and yes: images with its label, or with `1`, are yes,
all others no. With several decisions, a label names every class of the image with `+` between them,
or `none`. Names of classes of other outputs are ignored.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.data.dataset import MAX_LISTED, DataSet, find_class_index
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.value_views import ValueView, count, list_names

CLASS_SEPARATOR, NO_CLASS = "+", "none"
"""Separator of the classes in a label, and the label for no class."""
NEGATIVE, POSITIVE = "0", "1"
"""Labels of a single decision without a name."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelledImages(ValueView):
    """A dataset with the classes of each item, and its path.

    Each item has one class, except for decisions. `labels` are the class names in reports.
    """

    dataset: DataSet
    class_sets: tuple[frozenset[int], ...]
    labels: tuple[str, ...]
    output: OutputContract
    path: Path

    def _summarize(self) -> Iterator[str]:
        yield f"{count(len(self.dataset), 'labelled image')} of {self.path}"
        yield f"output {self.output.name}: {list_names(self.labels)}"

    @property
    def single(self) -> bool:
        """Whether the output is one decision, with the classes no and yes."""
        return self.output.shape[0] == 1

    @property
    def exclusive(self) -> bool:
        """Whether each image has exactly one class; else each class is decided separately."""
        return self.single or self.output.kind != "decisions"

    @property
    def classes(self) -> tuple[int, ...]:
        """The class index of each item, if each has exactly one.

        Raises:
            UserError: An item has several classes, or none (E0715).
        """
        for item, class_set in zip(self.dataset.items, self.class_sets, strict=True):
            if len(class_set) != 1:
                label = f"this image has the label `{str(item.label)[:80]}`"
                message = "each image must have exactly one class here"
                raise fail("E0715", message, make_file_span(item.name), label=label)
        return tuple(next(iter(class_set)) for class_set in self.class_sets)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Mask of the classes of each image (images, classes)."""
        truth = np.zeros((len(self.class_sets), len(self.labels)), np.bool_)
        for row, classes in zip(truth, self.class_sets, strict=True):
            row[list(classes)] = True
        return truth


def label_images(dataset: DataSet, outputs: Sequence[OutputContract], path: Path) -> LabelledImages:
    """Return a dataset with the network's classes of each image.

    Args:
        dataset: The images.
        outputs: The network's outputs, in its order.
        path: The images' path, for errors.

    Raises:
        UserError: No output has classes or decisions (E0716), images have no label (E0714), or a
            label that the network does not have (E0715).
    """
    output = _choose_output(outputs, path)
    unlabelled = [item for item in dataset.items if item.label is None]
    if unlabelled:
        label = f"{len(unlabelled)} of {len(dataset)}; the first is {unlabelled[0].name}"
        help = "put them in a folder for each class, or give an .npz file with `labels`"
        message, location = "these images have no labels", make_file_span(str(path))
        raise fail("E0714", message, location, label=label, help=help)
    # A single value decides between no and yes: any other label than its own is no.
    if output.shape[0] == 1:
        return _label_single_decision(dataset, output, path)
    sets = _parse_labels(dataset, output, _collect_other_labels(output, outputs))
    class_sets = tuple(class_set for class_set in sets if class_set is not None)
    if len(class_sets) < len(dataset):
        raise UserError(_describe_unknown_labels(dataset, sets, output, path))
    labels = output.labels or tuple(map(str, range(output.shape[0])))
    return LabelledImages(dataset, class_sets, labels, output, path)


def _collect_other_labels(
    output: OutputContract, outputs: Sequence[OutputContract]
) -> frozenset[str]:
    """Return the labels of other outputs that are not this one's, case-folded."""
    output_labels = {label.casefold() for label in output.labels}
    return frozenset(label.casefold() for o in outputs for label in o.labels) - output_labels


def _parse_labels(
    dataset: DataSet, output: OutputContract, other_labels: frozenset[str]
) -> tuple[frozenset[int] | None, ...]:
    """Return the classes in each item's label; None if one of them is unknown.

    `other_labels` are the classes of the network's other outputs, case-folded. They are ignored.
    """
    by_name = {label.casefold(): index for index, label in enumerate(output.labels)}
    allows_several = output.kind == "decisions"

    def parse_label(label: str) -> frozenset[int] | None:
        # Class names may contain the separator, so the whole label is looked up first.
        found_indices = {find_class_index(label, by_name)}
        if found_indices == {None} and (allows_several or other_labels):
            if allows_several and label.casefold() == NO_CLASS:
                return frozenset()
            names = (name.strip() for name in label.split(CLASS_SEPARATOR))
            found_indices = {
                find_class_index(name, by_name)
                for name in names
                if name.casefold() not in other_labels
            }
        class_indices = frozenset(
            index for index in found_indices if index is not None and index < output.shape[0]
        )
        has_valid_count = allows_several or len(class_indices) == 1
        all_known = len(class_indices) == len(found_indices)
        return class_indices if has_valid_count and all_known else None

    return tuple(parse_label(item.label or "") for item in dataset.items)


def _choose_output(outputs: Sequence[OutputContract], path: Path) -> OutputContract:
    rows = [o for o in outputs if len(o.shape) == 1]
    wide = [o for o in rows if o.shape[0] > 1]
    candidates = [
        *(o for o in wide if o.kind == "classes"),
        *(o for o in rows if o.kind == "decisions"),
        *(o for o in wide if o.kind == "regression"),
    ]
    if not candidates:
        message = "this network has no output with classes or decisions"
        help = "if an output has classes or decisions, set its `kind` in the spec"
        raise fail("E0716", message, make_file_span(str(path)), help=help)
    return candidates[0]


def _label_single_decision(dataset: DataSet, output: OutputContract, path: Path) -> LabelledImages:
    """Return images labelled with the two classes of a single decision.

    Raises:
        UserError: No image has its label, or it has no name and the labels are not 0 and 1 (E0715).
    """
    name = output.labels[0] if output.labels else POSITIVE
    labels = sorted({str(item.label) for item in dataset.items})
    yes = {label for label in labels if label == POSITIVE or label.casefold() == name.casefold()}
    other_labels = [label for label in labels if label not in yes]
    if (output.labels and not yes) or (not output.labels and set(labels) - {NEGATIVE, POSITIVE}):
        message = f"no image has the label `{name[:80]}`, which the network decides on"
        if not output.labels:
            message = "the network's decision has no name, so the labels must be 0 and 1"
        label_list = ", ".join(labels[:MAX_LISTED])
        help = f"rename the folder of the positive images to `{name[:80]}`"
        raise fail(
            "E0715", message, make_file_span(str(path)), label=f"labels: {label_list}", help=help
        )
    classes = tuple(frozenset({int(item.label in yes)}) for item in dataset.items)
    no = NEGATIVE if not output.labels else " or ".join(other_labels[:4]) or f"not {name}"
    return LabelledImages(dataset, classes, (no, name), output, path)


def _describe_unknown_labels(
    dataset: DataSet, class_sets: Sequence[object], output: OutputContract, path: Path
) -> tuple[Diagnostic, ...]:
    """Return an error for each label that is not a class."""
    count = output.shape[0]
    strange = Counter(
        str(item.label)
        for item, classes in zip(dataset.items, class_sets, strict=True)
        if classes is None
    )
    if output.labels:
        help = f"its classes are {', '.join(output.labels[:MAX_LISTED])}"
    else:
        help = f"its {count} classes have no names: use indices from 0 to {count - 1} as labels"
    if output.kind == "decisions":
        help += f"; write `{CLASS_SEPARATOR}` between several classes, and `{NO_CLASS}` for none"
    return tuple(
        Diagnostic(
            "E0715",
            f"the network has no class `{label[:80]}`",
            make_file_span(str(path / label if path.is_dir() else path)),
            label=f"{images} images have this label",
            help=help,
        )
        for label, images in sorted(strange.items())[:MAX_LISTED]
    )
