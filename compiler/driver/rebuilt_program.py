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
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

FUSED = "graph/fused.txt"
"""The printed float network of a bundle, after the target's passes."""


def program(bundle: Bundle, device: Device, spec: Spec | None, file: Path | None) -> Model | None:
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
    precision = device.precision(bundle.manifest.precision)
    if not precision.integer:
        if spec:
            _check_named(bundle, spec, file)
        return None
    own = program_file.read(bundle)
    if spec is None:
        return own
    _check_named(bundle, spec, file)
    # Held already against what the bundle prints of it (`program_file`).
    if own:
        return own
    ready = pipeline.ready(spec, _weights(bundle, spec, file))
    path = bundle.folder / CALIBRATION
    document, about = calibration_document.read(path), bundle.manifest.calibration
    layers = about.in_float if about else ()
    ends = precision.real_ends
    made = again(ready, document, str(path), layers, real_ends=ends)
    printed = (bundle.folder / artifact_runs.PROGRAM).read_bytes()
    if printer.show(made.graph).encode() != printed:
        raise _other(bundle, f"they make another program than {artifact_runs.PROGRAM}")
    return made


def network(bundle: Bundle, device: Device, spec: Spec | None, file: Path | None) -> Model | None:
    """Return the network that a bundle of float32 was built from; None of others, or of no spec.

    Args:
        bundle: The bundle.
        device: Its target.
        spec: The network, where the user named it.
        file: Its weights, where the user named them; else those that the bundle says.

    Raises:
        UserError: They are not those that it was built from (E0664).
    """
    kind = device.precision(bundle.manifest.precision)
    # What rounds its weights has other values in each layer, and by how much nobody has said.
    if spec is None or agreement.allowed(kind) != agreement.FLOAT:
        return None
    _contract(bundle, spec)
    given = _weights(bundle, spec, file)
    return Model(for_inference(spec.graph), given.tensors)


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
    precision = device.precision(bundle.manifest.precision)
    same_tools = device.versions().items() <= bundle.manifest.made_with.items()
    floats = None
    if spec and (device.packager or not precision.integer):
        _contract(bundle, spec)
        weight_source = _weights(bundle, spec, file)
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
        return printer.show(floats.graph).encode() == (bundle.folder / FUSED).read_bytes()
    if CALIBRATION in paths:
        document = calibration_document.read(bundle.folder / CALIBRATION)
        return document.passes == passes.spell(passes.INT8)
    return False


def again(
    ready: Model,
    document: CalibrationDocument,
    name: str,
    in_float: Collection[str],
    *,
    real_ends: bool,
) -> Model:
    """Return the integer program that a calibration once gave.

    Args:
        ready: The float model that integers can compute.
        document: The calibration.
        name: What its file is called in errors.
        in_float: The layers that stayed in float.
        real_ends: Whether the program ends in real numbers.

    Raises:
        UserError: It is the calibration of another graph.
    """
    found = calibration_file.calibration(document, ready, name)
    return quantize(ready, replace(found, in_float=frozenset(in_float), real_ends=real_ends))


def _check_named(bundle: Bundle, spec: Spec, file: Path | None) -> None:
    """Refuse a spec, or weights that are named, which are not those of a bundle.

    Raises:
        UserError: They are not (E0664).
    """
    _contract(bundle, spec)
    if file is not None:
        _weights(bundle, spec, file)


def _contract(bundle: Bundle, spec: Spec) -> None:
    """Refuse a bundle that says of its input or its outputs what its spec does not.

    Raises:
        UserError: Its spec is another one (E0664), or its preprocessing, labels or what outputs
            mean are (E0664): somebody changed its manifest.
    """
    about = bundle.manifest
    if about.model.spec != spec.digest:
        raise _other(bundle, f"it was built from another spec of `{about.model.name}`")
    if about.outputs != manifest.results(spec.graph):
        raise _other(bundle, "its outputs, or their labels, are not the spec's")
    own, found = manifest.source(spec.graph).preprocess, about.input.preprocess
    # Whether the network normalises its pixels itself is the target's choice.
    if own != (found and replace(found, raw=own.raw if own else False)):
        raise _other(bundle, "its preprocessing is not the spec's")


def _weights(bundle: Bundle, spec: Spec, file: Path | None) -> WeightSource:
    about = bundle.manifest
    given = pipeline.weights_of(spec, file, about.weights.seed)
    if weights.digest(given.tensors) != about.weights.digest:
        digests = about.weights.digest[:12], given.origin.digest[:12]
        raise _other(bundle, "its weights have the digest {}, these have {}".format(*digests))
    return given


def _other(bundle: Bundle, label: str) -> UserError:
    message = "this is not what the bundle was built from"
    help = "name the spec and weights that `tcc build` was given, with --spec and --weights"
    return fail("E0664", message, whole_file(str(bundle.folder)), label=label, help=help)
