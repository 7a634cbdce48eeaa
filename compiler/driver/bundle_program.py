"""The integer program of a bundle: its own, or made again from the spec and weights."""

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
    """Return the integer program that a bundle was built from; None where that is not known.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, where the user named it.
        file: Its weights, where the user named them; else those that the bundle says.

    Raises:
        UserError: The bundle's own program is damaged (E0665), or spec and weights are not those
            that it was built from (E0664).
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
    # Held already against what the bundle prints of it (`program_file`).
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
            bundle, f"they make another program than {artifact_runs.PROGRAM_FILE}"
        )
    return rebuilt


def rebuild_network(
    bundle: Bundle, device: Device, spec: Spec | None, file: Path | None
) -> Model | None:
    """Return the network that a bundle of float32 was built from; None of others, or of no spec.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, where the user named it.
        file: Its weights, where the user named them; else those that the bundle says.

    Raises:
        UserError: They are not those that it was built from (E0664).
    """
    precision = device.get_precision(bundle.manifest.precision)
    # What rounds its weights has other values in each layer, and by how much nobody has said.
    if spec is None or agreement.get_tolerance(precision) != agreement.FLOAT_TOLERANCE:
        return None
    _check_contract(bundle, spec)
    weight_source = _load_weights(bundle, spec, file)
    return Model(extract_inference_graph(spec.graph), weight_source.tensors)


def find_constant_sources(
    bundle: Bundle, device: Device, spec: Spec | None, file: Path | None, program: Model | None
) -> ConstantSources:
    """Return what a bundle's files were written from, as far as that is known.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, where the user named it.
        file: Its weights, where the user named them; else those that the bundle says.
        program: Its integer program, where that is known.

    Raises:
        UserError: Spec and weights are not those that it was built from (E0664).
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
    """Whether the target's own passes gave what a bundle is built from, and no others did."""
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
    """Return the integer program that a calibration once gave.

    Args:
        lowered_model: The float model that integers can compute.
        document: The calibration.
        name: What its file is called in errors.
        in_float: The layers that stayed in float.
        float_io: Whether the program ends in real numbers.

    Raises:
        UserError: It is the calibration of another graph.
    """
    calibration = calibration_file.decode_calibration(document, lowered_model, name)
    return quantize(
        lowered_model, replace(calibration, in_float=frozenset(in_float), float_io=float_io)
    )


def _check_named(bundle: Bundle, spec: Spec, file: Path | None) -> None:
    """Refuse a spec, or weights that are named, which are not those of a bundle.

    Raises:
        UserError: They are not (E0664).
    """
    _check_contract(bundle, spec)
    if file is not None:
        _load_weights(bundle, spec, file)


def _check_contract(bundle: Bundle, spec: Spec) -> None:
    """Refuse a bundle that says of its input or its outputs what its spec does not.

    Raises:
        UserError: Its spec is another one (E0664), or its preprocessing, labels or what outputs
            mean are (E0664): somebody changed its manifest.
    """
    bundle_manifest = bundle.manifest
    if bundle_manifest.model.spec != spec.digest:
        raise _create_mismatch_error(
            bundle, f"it was built from another spec of `{bundle_manifest.model.name}`"
        )
    if bundle_manifest.outputs != manifest.build_output_contracts(spec.graph):
        raise _create_mismatch_error(bundle, "its outputs, or their labels, are not the spec's")
    spec_preprocess, bundle_preprocess = (
        manifest.build_input_contract(spec.graph).preprocess,
        bundle_manifest.input.preprocess,
    )
    # Whether the network normalises its pixels itself is the target's choice.
    if spec_preprocess != (
        bundle_preprocess
        and replace(bundle_preprocess, raw=spec_preprocess.raw if spec_preprocess else False)
    ):
        raise _create_mismatch_error(bundle, "its preprocessing is not the spec's")


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
    message = "this is not what the bundle was built from"
    help = "name the spec and weights that `tcc build` was given, with --spec and --weights"
    return fail("E0664", message, make_file_span(str(bundle.folder)), label=label, help=help)
