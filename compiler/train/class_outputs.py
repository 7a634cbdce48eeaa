"""Select the outputs of a network to train, with their targets, and its train-only outputs."""

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
"""Default loss weight of a train-only output, as in GoogLeNet (2014)."""


@dataclass(frozen=True, eq=False)
class ClassOutputs:
    """Outputs to train, with their targets and loss weights, and the image input.

    Attributes:
        targets: The training targets; the first output of each target is scored.
        target_indices: The index in `targets` of each output's target, also of train-only outputs.
        loss_weights: The loss weight of each output.
        source: The image input.
        is_multi_label: Whether labels can name more than one class.
        target_rows: The expected values for each kind of image, float32 (kinds, columns), with the
            columns of all targets in order.
    """

    targets: Targets
    target_indices: Mapping[str, int]
    loss_weights: Mapping[str, float]
    source: Input
    is_multi_label: bool
    target_rows: Tensor

    @property
    def scored_outputs(self) -> tuple[str, ...]:
        """The scored output of each target."""
        return tuple(target.outputs[0] for target in self.targets)

    def split_targets(self, columns: Tensor) -> tuple[Tensor, ...]:
        """Return the columns (images, columns) of each target."""
        stops = accumulate(len(target.labels) for target in self.targets)
        return tuple(
            columns[:, stop - len(target.labels) : stop]
            for stop, target in zip(stops, self.targets, strict=True)
        )


def find_scored_outputs(graph: Graph, at: Span) -> tuple[Output, ...]:
    """Return the outputs to score: rows of classes and decisions, or else the first row of values.

    Raises:
        UserError: There is no such output, or the network does not take a single image (E1226).
    """
    if len(graph.inputs) != 1:
        raise build_untrainable_error(at, "it does not have exactly one input")
    network_input = graph.inputs[0]
    if network_input.preprocess is None:
        advice = advise_preprocess(network_input.name, network_input.type.shape) or ""
        raise build_untrainable_error(
            at, f"its input `{network_input.name}` has no `preprocess` for images", advice
        )
    if not any(param.trainable for param in graph.params.values()):
        raise build_untrainable_error(at, "it has no weights to train")
    rows = [o for o in graph.outputs if not o.train_only and _count_units(graph, o)]
    classes = [o for o in rows if o.meaning == "classes"]
    decisions = [o for o in rows if o.meaning == "decisions"]
    # If no output has a meaning, treat the first row of values as classes.
    if scored_outputs := (*classes, *decisions) or tuple(rows[:1]):
        return scored_outputs
    raise build_untrainable_error(at, "it has no output that is a row of classes")


def find_untrained_outputs(
    graph: Graph, scored_outputs: Sequence[Output], at: Span
) -> tuple[Diagnostic, ...]:
    """Return the warning about outputs of the deployed network that are not trained."""
    untrained_names = [
        o.name for o in graph.outputs if not o.train_only and o not in scored_outputs
    ]
    if not untrained_names:
        return ()
    message = (
        f"these outputs are not trained, because they have no targets: "
        f"{join_names(untrained_names)}"
    )
    return (Diagnostic("E1226", message, at, severity="warning"),)


def _count_units(graph: Graph, output: Output) -> int:
    """Return the number of values of an output row; 0 if the output is not a row."""
    shape = graph.types[output.value].shape
    return shape[0] if len(shape) == 1 else 0


def plan_outputs(graph: Graph, loss: Loss, classes: tuple[str, ...], at: Span) -> ClassOutputs:
    """Return the outputs of a network to train, with their targets.

    Args:
        graph: The network.
        loss: The recipe's loss.
        classes: The classes; for a multi-label network, the labels as `targets` writes them.
        at: The network's location.

    Raises:
        UserError: The network does not fit the classes (E1226), or the recipe's loss names unknown
            classes or outputs (E1225).
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
        # Normalize again, because a spec that adopts the labels may have fewer values.
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
    """Return the target of a network with one row of classes.

    Raises:
        UserError: The output has another number of values than there are classes (E1226).
    """
    units = _count_units(graph, scored_outputs[0])
    # A single value distinguishes two classes by its sign.
    if units != len(classes) and (units, len(classes)) != (1, 2):
        reason = (
            f"output `{scored_outputs[0].name}` has {units} values, but the images have "
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
    """Return the index of a train-only output's target.

    Raises:
        UserError: No target, or several targets, have as many values (E1226).
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
        reason = f"{subject} as many values as the train-only output `{output.name}`"
        help = "give it the labels of the output that it supports" if matching_indices else ""
        raise build_untrainable_error(at, reason, help)
    return matching_indices[0]


def _check_loss(
    loss: Loss, output_targets: Targets, auxiliary_names: tuple[str, ...], at: Span
) -> None:
    """Reject a loss that names unknown classes or outputs (E1225)."""
    names = tuple(name for target in output_targets for name in target.labels)
    problems = [
        *_find_unknown_names("class_weights", loss.class_weights, names, at),
        *_find_unknown_names("positive", dict.fromkeys(loss.positive, 1.0), names, at),
        *_find_unknown_names("auxiliary", loss.auxiliary, auxiliary_names, at),
    ]
    has_multiclass = any(target.exclusive and len(target.labels) != 2 for target in output_targets)
    if loss.alpha is not None and not loss.positive and has_multiclass:
        message = "`alpha` needs positive classes, and the recipe's loss names none"
        help = "add `positive: [NAME]` to the loss"
        problems.append(Diagnostic("E1225", message, at, help=help))
    if problems:
        raise UserError(tuple(problems))


def _find_unknown_names(
    key: str, settings: Mapping[str, float], valid_names: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    names = [name for name in settings if name not in valid_names]
    if not names:
        return []
    message = f"the recipe's `{key}` has unknown names: {join_names(names)}"
    help = f"known names: {join_names(valid_names)}" if valid_names else "this network has none"
    return [Diagnostic("E1225", message, at, help=help)]
