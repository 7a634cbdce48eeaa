"""Build, run, verify and evaluate bundles."""

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
    from tcc.compiler.driver.guard_stream import GuardStream
    from tcc.compiler.driver.predictions import Predictions
    from tcc.compiler.driver.target_agreement import BuildAgreement
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Device
    from tcc.memory_images import ImageLike


class BuildOptions(TypedDict, total=False):
    """Keyword arguments of `build`."""

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
    """Compile a spec for one or several targets and write a bundle for each.

    An existing bundle is replaced. An artifact that can run on this machine is run before anything
    is written: one golden for a single target; for several targets all goldens, and each layer of
    their int8 programs.

    `floors` can have these bounds. A bound that it does not have comes from the spec's `accuracy`,
    or else has the default below. All except `max_drop` are compared with the worse end of the 95 %
    confidence interval for unseen images.

    - `min_cosine`: The smallest mean cosine between int8 and fp32 outputs. By default 0.98 for
      classes, none for other outputs.
    - `max_drop`: The largest share of images with a changed class or decision. By default none.
    - `min_correlation`: The smallest correlation of each output with its fp32 values over the
      images. By default 0.5.
    - `max_error`: The largest error of each output, relative to the spread of its fp32 values. By
      default 1 for decisions and regression, none for classes.

    Args:
        spec: A value that `load` returned, or anything that `load` accepts.
        target: The name of a target, or a list of names, which share one calibration. `tcc targets`
            lists the targets.
        weights: A safetensors file. Without it, the weights of a trained network, or random
            weights. The manifest records which.
        out: The folder in which the bundle's folder is created.
        precision: A precision that every target offers. By default `fp32`, or the target's first
            precision if it has no `fp32`.
        seed: Seed of random weights. If it is given, random weights are used even for a trained
            network. Without it, random weights have seed 0.
        calibration: For an int8 model: a file that `calibrate` wrote. Without it, `data` is used
            for calibration, or the calibration of a trained network.
        data: Images, as for `calibrate`. They also measure the accuracy of the int8 model.
        method: As for `calibrate`.
        floors: Accuracy bounds of the int8 model, by name.
        mixed: Keep layers in float if the bounds need it. The layers are chosen with images that
            are not used to measure the accuracy.
        allow_few: Measure the accuracy with fewer than 16 different images, which is refused by
            default. The manifest then has a warning.

    Returns:
        For one target its `Bundle`, as read back from the disk. For several targets a
        `BuildAgreement` with all `bundles`. Its `targets` compare each target with the reference,
        value by value and layer by layer; its `pairs` compare the targets with each other.

    Warns:
        CalibrationWarning: The images or a new calibration are doubtful.

    Raises:
        UserError: The input is wrong, a target does not support the network, or fewer than 16
            different images measure the int8 model.
        Disagreement: An artifact does not match the reference. It is not written.
        BelowFloor: The int8 model is below one of its accuracy bounds.
        MissingTool: A tool that the build needs is not installed.

    Example:
        bundle = tcc.build("ddsnet-blood", "onnxruntime", precision="int8")
        print(bundle.folder, bundle.manifest.notices)
    """
    call_arguments = locals()
    from tcc import arguments, programs
    from tcc.compiler.driver import pipeline

    arguments.check(build, call_arguments)
    resolved_spec = resolve_spec(spec)
    plans = programs.resolve_plans(
        [target] if isinstance(target, str) else target, precision, "tcc.build"
    )
    weight_source = pipeline.load_weights(resolved_spec, weights, seed)
    arguments.check(
        build,
        call_arguments,
        programs.find_int8_facts(resolved_spec, weight_source, plans, call_arguments),
    )
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
    """Classify images with the artifact of a bundle, or with a spec at fp32.

    A file, a Pillow image and an array with the same pixels give bit-identical results.

    Args:
        bundle: A bundle (a value that `build` returned, or its folder) or a spec (a value that
            `load` returned, or anything that `load` accepts).
        images: One image or several: files, Pillow images, or arrays of RGB pixels from 0 to 255,
            uint8 (height, width, 3), or grey pixels (height, width). The network's preprocessing is
            applied to all of them.
        weights: For a spec: a safetensors file. Without it, the weights of a trained network, or
            random weights.
        seed: For a spec: the seed of random weights.
        trust: For a bundle: run a program that was not built on this machine, and remember this for
            later runs. A signature by an unknown key is accepted too.

    Returns:
        One mapping per image, from output name to prediction. A prediction has the `raw` values,
        the `values` after the output's activation, `labels`, `ranked()`, and, if thresholds were
        fitted, `decided()`. The `notices` of the result list reasons to doubt it, such as random
        weights.

    Raises:
        UserError: The bundle or an image is damaged, an array has another form (E1450), the network
            does not take images, weights are given for a bundle, or its program is not trusted.
        MissingTool: The runtime of the artifact is not installed.

    Example:
        (prediction,) = tcc.run("ddsnet-blood", "zoo/cells/WBC/1.png")
        print(prediction)
    """
    call_arguments = locals()
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
    arguments.check(run, call_arguments, {SPECS: folder is None, SOME_BUNDLE: folder is not None})
    if folder is not None:
        loaded_bundle, device = _load_bundle(folder, trust)
        artifact_runs.check_images(loaded_bundle)
        names, pixels = memory_images.read_all(images, loaded_bundle.input)
        outputs = predict_by_artifact(loaded_bundle, device, pixels)
        notices = loaded_bundle.manifest.notices
    else:
        spec = resolve_spec(cast("Spec | str", bundle))
        weight_source = pipeline.load_weights(spec, weights, seed)
        (network_input,) = spec.graph.inputs
        if network_input.preprocess is None:
            raise build_image_error(
                network_input.name, network_input.type.shape, make_file_span("tcc.run")
            )
        names, pixels = memory_images.read_all(images, network_input)
        outputs = predict_by_reference(Model(spec.graph, weight_source.tensors), pixels)
        notices = (weight_source.origin.notice,) if weight_source.origin.notice else ()
    image_predictions = (
        ImagePredictions(name, output) for name, output in zip(names, outputs, strict=True)
    )
    return Predictions(image_predictions, notices)


def verify(
    bundle: "Bundle | str | PathLike[str]",
    spec: "Spec | str | PathLike[str] | None" = None,
    weights: str | PathLike[str] | None = None,
    *,
    trust: bool = False,
) -> "VerifiedBundle":
    """Replay the golden outputs of a bundle on its artifact and compare its layers.

    Args:
        bundle: A value that `build` returned, or its folder. Its hashes are checked again.
        spec: The network, to rebuild the int8 program of a bundle that does not contain it.
        weights: The weights of the network.
        trust: Run a program that was not built on this machine, and remember this for later runs. A
            signature by an unknown key is accepted too.

    Returns:
        `holds` is true if everything agrees. `agreement` gives, for each golden and output, the
        number of values that differ and by how much. `program` compares the artifact with its int8
        program layer by layer, if that is known. At fp32, `network` compares it with the network of
        the spec.

    Raises:
        UserError: A file does not match the manifest, spec or weights are not those of the bundle,
            or its program is not trusted.
        MissingTool: The runtime of the artifact is not installed.

    Example:
        bundle = tcc.build("ddsnet-blood", "onnxruntime")
        print(tcc.verify(bundle).holds)
    """
    call_arguments = locals()
    from tcc import arguments
    from tcc.compiler.driver import bundle_program, verification

    arguments.check(verify, call_arguments)
    loaded_bundle, device = _load_bundle(bundle, trust)
    resolved_spec = None if spec is None else resolve_spec(spec)
    weights_path = None if weights is None else Path(weights)
    program = bundle_program.rebuild_program(loaded_bundle, device, resolved_spec, weights_path)
    network = bundle_program.rebuild_network(loaded_bundle, device, resolved_spec, weights_path)
    sources = bundle_program.find_constant_sources(
        loaded_bundle, device, resolved_spec, weights_path, program
    )
    return verification.verify_bundle(loaded_bundle, device, program, network, sources)


def guard(bundle: "Bundle | str | PathLike[str]", *, trust: bool = False) -> "GuardStream":
    """Return the guard of a bundle, which reports images unlike those of the calibration.

    If cases come as those of the guard images did, then with a confidence of 99 % over these, a
    false alarm comes within N cases with a probability of at most N / 100,000. Silence promises
    nothing.

    Args:
        bundle: A value that `build` returned, or the folder of a bundle that was built with
            `--guard-data`.
        trust: Run a program that was not built on this machine, and remember this for later runs.

    Returns:
        A stream of images, at its start. `judge(images)` returns a reading for each array of RGB
        pixels, uint8 (height, width, 3): `is_unusual` and `feature`. `end_case()` ends a case (a
        patient or a slide, or each image) and returns the `alarm`; `describe()` gives it in words.

    Raises:
        UserError: The bundle has no guard (E0746), or its program is not trusted.
    """
    call_arguments = locals()
    from tcc import arguments
    from tcc.compiler.driver import guard_stream

    arguments.check(guard, call_arguments)
    return guard_stream.require_stream(*_load_bundle(bundle, trust))


def evaluate(
    network: "Bundle | Spec | str | PathLike[str]",
    data: str | PathLike[str],
    weights: str | PathLike[str] | None = None,
    *,
    seed: int | None = None,
    trust: bool = False,
) -> "Evaluated":
    """Measure the accuracy of a bundle's artifact, or of a spec at fp32, on labelled images.

    Args:
        network: A value that `build` or `load` returned, the folder of a bundle, or anything that
            `load` accepts.
        data: A folder of class folders, or an `.npz` file with `labels`. All of its images are
            used.
        weights: For a spec: a safetensors file. Without it, the weights of a trained network, or
            random weights.
        seed: For a spec: the seed of random weights.
        trust: For a bundle: run a program that was not built on this machine, and remember this for
            later runs.

    Returns:
        `scores` has the accuracy, the counts and rates of each class, averages and the confusion
        matrix. `predicted` (images, classes) marks the predicted classes, `raw` has the raw
        outputs. `notices` lists reasons to doubt the figures, such as random weights or synthetic
        images.

    Raises:
        UserError: An image is damaged, the images have no labels or labels that the network does
            not have, weights are given for a bundle, or its program is not trusted.
        MissingTool: The runtime of the artifact is not installed.

    Example:
        evaluation = tcc.evaluate("ddsnet-blood", "zoo/cells")
        print(evaluation.scores.accuracy)
    """
    call_arguments = locals()
    from tcc import arguments
    from tcc.compiler.bundle import manifest
    from tcc.compiler.data import dataset
    from tcc.compiler.driver import evaluation, labelled_images, pipeline, weights_and_images
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.support.option_requirements import SOME_BUNDLE, SPECS
    from tcc.compiler.support.progress import silent

    folder = _find_bundle(network)
    arguments.check(
        evaluate, call_arguments, {SPECS: folder is None, SOME_BUNDLE: folder is not None}
    )
    path, images = Path(data), dataset.read_dataset(Path(data))
    synthetic_notice = "these images are synthetic: the figures are no evidence about patients"
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
    """Return the folder of a bundle; None if the argument is a spec."""
    from tcc.compiler.bundle.bundle_folder import Bundle

    if isinstance(network, Bundle):
        return network.folder
    if isinstance(network, str | PathLike) and Path(network).is_dir():
        return Path(network)
    return None


def _load_bundle(bundle: "Bundle | str | PathLike[str]", trust: bool) -> "tuple[Bundle, Device]":
    """Return a bundle, read again from the disk, and its target; check that its program may run."""
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
