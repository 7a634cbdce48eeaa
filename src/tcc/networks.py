"""What is done with a network: it is loaded, checked, lowered, trained."""

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
    """Return a compiled spec: its graph, parameters, digest and warnings.

    Args:
        spec: A spec file, or the name of a spec or trained network of the package, such as
            `ddsnet` or `ddsnet-blood`.
        **params: Parameters of the spec: numbers, strings, booleans or lists of these.

    Raises:
        UserError: There is no such spec, or something is wrong with it.
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
    """Return what `load` returned, or what it takes, loaded."""
    return load(spec) if isinstance(spec, str | PathLike) else spec


def check(
    spec: "Spec | str | PathLike[str]",
    targets: str | Sequence[str] = (),
    *,
    precision: str | None = None,
) -> "SpecCheck":
    """Return what a network costs, how its own `tests:` end, and what targets say of it.

    Nothing is built, and no weights are needed.

    Args:
        spec: What `load` returned, or what it takes.
        targets: The name of a target, or several.
        precision: A precision that they offer; `fp32`, or a target's first where it has none.

    Returns:
        Its `cost` by layer, `expectations`, a `capability` of each target, and all that is wrong
        as `errors`; `holds` says that nothing is.

    Raises:
        UserError: The spec is wrong, or there is no such target or precision.
    """
    called = locals()
    from tcc import arguments
    from tcc.compiler.driver import spec_check
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.targets import devices

    arguments.check(check, called)
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
    """Return what a target's artifact is made from: the graph after its passes, or the integers.

    Args:
        spec: What `load` returned, or what it takes.
        target: A target's name.
        weights: A safetensors file; without it, a trained network's own, or random ones.
        precision: A precision that the target offers; `fp32`, or its first where it has none.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.
        calibration: For integers: a file that `calibrate` wrote; without it, `data` calibrates, or
            a trained network's own is taken.
        data: Images as `calibrate` takes them.
        method: As for `calibrate`.
        floors: As for `build`.

    Returns:
        A `graph`, whose `nodes` each have a name, an op, inputs and a place in the spec's text, and
        the `weights` of it, numpy arrays by name.

    Raises:
        UserError: The input is wrong, or the target refuses the network.
        BelowFloor: The integers lose more than the floors allow.
    """
    called = locals()
    from tcc import arguments, programs
    from tcc.compiler import passes
    from tcc.compiler.driver import build_plan, pipeline
    from tcc.compiler.ir.graph import Model

    arguments.check(lower, called)
    resolved_spec = resolve_spec(spec)
    plans = programs.resolve_plans([target], precision, "tcc.lower")
    weight_source = pipeline.load_weights(resolved_spec, weights, seed)
    arguments.check(lower, called, programs.find_facts(resolved_spec, weight_source, plans, called))
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
    """Train a network on labelled images, and write the folder that `tcc train` writes.

    It trains on the CPU. Python warns of what is doubtful about the images.

    Args:
        spec: What `load` returned, or what it takes. Images of other classes than its labels are
            refused. Where it names none, its parameter `labels` takes the names of the folders.
        data: A folder of class folders, with or without `train`, `val` and `test` around them, or
            an `.npz` file with `labels`.
        out: The folder to write, new or empty unless a training goes on: `weights.safetensors`
            and what goes with it.
        recipe: The name of a recipe, or a file.
        epochs: How many, in place of the recipe's.
        seed: Of the split, of random weights, and of the order of the images.
        weights: A safetensors file to begin with; without it, random ones.
        threads: PyTorch's; as many as it takes of itself, or as a training had that goes on.
            Another number gives other bytes.
        resume: Go on with the training that the folder holds, to the bytes that it would have
            ended with; what is finished is read again.

    Returns:
        What the folder's `report.json` says: `test` has the scores on images of no other use.

    Raises:
        UserError: The input is wrong, or the folder holds something, or nothing to resume.
        MissingTool: PyTorch is not here.
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
    """Return the PyTorch module of a spec, made of torch's own layers, in training mode.

    Modules and state dict bear the spec's names. Train-only outputs are there in training mode
    alone; what an output's `activation` says is not applied.

    Args:
        spec: What `load` returned, or what it takes.
        weights: A safetensors file; without it the weights are random.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.

    Returns:
        A module from image tensors (N, *shape), as the spec's preprocessing makes them, to a dict
        of outputs (N, *shape) by their names in the spec.

    Raises:
        UserError: The spec or the weights are wrong.
        MissingTool: PyTorch is not here.
    """
    called = locals()
    _require_torch()

    from tcc import arguments
    from tcc.compiler.driver import pipeline
    from tcc.compiler.lower.torch import create_module

    arguments.check(torch, called)

    resolved_spec = resolve_spec(spec)
    return create_module(
        resolved_spec.graph, pipeline.load_weights(resolved_spec, weights, seed).tensors
    )


def save_weights(model: "nn.Module", path: str | PathLike[str]) -> None:
    """Write a trained module's weights as a file that `build` and `tcc build --weights` take.

    Args:
        model: What `torch` returned, or a module around it, such as an average of weights or what
            `torch.compile` returned.
        path: The safetensors file to write.

    Raises:
        UserError: The module holds no network of a spec, or several (E0516); weights are not finite
            (E0506); the file cannot be written.
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
