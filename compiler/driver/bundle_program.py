"""Get the integer program or network of a bundle: stored in it, or rebuilt from its sources."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tcc.compiler import passes
from tcc.compiler.bundle import agreement, artifact_runs, manifest, program_file
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data import weights
from tcc.compiler.driver import build_warnings, pipeline
from tcc.compiler.driver.build_plan import CALIBRATION
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir import printer
from tcc.compiler.ir.constant_checker import ConstantSources
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

FUSED = "graph/fused.txt"
"""The printed float network of a bundle, after the target's passes."""


def rebuild_program(
    bundle: Bundle, device: Device, spec: Spec | None, file: Path | None
) -> Model | None:
    """Return the integer program that a bundle was built from; None if it is not known.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, if the user named it.
        file: Its weights, if the user named them; else those that the manifest names.

    Raises:
        UserError: The stored program is damaged (E0665), or the bundle was built from another spec
            or other weights (E0664).
    """
    precision = device.get_precision(bundle.manifest.precision)
    if not precision.integer:
        if spec:
            _check_named(bundle, spec, file)
        return None
    stored_program = program_file.read_program(bundle)
    if spec is None:
        return stored_program
    _check_named(bundle, spec, file)
    # `program_file` has compared it with the printed program already.
    if stored_program:
        return stored_program
    lowered_model = pipeline.lower_for_int8(spec, _load_weights(bundle, spec, file))
    path = bundle.folder / CALIBRATION
    document, calibrated = calibration_document.read_document(path), bundle.manifest.calibration
    layers = calibrated.in_float if calibrated else ()
    float_io = precision.float_io
    rebuilt = rebuild_from_calibration(
        lowered_model, document, str(path), layers, float_io=float_io
    )
    printed = (bundle.folder / artifact_runs.PROGRAM_FILE).read_bytes()
    if printer.print_graph(rebuilt.graph).encode() != printed:
        raise _create_mismatch_error(
            bundle, f"the spec and weights give another program than {artifact_runs.PROGRAM_FILE}"
        )
    return rebuilt


def rebuild_network(
    bundle: Bundle, device: Device, spec: Spec | None, file: Path | None
) -> Model | None:
    """Return the network of a float32 bundle; None for other precisions or without a spec.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, if the user named it.
        file: Its weights, if the user named them; else those that the manifest names.

    Raises:
        UserError: The bundle was built from another spec or other weights (E0664).
    """
    precision = device.get_precision(bundle.manifest.precision)
    # Rounded weights change the values of each layer, and no tolerance for that is known.
    if spec is None or agreement.get_tolerance(precision) != agreement.FLOAT_TOLERANCE:
        return None
    _check_contract(bundle, spec)
    weight_source = _load_weights(bundle, spec, file)
    return Model(extract_inference_graph(spec.graph), weight_source.tensors)


def find_constant_sources(
    bundle: Bundle, device: Device, spec: Spec | None, file: Path | None, program: Model | None
) -> ConstantSources:
    """Return the models that a bundle's files were written from, as far as they are known.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, if the user named it.
        file: Its weights, if the user named them; else those that the manifest names.
        program: Its integer program, if known.

    Raises:
        UserError: The bundle was built from another spec or other weights (E0664).
    """
    precision = device.get_precision(bundle.manifest.precision)
    same_tools = device.collect_versions().items() <= bundle.manifest.made_with.items()
    floats = None
    if spec and (device.packager or not precision.integer):
        _check_contract(bundle, spec)
        weight_source = _load_weights(bundle, spec, file)
        model = passes.run(Model(spec.graph, weight_source.tensors), device.passes(precision))
        if _is_printed(bundle, model):
            floats = model
            precision = build_warnings.choose_methods(spec, Plan(device, precision), model)[
                0
            ].precision
    return ConstantSources(floats, program, precision, same_tools)


def _is_printed(bundle: Bundle, floats: Model) -> bool:
    """Whether the target's default passes, and no others, give the bundle's printed graph."""
    paths = {file.path for file in bundle.manifest.files}
    if FUSED in paths:
        return printer.print_graph(floats.graph).encode() == (bundle.folder / FUSED).read_bytes()
    if CALIBRATION in paths:
        document = calibration_document.read_document(bundle.folder / CALIBRATION)
        return document.passes == passes.format_pipeline(passes.INT8)
    return False


def rebuild_from_calibration(
    lowered_model: Model,
    document: CalibrationDocument,
    name: str,
    in_float: Collection[str],
    *,
    float_io: bool,
) -> Model:
    """Return the integer program of a stored calibration.

    Args:
        lowered_model: The float model that was calibrated.
        document: The calibration.
        name: Name of its file in errors.
        in_float: The layers that stayed in float.
        float_io: Whether the program has float outputs.

    Raises:
        UserError: It is the calibration of another graph.
    """
    calibration = calibration_file.decode_calibration(document, lowered_model, name)
    return quantize(
        lowered_model, replace(calibration, in_float=frozenset(in_float), float_io=float_io)
    )


def _check_named(bundle: Bundle, spec: Spec, file: Path | None) -> None:
    """Refuse a spec, or named weights, that a bundle was not built from.

    Raises:
        UserError: They do not match (E0664).
    """
    _check_contract(bundle, spec)
    if file is not None:
        _load_weights(bundle, spec, file)


def _check_contract(bundle: Bundle, spec: Spec) -> None:
    """Refuse a bundle with another spec, preprocessing, outputs or labels.

    Raises:
        UserError: They differ (E0664); the manifest may have been edited.
    """
    bundle_manifest = bundle.manifest
    if bundle_manifest.model.spec != spec.digest:
        raise _create_mismatch_error(
            bundle, f"it was built from another spec of `{bundle_manifest.model.name}`"
        )
    if bundle_manifest.outputs != manifest.build_output_contracts(spec.graph):
        raise _create_mismatch_error(bundle, "its outputs or their labels differ from the spec")
    spec_preprocess, bundle_preprocess = (
        manifest.build_input_contract(spec.graph).preprocess,
        bundle_manifest.input.preprocess,
    )
    # Whether the network itself normalizes raw pixels is the target's choice.
    if spec_preprocess != (
        bundle_preprocess
        and replace(bundle_preprocess, raw=spec_preprocess.raw if spec_preprocess else False)
    ):
        raise _create_mismatch_error(bundle, "its preprocessing differs from the spec")


def _load_weights(bundle: Bundle, spec: Spec, file: Path | None) -> WeightSource:
    bundle_manifest = bundle.manifest
    weight_source = pipeline.load_weights(spec, file, bundle_manifest.weights.seed)
    if weights.digest(weight_source.tensors) != bundle_manifest.weights.digest:
        digests = bundle_manifest.weights.digest[:12], weight_source.origin.digest[:12]
        raise _create_mismatch_error(
            bundle, "its weights have the digest {}, these have {}".format(*digests)
        )
    return weight_source


def _create_mismatch_error(bundle: Bundle, label: str) -> UserError:
    message = "the bundle does not match the given spec or weights"
    help = "give the same spec and weights as for `tcc build`, with --spec and --weights"
    return fail("E0664", message, make_file_span(str(bundle.folder)), label=label, help=help)
