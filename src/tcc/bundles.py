"""What is done with bundles: they are built, run, verified and evaluated."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, cast, overload

from tcc.compiler.support.diagnostics import CalibrationWarning
from tcc.networks import resolve_spec

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver.evaluation import Evaluated
    from tcc.compiler.driver.predictions import Predictions
    from tcc.compiler.driver.target_agreement import BuildAgreement
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Device
    from tcc.memory_images import ImageLike


class BuildOptions(TypedDict, total=False):
    """What `build` may be given by name."""

    precision: str | None
    seed: int | None
    calibration: str | PathLike[str] | None
    data: str | PathLike[str] | None
    method: str
    floors: Mapping[str, float] | None
    mixed: bool
    allow_few: bool


@overload
def build(
    spec: "Spec | str | PathLike[str]",
    target: str,
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "build",
    **options: Unpack[BuildOptions],
) -> "Bundle": ...
@overload
def build(
    spec: "Spec | str | PathLike[str]",
    target: list[str] | tuple[str, ...],
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "build",
    **options: Unpack[BuildOptions],
) -> "BuildAgreement": ...
def build(
    spec: "Spec | str | PathLike[str]",
    target: str | list[str] | tuple[str, ...],
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "build",
    *,
    precision: str | None = None,
    seed: int | None = None,
    calibration: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    method: str = "best",
    floors: Mapping[str, float] | None = None,
    mixed: bool = False,
    allow_few: bool = False,
) -> "Bundle | BuildAgreement":
    """Compile a spec for a target, or for several at once, and write a bundle for each.

    An older bundle is replaced. Before anything is written an artifact that runs here is: one
    golden of a single target, all of several and each layer of their integers.

    Args:
        spec: What `load` returned, or what it takes.
        target: A target's name, or several in a list, which share one calibration; the command
            `tcc targets` lists them.
        weights: A safetensors file; without it, a trained network's own, or random ones, as the
            bundle says.
        out: The folder to write the bundle's folder into.
        precision: A precision that each target offers; `fp32`, or its first where it has none.
        seed: The seed of random weights, 0 if they are needed; given, they are taken.
        calibration: For integers: a file that `calibrate` wrote; without it, `data` calibrates, or
            a trained network's own is taken.
        data: Images as `calibrate` takes them, which also judge the integer program.
        method: As for `calibrate`.
        floors: What integers must keep, by name, in place of the spec's `accuracy`. `min_cosine`:
            the least mean cosine of integer and float outputs; the spec's, or 0.98 for classes and
            any for others. `max_drop`: the largest share of images whose class or decision may
            change; the spec's, or any. `min_correlation`: the least correlation of each output with
            the floats over the images; the spec's, or 0.5. `max_error`: the largest error of each
            output, relative to the spread of the floats; the spec's, or 1 for decisions and
            regression and any for classes. All but the drop are judged by the worse end of the 95 %
            interval for unseen images.
        mixed: Keep layers in float where these bounds need it; images that do not judge choose
            them.
        allow_few: Judge these bounds by fewer than 16 different images, which is refused without;
            the manifest then warns of it.

    Returns:
        The bundle, as read back from the disk. Of several targets, their `bundles` and how they
        agree: each of `targets` with the reference, value by value and layer by layer, as `pairs`
        with each other. Of what is doubtful about images and a fresh calibration, Python warns
        (`CalibrationWarning`).

    Raises:
        UserError: The input is wrong, a target refuses the network, or fewer than 16 different
            images judge its integers.
        Disagreement: What was built gives something else than the reference; it is not written.
        BelowFloor: The integer program loses more than its bounds allow.
        MissingTool: Building needs a tool that is not here.
    """
    called = locals()
    from tcc import arguments, programs
    from tcc.compiler.driver import pipeline

    arguments.check(build, called)
    resolved_spec = resolve_spec(spec)
    plans = programs.resolve_plans(
        [target] if isinstance(target, str) else target, precision, "tcc.build"
    )
    weight_source = pipeline.load_weights(resolved_spec, weights, seed)
    arguments.check(build, called, programs.find_facts(resolved_spec, weight_source, plans, called))
    int8_request = programs.Int8Request(
        "tcc.build", calibration, data, method, floors, mixed, allow_few
    )
    source = programs.find_calibration_source(resolved_spec, weight_source, plans, int8_request)
    if source and data is not None and int8_request.images:
        fresh = source.document if calibration is None else None
        for message in programs.collect_warnings(resolved_spec, data, int8_request.images, fresh):
            warnings.warn(CalibrationWarning(message), stacklevel=2)
    int8_programs = programs.build_int8_programs(
        resolved_spec, weight_source, plans, int8_request, source
    )
    for message in dict.fromkeys(programs.describe_few_images(int8_programs)):
        warnings.warn(CalibrationWarning(message), stacklevel=2)
    agreement = programs.write_bundles(
        resolved_spec, weight_source, plans, int8_programs, Path(out)
    )
    return agreement.bundles[0] if isinstance(target, str) else agreement


def run(
    bundle: "Bundle | Spec | str | PathLike[str]",
    images: "ImageLike | Sequence[ImageLike]",
    weights: str | PathLike[str] | None = None,
    *,
    seed: int | None = None,
    trust: bool = False,
) -> "Predictions":
    """Return what a bundle's own artifact, or a spec in floats, tells of images.

    A file, a Pillow image and an array of the same pixels give the same bits.

    Args:
        bundle: What `build` returned, or a folder that it wrote; or what `load` returned or takes.
        images: One image or several: files, Pillow images, or arrays of RGB pixels from 0 to 255,
            uint8 (height, width, 3), or (height, width) of grey ones. The network's preprocessing
            is applied to all of them alike.
        weights: Of a spec: a safetensors file; without it, a trained network's own, or random ones.
        seed: Of a spec: the seed of random weights.
        trust: Of a bundle: run a program that was not built here, now and later; a signature whose
            key is not known is no obstacle.

    Returns:
        For each image, by the outputs' names: the `raw` values, the `values` that the output's
        activation makes of them, `labels`, `ranked()`, and what was `decided()` where thresholds
        were fitted. Its `notices` say what makes all of it doubtful, as random weights do.

    Raises:
        UserError: The bundle or an image is damaged, an array is not of this form (E1450), the
            network does not take images, weights are given for a bundle, or its program is not
            trusted.
        MissingTool: What runs the artifact is not here.
    """
    called = locals()
    from tcc import arguments, memory_images
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.driver import pipeline
    from tcc.compiler.driver.predictions import (
        ImagePredictions,
        Predictions,
        predict_by_artifact,
        predict_by_reference,
    )
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.image_inputs import build_image_error
    from tcc.compiler.support.diagnostics import make_file_span
    from tcc.compiler.support.option_requirements import SOME_BUNDLE, SPECS

    folder = _find_bundle(bundle)
    arguments.check(run, called, {SPECS: folder is None, SOME_BUNDLE: folder is not None})
    if folder is not None:
        found, device = _load_bundle(folder, trust)
        artifact_runs.check_images(found)
        names, pixels = memory_images.read_all(images, found.input)
        outputs, notices = predict_by_artifact(found, device, pixels), found.manifest.notices
    else:
        spec = resolve_spec(cast("Spec | str", bundle))
        weight_source = pipeline.load_weights(spec, weights, seed)
        (source,) = spec.graph.inputs
        if source.preprocess is None:
            raise build_image_error(source.name, source.type.shape, make_file_span("tcc.run"))
        names, pixels = memory_images.read_all(images, source)
        outputs = predict_by_reference(Model(spec.graph, weight_source.tensors), pixels)
        notices = (weight_source.origin.notice,) if weight_source.origin.notice else ()
    image_predictions = (
        ImagePredictions(name, found) for name, found in zip(names, outputs, strict=True)
    )
    return Predictions(image_predictions, notices)


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
        trust: Run a program that was not built here, now and later; a signature whose key is not
            known is no obstacle.

    Returns:
        Whether all of it `holds`; the `agreement` of each golden and output, with values that
        differ and by how much; and how it agrees with its integer `program`, or at float32 with the
        `network` of the spec, layer by layer.

    Raises:
        UserError: A file is not what the manifest says, spec and weights are not the bundle's, or
            its program is not trusted.
        MissingTool: What runs the artifact is not here.
    """
    called = locals()
    from tcc import arguments
    from tcc.compiler.driver import bundle_program, verification

    arguments.check(verify, called)
    loaded_bundle, device = _load_bundle(bundle, trust)
    resolved_spec = None if spec is None else resolve_spec(spec)
    weights_path = None if weights is None else Path(weights)
    program = bundle_program.rebuild_program(loaded_bundle, device, resolved_spec, weights_path)
    network = bundle_program.rebuild_network(loaded_bundle, device, resolved_spec, weights_path)
    sources = bundle_program.find_constant_sources(
        loaded_bundle, device, resolved_spec, weights_path, program
    )
    return verification.verify_bundle(loaded_bundle, device, program, network, sources)


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
        each image was `taken` for, and the `raw` outputs. Its `notices` say what makes the figures
        doubtful, as random weights and synthetic images do.

    Raises:
        UserError: The images are damaged, have no labels or others than the network's, weights are
            given for a bundle, or its program is not trusted.
        MissingTool: What runs the artifact is not here.
    """
    called = locals()
    from tcc import arguments
    from tcc.compiler.bundle import manifest
    from tcc.compiler.data import dataset
    from tcc.compiler.driver import evaluation, labelled_images, pipeline, weights_and_images
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.support.option_requirements import SOME_BUNDLE, SPECS
    from tcc.compiler.support.progress import silent

    folder = _find_bundle(network)
    arguments.check(evaluate, called, {SPECS: folder is None, SOME_BUNDLE: folder is not None})
    path, images = Path(data), dataset.read_dataset(Path(data))
    synthetic_notice = "a program drew these images: the figures say nothing of patients"
    synthetic = (synthetic_notice,) if weights_and_images.is_synthetic(images) else ()
    if folder is not None:
        loaded_bundle, device = _load_bundle(folder, trust)
        labelled_set = labelled_images.label_images(images, loaded_bundle.manifest.outputs, path)
        point = loaded_bundle.manifest.find_operating_point(labelled_set.output.name)
        evaluated_network = evaluation.evaluate_artifact(
            loaded_bundle, device, labelled_set, silent, point
        )
        return replace(evaluated_network, notices=(*loaded_bundle.manifest.notices, *synthetic))
    spec = resolve_spec(cast("Spec | str", network))
    labelled_set = labelled_images.label_images(
        images, manifest.build_output_contracts(spec.graph), path
    )
    source = pipeline.load_weights(spec, weights, seed)
    evaluated_network = evaluation.evaluate_reference(
        Model(spec.graph, source.tensors), labelled_set, silent
    )
    notice = source.origin.notice
    return replace(evaluated_network, notices=(*((notice,) if notice else ()), *synthetic))


def _find_bundle(network: "Bundle | Spec | str | PathLike[str]") -> Path | None:
    """Return the folder of a bundle; None where a spec is meant."""
    from tcc.compiler.bundle.bundle_folder import Bundle

    if isinstance(network, Bundle):
        return network.folder
    if isinstance(network, str | PathLike) and Path(network).is_dir():
        return Path(network)
    return None


def _load_bundle(bundle: "Bundle | str | PathLike[str]", trust: bool) -> "tuple[Bundle, Device]":
    """Return a bundle, read anew, whose program may run, and its target."""
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.targets import devices

    folder = Path(bundle) if isinstance(bundle, str | PathLike) else bundle.folder
    loaded_bundle, device = devices.load_bundle(
        folder, devices.create_signature_policy(any_key=trust)
    )
    if trust:
        return artifact_runs.mark_trusted(loaded_bundle, device), device
    artifact_runs.check_trust(loaded_bundle, device)
    return loaded_bundle, device
