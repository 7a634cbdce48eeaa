"""How a network does on images that it does not learn from."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tcc.compiler.reference import classification_metrics
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.train import batches
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.metrics import Judgement, OutputJudgement
from tcc.compiler.train.targets import TrainingTarget
from tcc.compiler.train.trainer import Trainer, hits, taken, truth


class LabelledPixels(Protocol):
    """Images as grey levels, with the classes that they are of."""

    @property
    def classes(self) -> Tensor:
        """The class of each, int64 (images,)."""
        ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the levels and classes of some, by their places."""
        ...

    def inputs(self, levels: Tensor) -> Tensor:
        """Return what the network takes, float32, of such levels."""
        ...


def judged(trainer: Trainer, data: LabelledPixels) -> Judgement:
    """Return how a network does on images, in evaluation mode and the recipe's precision."""
    plan, images = trainer.plan, len(data.classes)
    # Batches of one size: a last one that is shorter may be summed in another order.
    places = batches.fixed(images, plan.recipe.batch)
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
