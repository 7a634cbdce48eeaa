"""Run a training: from a spec, images and a recipe to a run folder."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tcc.compiler.data import split_file, weights
from tcc.compiler.driver import pipeline
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.saturated_values import measure_saturation
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress
from tcc.compiler.train import (
    arithmetic,
    checkpoint,
    class_outputs,
    evaluation,
    losses,
    recipe_records,
    run_folder,
    training_request,
)
from tcc.compiler.train import recipe as recipes
from tcc.compiler.train.checkpoint import TrainingPosition, TrainingState
from tcc.compiler.train.class_outputs import ClassOutputs
from tcc.compiler.train.fake_quantization import (
    RANGE_EXPONENTS,
    FakeQuantizedNetwork,
    build_trained_calibration,
)
from tcc.compiler.train.loop import TrainingRun
from tcc.compiler.train.losses import OutputLoss
from tcc.compiler.train.recipe_records import Recipe
from tcc.compiler.train.run_folder import MetricsLog, TrainedData, TrainingObserver, TrainingReport
from tcc.compiler.train.trainer import Trainer, TrainingPlan
from tcc.compiler.train.training_request import TrainingRequest


def train(
    request: TrainingRequest, observer: TrainingObserver, progress: Progress
) -> TrainingReport:
    """Start or resume a training, and write the files of the run folder.

    If the folder's training is finished, only return its report.

    Raises:
        UserError: The network does not fit the classes (E1226), the recipe does not fit the network
            (E1225), the folder's training has other inputs (E1229), its checkpoint is damaged
            (E1230), or the loss is not finite (E1228).
        MachineError: The disk is full or broken.
    """
    if run_folder.is_finished(request.folder):
        return training_request.read_finished_report(request)
    request = _resolve_precision(request)
    with arithmetic.use_repeatable_arithmetic(request.threads, request.world.device):
        plan = build_plan(request)
        trainer = Trainer(plan)
        state = _initialize_state(request, trainer)
        path = request.folder / run_folder.CHECKPOINT
        run = TrainingRun(trainer, request.stores, state, path, request.deadline)
        completed_epochs = state.position.completed_epochs
        uses_tensorboard = request.tensorboard and request.world.is_main
        with run_folder.open_event_writer(
            request.folder, len(completed_epochs), is_enabled=uses_tensorboard
        ) as events:
            log = MetricsLog(request.folder, completed_epochs, events, observer)
            run.run(log if request.world.is_main else observer)
        # There are no best weights without a validation, or if the recipe keeps the last.
        kept_weights = run.best if run.best else trainer.export_weights()
        return _write_run(request, plan, run, kept_weights, progress)


def _resolve_precision(request: TrainingRequest) -> TrainingRequest:
    """Return the request with `auto` precision resolved: the checkpoint's, or else the faster.

    Raises:
        UserError: The batch size is not a multiple of the number of processes (E1231).
    """
    recipe, path = request.recipe, request.folder / run_folder.CHECKPOINT
    if recipe.batch % request.world.size:
        at = make_file_span(str(request.spec.path))
        size = request.world.size
        message = f"a batch of {recipe.batch} cannot be split equally among {size} processes"
        help = f"set the recipe's `batch` to a multiple of {size}"
        raise fail("E1231", message, at, help=help)
    if recipe.precision != "auto":
        return request
    bf16_recipe, fp32_recipe = replace(recipe, precision="bf16"), replace(recipe, precision="fp32")
    if path.exists():
        # A resumed training keeps its precision on any processor.
        begun_digest = checkpoint.read_position(path).identity.recipe
        return replace(
            request,
            recipe=bf16_recipe if begun_digest == recipes.digest(bf16_recipe) else fp32_recipe,
        )
    is_bf16_fast = request.world.broadcast_flag(not arithmetic.is_bf16_slow(request.world.device))
    return replace(request, recipe=bf16_recipe if is_bf16_fast else fp32_recipe)


def build_plan(request: TrainingRequest) -> TrainingPlan:
    """Return the plan of a training.

    Raises:
        UserError: The network does not fit the classes, or the recipe does not fit the network.
    """
    graph, recipe, classes = request.spec.graph, request.recipe, request.split.classes
    at = make_file_span(str(request.spec.path))
    if recipe.augment:
        recipe_records.check_augmentation(recipe.augment, graph.inputs[0], at)
    outputs = class_outputs.plan_outputs(graph, recipe.loss, classes, at)
    counts = torch.bincount(request.stores["train"].classes, minlength=len(classes))
    output_losses = _build_losses(recipe, outputs, counts)
    initial_tensors, device = request.initial_weights.tensors, request.world.device
    return TrainingPlan(
        graph,
        initial_tensors,
        recipe,
        classes,
        outputs,
        output_losses,
        request.seed,
        device,
        request.world,
        _load_calibration(request),
    )


def _build_losses(recipe: Recipe, outputs: ClassOutputs, counts: Tensor) -> tuple[OutputLoss, ...]:
    """Return the loss of each target; `counts` has the number of training images of each kind."""
    parts = outputs.split_targets(outputs.target_rows.long())
    totals = [(part * counts[:, None]).sum(dim=0).tolist() for part in parts]
    images = int(counts.sum())
    return tuple(
        losses.build_output_loss(recipe.loss, target, target.count_answers(label_counts, images))
        for target, label_counts in zip(outputs.targets, totals, strict=True)
    )


def _load_calibration(request: TrainingRequest) -> Calibration | None:
    """Return the calibration of a quantization-aware training, or None.

    Raises:
        UserError: The calibration is of another network or of other weights (E0731 to E0733).
    """
    if request.qat is None:
        return None
    network_record = pipeline.describe_network(request.spec)
    calibration_file.check(request.qat, network_record, request.initial_weights.origin, "--qat")
    lowered_model = pipeline.lower_for_int8(request.spec, request.initial_weights)
    return calibration_file.decode_calibration(request.qat, lowered_model, "--qat")


def _write_calibration(
    request: TrainingRequest,
    trainer: Trainer,
    kept_weights: weights.Weights,
    kept_tensors: weights.Weights,
) -> None:
    """Write the calibration of the saved weights after quantization-aware training.

    `kept_tensors` also has the exponents of learned ranges.
    """
    network = trainer.module
    if request.qat is None or not isinstance(network, FakeQuantizedNetwork):
        return
    with torch.no_grad():
        for name, tensor in trainer.tensors.items():
            tensor.copy_(torch.from_numpy(np.array(kept_tensors[name])))
    peaks = evaluation.measure_output_peaks(trainer, request.stores["train"])
    document = build_trained_calibration(network, request.qat, peaks)
    lowered_model = pipeline.lower_for_int8(
        request.spec, replace(request.initial_weights, tensors=kept_weights)
    )
    calibration = calibration_file.decode_calibration(document, lowered_model, "--qat")
    usual = measure_saturation(lowered_model, calibration, request.split.datasets["train"])
    content = calibration_document.encode(calibration_file.replace_saturation(document, usual))
    atomic_files.write_file(request.folder / run_folder.CALIBRATION, content)


def _initialize_state(request: TrainingRequest, trainer: Trainer) -> TrainingState:
    """Return the initial state: the checkpoint's, or that of a new training."""
    identity = training_request.build_identity(request)
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
            completed_epochs=(),
            best=None,
        )
        return TrainingState(position, np.zeros(0, np.float32), {})
    state, tensors = checkpoint.read_checkpoint(path)
    training_request.check_identity(request.folder, state.position.identity, identity)
    checkpoint.restore(path, trainer, tensors)
    return state


def _write_run(
    request: TrainingRequest,
    plan: TrainingPlan,
    run: TrainingRun,
    kept_weights: weights.Weights,
    progress: Progress,
) -> TrainingReport:
    """Write the files of a training that finished or reached its time limit."""
    folder, completed_epochs = request.folder, run.position.completed_epochs
    network_weights = {n: array for n, array in kept_weights.items() if n != RANGE_EXPONENTS}
    tensors = weights.check_weights(network_weights, plan.graph)
    kept_epoch = run.position.best or len(completed_epochs)
    report = TrainingReport(
        tcc_training=run_folder.VERSION,
        network=pipeline.describe_network(request.spec),
        start=request.initial_weights.origin,
        recipe=recipes.digest(request.recipe),
        seed=request.seed,
        data=_summarize_images(request),
        finished=run.is_finished,
        epochs=len(completed_epochs),
        kept=kept_epoch,
        weights=weights.digest(tensors),
        val=completed_epochs[kept_epoch - 1].val if kept_epoch else None,
        test=evaluation.evaluate_test_images(
            plan, tensors, request.stores["test"], request.split.groups, progress
        ),
        made_with=arithmetic.describe_environment(request.world.device),
        threads=request.threads,
        processes=request.world.size,
        start_val=run.position.start_val,
        calibration=request.qat.seal if request.qat else "",
    )
    if not request.world.is_main:
        return report
    _write_calibration(request, run.trainer, tensors, kept_weights)
    weights.write(folder / run_folder.WEIGHTS, tensors)
    recipe = recipes.render_json(request.recipe).encode()
    atomic_files.write_file(folder / run_folder.RECIPE, recipe)
    image_split = request.split
    split_file.write(
        folder / split_file.NAME, image_split.path, image_split.datasets, image_split.groups
    )
    run_folder.write_metrics(folder, completed_epochs)
    run_folder.write_report(folder, report)
    if run.is_finished:
        # The checkpoint is several times as large as the weights, and not needed any more.
        (folder / run_folder.CHECKPOINT).unlink(missing_ok=True)
    return report


def _summarize_images(request: TrainingRequest) -> TrainedData:
    classes = request.split.classes
    return TrainedData(
        classes=classes,
        digests={
            split_name: dataset.digest for split_name, dataset in request.split.datasets.items()
        },
        images={
            split_name: tuple(torch.bincount(store.classes, minlength=len(classes)).tolist())
            for split_name, store in request.stores.items()
        },
        seed=request.seed,
    )
