"""What is done with bundles: they are built, run, verified and evaluated."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.diagnostics import CalibrationWarning
from tcc.networks import loaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.predictions import Prediction
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Device
    from tcc.compiler.quant.calibration_document import CalibrationDocument


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
    from tcc import programs
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.cli import devices
    from tcc.compiler.driver import pipeline
    from tcc.compiler.frontend.accuracy_bounds import Accuracy
    from tcc.compiler.support.progress import silent

    chosen = loaded(spec)
    plan = programs.plan(target, precision, "tcc.build")
    given = pipeline.weights_of(chosen, weights, seed)
    bounds = Accuracy(min_cosine, max_drop, min_correlation, max_error)
    wanted = programs.WantedIntegers("tcc.build", calibration, data, method, bounds, mixed)
    found = programs.integers(chosen, given, plan, wanted)
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
        What a calibration file says. Of what the command warns of, Python warns
        (`CalibrationWarning`).

    Raises:
        UserError: The input is wrong, gives no finite numbers, or holds fewer images.
    """
    from tcc.compiler.cli import devices
    from tcc.compiler.data.dataset import read
    from tcc.compiler.driver import pipeline, required_accuracy
    from tcc.compiler.quant import calibration_document
    from tcc.compiler.quant.calibrate import known
    from tcc.compiler.quant.methods.method import RunOptions
    from tcc.compiler.support import atomic_files
    from tcc.compiler.support.diagnostics import whole_file

    chosen = loaded(spec)
    here = whole_file("tcc.calibrate")
    bound, way = devices.calibrated_for([(target, here)]), known(method, here)
    wanted = pipeline.CalibrationRequest(bound.name, way, RunOptions(least=min_images))
    given = pipeline.weights_of(chosen, weights, seed)
    images = read(Path(data))
    made = pipeline.calibrate(chosen, given, images, wanted)
    broken = required_accuracy.refused(chosen, given, made, images)
    refusal = [f"`build` refuses these integers: {'; '.join(broken)}"] if broken else []
    if out is not None:
        atomic_files.write_file(Path(out), calibration_document.encode(made))
    for doubt in (*_doubts(chosen, Path(data), images, made), *refusal):
        warnings.warn(CalibrationWarning(doubt), stacklevel=2)
    return made


def _doubts(
    spec: "Spec", path: Path, images: "DataSet", made: "CalibrationDocument"
) -> Iterator[str]:
    """Yield what the command warns of: about weights, images and the calibration."""
    from tcc.compiler.cli.weights_and_images import drawn
    from tcc.compiler.zoo import trained

    if made.weights.notice:
        yield made.weights.notice
    yield from map(str, images.warnings)
    if doubt := drawn(images, path, trained.of(spec)):
        yield doubt
    yield from made.notices


def run(
    bundle: "Bundle | str | PathLike[str]",
    images: "Sequence[str | PathLike[str] | NDArray[Any]]",
    *,
    trust: bool = False,
) -> "tuple[Mapping[str, Prediction], ...]":
    """Return what a bundle's own artifact tells of images, from their pixels on.

    Args:
        bundle: What `build` returned, or a folder that it wrote.
        images: Image files, or pixels, uint8 (height, width, 3).
        trust: Run a program that was not built here, now and later.

    Returns:
        For each image, by the outputs' names: the `raw` values, the `values` that the output's
        activation makes of them, `labels`, `ranked()`, and what was `decided()` where thresholds
        were fitted.

    Raises:
        UserError: The bundle or an image is damaged, it does not take images, or its program is not
            trusted.
        MissingTool: What runs the artifact is not here.
    """
    import numpy as np

    from tcc.compiler.data import images as files
    from tcc.compiler.data.dataset import fitting
    from tcc.compiler.driver import predictions

    found, device = _read(bundle, trust)
    pixels = (
        (each, "an array") if isinstance(each, np.ndarray) else (files.read(Path(each)), str(each))
        for each in images
    )
    fit = [fitting(array, found.input, name) for array, name in pixels]
    return tuple(predictions.predicted(found, device, fit))


def verify(
    bundle: "Bundle | str | PathLike[str]",
    spec: "Spec | str | PathLike[str] | None" = None,
    weights: str | PathLike[str] | None = None,
    *,
    trust: bool = False,
) -> "VerifiedBundle":
    """Replay a bundle's goldens on its artifact, and compare its layers where they are known.

    Args:
        bundle: What `build` returned, or a folder that it wrote; its hashes are checked anew.
        spec: The network, to make the integer program again where the bundle has none.
        weights: Its weights.
        trust: Run a program that was not built here, now and later.

    Returns:
        Whether all of it `holds`; the `agreement` of each golden and output, with values that
        differ and by how much; and how it agrees with its integer `program`, or at float32 with the
        `network` of the spec, layer by layer.

    Raises:
        UserError: A file is not what the manifest says, spec and weights are not the bundle's, or
            its program is not trusted.
        MissingTool: What runs the artifact is not here.
    """
    from tcc.compiler.driver import rebuilt_program, verification

    found, device = _read(bundle, trust)
    own = None if spec is None else loaded(spec)
    file = None if weights is None else Path(weights)
    program = rebuilt_program.program(found, device, own, file)
    network = rebuilt_program.network(found, device, own, file)
    return verification.verified(found, device, program, network)


def evaluate(
    network: "Bundle | Spec | str | PathLike[str]",
    data: str | PathLike[str],
    weights: str | PathLike[str] | None = None,
    *,
    seed: int | None = None,
    trust: bool = False,
) -> "Evaluated":
    """Measure how well a bundle's artifact, or a spec in floats, tells labelled images apart.

    Args:
        network: What `build` or `load` returned, a bundle's folder, or what `load` takes.
        data: A folder of class folders, or an `.npz` file with `labels`: all of its images judge.
        weights: Of a spec: a safetensors file; without it, a trained network's own, or random ones.
        seed: Of a spec: the seed of random weights.
        trust: Of a bundle: run a program that was not built here, now and later.

    Returns:
        Its `scores`: accuracy, counts and rates of each class, averages, the confusion matrix; what
        each image was `taken` for, and the `raw` outputs.

    Raises:
        UserError: The images are damaged, have no labels or others than the network's, weights are
            given for a bundle, or its program is not trusted.
        MissingTool: What runs the artifact is not here.
    """
    from tcc.compiler.bundle import manifest
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.data import dataset
    from tcc.compiler.driver import evaluation, labelled_images, pipeline
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.support.diagnostics import fail, whole_file
    from tcc.compiler.support.progress import silent

    path, images = Path(data), dataset.read(Path(data))
    if isinstance(network, Bundle) or (
        isinstance(network, str | PathLike) and Path(network).is_dir()
    ):
        if weights is not None or seed is not None:
            raise fail("E0601", "a bundle has weights of its own", whole_file("tcc.evaluate"))
        found, device = _read(network, trust)
        given = labelled_images.labelled(images, found.manifest.outputs, path)
        point = found.manifest.operating_point(given.output.name)
        return evaluation.by_artifact(found, device, given, silent, point)
    spec = loaded(network)
    given = labelled_images.labelled(images, manifest.results(spec.graph), path)
    model = Model(spec.graph, pipeline.weights_of(spec, weights, seed).tensors)
    return evaluation.by_reference(model, given, silent)


def _read(bundle: "Bundle | str | PathLike[str]", trust: bool) -> "tuple[Bundle, Device]":
    """Return a bundle, read anew, whose program may run, and its target."""
    from tcc.compiler.bundle import program_trust
    from tcc.compiler.cli import devices

    folder = Path(bundle) if isinstance(bundle, str | PathLike) else bundle.folder
    found, device = devices.load(folder)
    if trust:
        return program_trust.trusted(found, device), device
    program_trust.check(found, device)
    return found, device
