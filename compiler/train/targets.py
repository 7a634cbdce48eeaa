"""Training targets from labels, for networks with several class outputs or decisions.

An output of classes predicts exactly one of them; any number of decisions can be true. A label
lists all true names, joined with `+`, or is `none`; `tcc eval` reads labels in the same way. For a
network with a single decision, the decision's name and `1` mean yes, and any other label means no.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tcc.compiler.data.dataset import find_class_index
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    find_nearest_name,
    join_names,
)

LABEL_SEPARATOR, NO_LABEL, POSITIVE_LABEL = "+", "none", "1"
"""Separator of names, the label of no true name, and the label yes of a single decision."""


@dataclass(frozen=True, slots=True)
class TrainingTarget:
    """The target of outputs with the same labels: one class if `exclusive`, else decisions."""

    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    exclusive: bool

    @property
    def answers(self) -> tuple[str, ...]:
        """All possible answers: the classes, or yes and no for each decision."""
        if self.exclusive:
            return self.labels
        return tuple(answer for name in self.labels for answer in (name, f"not {name}"))

    def count_answers(self, label_counts: Sequence[int], images: int) -> Mapping[str, int]:
        """Return the number of images of each answer, given the number of each label."""
        if self.exclusive:
            return dict(zip(self.labels, label_counts, strict=True))
        counts = [
            count
            for positive_count in label_counts
            for count in (positive_count, images - positive_count)
        ]
        return dict(zip(self.answers, counts, strict=True))


Targets = tuple[TrainingTarget, ...]


def build_targets(graph: Graph, outputs: Sequence[Output], at: Span) -> Targets:
    """Return the targets of outputs; outputs with the same labels share one.

    Empty for a single row of classes, or a single unnamed decision: their classes come from the
    images.

    Raises:
        UserError: A name in a label would not identify its output (E1226).
    """
    outputs_by_labels: dict[tuple[bool, tuple[str, ...]], list[Output]] = {}
    for output in outputs:
        # Outputs without a meaning are treated as classes.
        exclusive = output.meaning != "decisions"
        outputs_by_labels.setdefault((exclusive, _get_labels(graph, output)), []).append(output)
    targets = tuple(
        TrainingTarget(tuple(o.name for o in group), labels, exclusive)
        for (exclusive, labels), group in outputs_by_labels.items()
    )
    decides = any(
        not t.exclusive and (len(t.labels) > 1 or outputs_by_labels[False, t.labels][0].labels)
        for t in targets
    )
    if len(targets) == 1 and not decides:
        return ()
    _check_targets(targets, outputs, at)
    return targets


def _get_labels(graph: Graph, output: Output) -> tuple[str, ...]:
    return output.labels or tuple(map(str, range(graph.types[output.value].elements)))


def _check_targets(targets: Targets, outputs: Sequence[Output], at: Span) -> None:
    bare = [o.name for o in outputs if not o.labels]
    if bare and len(targets) > 1:
        label = f"output `{bare[0]}` has no `labels`, so that image labels cannot refer to it"
        raise build_untrainable_error(at, label, "give each output its own labels")
    target_by_label: dict[str, TrainingTarget] = {}
    for target in targets:
        for name in target.labels:
            earlier_target = target_by_label.setdefault(name.casefold(), target)
            if earlier_target is not target:
                label = (
                    f"outputs `{earlier_target.outputs[0]}` and `{target.outputs[0]}` both "
                    f"have `{name}`"
                )
                raise build_untrainable_error(at, label, "give each output its own labels")
            if LABEL_SEPARATOR in name or name.casefold() == NO_LABEL:
                label = f"output `{target.outputs[0]}` has a label `{name}`"
                help = (
                    f"rename it: in image labels, `{LABEL_SEPARATOR}` separates names, and "
                    f"`{NO_LABEL}` means that no name is true"
                )
                raise build_untrainable_error(at, label, help)


def build_untrainable_error(at: Span, reason: str, help: str = "") -> UserError:
    """Return the error of a network that cannot be trained on the images' classes."""
    message = "this network cannot be trained on these classes"
    return UserError((Diagnostic("E1226", message, at, label=reason, help=help),))


def normalize_labels(labels: Sequence[str], targets: Targets, at: Span) -> Mapping[str, str]:
    """Return the canonical form of each label, with its names in the network's order.

    Raises:
        UserError: A label has an unknown name, or does not name exactly one class of each class
            output; or no image has one of the answers (E1207).
    """
    if _has_single_label(targets):
        label_texts = {label: label for label in labels}
    else:
        label_texts = {label: _normalize_label(label, targets, at) for label in labels}
    known_answers = {answer for label in label_texts for answer in list_answers(label, targets)}
    missing = [answer for answer in list_all_answers(targets) if answer not in known_answers]
    if missing:
        message = f"no image has the label {join_names([f'`{name[:80]}`' for name in missing])}"
        help = "add such images, or remove the labels from the spec"
        raise fail("E1207", message, at, help=help)
    return label_texts


def _has_single_label(targets: Targets) -> bool:
    return len(targets) == 1 and len(targets[0].labels) == 1


def _normalize_label(label: str, targets: Targets, at: Span) -> str:
    """Return a label with its names in the network's order.

    Raises:
        UserError: A name is unknown, or an output has too many or too few names (E1207).
    """
    names = [name for target in targets for name in target.labels]
    columns = _parse_columns(label, targets)
    unknown_names = [part for part, column in columns.items() if column is None]
    if unknown_names:
        message = f"the network has no label `{unknown_names[0][:80]}`"
        suggestion = find_nearest_name(unknown_names[0], names)
        hint = (
            f"did you mean `{suggestion}`?"
            if suggestion
            else f"an image is labelled `{label[:80]}`"
        )
        help = (
            f"it has {join_names(names)}; join several true names with `{LABEL_SEPARATOR}`, and "
            "if none is true, use"
        )
        raise fail("E1207", message, at, label=hint, help=f"{help} `{NO_LABEL}`")
    named_columns = {column for column in columns.values() if column is not None}
    for offset, target in zip(_compute_offsets(targets), targets, strict=True):
        target_columns = named_columns & set(range(offset, offset + len(target.labels)))
        if target.exclusive and len(target_columns) != 1:
            count = "no class" if not target_columns else f"{len(target_columns)} classes"
            message = (
                f"the label `{label[:80]}` names {count} of output `{target.outputs[0]}`; it must "
                "name exactly one"
            )
            help = f"name one of {join_names(list(target.labels))}"
            raise fail("E1207", message, at, help=help)
    return LABEL_SEPARATOR.join(names[column] for column in sorted(named_columns)) or NO_LABEL


def _compute_offsets(targets: Targets) -> Iterator[int]:
    """Yield the column of each target's first name."""
    return accumulate((len(target.labels) for target in targets[:-1]), initial=0)


def _parse_columns(label: str, targets: Targets) -> Mapping[str, int | None]:
    """Return the column of each part of a label; None for unknown names."""
    names = [name for target in targets for name in target.labels]
    by_name = {name.casefold(): column for column, name in enumerate(names)}
    if label.casefold() == NO_LABEL:
        return {}
    columns: dict[str, int | None] = {}
    for part in (part.strip() for part in label.split(LABEL_SEPARATOR)):
        # If there is only one target, a number is an index of its labels, as in `tcc eval`.
        column = (
            find_class_index(part, by_name) if len(targets) == 1 else by_name.get(part.casefold())
        )
        columns[part] = column if column is not None and column < len(names) else None
    return columns


def encode_label(label: str, targets: Targets) -> list[float]:
    """Return the columns of a canonical label: 1 for true names, 0 for the others."""
    if _has_single_label(targets):
        return [
            float(label == POSITIVE_LABEL or label.casefold() == targets[0].labels[0].casefold())
        ]
    columns = set(_parse_columns(label, targets).values())
    return [float(column in columns) for column in range(sum(len(t.labels) for t in targets))]


def list_answers(label: str, targets: Targets) -> tuple[str, ...]:
    """Return the answers of a label: its classes, and yes or no for each decision."""
    flags = iter(encode_label(label, targets))
    return tuple(
        name if is_positive else f"not {name}"
        for target in targets
        for name, is_positive in zip(target.labels, flags, strict=False)
        if is_positive or not target.exclusive
    )


def list_all_answers(targets: Targets) -> tuple[str, ...]:
    """Return all possible answers of the targets."""
    return tuple(answer for target in targets for answer in target.answers)
