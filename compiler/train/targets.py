"""What a label says that outputs are to be, of networks with more to say than one class.

An output of classes is to find one of them; of decisions any may hold of an image. A label names
all that holds, with `+` between names, `none` where nothing does: `tcc eval` reads it alike. A
single decision is the only one that takes other words: what is not its name, or `1`, is no.
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
"""Between names that hold, where none does, and where the only decision does."""


@dataclass(frozen=True, slots=True)
class TrainingTarget:
    """What outputs of the same labels learn: which of classes, or which decisions hold."""

    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    exclusive: bool

    @property
    def answers(self) -> tuple[str, ...]:
        """All that can be said: the classes, or of each decision yes and no."""
        if self.exclusive:
            return self.labels
        return tuple(answer for name in self.labels for answer in (name, f"not {name}"))

    def count_answers(self, label_counts: Sequence[int], images: int) -> Mapping[str, int]:
        """Return how many images each answer is right of, of those that each label holds of."""
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
    """Return what outputs learn; those with the same labels learn the same.

    Nothing where there is a single row of classes, or a decision without a name: their classes are
    whatever the images have.

    Raises:
        UserError: Labels could not tell which output a name is meant for (E1226).
    """
    outputs_by_labels: dict[tuple[bool, tuple[str, ...]], list[Output]] = {}
    for output in outputs:
        # Numbers that nothing is said of are taken for classes, of which images have one.
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
        label = f"without `labels` a folder's name could not say what `{bare[0]}` is to give"
        raise build_untrainable_error(at, label, "give each output labels of its own")
    target_by_label: dict[str, TrainingTarget] = {}
    for target in targets:
        for name in target.labels:
            earlier_target = target_by_label.setdefault(name.casefold(), target)
            if earlier_target is not target:
                label = (
                    f"outputs `{earlier_target.outputs[0]}` and `{target.outputs[0]}` both "
                    f"have `{name}`"
                )
                raise build_untrainable_error(at, label, "give each output labels of its own")
            if LABEL_SEPARATOR in name or name.casefold() == NO_LABEL:
                label = f"output `{target.outputs[0]}` has a label `{name}`"
                help = (
                    f"`{LABEL_SEPARATOR}` stands between names that hold, and `{NO_LABEL}` "
                    "for none of them"
                )
                raise build_untrainable_error(at, label, help)


def build_untrainable_error(at: Span, reason: str, help: str = "") -> UserError:
    """Return the error of a network that cannot learn what images show."""
    message = "this network cannot be trained to tell these classes"
    return UserError((Diagnostic("E1226", message, at, label=reason, help=help),))


def normalize_labels(labels: Sequence[str], targets: Targets, at: Span) -> Mapping[str, str]:
    """Return each label as it is written here, its names in the network's order.

    Raises:
        UserError: A label names what the network does not have, or not one class of each output of
            classes; or no image tells an answer from the others (E1207).
    """
    if _has_single_label(targets):
        label_texts = {label: label for label in labels}
    else:
        label_texts = {label: _normalize_label(label, targets, at) for label in labels}
    known_answers = {answer for label in label_texts for answer in list_answers(label, targets)}
    missing = [answer for answer in list_all_answers(targets) if answer not in known_answers]
    if missing:
        message = f"no image is {join_names([f'`{name[:80]}`' for name in missing])}"
        help = "add such images, or take what is not to be learned out of the spec"
        raise fail("E1207", message, at, help=help)
    return label_texts


def _has_single_label(targets: Targets) -> bool:
    return len(targets) == 1 and len(targets[0].labels) == 1


def _normalize_label(label: str, targets: Targets, at: Span) -> str:
    """Return a label's names in the network's order.

    Raises:
        UserError: They are none of the network's, or too many or few (E1207).
    """
    names = [name for target in targets for name in target.labels]
    columns = _parse_columns(label, targets)
    unknown_names = [part for part, column in columns.items() if column is None]
    if unknown_names:
        message = f"the network has nothing called `{unknown_names[0][:80]}`"
        suggestion = find_nearest_name(unknown_names[0], names)
        hint = (
            f"did you mean `{suggestion}`?"
            if suggestion
            else f"an image is labelled `{label[:80]}`"
        )
        help = (
            f"it has {join_names(names)}; of several that hold, write `{LABEL_SEPARATOR}` "
            "between them, of none"
        )
        raise fail("E1207", message, at, label=hint, help=f"{help} `{NO_LABEL}`")
    named_columns = {column for column in columns.values() if column is not None}
    for offset, target in zip(_compute_offsets(targets), targets, strict=True):
        target_columns = named_columns & set(range(offset, offset + len(target.labels)))
        if target.exclusive and len(target_columns) != 1:
            count = "no class" if not target_columns else f"{len(target_columns)} classes"
            message = f"`{label[:80]}` names {count} of output `{target.outputs[0]}`"
            help = f"name one of {join_names(list(target.labels))}"
            raise fail("E1207", message, at, help=help)
    return LABEL_SEPARATOR.join(names[column] for column in sorted(named_columns)) or NO_LABEL


def _compute_offsets(targets: Targets) -> Iterator[int]:
    """Yield the column of each target's first name."""
    return accumulate((len(target.labels) for target in targets[:-1]), initial=0)


def _parse_columns(label: str, targets: Targets) -> Mapping[str, int | None]:
    """Return the columns that a label's parts name; None of one that is not known."""
    names = [name for target in targets for name in target.labels]
    by_name = {name.casefold(): column for column, name in enumerate(names)}
    if label.casefold() == NO_LABEL:
        return {}
    columns: dict[str, int | None] = {}
    for part in (part.strip() for part in label.split(LABEL_SEPARATOR)):
        # A number means a decision of the only output, as `tcc eval` has it.
        column = (
            find_class_index(part, by_name) if len(targets) == 1 else by_name.get(part.casefold())
        )
        columns[part] = column if column is not None and column < len(names) else None
    return columns


def encode_label(label: str, targets: Targets) -> list[float]:
    """Return 1 for each column that a label, as written here, holds of, and 0 for the others."""
    if _has_single_label(targets):
        return [
            float(label == POSITIVE_LABEL or label.casefold() == targets[0].labels[0].casefold())
        ]
    columns = set(_parse_columns(label, targets).values())
    return [float(column in columns) for column in range(sum(len(t.labels) for t in targets))]


def list_answers(label: str, targets: Targets) -> tuple[str, ...]:
    """Return what a label says: the classes, and of each decision yes or no."""
    flags = iter(encode_label(label, targets))
    return tuple(
        name if is_positive else f"not {name}"
        for target in targets
        for name, is_positive in zip(target.labels, flags, strict=False)
        if is_positive or not target.exclusive
    )


def list_all_answers(targets: Targets) -> tuple[str, ...]:
    """Return all that labels can say."""
    return tuple(answer for target in targets for answer in target.answers)
