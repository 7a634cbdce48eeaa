"""A training as a whole: from a spec, images and a recipe to a run's folder."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tcc.compiler.data import split_file, weights
from tcc.compiler.driver import pipeline
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.level_ends import count_usual
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress
from tcc.compiler.train import (
    arithmetic,
    checkpoint,
    class_outputs,
    judgement,
    losses,
    recipe_records,
    run_folder,
    training_request,
)
from tcc.compiler.train import recipe as recipes
from tcc.compiler.train.checkpoint import TrainingPosition, TrainingState
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.fake_quantization import FakeQuantizedNetwork, trained_calibration
from tcc.compiler.train.loop import TrainingRun
from tcc.compiler.train.losses import OutputLoss
from tcc.compiler.train.recipe_records import Recipe
from tcc.compiler.train.run_folder import MetricsLog, TrainedData, TrainingObserver, TrainingReport
from tcc.compiler.train.trainer import Trainer, TrainingPlan
from tcc.compiler.train.training_request import TrainingRequest


def train(
    request: TrainingRequest, observer: TrainingObserver, progress: Progress
) -> TrainingReport:
    """Train, or go on with what the folder's checkpoint has, and write the folder's files.

    Of a folder that holds a finished training, only its report is read.

    Raises:
        UserError: The network is not for these classes (E1226), the recipe not for the network
            (E1225), the folder's training is another one (E1229), its checkpoint damaged (E1230),
            or the loss is not finite (E1228).
        MachineError: The disk is full or broken.
    """
    if run_folder.finished(request.folder):
        return training_request.finished(request)
    request = _settled(request)
    with arithmetic.repeatable(request.threads, request.world.device):
        plan = planned(request)
        trainer = Trainer(plan)
        state = _begun(request, trainer)
        path = request.folder / run_folder.CHECKPOINT
        run = TrainingRun(trainer, request.stores, state, path, request.deadline)
        done = state.position.done
        wanted = request.tensorboard and request.world.first
        with run_folder.events(request.folder, len(done), wanted=wanted) as events:
            log = MetricsLog(request.folder, done, events, observer)
            run.run(log if request.world.first else observer)
        # Where nothing was ever judged, or the recipe keeps the last, there is no best.
        kept = run.best if run.best else trainer.weights()
        return _written(request, plan, run, kept, progress)


def _settled(request: TrainingRequest) -> TrainingRequest:
    """Return the request with the precision that `auto` is: the one begun with, or the quicker.

    Raises:
        UserError: The batch is not for so many processes (E1231).
    """
    recipe, path = request.recipe, request.folder / run_folder.CHECKPOINT
    if recipe.batch % request.world.size:
        at = whole_file(str(request.spec.path))
        message = f"a batch of {recipe.batch} cannot be cut into {request.world.size} equal parts"
        raise fail("E1231", message, at, help="let the recipe's `batch` be a multiple of it")
    if recipe.precision != "auto":
        return request
    low, full = replace(recipe, precision="bf16"), replace(recipe, precision="fp32")
    if path.exists():
        # Another processor goes on with the same arithmetic, or it were another training.
        begun = checkpoint.position(path).identity.recipe
        return replace(request, recipe=low if begun == recipes.digest(low) else full)
    quick = request.world.agreed(not arithmetic.slow_bf16(request.world.device))
    return replace(request, recipe=low if quick else full)


def planned(request: TrainingRequest) -> TrainingPlan:
    """Return what is trained.

    Raises:
        UserError: The network is not for these classes, or the recipe not for the network.
    """
    graph, recipe, classes = request.spec.graph, request.recipe, request.split.classes
    at = whole_file(str(request.spec.path))
    if recipe.augment:
        recipe_records.check(recipe.augment, graph.inputs[0], at)
    outputs = class_outputs.planned(graph, recipe.loss, classes, at)
    counts = torch.bincount(request.stores["train"].classes, minlength=len(classes))
    costs = _losses(recipe, outputs, counts)
    start, device = request.start.tensors, request.world.device
    return TrainingPlan(
        graph,
        start,
        recipe,
        classes,
        outputs,
        costs,
        request.seed,
        device,
        request.world,
        _calibration(request),
    )


def _losses(recipe: Recipe, outputs: ClassOutputs, counts: Tensor) -> tuple[OutputLoss, ...]:
    """Return the loss of each target, of how many training images there are of each kind."""
    parts = outputs.parts(outputs.truths.long())
    totals = [(part * counts[:, None]).sum(dim=0).tolist() for part in parts]
    images = int(counts.sum())
    return tuple(
        losses.of_target(recipe.loss, target, target.totals(held, images))
        for target, held in zip(outputs.targets, totals, strict=True)
    )


def _calibration(request: TrainingRequest) -> Calibration | None:
    """Return what the network's integers are to be, where it is trained as its integer program.

    Raises:
        UserError: It is another network's, or of other weights (E0731 to E0733).
    """
    if request.qat is None:
        return None
    about = pipeline.network(request.spec)
    calibration_file.check(request.qat, about, request.start.origin, "--qat")
    ready = pipeline.ready(request.spec, request.start)
    return calibration_file.calibration(request.qat, ready, "--qat")


def _retrained(request: TrainingRequest, trainer: Trainer, kept: weights.Weights) -> None:
    """Write the calibration of the kept weights, where the network was trained as integers."""
    network = trainer.module
    if request.qat is None or not isinstance(network, FakeQuantizedNetwork):
        return
    with torch.no_grad():
        for name, tensor in network.named_weights().items():
            tensor.copy_(torch.from_numpy(np.array(kept[name])))
    document = trained_calibration(network, request.qat)
    ready = pipeline.ready(request.spec, replace(request.start, tensors=kept))
    usual = count_usual(ready, network.trained_calibration(), request.split.sides["train"])
    data = calibration_document.encode(calibration_file.with_usual(document, usual))
    atomic_files.write_file(request.folder / run_folder.CALIBRATION, data)


def _begun(request: TrainingRequest, trainer: Trainer) -> TrainingState:
    """Return the state to begin with: the checkpoint's, or that of no step."""
    identity = training_request.of(request)
    path = request.folder / run_folder.CHECKPOINT
    if not path.exists():
        position = TrainingPosition(
            tcc_checkpoint=checkpoint.VERSION,
            identity=identity,
            torch=torch.__version__,
            threads=request.threads,
            processes=request.world.size,
            epoch=0,
            step=0,
            hits=0,
            done=(),
            best=None,
        )
        return TrainingState(position, np.zeros(0, np.float32), {})
    state, tensors = checkpoint.read(path)
    training_request.check(request.folder, state.position.identity, identity)
    checkpoint.restore(path, trainer, tensors)
    return state


def _written(
    request: TrainingRequest,
    plan: TrainingPlan,
    run: TrainingRun,
    kept: weights.Weights,
    progress: Progress,
) -> TrainingReport:
    """Write the files of a training that has ended, or whose time is over."""
    folder, done = request.folder, run.position.done
    tensors = weights.checked(kept, plan.graph)
    number = run.position.best or len(done)
    report = TrainingReport(
        tcc_training=run_folder.VERSION,
        network=pipeline.network(request.spec),
        start=request.start.origin,
        recipe=recipes.digest(request.recipe),
        seed=request.seed,
        data=_data(request),
        finished=run.finished,
        epochs=len(done),
        kept=number,
        weights=weights.digest(tensors),
        val=done[number - 1].val if number else None,
        test=judgement.tested(plan, tensors, request.stores["test"], progress),
        made_with=arithmetic.made_with(request.world.device),
        threads=request.threads,
        processes=request.world.size,
    )
    if not request.world.first:
        return report
    _retrained(request, run.trainer, tensors)
    weights.write(folder / run_folder.WEIGHTS, tensors)
    recipe = recipes.text(request.recipe).encode()
    atomic_files.write_file(folder / run_folder.RECIPE, recipe)
    images = request.split
    split_file.write(folder / split_file.NAME, images.path, images.sides, images.groups)
    run_folder.write_metrics(folder, done)
    run_folder.write_report(folder, report)
    if run.finished:
        # It is several times as large as the weights, and nothing goes on from the end.
        (folder / run_folder.CHECKPOINT).unlink(missing_ok=True)
    return report


def _data(request: TrainingRequest) -> TrainedData:
    classes = request.split.classes
    return TrainedData(
        classes=classes,
        digests={side: data.digest for side, data in request.split.sides.items()},
        images={
            side: tuple(torch.bincount(store.classes, minlength=len(classes)).tolist())
            for side, store in request.stores.items()
        },
        seed=request.seed,
    )
