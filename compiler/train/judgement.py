"""How a network does on images that it does not learn from."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tcc.compiler.data.weights import Weights
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference import classification_metrics, confidence_intervals, float_program
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.support.progress import Progress
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.run_folder import (
    DecisionCounts,
    Judgement,
    OutputJudgement,
    OutputScores,
    TestScores,
)
from tcc.compiler.train.targets import TrainingTarget
from tcc.compiler.train.trainer import Trainer, TrainingPlan, hits, taken, truth


def judged(trainer: Trainer, data: PixelStore) -> Judgement:
    """Return how a network does on images, in evaluation mode and the recipe's precision."""
    plan, images = trainer.plan, len(data.classes)
    # Batches of one size: a last one that is shorter may be summed in another order.
    places = _fixed_batches(images, plan.recipe.batch)
    held = data.classes.device
    inputs = (data.inputs(data.batch(part.to(held))[0].to(plan.device)) for part in places)
    values = [torch.cat(each)[:images] for each in zip(*trainer.judge(inputs), strict=True)]
    wanted = plan.outputs.parts(plan.outputs.truths[data.classes.cpu()].to(plan.device))
    losses = [
        loss.plain(given, part)
        for loss, given, part in zip(trainer.losses, values, wanted, strict=True)
    ]
    found = scores(plan.outputs, values, wanted)
    right, f1 = int(hits(plan.outputs.targets, values, wanted)), mean_f1(found)
    outputs = {
        name: OutputJudgement(each.accuracy, each.macro.f1)
        for name, each in zip(plan.outputs.judged, found, strict=True)
    }
    more = outputs if len(outputs) > 1 else {}
    return Judgement(images, float(torch.stack(losses).sum()), right / images, f1, more)


def _fixed_batches(images: int, batch: int) -> Tensor:
    """Return all images in order, int64 (batches, batch); the last batch ends with repeated ones.

    There are as many batches as needed, and the first `images` entries are what counts.
    """
    count = -(-images // batch) * batch
    return torch.arange(count).clamp_max(images - 1).reshape(-1, batch)


def scores(
    outputs: ClassOutputs, values: Sequence[Tensor], wanted: Sequence[Tensor]
) -> list[Scores]:
    """Return the figures of each judged output.

    Args:
        outputs: What is judged.
        values: What each gave, raw, float (images, values).
        wanted: The columns of each target, float (images, columns).
    """
    triples = zip(outputs.targets, values, wanted, strict=True)
    return [_scores(target, given, part) for target, given, part in triples]


def _scores(target: TrainingTarget, values: Tensor, wanted: Tensor) -> Scores:
    found, known = taken(target, values).cpu(), truth(target, wanted).cpu()
    if not target.exclusive:
        return classification_metrics.decision_scores(known.numpy(), found.numpy())
    classes = len(target.labels)
    pairs = torch.bincount((known * classes + found)[:, 0], minlength=classes**2)
    return classification_metrics.scores(pairs.reshape(classes, classes).numpy())


def mean_f1(found: Sequence[Scores]) -> float:
    """Return the mean over the outputs of their macro F1."""
    return sum(each.macro.f1 for each in found) / len(found)


def tested(
    plan: TrainingPlan, tensors: Weights, store: PixelStore, progress: Progress
) -> TestScores | None:
    """Return how weights do on the test images, one by one; None where there are none."""
    if not len(store):
        return None
    # Not the module: what is reported last is what the deployed network's own reference says.
    run = float_program.prepared(Model(plan.graph, tensors))
    given: list[list[torch.Tensor]] = [[] for _ in plan.outputs.judged]
    progress("test", 0, len(store))
    for place in range(len(store)):
        levels, _ = store.batch(torch.tensor([place]))
        found = run(store.inputs(levels)[0].numpy())
        for values, name in zip(given, plan.outputs.judged, strict=True):
            values.append(torch.from_numpy(found[name].copy()))
        progress("test", place + 1, len(store))
    values = [torch.stack(each) for each in given]
    wanted = plan.outputs.parts(plan.outputs.truths[store.classes])
    right = int(hits(plan.outputs.targets, values, wanted))
    return _whole(plan.outputs, scores(plan.outputs, values, wanted), right)


def _whole(outputs: ClassOutputs, found: list[Scores], right: int) -> TestScores:
    images = found[0].images
    within = confidence_intervals.of_share(right, images)
    assert within
    each = {
        name: _output(target, scores)
        for name, target, scores in zip(outputs.judged, outputs.targets, found, strict=True)
    }
    return TestScores(
        images,
        right,
        right / images,
        within,
        mean_f1(found),
        found[0].confusion if len(found) == 1 else (),
        each if outputs.several else {},
    )


def _output(target: TrainingTarget, found: Scores) -> OutputScores:
    within = confidence_intervals.of_share(found.correct, found.images)
    assert within
    return OutputScores(
        target.labels,
        found.correct,
        found.accuracy,
        within,
        found.macro.f1,
        found.confusion,
        {} if target.exclusive else _decisions(target, found),
    )


def _decisions(target: TrainingTarget, found: Scores) -> Mapping[str, DecisionCounts]:
    made = {}
    for name, each in zip(target.labels, found.classes, strict=True):
        others = found.images - each.support
        hits, passed = round(each.rates.recall * each.support), round(each.specificity * others)
        made[name] = DecisionCounts(each.support, hits, others, passed)
    return made
