"""What a label says that outputs are to be, of networks with more to say than one class.

An output of classes is to find one of them; of decisions any may hold of an image. A label names
all that holds, with `+` between names, `none` where nothing does: `tcc eval` reads it alike. A
single decision is the only one that takes other words: what is not its name, or `1`, is no.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tcc.compiler.data.dataset import class_index
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, listed, nearest

AND, NOTHING, YES = "+", "none", "1"
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

    def totals(self, held: Sequence[int], images: int) -> Mapping[str, int]:
        """Return how many images each answer is right of, of those that each label holds of."""
        if self.exclusive:
            return dict(zip(self.labels, held, strict=True))
        counts = [count for yes in held for count in (yes, images - yes)]
        return dict(zip(self.answers, counts, strict=True))


Targets = tuple[TrainingTarget, ...]


def of_outputs(graph: Graph, outputs: Sequence[Output], at: Span) -> Targets:
    """Return what outputs learn; those with the same labels learn the same.

    Nothing where there is a single row of classes, or a decision without a name: their classes are
    whatever the images have.

    Raises:
        UserError: Labels could not tell which output a name is meant for (E1226).
    """
    found: dict[tuple[bool, tuple[str, ...]], list[Output]] = {}
    for output in outputs:
        # Numbers that nothing is said of are taken for classes, of which images have one.
        exclusive = output.meaning != "decisions"
        found.setdefault((exclusive, _labels(graph, output)), []).append(output)
    made = tuple(
        TrainingTarget(tuple(o.name for o in group), labels, exclusive)
        for (exclusive, labels), group in found.items()
    )
    decides = any(
        not t.exclusive and (len(t.labels) > 1 or found[False, t.labels][0].labels) for t in made
    )
    if len(made) == 1 and not decides:
        return ()
    _check(made, outputs, at)
    return made


def _labels(graph: Graph, output: Output) -> tuple[str, ...]:
    return output.labels or tuple(map(str, range(graph.types[output.value].elements)))


def _check(targets: Targets, outputs: Sequence[Output], at: Span) -> None:
    bare = [o.name for o in outputs if not o.labels]
    if bare and len(targets) > 1:
        label = f"without `labels` a folder's name could not say what `{bare[0]}` is to give"
        raise unfit(at, label, "give each output labels of its own")
    first: dict[str, TrainingTarget] = {}
    for target in targets:
        for name in target.labels:
            other = first.setdefault(name.casefold(), target)
            if other is not target:
                label = f"outputs `{other.outputs[0]}` and `{target.outputs[0]}` both have `{name}`"
                raise unfit(at, label, "give each output labels of its own")
            if AND in name or name.casefold() == NOTHING:
                label = f"output `{target.outputs[0]}` has a label `{name}`"
                help = f"`{AND}` stands between names that hold, and `{NOTHING}` for none of them"
                raise unfit(at, label, help)


def unfit(at: Span, why: str, help: str = "") -> UserError:
    """Return the error of a network that cannot learn what images show."""
    message = "this network cannot be trained to tell these classes"
    return UserError((Diagnostic("E1226", message, at, label=why, help=help),))


def kinds(labels: Sequence[str], targets: Targets, at: Span) -> Mapping[str, str]:
    """Return each label as it is written here, its names in the network's order.

    Raises:
        UserError: A label names what the network does not have, or not one class of each output of
            classes; or no image tells an answer from the others (E1207).
    """
    if _alone(targets):
        found = {label: label for label in labels}
    else:
        found = {label: _written(label, targets, at) for label in labels}
    said = {answer for label in found for answer in answers(label, targets)}
    missing = [answer for answer in all_answers(targets) if answer not in said]
    if missing:
        message = f"no image is {listed([f'`{name[:80]}`' for name in missing])}"
        help = "add such images, or take what is not to be learned out of the spec"
        raise fail("E1207", message, at, help=help)
    return found


def _alone(targets: Targets) -> bool:
    return len(targets) == 1 and len(targets[0].labels) == 1


def _written(label: str, targets: Targets, at: Span) -> str:
    """Return a label's names in the network's order.

    Raises:
        UserError: They are none of the network's, or too many or few (E1207).
    """
    names = [name for target in targets for name in target.labels]
    places = _places(label, targets)
    strange = [part for part, place in places.items() if place is None]
    if strange:
        message = f"the network has nothing called `{strange[0][:80]}`"
        meant = nearest(strange[0], names)
        hint = f"did you mean `{meant}`?" if meant else f"an image is labelled `{label[:80]}`"
        help = f"it has {listed(names)}; of several that hold, write `{AND}` between them, of none"
        raise fail("E1207", message, at, label=hint, help=f"{help} `{NOTHING}`")
    held = {place for place in places.values() if place is not None}
    for first, target in zip(_firsts(targets), targets, strict=True):
        own = held & set(range(first, first + len(target.labels)))
        if target.exclusive and len(own) != 1:
            count = "no class" if not own else f"{len(own)} classes"
            message = f"`{label[:80]}` names {count} of output `{target.outputs[0]}`"
            help = f"name one of {listed(list(target.labels))}"
            raise fail("E1207", message, at, help=help)
    return AND.join(names[place] for place in sorted(held)) or NOTHING


def _firsts(targets: Targets) -> Iterator[int]:
    """Yield the column of each target's first name."""
    return accumulate((len(target.labels) for target in targets[:-1]), initial=0)


def _places(label: str, targets: Targets) -> Mapping[str, int | None]:
    """Return the columns that a label's parts name; None of one that is not known."""
    names = [name for target in targets for name in target.labels]
    by_name = {name.casefold(): place for place, name in enumerate(names)}
    if label.casefold() == NOTHING:
        return {}
    found: dict[str, int | None] = {}
    for part in (part.strip() for part in label.split(AND)):
        # A number means a decision of the only output, as `tcc eval` has it.
        place = class_index(part, by_name) if len(targets) == 1 else by_name.get(part.casefold())
        found[part] = place if place is not None and place < len(names) else None
    return found


def row(label: str, targets: Targets) -> list[float]:
    """Return 1 for each column that a label, as written here, holds of, and 0 for the others."""
    if _alone(targets):
        return [float(label == YES or label.casefold() == targets[0].labels[0].casefold())]
    held = set(_places(label, targets).values())
    return [float(place in held) for place in range(sum(len(t.labels) for t in targets))]


def answers(label: str, targets: Targets) -> tuple[str, ...]:
    """Return what a label says: the classes, and of each decision yes or no."""
    held = iter(row(label, targets))
    return tuple(
        name if holds else f"not {name}"
        for target in targets
        for name, holds in zip(target.labels, held, strict=False)
        if holds or not target.exclusive
    )


def all_answers(targets: Targets) -> tuple[str, ...]:
    """Return all that labels can say."""
    return tuple(answer for target in targets for answer in target.answers)
