"""Evaluate a network on validation and test images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcc.compiler.data.weights import Weights
from tcc.compiler.driver.probability_curves import MAX_CURVES
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference import (
    classification_metrics,
    confidence_intervals,
    decision_curve,
    float_program,
    reliability,
    roc_curve,
)
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.support.progress import Progress
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.run_folder import (
    DecisionCounts,
    EvaluationMetrics,
    OutputMetrics,
    OutputScores,
    TestScores,
)
from tcc.compiler.train.targets import TrainingTarget
from tcc.compiler.train.trainer import (
    Trainer,
    TrainingPlan,
    count_hits,
    decode_labels,
    predict_classes,
)


def evaluate_network(trainer: Trainer, store: PixelStore) -> EvaluationMetrics:
    """Return a network's metrics on images, in evaluation mode and the recipe's precision."""
    plan, images = trainer.plan, len(store.classes)
    # All batches have one size, because another size may change the summation order.
    batches = _build_fixed_batches(images, plan.recipe.batch)
    store_device = store.classes.device
    inputs = (
        store.to_inputs(store.gather_batch(part.to(store_device))[0].to(plan.device))
        for part in batches
    )
    logits = [
        torch.cat(output_scores)[:images]
        for output_scores in zip(*trainer.predict_batches(inputs), strict=True)
    ]
    target_columns = plan.outputs.split_targets(
        plan.outputs.target_rows[store.classes.cpu()].to(plan.device)
    )
    losses = [
        loss.compute_cross_entropy(output_logits, part)
        for loss, output_logits, part in zip(trainer.losses, logits, target_columns, strict=True)
    ]
    all_scores = compute_scores(plan.outputs, logits, target_columns)
    correct, f1 = (
        int(count_hits(plan.outputs.targets, logits, target_columns)),
        compute_mean_f1(all_scores),
    )
    outputs = {
        name: OutputMetrics(output_scores.accuracy, output_scores.macro.f1)
        for name, output_scores in zip(plan.outputs.scored_outputs, all_scores, strict=True)
    }
    reported_outputs = outputs if len(outputs) > 1 else {}
    return EvaluationMetrics(
        images,
        float(torch.stack(losses).sum()),
        correct / images,
        f1,
        reported_outputs,
        compute_balanced_accuracy(plan.outputs, all_scores),
    )


PEAK_IMAGES = 512
"""Number of images in which the largest outputs are measured."""


def measure_output_peaks(trainer: Trainer, store: PixelStore) -> Mapping[str, float]:
    """Return the largest magnitude of each scored output, in its current weights.

    Args:
        trainer: The trainer of a quantization-aware training, without averaged weights.
        store: The training images, of which up to `PEAK_IMAGES` are used at equal distances.
    """
    indices = torch.arange(0, len(store), -(-len(store) // PEAK_IMAGES))
    parts = indices[_build_fixed_batches(len(indices), trainer.plan.recipe.batch)]
    peaks = dict.fromkeys(trainer.plan.outputs.scored_outputs, 0.0)
    network, device = trainer.module.eval(), trainer.plan.device
    for part in parts:
        pixels = store.gather_batch(part.to(store.classes.device))[0].to(device)
        with torch.no_grad():
            outputs = network(store.to_inputs(pixels))
        for name, peak in peaks.items():
            peaks[name] = max(peak, float(outputs[name].abs().max()))
    return peaks


def _build_fixed_batches(images: int, batch: int) -> Tensor:
    """Return the indices of all images, int64 (batches, batch).

    The last image is repeated to fill the last batch; only the first `images` entries count.
    """
    count = -(-images // batch) * batch
    return torch.arange(count).clamp_max(images - 1).reshape(-1, batch)


def compute_scores(
    outputs: ClassOutputs, logits: Sequence[Tensor], target_columns: Sequence[Tensor]
) -> list[Scores]:
    """Return the scores of each scored output.

    Args:
        outputs: The outputs and their targets.
        logits: The logits of each scored output, float (images, values).
        target_columns: The columns of each target, float (images, columns).
    """
    triples = zip(outputs.targets, logits, target_columns, strict=True)
    return [
        _compute_output_scores(target, output_logits, part)
        for target, output_logits, part in triples
    ]


def _compute_output_scores(
    target: TrainingTarget, logits: Tensor, target_columns: Tensor
) -> Scores:
    predictions, labels = (
        predict_classes(target, logits).cpu(),
        decode_labels(target, target_columns).cpu(),
    )
    if not target.exclusive:
        return classification_metrics.compute_decision_scores(labels.numpy(), predictions.numpy())
    classes = len(target.labels)
    pairs = torch.bincount((labels * classes + predictions)[:, 0], minlength=classes**2)
    return classification_metrics.compute_scores(pairs.reshape(classes, classes).numpy())


def compute_mean_f1(output_scores: Sequence[Scores]) -> float:
    """Return the mean macro F1 of the outputs."""
    return sum(scores.macro.f1 for scores in output_scores) / len(output_scores)


def compute_balanced_accuracy(outputs: ClassOutputs, output_scores: Sequence[Scores]) -> float:
    """Return the mean balanced accuracy of the outputs, over classes that have images."""
    rates: list[list[float]] = []
    for target, scores in zip(outputs.targets, output_scores, strict=True):
        recalls = [c.rates.recall for c in scores.classes if c.support]
        if not target.exclusive:
            recalls += [c.specificity for c in scores.classes if c.support < scores.images]
        rates.append(recalls)
    return sum(sum(recalls) / len(recalls) for recalls in rates) / len(rates)


CURVE_PERCENTS = tuple(range(5, 100, 5))
"""Thresholds of the decision curves in a report, in per cent."""


def evaluate_test_images(
    plan: TrainingPlan,
    tensors: Weights,
    store: PixelStore,
    groups: Mapping[str, str],
    progress: Progress,
) -> TestScores | None:
    """Return the scores of weights on the test images; None if there are no test images.

    Args:
        plan: The network and its outputs.
        tensors: The weights.
        store: The test images.
        groups: The known groups of images, such as their patients, by name.
        progress: Receives each image.
    """
    if not len(store):
        return None
    # Use the reference executor of the deployed network, not the training module.
    run = float_program.create_runner(Model(plan.graph, tensors))
    rows_by_output: list[list[torch.Tensor]] = [[] for _ in plan.outputs.scored_outputs]
    progress("test", 0, len(store))
    for index in range(len(store)):
        pixels, _ = store.gather_batch(torch.tensor([index]))
        outputs = run(store.to_inputs(pixels)[0].numpy())
        for logits, name in zip(rows_by_output, plan.outputs.scored_outputs, strict=True):
            logits.append(torch.from_numpy(outputs[name].copy()))
        progress("test", index + 1, len(store))
    logits = [torch.stack(rows) for rows in rows_by_output]
    target_columns = plan.outputs.split_targets(plan.outputs.target_rows[store.classes])
    correct = int(count_hits(plan.outputs.targets, logits, target_columns))
    scores = _build_test_scores(
        plan.outputs, compute_scores(plan.outputs, logits, target_columns), correct
    )
    cases = tuple(groups.get(name, "") for name in store.names)
    return _add_probability_quality(
        plan, scores, logits, target_columns, cases if all(cases) else ()
    )


def _add_probability_quality(
    plan: TrainingPlan,
    scores: TestScores,
    logits: Sequence[Tensor],
    target_columns: Sequence[Tensor],
    cases: Sequence[str],
) -> TestScores:
    """Return the scores with calibration errors and decision curves, if there are probabilities."""
    target = plan.outputs.targets[0]
    activation = next(o.activation for o in plan.graph.outputs if o.name == target.outputs[0])
    if len(plan.outputs.targets) > 1 or activation == "none":
        return scores
    odds = roc_curve.compute_log_odds(activation, logits[0].numpy(), 1.0)
    is_single = odds.shape[1] == 1 and target.exclusive
    odds = np.hstack([-odds, odds]) if is_single else odds
    predicted, truth = (
        _mark_classes(target, predictions)
        for predictions in (
            predict_classes(target, logits[0]),
            decode_labels(target, target_columns[0]),
        )
    )
    columns = range(len(target.labels)) if len(target.labels) <= MAX_CURVES else ()
    return replace(
        scores,
        calibration_errors=reliability.measure_reliability(
            target.labels, odds, truth, predicted, target.exclusive, cases
        ),
        decision_curves=tuple(
            decision_curve.compute_curve(
                (target.labels[k],),
                decision_curve.compute_probability(odds, (k,)),
                truth[:, k],
                cases,
                CURVE_PERCENTS,
            )
            for k in ((1,) if is_single else columns)
        ),
    )


def _mark_classes(target: TrainingTarget, predictions: Tensor) -> NDArray[np.bool_]:
    """Return whether each image has each class (images, classes), from `predict_classes`' form."""
    if not target.exclusive:
        return predictions.cpu().numpy().astype(np.bool_)
    is_class: NDArray[np.bool_] = predictions.cpu().numpy() == np.arange(len(target.labels))
    return is_class


def _build_test_scores(
    outputs: ClassOutputs, output_scores: list[Scores], correct: int
) -> TestScores:
    images = output_scores[0].images
    interval = confidence_intervals.compute_share_interval(correct, images)
    assert interval
    scores_by_output = {
        name: _build_output_scores(target, scores)
        for name, target, scores in zip(
            outputs.scored_outputs, outputs.targets, output_scores, strict=True
        )
    }
    return TestScores(
        images,
        correct,
        correct / images,
        interval,
        compute_mean_f1(output_scores),
        output_scores[0].confusion if len(output_scores) == 1 else (),
        scores_by_output if outputs.is_multi_label else {},
    )


def _build_output_scores(target: TrainingTarget, scores: Scores) -> OutputScores:
    interval = confidence_intervals.compute_share_interval(scores.correct, scores.images)
    assert interval
    return OutputScores(
        target.labels,
        scores.correct,
        scores.accuracy,
        interval,
        scores.macro.f1,
        scores.confusion,
        {} if target.exclusive else _count_decisions(target, scores),
    )


def _count_decisions(target: TrainingTarget, scores: Scores) -> Mapping[str, DecisionCounts]:
    counts = {}
    for name, class_scores in zip(target.labels, scores.classes, strict=True):
        negatives = scores.images - class_scores.support
        true_positives, true_negatives = (
            round(class_scores.rates.recall * class_scores.support),
            round(class_scores.specificity * negatives),
        )
        counts[name] = DecisionCounts(
            class_scores.support, true_positives, negatives, true_negatives
        )
    return counts
