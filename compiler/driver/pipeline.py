"""The pipeline from a spec with weights to its bundles."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler import passes
from tcc.compiler.bundle import (
    artifact_runs,
    bill_of_materials,
    bundle_folder,
    guard_readings,
    manifest,
    model_card,
)
from tcc.compiler.bundle.bundle_folder import BundleContents
from tcc.compiler.data import weights
from tcc.compiler.data.dataset import DataSet
from tcc.compiler.data.training_record import TrainingRecord
from tcc.compiler.driver import build_plan, build_warnings
from tcc.compiler.driver.build_plan import Int8Program, Int8Programs, Lower
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir import printer
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Graph, Model, Pass
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Artifact, Refusal
from tcc.compiler.support.diagnostics import Diagnostic, UserError
from tcc.compiler.support.progress import Progress
from tcc.compiler.zoo import trained
from tcc.compiler.zoo.trained import TrainedNetwork

if TYPE_CHECKING:
    from tcc.compiler.quant.calibration_document import CalibrationDocument
    from tcc.compiler.quant.methods.method import Method
    from tcc.compiler.quant.run_options import RunOptions


@dataclass(frozen=True)
class WeightSource:
    """Weights, and their origin for the manifest."""

    tensors: weights.Weights
    origin: manifest.WeightsOrigin
    folder: Path | None = None
    """The folder of their file, which may be a run folder."""

    @cached_property
    def training(self) -> TrainingRecord | None:
        """The training record of these weights, from their run folder or the zoo."""
        return trained.find_training(self.folder, self.origin.digest)


@dataclass(frozen=True, slots=True)
class BundleJob:
    """Inputs that the bundles of one build share; `files` are not the target's files.

    `images`: whether a bundle may contain the user's images.
    """

    spec: Spec
    weight_source: WeightSource
    precision: Precision
    graph: Graph
    calibrated: manifest.Calibrated | None
    goldens: manifest.Goldens
    files: Mapping[str, bytes]
    warnings: tuple[manifest.BuildWarning, ...] = ()
    images: bool = False


def read_weights(
    path: Path, graph: Graph, warn: weights.Warn = weights.ignore_warning
) -> WeightSource:
    """Return the weights in a safetensors file.

    Raises:
        UserError: The file does not fit the graph.
    """
    tensors = weights.read_weights(path, graph, warn)
    # Without the file's name: equal weights give the same bundle bytes.
    origin = manifest.WeightsOrigin("file", weights.digest(tensors), None, None, None)
    return WeightSource(tensors, origin, path.parent)


def load_zoo_weights(network: TrainedNetwork, graph: Graph) -> WeightSource:
    """Return the weights of a trained network of the zoo, with its name as their origin.

    Raises:
        UserError: They do not fit the graph, because settings changed it.
    """
    tensors = weights.read_weights(network.weights, graph)
    origin = manifest.WeightsOrigin("zoo", weights.digest(tensors), network.name, None, None)
    return WeightSource(tensors, origin)


def load_weights(spec: Spec, path: str | os.PathLike[str] | None, seed: int | None) -> WeightSource:
    """Return the weights of a file, a trained network's own, or random ones.

    Args:
        spec: The network; a trained one of the zoo, if it was loaded by that name.
        path: The file, if there is one.
        seed: Seed of random weights, if there is no file; None for default weights.

    Raises:
        UserError: The weights do not fit the spec.
    """
    if path is not None:
        return read_weights(Path(path), spec.graph)
    network = trained.find_by_spec(spec) if seed is None else None
    return (
        load_zoo_weights(network, spec.graph)
        if network
        else create_random_weights(spec.graph, seed or 0)
    )


def create_random_weights(graph: Graph, seed: int = 0, *, he: bool = False) -> WeightSource:
    """Return random weights, by He or PyTorch initialization, with a warning in their origin."""
    tensors = weights.initialize_he(graph, seed) if he else weights.initialize_random(graph, seed)
    notice = f"the weights are random (seed {seed}): predictions mean nothing"
    origin = manifest.WeightsOrigin("random", weights.digest(tensors), None, seed, notice)
    return WeightSource(tensors, origin)


def build(
    spec: Spec,
    weight_source: WeightSource,
    plans: Sequence[Plan],
    progress: Progress,
    int8_programs: Int8Programs | None = None,
    lower: Lower = passes.run,
    *,
    images: bool = False,
) -> Iterator[BundleContents]:
    """Yield the bundle of each target, in order.

    Args:
        spec: The network as written.
        weight_source: Its weights, and their origin.
        plans: The targets, each with its precision.
        progress: Receives each stage.
        int8_programs: The integer programs by `float_io`, for calibrated precisions.
        lower: Runs a target's passes on the model.
        images: Whether a bundle may contain the user's images.

    Raises:
        UserError: A target refuses the graph (E0607), reported before any bundle is built, or an
            output is not finite with these weights.
    """
    progress("passes", 0, 1)
    model = Model(spec.graph, weight_source.tensors)
    start_models = build_plan.prepare_models(model, plans, int8_programs, lower)
    # All targets before any is built: the errors of all of them are reported at once.
    check([(plan.device, start_models[plan.device.name].graph) for plan in plans])
    # Vendor toolchains get the float model and run integers: check the integer graphs too.
    package_plans = (
        plan for plan in plans if plan.starts_from_float_model and plan.precision.integer
    )
    check(
        [
            (p.device, int8_program.program.graph)
            for p in package_plans
            if (int8_program := build_plan.select_program(p, int8_programs))
        ]
    )
    progress("goldens", 0, 1)
    expected = build_plan.create_golden_outputs(model, plans, int8_programs)
    for plan in plans:
        device, precision = plan.device, plan.precision
        progress(device.name, 0, 1)
        start, int8_program = (
            start_models[device.name],
            build_plan.select_program(plan, int8_programs),
        )
        golden, files = expected[precision]
        # Only programs that are exact have the codes that the guard was fitted to.
        guard_files = int8_program.guard_files if int8_program and precision.exact else {}
        if guard_files:
            device = device.with_guard(guard_files[guard_readings.NAME])
            plan = replace(plan, device=device)  # noqa: PLW2901 - of this iteration only
        stage, lowered_graph = (
            ("int8", int8_program.program.graph) if int8_program else ("fused", start.graph)
        )
        files = {
            **files,
            **(int8_program.files if int8_program else {}),
            **guard_files,
            **_print_graphs(model.graph, lowered_graph, stage),
        }
        # An integer program may start from raw pixels; float models follow the spec's contract.
        contract = lowered_graph if precision.integer else model.graph
        warnings = build_warnings.collect_warnings(
            plan, start.graph, int8_program.program.graph if int8_program else None
        )
        calibrated = int8_program.calibrated if int8_program else None
        image_warnings = build_warnings.warn_few_images(calibrated.measured if calibrated else None)
        built, slower = build_warnings.choose_methods(spec, plan, start)
        warnings += slower
        job = BundleJob(
            spec,
            weight_source,
            precision,
            contract,
            calibrated,
            golden,
            files,
            (*image_warnings, *warnings),
            images,
        )
        yield _pack_bundle(
            job, device, _emit_artifact(built, start, int8_program, spec.name, progress)
        )


def lower_for_int8(spec: Spec, weight_source: WeightSource, lower: Lower = passes.run) -> Model:
    """Return the lowered model for calibration."""
    return lower(Model(spec.graph, weight_source.tensors), passes.INT8)


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """Target, method and options of a calibration, and the passes before it."""

    target: str
    method: "Method"
    options: "RunOptions"
    lower: Lower = passes.run
    passes: tuple[Pass, ...] = passes.INT8


def calibrate(
    spec: Spec, weight_source: WeightSource, data: DataSet, request: CalibrationRequest
) -> "CalibrationDocument":
    """Calibrate a spec with weights for a target, by a method.

    Args:
        spec: The network as written.
        weight_source: Its weights, and their origin.
        data: The images, some of which may be held out for evaluation.
        request: The target, the method, and its options.

    Returns:
        The content of a calibration file: scales, and statistics of each value.

    Raises:
        UserError: The images do not fit the network, or an output for them is not finite.
    """
    # Imported late: calibration loads executors that a build from the cache does not need.
    from tcc.compiler.quant import calibrate as calibration
    from tcc.compiler.quant import calibration_file

    model, data = (
        lower_for_int8(spec, weight_source, request.lower),
        data.select_first(request.method.max_images),
    )
    calibrated = calibration.calibrate(model, data, request.method, request.options)
    text = passes.format_pipeline(request.passes)
    provenance = calibration_file.Provenance(
        request.method.name, request.target, text, describe_network(spec), weight_source.origin
    )
    return calibration_file.build_document(provenance, model, calibrated, data)


def fuse_model(model: Model) -> Model:
    """Return a model as devices run it: batch norms folded, no dropout or train-only layers."""
    return passes.run(model, passes.INFERENCE)


def check(planned: Iterable[tuple[Device, Graph]]) -> None:
    """Refuse graphs that their targets cannot run, listing every such node.

    Raises:
        UserError: E0607 for each node and target.
    """
    problems = tuple(describe_refusal(d, r) for d, graph in planned for r in d.refusals(graph))
    if problems:
        raise UserError(problems)


def describe_refusal(device: Device, refusal: Refusal) -> Diagnostic:
    """Return the error for a node that a target cannot run."""
    node = refusal.node
    message = f"{device.name} cannot run `{node.name}` ({node.op.keyword})"
    notes = (refusal.rule,) if refusal.rule else ()
    return Diagnostic("E0607", message, node.at, refusal.reason, notes, refusal.help)


def _print_graphs(source_graph: Graph, lowered_graph: Graph, stage: str) -> dict[str, bytes]:
    stages = {"float": source_graph, stage: lowered_graph}
    return {
        f"{bundle_folder.GRAPH}/{s}.txt": printer.print_graph(graph).encode()
        for s, graph in stages.items()
    }


def _emit_artifact(
    plan: Plan, start: Model, int8_program: Int8Program | None, model: str, progress: Progress
) -> Artifact:
    device, packager = plan.device, plan.device.packager
    if int8_program is None or packager is None:
        return device.emit(start, plan.precision, progress)
    name = bundle_folder.build_bundle_name(model, device.name, plan.precision.name)
    sources = build_plan.collect_package_sources(plan, start, int8_program, name)
    return packager.build_package(device.target, sources, plan.precision, progress)


def _pack_bundle(job: BundleJob, device: Device, artifact: Artifact) -> BundleContents:
    excluded_files = (device.packager.archive,) if device.packager and not job.images else ()
    model_files = {
        path: content for path, content in artifact.files.items() if path not in excluded_files
    }
    files = {f"{bundle_folder.MODEL}/{path}": content for path, content in model_files.items()}
    files |= job.files
    executable = frozenset(f"{bundle_folder.MODEL}/{path}" for path in artifact.executable)
    bundle_manifest = manifest.Manifest(
        tcc_bundle=manifest.VERSION,
        model=describe_network(job.spec),
        weights=job.weight_source.origin,
        target=device.name,
        precision=job.precision.name,
        calibration=job.calibrated,
        # Sorted, so that manifests do not depend on the backend's order of libraries.
        made_with=dict(sorted(device.collect_versions().items())),
        input=manifest.build_input_contract(job.graph),
        outputs=manifest.build_output_contracts(job.graph),
        goldens=job.goldens,
        files=bundle_folder.list_files(files, executable),
        compiled=artifact.compiled,
        memory=artifact.memory,
        warnings=job.warnings,
    )
    code = tuple(file.path for file in artifact_runs.list_code(device, bundle_manifest.files))
    archives = {end: artifact.files[end] for end in excluded_files}
    card, bill = (
        model_card.encode(bundle_manifest, job.weight_source.training),
        bill_of_materials.encode(bundle_manifest),
    )
    documents = {model_card.NAME: card, bill_of_materials.NAME: bill}
    files |= documents
    sealed_manifest = manifest.seal_manifest(
        replace(bundle_manifest, files=bundle_folder.list_files(files, executable))
    )
    return BundleContents(
        sealed_manifest, files, artifact.layers, artifact.uncompiled, code, archives
    )


def describe_network(spec: Spec) -> manifest.NetworkRecord:
    """Return the manifest's record of a spec."""
    params = {name: format_setting(value) for name, value in spec.params.items()}
    return manifest.NetworkRecord(spec.name, spec.doc, spec.digest, params)


def format_setting(value: object) -> str:
    """Return a parameter's value in the syntax of `--set`."""
    if isinstance(value, tuple | list):
        # As on the command line, so that a reader of the manifest can repeat the build.
        return f"[{', '.join(map(format_setting, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
