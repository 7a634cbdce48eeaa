"""Which outputs of a network are trained: its row of classes, and those for training alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, listed
from tcc.compiler.train.losses import Loss

AUXILIARY = 0.3
"""The share of a train-only output's loss where the recipe gives none: GoogLeNet's, 2014."""


@dataclass(frozen=True, slots=True)
class ClassOutputs:
    """The output that is judged, the share of each output's loss, and the image input."""

    main: Output
    shares: Mapping[str, float]
    source: Input


def found(graph: Graph, at: Span) -> Output:
    """Return the output that is a row of classes.

    Raises:
        UserError: There is none, or the network takes no single image (E1226).
    """
    if len(graph.inputs) != 1 or graph.inputs[0].preprocess is None:
        raise _untrainable("it does not take one image", at)
    if not any(param.trainable for param in graph.params.values()):
        raise _untrainable("it has no weights to train", at)
    rows = [o for o in graph.outputs if not o.train_only and _is_row(graph, o)]
    kinds = {kind: [o for o in rows if o.meaning == kind] for kind in ("classes", "regression")}
    single = [o for o in rows if o.meaning == "decisions" and graph.types[o.value].shape == (1,)]
    # A row that says classes first; a single decision is two classes; a regression only where
    # nothing else is there.
    for choice in (kinds["classes"], single, kinds["regression"]):
        if choice:
            return choice[0]
    raise _untrainable("it has no output that is a row of classes", at)


def _is_row(graph: Graph, output: Output) -> bool:
    return len(graph.types[output.value].shape) == 1


def planned(graph: Graph, loss: Loss, classes: tuple[str, ...], at: Span) -> ClassOutputs:
    """Return what of a network is trained for classes.

    Args:
        graph: The network.
        loss: The recipe's, which may name classes and outputs.
        classes: Those that images are of, in order.
        at: The place of the network in errors.

    Raises:
        UserError: The network is not for them (E1226), or the recipe's loss names classes or
            outputs that are not there (E1225).
    """
    main = found(graph, at)
    units = graph.types[main.value].elements
    # One value tells two classes apart by its sign.
    if units != len(classes) and (units, len(classes)) != (1, 2):
        why = f"output `{main.name}` has {units} values, and there are {len(classes)} classes"
        raise _untrainable(why, at, f"set the spec to {len(classes)} classes (`--set`)")
    others = [o for o in graph.outputs if o.train_only]
    strange = [
        *_strange("class_weights", loss.class_weights, classes, at),
        *_strange("positive", dict.fromkeys(loss.positive, 1.0), classes, at),
        *_strange("auxiliary", loss.auxiliary, tuple(o.name for o in others), at),
    ]
    if loss.alpha is not None and not loss.positive and len(classes) != 2:
        message = "`alpha` is for positive classes, and the recipe's loss names none"
        strange.append(Diagnostic("E1225", message, at, help="say `positive: [NAME]`"))
    if strange:
        raise UserError(tuple(strange))
    shares = {main.name: 1.0} | {o.name: loss.auxiliary.get(o.name, AUXILIARY) for o in others}
    return ClassOutputs(main, shares, graph.inputs[0])


def _strange(
    key: str, given: Mapping[str, float], known: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    names = [name for name in given if name not in known]
    if not names:
        return []
    message = f"the recipe's `{key}` names what is not there: {listed(names)}"
    help = f"there are {listed(known)}" if known else "this network has none"
    return [Diagnostic("E1225", message, at, help=help)]


def _untrainable(why: str, at: Span, help: str = "") -> UserError:
    message = "this network cannot be trained to tell these classes"
    return UserError((Diagnostic("E1226", message, at, label=why, help=help),))
