"""Which outputs of a network are trained, to what, and those for training alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.ir.image_inputs import advise_preprocess
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, listed
from tcc.compiler.train import targets
from tcc.compiler.train.recipe_records import Loss
from tcc.compiler.train.targets import Targets, TrainingTarget, unfit

AUXILIARY = 0.3
"""The share of a train-only output's loss where the recipe gives none: GoogLeNet's, 2014."""


@dataclass(frozen=True, eq=False)
class ClassOutputs:
    """The outputs that are judged, what they learn, the share of each loss, and the image input.

    `learns` has the place in `targets` of what each output learns, those for training alone as
    well; the first output of each target is the one that is judged. `several` says that labels
    name more than one class. `truths`, float32 (kinds, columns), is what each kind of image should
    give, the targets' columns side by side.
    """

    targets: Targets
    learns: Mapping[str, int]
    shares: Mapping[str, float]
    source: Input
    several: bool
    truths: Tensor

    @property
    def judged(self) -> tuple[str, ...]:
        """The output of each target that is judged."""
        return tuple(target.outputs[0] for target in self.targets)

    def parts(self, shares: Tensor) -> tuple[Tensor, ...]:
        """Return the columns (images, columns) of each target."""
        ends = accumulate(len(target.labels) for target in self.targets)
        return tuple(
            shares[:, end - len(target.labels) : end]
            for end, target in zip(ends, self.targets, strict=True)
        )


def found(graph: Graph, at: Span) -> tuple[Output, ...]:
    """Return the outputs that are judged: rows of classes and decisions, else a row of numbers.

    Raises:
        UserError: There is none, or the network takes no single image (E1226).
    """
    if len(graph.inputs) != 1:
        raise unfit(at, "it does not take one image")
    source = graph.inputs[0]
    if source.preprocess is None:
        advice = advise_preprocess(source.name, source.type.shape) or ""
        raise unfit(at, f"nothing says how an image becomes its input `{source.name}`", advice)
    if not any(param.trainable for param in graph.params.values()):
        raise unfit(at, "it has no weights to train")
    rows = [o for o in graph.outputs if not o.train_only and _units(graph, o)]
    classes = [o for o in rows if o.meaning == "classes"]
    decisions = [o for o in rows if o.meaning == "decisions"]
    # Numbers of a network that says nothing of classes are taken for them, in its first such row.
    if judged := (*classes, *decisions) or tuple(rows[:1]):
        return judged
    raise unfit(at, "it has no output that is a row of classes")


def untaught(graph: Graph, judged: Sequence[Output], at: Span) -> tuple[Diagnostic, ...]:
    """Return the warning of outputs that a device will have, and that learn nothing here."""
    others = [o.name for o in graph.outputs if not o.train_only and o not in judged]
    if not others:
        return ()
    message = (
        f"nothing says what these outputs are to give, and they are not trained: {listed(others)}"
    )
    return (Diagnostic("E1226", message, at, severity="warning"),)


def _units(graph: Graph, output: Output) -> int:
    """Return how many values a row has; 0 where it is none."""
    shape = graph.types[output.value].shape
    return shape[0] if len(shape) == 1 else 0


def planned(graph: Graph, loss: Loss, classes: tuple[str, ...], at: Span) -> ClassOutputs:
    """Return what of a network is trained for kinds of images.

    Args:
        graph: The network.
        loss: The recipe's.
        classes: The classes, or, of a network with more to say, the labels as `targets` writes
            them.
        at: Where the network is from.

    Raises:
        UserError: The network is not for them (E1226), or the recipe's loss names classes or
            outputs that are not there (E1225).
    """
    judged = found(graph, at)
    several = targets.of_outputs(graph, judged, at)
    made = several or (_classes(graph, judged, classes, at),)
    others = [o for o in graph.outputs if o.train_only]
    _check_loss(loss, made, tuple(o.name for o in others), at)
    learns = {name: place for place, target in enumerate(made) for name in target.outputs}
    for other in others:
        learns[other.name] = _learned(graph, other, made, judged, at)
    shares = {o.name: 1.0 for o in judged} | {
        o.name: loss.auxiliary.get(o.name, AUXILIARY) for o in others
    }
    if several:
        # Once more, since a spec that takes the labels over may have fewer values than these name.
        known = targets.kinds(classes, several, at)
        truths = torch.tensor([targets.row(known[kind], several) for kind in classes])
    else:
        truths = torch.eye(len(classes))
    return ClassOutputs(made, learns, shares, graph.inputs[0], bool(several), truths)


def _classes(
    graph: Graph, judged: Sequence[Output], classes: tuple[str, ...], at: Span
) -> TrainingTarget:
    """Return the only target, of classes.

    Raises:
        UserError: The output has another number of them (E1226).
    """
    units = _units(graph, judged[0])
    # One value tells two classes apart by its sign.
    if units != len(classes) and (units, len(classes)) != (1, 2):
        why = f"output `{judged[0].name}` has {units} values, and there are {len(classes)} classes"
        raise unfit(at, why, f"set the spec to {len(classes)} classes (`--set`)")
    return TrainingTarget(tuple(o.name for o in judged), classes, exclusive=True)


def _learned(
    graph: Graph, output: Output, made: Targets, judged: Sequence[Output], at: Span
) -> int:
    """Return the place of what an output for training alone learns.

    Raises:
        UserError: No target has as many values, or several have (E1226).
    """
    units = {o.name: _units(graph, o) for o in (*judged, output)}
    fitting = [n for n, t in enumerate(made) if units[t.outputs[0]] == units[output.name]]
    same = [n for n in fitting if made[n].labels == output.labels] or fitting
    if len(same) != 1:
        what = "several outputs have" if same else "no output has"
        why = f"{what} as many values as `{output.name}`, which is for training alone"
        help = "give it the labels of the output that it helps" if same else ""
        raise unfit(at, why, help)
    return same[0]


def _check_loss(loss: Loss, made: Targets, others: tuple[str, ...], at: Span) -> None:
    """Refuse a loss that names what is not there (E1225)."""
    names = tuple(name for target in made for name in target.labels)
    strange = [
        *_strange("class_weights", loss.class_weights, names, at),
        *_strange("positive", dict.fromkeys(loss.positive, 1.0), names, at),
        *_strange("auxiliary", loss.auxiliary, others, at),
    ]
    many = any(target.exclusive and len(target.labels) != 2 for target in made)
    if loss.alpha is not None and not loss.positive and many:
        message = "`alpha` is for positive classes, and the recipe's loss names none"
        strange.append(Diagnostic("E1225", message, at, help="say `positive: [NAME]`"))
    if strange:
        raise UserError(tuple(strange))


def _strange(
    key: str, given: Mapping[str, float], known: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    names = [name for name in given if name not in known]
    if not names:
        return []
    message = f"the recipe's `{key}` names what is not there: {listed(names)}"
    help = f"there are {listed(known)}" if known else "this network has none"
    return [Diagnostic("E1225", message, at, help=help)]
