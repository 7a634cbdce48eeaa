"""Labelled images as a network sees them: which of its classes each image is of.

The classes are those of the network's first row of classes, or else of its decisions, or else of
its first row of numbers. A single decision is two classes, of which it is the second: images of
its label, or of `1`, are of it, and all others are not. Of several decisions any may hold of an
image: its label names all that do, with `+` between them, and `none` says that none does. Names
that belong to other outputs are passed over.
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
"""What stands between the decisions that hold of an image, and for none of them."""
NEGATIVE, POSITIVE = "0", "1"
"""The labels of a single decision that has no name."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelledImages(ValueView):
    """A data set with the classes of each item, and where it comes from.

    These are one each, but for decisions. `labels` are what classes are called in reports.
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
        """Whether the output is one decision, of which the classes are no and yes."""
        return self.output.shape[0] == 1

    @property
    def exclusive(self) -> bool:
        """Whether one class is taken for each image; else each decides by itself."""
        return self.single or self.output.kind != "decisions"

    @property
    def classes(self) -> tuple[int, ...]:
        """The one class of each item.

        Raises:
            UserError: An item has several, or none (E0715).
        """
        for item, class_set in zip(self.dataset.items, self.class_sets, strict=True):
            if len(class_set) != 1:
                label = f"this one is `{str(item.label)[:80]}`"
                message = "this is for images of one class each"
                raise fail("E0715", message, make_file_span(item.name), label=label)
        return tuple(next(iter(class_set)) for class_set in self.class_sets)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Whether each image is of each class: (images, classes)."""
        truth = np.zeros((len(self.class_sets), len(self.labels)), np.bool_)
        for row, classes in zip(truth, self.class_sets, strict=True):
            row[list(classes)] = True
        return truth


def label_images(dataset: DataSet, outputs: Sequence[OutputContract], path: Path) -> LabelledImages:
    """Return a data set with the classes that a network has for it.

    Args:
        dataset: The images.
        outputs: The network's, in its order.
        path: Where the images come from, for errors.

    Raises:
        UserError: No output is a row of classes or decides (E0716), images have no label (E0714),
            or one that the network does not have (E0715).
    """
    output = _choose_output(outputs, path)
    unlabelled = [item for item in dataset.items if item.label is None]
    if unlabelled:
        label = f"{len(unlabelled)} of {len(dataset)} have none; the first is {unlabelled[0].name}"
        help = "put them in a folder for each class, or give an .npz file with `labels`"
        message, location = "these images have no labels", make_file_span(str(path))
        raise fail("E0714", message, location, label=label, help=help)
    # A single value decides between yes and no: labels are two, and one of them may have any name.
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
    """Return the labels of other outputs that are not this one's, in small letters."""
    output_labels = {label.casefold() for label in output.labels}
    return frozenset(label.casefold() for o in outputs for label in o.labels) - output_labels


def _parse_labels(
    dataset: DataSet, output: OutputContract, other_labels: frozenset[str]
) -> tuple[frozenset[int] | None, ...]:
    """Return the classes that each item's label names; None where one of them is not known."""
    by_name = {label.casefold(): index for index, label in enumerate(output.labels)}
    several = output.kind == "decisions"

    def parse_label(label: str) -> frozenset[int] | None:
        parts = {find_class_index(label, by_name)}
        if parts == {None} and (several or other_labels):
            if several and label.casefold() == NO_CLASS:
                return frozenset()
            names = (part.strip() for part in label.split(CLASS_SEPARATOR))
            parts = {
                find_class_index(part, by_name)
                for part in names
                if part.casefold() not in other_labels
            }
        class_indices = frozenset(
            part for part in parts if part is not None and part < output.shape[0]
        )
        fits = several or len(class_indices) == 1
        return class_indices if fits and len(class_indices) == len(parts) else None

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
        message = "this network has no output that is a row of classes, and none that decides"
        raise fail("E0716", message, make_file_span(str(path)))
    return candidates[0]


def _label_single_decision(dataset: DataSet, output: OutputContract, path: Path) -> LabelledImages:
    """Return the two classes of a single decision.

    Raises:
        UserError: It has no name, and the labels are not 0 and 1; or no image is of it (E0715).
    """
    name = output.labels[0] if output.labels else POSITIVE
    labels = sorted({str(item.label) for item in dataset.items})
    yes = {label for label in labels if label == POSITIVE or label.casefold() == name.casefold()}
    other_labels = [label for label in labels if label not in yes]
    if (output.labels and not yes) or (not output.labels and set(labels) - {NEGATIVE, POSITIVE}):
        message = f"this network decides on `{name[:80]}`, which no label is"
        if not output.labels:
            message = "this network's decision has no name, so that images are labelled 0 and 1"
        label_list = ", ".join(labels[:MAX_LISTED])
        help = f"call the folder of images that it holds of `{name[:80]}`"
        raise fail(
            "E0715", message, make_file_span(str(path)), label=f"labels: {label_list}", help=help
        )
    classes = tuple(frozenset({int(item.label in yes)}) for item in dataset.items)
    no = NEGATIVE if not output.labels else " or ".join(other_labels[:4]) or f"not {name}"
    return LabelledImages(dataset, classes, (no, name), output, path)


def _describe_unknown_labels(
    dataset: DataSet, class_sets: Sequence[object], output: OutputContract, path: Path
) -> tuple[Diagnostic, ...]:
    """Return what is wrong with each label that no class has."""
    count = output.shape[0]
    strange = Counter(
        str(item.label)
        for item, classes in zip(dataset.items, class_sets, strict=True)
        if classes is None
    )
    if output.labels:
        help = f"its classes are {', '.join(output.labels[:MAX_LISTED])}"
    else:
        help = f"its {count} classes have no names: let labels be indices from 0 to {count - 1}"
    if output.kind == "decisions":
        help += (
            f"; of several that hold, write `{CLASS_SEPARATOR}` between them, of none `{NO_CLASS}`"
        )
    return tuple(
        Diagnostic(
            "E0715",
            f"the network has no class `{label[:80]}`",
            make_file_span(str(path / label if path.is_dir() else path)),
            label=f"{images} images of it",
            help=help,
        )
        for label, images in sorted(strange.items())[:MAX_LISTED]
    )
