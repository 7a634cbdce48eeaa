"""The last judgement of a training: its weights on the test images, by the reference executor."""

from collections.abc import Mapping

import torch

from tcc.compiler.data.weights import Weights
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference import confidence_intervals, float_program
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.support.progress import Progress
from tcc.compiler.train import judgement
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.pixel_store import PixelStore
from tcc.compiler.train.run_folder import DecisionCounts, OutputScores, TestScores
from tcc.compiler.train.targets import TrainingTarget
from tcc.compiler.train.trainer import TrainingPlan, hits


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
    return _whole(plan.outputs, judgement.scores(plan.outputs, values, wanted), right)


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
        judgement.mean_f1(found),
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
