"""Load, check, lower and train networks."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support.diagnostics import SpecWarning

if TYPE_CHECKING:
    from torch import nn

    from tcc.compiler.driver.spec_check import SpecCheck
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.lower.torch import TorchNetwork
    from tcc.compiler.train.run_folder import TrainingReport


def load(spec: str | PathLike[str], **params: object) -> "Spec":
    """Load and compile a spec.

    Args:
        spec: A spec file, or the name of a spec or trained network that comes with tcc, such as
            `ddsnet` or `ddsnet-blood`.
        **params: Parameters of the spec: numbers, strings, booleans or lists of these.

    Returns:
        The compiled spec with its `graph`, parameters, digest and `warnings`.

    Warns:
        SpecWarning: The spec compiles but probably has a mistake.

    Raises:
        UserError: There is no such spec, or it has an error.

    Example:
        spec = tcc.load("ddsnet", classes=5)
        print(spec.graph.name, spec.warnings)
    """
    from tcc.compiler.driver.pipeline import format_setting
    from tcc.compiler.frontend.spec import load as compiled
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.zoo import shipped, trained

    settings = {name: format_setting(value) for name, value in params.items()}
    if network := trained.find_by_name(str(spec)):
        loaded_spec = network.load(settings)
    else:
        loaded_spec = compiled(shipped.find_spec(str(spec), make_file_span("tcc.load")), settings)
    for warning in loaded_spec.warnings:
        warnings.warn(SpecWarning(str(warning)), stacklevel=2)
    return loaded_spec


def resolve_spec(spec: "Spec | str | PathLike[str]") -> "Spec":
    """Return the spec; load it if a file or name is given."""
    return load(spec) if isinstance(spec, str | PathLike) else spec


def check(
    spec: "Spec | str | PathLike[str]",
    targets: str | Sequence[str] = (),
    *,
    precision: str | None = None,
) -> "SpecCheck":
    """Compute the costs of a network, run its `tests:` and check what targets support.

    Nothing is built, and no weights are needed.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts.
        targets: The name of a target, or several names.
        precision: A precision that the targets offer. By default `fp32`, or a target's first
            precision if it has no `fp32`.

    Returns:
        `cost` has the cost of each layer, `expectations` the results of the tests, and
        `capabilities` one entry per target. `errors` lists everything that is wrong; `holds` is
        true if it is empty.

    Raises:
        UserError: The spec has an error, or there is no such target or precision.

    Example:
        result = tcc.check("ddsnet", "tflite", precision="int8")
        print(result.cost.macs, result.errors)
    """
    call_arguments = locals()
    from tcc import arguments
    from tcc.compiler.driver import spec_check
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.targets import devices

    arguments.check(check, call_arguments)
    span = make_file_span("tcc.check")
    names = [targets] if isinstance(targets, str) else targets
    requested_precision = (precision or FP32.name, span)
    plans = devices.find_all(
        [(name, span) for name in names], requested_precision, is_explicit=precision is not None
    )
    return spec_check.check(resolve_spec(spec), plans)


def lower(
    spec: "Spec | str | PathLike[str]",
    target: str,
    weights: str | PathLike[str] | None = None,
    *,
    precision: str | None = None,
    seed: int | None = None,
    calibration: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    method: str = "best",
    floors: Mapping[str, float] | None = None,
) -> "Model":
    """Return the model from which a target's artifact is made.

    It is the graph after the target's passes, or the int8 program.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts.
        target: The name of a target.
        weights: A safetensors file. Without it, the weights of a trained network, or random
            weights.
        precision: A precision that the target offers. By default `fp32`, or the target's first
            precision if it has no `fp32`.
        seed: Seed of random weights. If it is given, random weights are used even for a trained
            network. Without it, random weights have seed 0.
        calibration: For an int8 model: a file that `calibrate` wrote. Without it, `data` is used
            for calibration, or the calibration of a trained network.
        data: Images, as for `calibrate`.
        method: As for `calibrate`.
        floors: As for `build`.

    Returns:
        A model with a `graph` and its `weights`, numpy arrays by name. Each of the `nodes` of the
        graph has a name, an op, inputs and a location in the spec.

    Raises:
        UserError: The input is wrong, or the target does not support the network.
        BelowFloor: The int8 model is below one of its accuracy bounds.

    Example:
        model = tcc.lower("ddsnet-blood", "tflite", precision="int8")
        print(len(model.graph.nodes), len(model.weights))
    """
    call_arguments = locals()
    from tcc import arguments, programs
    from tcc.compiler import passes
    from tcc.compiler.driver import build_plan, pipeline
    from tcc.compiler.ir.graph import Model

    arguments.check(lower, call_arguments)
    resolved_spec = resolve_spec(spec)
    plans = programs.resolve_plans([target], precision, "tcc.lower")
    weight_source = pipeline.load_weights(resolved_spec, weights, seed)
    arguments.check(
        lower,
        call_arguments,
        programs.find_int8_facts(resolved_spec, weight_source, plans, call_arguments),
    )
    int8_request = programs.Int8Request("tcc.lower", calibration, data, method, floors)
    source = programs.find_calibration_source(resolved_spec, weight_source, plans, int8_request)
    int8_programs = programs.build_int8_programs(
        resolved_spec, weight_source, plans, int8_request, source
    )
    model = Model(resolved_spec.graph, weight_source.tensors)
    (lowered_model,) = build_plan.prepare_models(model, plans, int8_programs, passes.run).values()
    pipeline.check([(plans[0].device, lowered_model.graph)])
    return lowered_model


def train(
    spec: "Spec | str | PathLike[str]",
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    recipe: str | PathLike[str] = "quick",
    epochs: int | None = None,
    seed: int = 0,
    weights: str | PathLike[str] | None = None,
    threads: int | None = None,
    resume: bool = False,
) -> "TrainingReport":
    """Train a network on labelled images and write the folder that `tcc train` writes.

    Training runs on the CPU.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts. Images with a class
            that is not one of its labels are refused. If the spec has no labels, its parameter
            `labels` is set to the names of the class folders.
        data: A folder of class folders, or one with `train`, `val` and `test` that have class
            folders, or an `.npz` file with `labels`.
        out: The folder to write, new or empty unless `resume` is set. It gets
            `weights.safetensors`, the metrics and the report.
        recipe: The name of a recipe, or a file.
        epochs: The number of epochs, instead of the recipe's.
        seed: Seed of the split, of random weights and of the order of the images.
        weights: A safetensors file to start from. Without it, random weights.
        threads: The number of PyTorch threads; by default PyTorch's own, or that of the training
            that is resumed. Another number gives other bytes.
        resume: Continue the training in the folder. The result has the same bytes as without the
            interruption. A finished training is only read.

    Returns:
        The content of `report.json`. `test` has the scores on the test split, which is used for
        nothing else.

    Warns:
        UserWarning: The images are doubtful.

    Raises:
        UserError: The input is wrong, the folder is not empty, or there is nothing to resume.
        MissingTool: PyTorch is not installed.

    Example:
        classes = ["ADI", "MUC", "MUS", "STR", "STU", "TUM"]
        spec = tcc.load("docs/examples/tiles.yaml", labels=classes)
        report = tcc.train(spec, "zoo/samples", "runs/example", epochs=1)
        print(report.test.accuracy)
    """
    _require_torch()

    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.train import python_training
    from tcc.compiler.train import recipe as recipes

    base_recipe = recipes.read_recipe(recipes.find_recipe(str(recipe), make_file_span("tcc.train")))
    used_recipe = base_recipe if epochs is None else replace(base_recipe, epochs=epochs)
    weights_path = None if weights is None else Path(weights)
    options = python_training.TrainingOptions(
        Path(data), Path(out), seed, weights_path, threads, resume
    )
    return python_training.train(resolve_spec(spec), used_recipe, options)


def torch(
    spec: "Spec | str | PathLike[str]",
    weights: str | PathLike[str] | None = None,
    *,
    seed: int | None = None,
) -> "TorchNetwork":
    """Return a spec as a PyTorch module that uses torch's own layers, in training mode.

    Modules and the state dict have the names of the spec. Train-only outputs exist only in
    training mode. The `activation` of an output is not applied.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts.
        weights: A safetensors file. Without it, the weights of a trained network, or random
            weights.
        seed: Seed of random weights. If it is given, random weights are used even for a trained
            network. Without it, random weights have seed 0.

    Returns:
        A module from image tensors `(N, *shape)`, after the spec's preprocessing, to a dict of
        outputs `(N, *shape)` by their names in the spec.

    Raises:
        UserError: The spec or the weights are wrong.
        MissingTool: PyTorch is not installed.

    Example:
        module = tcc.torch("ddsnet", seed=1)
        print(sum(parameter.numel() for parameter in module.parameters()))
    """
    call_arguments = locals()
    _require_torch()

    from tcc import arguments
    from tcc.compiler.driver import pipeline
    from tcc.compiler.lower.torch import create_module

    arguments.check(torch, call_arguments)

    resolved_spec = resolve_spec(spec)
    return create_module(
        resolved_spec.graph, pipeline.load_weights(resolved_spec, weights, seed).tensors
    )


def save_weights(model: "nn.Module", path: str | PathLike[str]) -> None:
    """Write the weights of a PyTorch module as a file for `build` and `tcc build --weights`.

    Args:
        model: A module that `torch` returned, or a module that contains one, such as an average of
            weights or the result of `torch.compile`.
        path: The safetensors file to write.

    Raises:
        UserError: The module contains no network of a spec, or several (E0516); weights are not
            finite (E0506); or the file cannot be written.

    Example:
        tcc.save_weights(tcc.torch("ddsnet", seed=1), "weights.safetensors")
    """
    from tcc.compiler.data import weights
    from tcc.compiler.lower.torch import copy_trained_weights, find_network

    network = find_network(model)
    origin = {weights.SPEC_KEY: network.graph.name}
    weights.write(Path(path), copy_trained_weights(network), origin)


def _require_torch() -> None:
    from importlib.util import find_spec

    from tcc.compiler.support.external_tools import MissingTool, Tool

    if find_spec("torch") is None:
        raise MissingTool(Tool("torch", "train networks", None))
