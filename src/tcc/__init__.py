"""tcc: from a declarative network to device artifacts that agree with each other.

    import tcc

    spec = tcc.load("ddsnet", classes=5)
    bundle = tcc.build(spec, "arm-a7", weights="weights.safetensors")
    scales = tcc.calibrate(spec, "images", weights="weights.safetensors", out="scales.json")

Wrong input raises `tcc.UserError`, whose `diagnostics` say where and what; what is doubtful about a
spec is in its `warnings`, and Python warns of it (`tcc.SpecWarning`). A tool that is not installed
raises `tcc.MissingTool`; integers that lose too much raise `tcc.BelowFloor`.
"""

import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.reference.accuracy_floor import BelowFloor
from tcc.compiler.support.diagnostics import Diagnostic, SpecWarning, UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver.int8_program import CalibrationSource
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.lower.torch import TorchNetwork
    from tcc.compiler.quant.calibration_document import CalibrationDocument

__all__ = [
    "BelowFloor",
    "Diagnostic",
    "MissingTool",
    "SpecWarning",
    "UserError",
    "__version__",
    "build",
    "calibrate",
    "load",
    "save_weights",
    "torch",
]


def load(spec: str | PathLike[str], **params: object) -> "Spec":
    """Return a compiled spec: its graph, parameters, digest and warnings.

    Args:
        spec: A spec file, or the name of a spec or trained network of the package, such as
            `ddsnet` or `ddsnet-blood`.
        **params: Parameters of the spec: numbers, strings, booleans or lists of these.

    Raises:
        UserError: There is no such spec, or something is wrong with it.
    """
    from tcc.compiler.driver.pipeline import setting
    from tcc.compiler.frontend.spec import load as compiled
    from tcc.compiler.support.diagnostics import whole_file
    from tcc.compiler.zoo import shipped, trained

    settings = {name: setting(value) for name, value in params.items()}
    if network := trained.named(str(spec)):
        found = network.load(settings)
    else:
        found = compiled(shipped.find_spec(str(spec), whole_file("tcc.load")), settings)
    for doubt in found.warnings:
        warnings.warn(SpecWarning(str(doubt)), stacklevel=2)
    return found


def build(
    spec: "Spec | str | PathLike[str]",
    target: str,
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "build",
    *,
    precision: str | None = None,
    seed: int | None = None,
    calibration: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    method: str = "best",
    min_cosine: float | None = None,
    max_drop: float | None = None,
    min_correlation: float | None = None,
    max_error: float | None = None,
    mixed: bool = False,
) -> "Bundle":
    """Compile a spec for a target and write its bundle, in place of an older one.

    Args:
        spec: What `load` returned, or what it takes.
        target: A target's name; the command `tcc targets` lists them.
        weights: A safetensors file; without it, a trained network's own, or random ones, as the
            bundle says.
        out: The folder to write the bundle's folder into.
        precision: A precision that the target offers; `fp32`, or its first where it has none.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.
        calibration: For integers: a file that `calibrate` wrote; without it, `data` calibrates, or
            a trained network's own is taken.
        data: Images as `calibrate` takes them, which also judge the integer program.
        method: As for `calibrate`.
        min_cosine: The least mean cosine of integer and float outputs; the spec's, or 0.98 for
            classes and any for others.
        max_drop: The largest share of images whose class or decision may change; the spec's, or
            any.
        min_correlation: The least correlation of each output with the floats over the images; the
            spec's, or 0.5.
        max_error: The largest error of each output, relative to the spread of the floats; the
            spec's, or 1 for decisions and regression and any for classes.
        mixed: Keep layers in float where these bounds need it.

    Returns:
        The bundle, as read back from the disk.

    Raises:
        UserError: The input is wrong, or the target refuses the network.
        BelowFloor: The integer program loses more than its bounds allow.
        MissingTool: Building needs a tool that is not here.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.cli import devices
    from tcc.compiler.driver import int8_program, pipeline, required_accuracy
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.ir.precision import FP32
    from tcc.compiler.support.diagnostics import whole_file
    from tcc.compiler.support.progress import silent

    chosen = load(spec) if isinstance(spec, str | PathLike) else spec
    here = whole_file("tcc.build")
    level = (precision or FP32.name, here)
    (plan,) = devices.find_all([(target, here)], level, asked=precision is not None)
    kind = plan.precision
    given = pipeline.weights_of(chosen, weights, seed)
    found = None
    if kind.calibrated:
        ready = pipeline.ready(chosen, given)
        source = _source(chosen, given, calibration, data, method)
        bounds = Accuracy(min_cosine, max_drop, min_correlation, max_error)
        least = required_accuracy.floor(chosen, bounds)
        found = int8_program.integers(ready, source, least, {kind.real_ends}, mixed=mixed)
    (contents,) = pipeline.build(chosen, given, (plan,), silent, found)
    return bundle_folder.read(bundle_folder.write(contents, Path(out)), devices.precision)


def calibrate(
    spec: "Spec | str | PathLike[str]",
    data: str | PathLike[str],
    target: str = "onnxruntime",
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    method: str = "best",
    seed: int | None = None,
    min_images: int = 1,
) -> "CalibrationDocument":
    """Find the scales of a spec's integer program by running images.

    Args:
        spec: What `load` returned, or what it takes.
        data: A folder of images or of class folders, or an `.npz` file.
        target: The name of a target that is calibrated for.
        weights: A safetensors file; without it, a trained network's own, or random ones, as the
            result says.
        out: The file to write, if any.
        method: The name of a method; `tcc calibrate --help` lists them.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.
        min_images: The fewest images, different by their pixels.

    Returns:
        What a calibration file says.

    Raises:
        UserError: The input is wrong, gives no finite numbers, or holds fewer images.
    """
    from tcc.compiler.cli import devices
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import pipeline
    from tcc.compiler.quant import calibration_document
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.methods.method import RunOptions
    from tcc.compiler.support import atomic_files
    from tcc.compiler.support.diagnostics import whole_file

    chosen = load(spec) if isinstance(spec, str | PathLike) else spec
    here = whole_file("tcc.calibrate")
    bound, way = devices.calibrated_for([(target, here)]), known(method, here)
    wanted = pipeline.CalibrationRequest(bound.name, way, RunOptions(least=min_images))
    given = pipeline.weights_of(chosen, weights, seed)
    made = pipeline.calibrate(chosen, given, read(Path(data)), wanted)
    if out is not None:
        atomic_files.write_file(Path(out), calibration_document.encode(made))
    return made


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
    from importlib.util import find_spec

    from tcc.compiler.support.external_tools import Tool

    if find_spec("torch") is None:
        raise MissingTool(Tool("torch", "train networks", None))

    from tcc.compiler.driver import pipeline
    from tcc.compiler.lower.torch import module

    chosen = load(spec) if isinstance(spec, str | PathLike) else spec
    return module(chosen.graph, pipeline.weights_of(chosen, weights, seed).tensors)


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
    from tcc.compiler.lower.torch import network_of, trained_weights

    network = network_of(model)
    origin = {weights.SPEC_KEY: network.graph.name}
    weights.write(Path(path), trained_weights(network), origin)


def _source(
    spec: "Spec",
    given: "WeightSource",
    calibration: str | PathLike[str] | None,
    data: str | PathLike[str] | None,
    method: str,
) -> "CalibrationSource":
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import int8_program, pipeline
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.methods.method import RunOptions
    from tcc.compiler.support.diagnostics import fail, whole_file
    from tcc.compiler.zoo import trained

    here = whole_file("tcc.build")
    images = None if data is None else read(Path(data))
    if calibration is not None:
        return int8_program.from_file(Path(calibration), spec, given, images)
    network = trained.of(spec)
    if images is None and network and given.origin.origin == "zoo":
        return int8_program.from_trained(network, spec, given)
    if images is None:
        help = "give `data`, or a file that `tcc.calibrate` wrote as `calibration`"
        raise fail("E0616", "calibrate with which images?", here, help=help)
    wanted = pipeline.CalibrationRequest(int8_program.ANY, known(method, here), RunOptions())
    return int8_program.from_images(spec, given, images, wanted)
