"""Which outputs of a network are trained, to what, and those for training alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.ir.image_inputs import advise_preprocess
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, join_names
from tcc.compiler.train import targets
from tcc.compiler.train.recipe_records import Loss
from tcc.compiler.train.targets import Targets, TrainingTarget, build_untrainable_error

AUXILIARY_LOSS_WEIGHT = 0.3
"""The share of a train-only output's loss where the recipe gives none: GoogLeNet's, 2014."""


@dataclass(frozen=True, eq=False)
class ClassOutputs:
    """The outputs that are judged, what they learn, the share of each loss, and the image input.

    `target_indices` has the place in `targets` of what each output learns, those for training alone
    as well; the first output of each target is the one that is judged. `is_multi_label` says that
    labels name more than one class. `target_rows`, float32 (kinds, columns), is what each kind of
    image should give, the targets' columns side by side.
    """

    targets: Targets
    target_indices: Mapping[str, int]
    loss_weights: Mapping[str, float]
    source: Input
    is_multi_label: bool
    target_rows: Tensor

    @property
    def scored_outputs(self) -> tuple[str, ...]:
        """The output of each target that is judged."""
        return tuple(target.outputs[0] for target in self.targets)

    def split_targets(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Return the columns (images, columns) of each target."""
        stops = accumulate(len(target.labels) for target in self.targets)
        return tuple(
            columns[:, stop - len(target.labels) : stop]
            for stop, target in zip(stops, self.targets, strict=True)
        )


def find_scored_outputs(graph: Graph, at: Span) -> tuple[Output, ...]:
    """Return the outputs that are judged: rows of classes and decisions, else a row of numbers.

    Raises:
        UserError: There is none, or the network takes no single image (E1226).
    """
    if len(graph.inputs) != 1:
        raise build_untrainable_error(at, "it does not take one image")
    source = graph.inputs[0]
    if source.preprocess is None:
        advice = advise_preprocess(source.name, source.type.shape) or ""
        raise build_untrainable_error(
            at, f"nothing says how an image becomes its input `{source.name}`", advice
        )
    if not any(param.trainable for param in graph.params.values()):
        raise build_untrainable_error(at, "it has no weights to train")
    rows = [o for o in graph.outputs if not o.train_only and _count_units(graph, o)]
    classes = [o for o in rows if o.meaning == "classes"]
    decisions = [o for o in rows if o.meaning == "decisions"]
    # Numbers of a network that says nothing of classes are taken for them, in its first such row.
    if scored_outputs := (*classes, *decisions) or tuple(rows[:1]):
        return scored_outputs
    raise build_untrainable_error(at, "it has no output that is a row of classes")


def find_untrained_outputs(
    graph: Graph, scored_outputs: Sequence[Output], at: Span
) -> tuple[Diagnostic, ...]:
    """Return the warning of outputs that a device will have, and that learn nothing here."""
    untrained_names = [
        o.name for o in graph.outputs if not o.train_only and o not in scored_outputs
    ]
    if not untrained_names:
        return ()
    message = (
        "nothing says what these outputs are to give, and they are not trained: "
        f"{join_names(untrained_names)}"
    )
    return (Diagnostic("E1226", message, at, severity="warning"),)


def _count_units(graph: Graph, output: Output) -> int:
    """Return how many values a row has; 0 where it is none."""
    shape = graph.types[output.value].shape
    return shape[0] if len(shape) == 1 else 0


def plan_outputs(graph: Graph, loss: Loss, classes: tuple[str, ...], at: Span) -> ClassOutputs:
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
    scored_outputs = find_scored_outputs(graph, at)
    label_targets = targets.build_targets(graph, scored_outputs, at)
    output_targets = label_targets or (_build_class_target(graph, scored_outputs, classes, at),)
    auxiliary_outputs = [o for o in graph.outputs if o.train_only]
    _check_loss(loss, output_targets, tuple(o.name for o in auxiliary_outputs), at)
    target_indices = {
        name: index for index, target in enumerate(output_targets) for name in target.outputs
    }
    for auxiliary_output in auxiliary_outputs:
        target_indices[auxiliary_output.name] = _find_auxiliary_target(
            graph, auxiliary_output, output_targets, scored_outputs, at
        )
    loss_weights = {o.name: 1.0 for o in scored_outputs} | {
        o.name: loss.auxiliary.get(o.name, AUXILIARY_LOSS_WEIGHT) for o in auxiliary_outputs
    }
    if label_targets:
        # Once more, since a spec that takes the labels over may have fewer values than these name.
        canonical_labels = targets.normalize_labels(classes, label_targets, at)
        target_rows = torch.tensor(
            [targets.encode_label(canonical_labels[kind], label_targets) for kind in classes]
        )
    else:
        target_rows = torch.eye(len(classes))
    return ClassOutputs(
        output_targets,
        target_indices,
        loss_weights,
        graph.inputs[0],
        bool(label_targets),
        target_rows,
    )


def _build_class_target(
    graph: Graph, scored_outputs: Sequence[Output], classes: tuple[str, ...], at: Span
) -> TrainingTarget:
    """Return the only target, of classes.

    Raises:
        UserError: The output has another number of them (E1226).
    """
    units = _count_units(graph, scored_outputs[0])
    # One value tells two classes apart by its sign.
    if units != len(classes) and (units, len(classes)) != (1, 2):
        reason = (
            f"output `{scored_outputs[0].name}` has {units} values, and there are "
            f"{len(classes)} classes"
        )
        raise build_untrainable_error(
            at, reason, f"set the spec to {len(classes)} classes (`--set`)"
        )
    return TrainingTarget(tuple(o.name for o in scored_outputs), classes, exclusive=True)


def _find_auxiliary_target(
    graph: Graph,
    output: Output,
    output_targets: Targets,
    scored_outputs: Sequence[Output],
    at: Span,
) -> int:
    """Return the place of what an output for training alone learns.

    Raises:
        UserError: No target has as many values, or several have (E1226).
    """
    units = {o.name: _count_units(graph, o) for o in (*scored_outputs, output)}
    fitting_indices = [
        n for n, t in enumerate(output_targets) if units[t.outputs[0]] == units[output.name]
    ]
    matching_indices = [
        n for n in fitting_indices if output_targets[n].labels == output.labels
    ] or fitting_indices
    if len(matching_indices) != 1:
        subject = "several outputs have" if matching_indices else "no output has"
        reason = f"{subject} as many values as `{output.name}`, which is for training alone"
        help = "give it the labels of the output that it helps" if matching_indices else ""
        raise build_untrainable_error(at, reason, help)
    return matching_indices[0]


def _check_loss(
    loss: Loss, output_targets: Targets, auxiliary_names: tuple[str, ...], at: Span
) -> None:
    """Refuse a loss that names what is not there (E1225)."""
    names = tuple(name for target in output_targets for name in target.labels)
    problems = [
        *_find_unknown_names("class_weights", loss.class_weights, names, at),
        *_find_unknown_names("positive", dict.fromkeys(loss.positive, 1.0), names, at),
        *_find_unknown_names("auxiliary", loss.auxiliary, auxiliary_names, at),
    ]
    has_multiclass = any(target.exclusive and len(target.labels) != 2 for target in output_targets)
    if loss.alpha is not None and not loss.positive and has_multiclass:
        message = "`alpha` is for positive classes, and the recipe's loss names none"
        problems.append(Diagnostic("E1225", message, at, help="say `positive: [NAME]`"))
    if problems:
        raise UserError(tuple(problems))


def _find_unknown_names(
    key: str, settings: Mapping[str, float], valid_names: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    names = [name for name in settings if name not in valid_names]
    if not names:
        return []
    message = f"the recipe's `{key}` names what is not there: {join_names(names)}"
    help = f"there are {join_names(valid_names)}" if valid_names else "this network has none"
    return [Diagnostic("E1225", message, at, help=help)]
