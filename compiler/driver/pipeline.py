"""The journey from a spec to its bundles, in a dozen lines."""

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
    """Weights, and what a manifest says of where they come from."""

    tensors: weights.Weights
    origin: manifest.WeightsOrigin
    folder: Path | None = None
    """The folder of their file, which a training may have written."""

    @cached_property
    def training(self) -> TrainingRecord | None:
        """What their training's folder, or the zoo, says of weights of their digest."""
        return trained.find_training(self.folder, self.origin.digest)


@dataclass(frozen=True, slots=True)
class BundleJob:
    """What the bundles of all targets of one build share; `files` are not the targets' own.

    `images` says whether a bundle may hold images that the user gave.
    """

    spec: Spec
    given: WeightSource
    precision: Precision
    graph: Graph
    calibrated: manifest.Calibrated | None
    goldens: manifest.Goldens
    files: Mapping[str, bytes]
    warnings: tuple[manifest.BuildWarning, ...] = ()
    images: bool = False


def read_weights(path: Path, graph: Graph, warn: weights.Warn = weights.quiet) -> WeightSource:
    """Return the weights of a safetensors file.

    Raises:
        UserError: The file does not fit the graph.
    """
    tensors = weights.read(path, graph, warn)
    # Without the file's name: equal weights give equal bytes, whatever their file is called.
    origin = manifest.WeightsOrigin("file", weights.digest(tensors), None, None, None)
    return WeightSource(tensors, origin, path.parent)


def zoo_weights(network: TrainedNetwork, graph: Graph) -> WeightSource:
    """Return the weights of a trained network of the zoo, whose origin is its name.

    Raises:
        UserError: They do not fit the graph: settings made it another.
    """
    tensors = weights.read(network.weights, graph)
    origin = manifest.WeightsOrigin("zoo", weights.digest(tensors), network.name, None, None)
    return WeightSource(tensors, origin)


def weights_of(spec: Spec, path: str | os.PathLike[str] | None, seed: int | None) -> WeightSource:
    """Return the weights of a file, or a trained network's own, or random ones.

    Args:
        spec: The network; a trained one of the zoo, if it was loaded by that name.
        path: The file, if there is one.
        seed: Asks for random weights where there is no file.

    Raises:
        UserError: The weights do not fit the spec.
    """
    if path is not None:
        return read_weights(Path(path), spec.graph)
    network = trained.of(spec) if seed is None else None
    return zoo_weights(network, spec.graph) if network else random_weights(spec.graph, seed or 0)


def random_weights(graph: Graph, seed: int = 0, *, he: bool = False) -> WeightSource:
    """Return random weights, He's or PyTorch's, whose origin says loudly what they are."""
    tensors = weights.he(graph, seed) if he else weights.random(graph, seed)
    notice = f"the weights are random (seed {seed}): predictions mean nothing"
    origin = manifest.WeightsOrigin("random", weights.digest(tensors), None, seed, notice)
    return WeightSource(tensors, origin)


def build(
    spec: Spec,
    given: WeightSource,
    plans: Sequence[Plan],
    progress: Progress,
    integers: Int8Programs | None = None,
    lower: Lower = passes.run,
    *,
    images: bool = False,
) -> Iterator[BundleContents]:
    """Yield the bundle of each target, in order; at an integer precision, of `integers`.

    Args:
        spec: The network as written.
        given: Its weights, and where they come from.
        plans: The targets, and the precision that each is built at.
        progress: Told of each stage.
        integers: The programs of targets whose precision is one of integers, by their ends.
        lower: Takes the model through a target's passes.
        images: Whether a bundle may hold images that the user gave.

    Raises:
        UserError: A target refuses the graph (E0607), said before any work is done, or the
            weights give no finite outputs.
    """
    progress("passes", 0, 1)
    model = Model(spec.graph, given.tensors)
    starts = build_plan.starts(model, plans, integers, lower)
    # Of all targets before any is built: who asks for five is told at once what the fifth lacks.
    check([(plan.device, starts[plan.device.name].graph) for plan in plans])
    # Makers' tools are given floats and run integers, so what either graph breaks is said now.
    both = (plan for plan in plans if plan.from_floats and plan.precision.integer)
    check([(p.device, own.program.graph) for p in both if (own := build_plan.program(p, integers))])
    progress("goldens", 0, 1)
    expected = build_plan.golden_outputs(model, plans, integers)
    for plan in plans:
        device, kind = plan.device, plan.precision
        progress(device.name, 0, 1)
        start, own = starts[device.name], build_plan.program(plan, integers)
        golden, files = expected[kind]
        stage, lean = ("int8", own.program.graph) if own else ("fused", start.graph)
        files = {**files, **(own.files if own else {}), **_texts(model.graph, lean, stage)}
        # An integer program may begin at grey levels; floats take what the spec's contract gives.
        contract = lean if kind.integer else model.graph
        said = build_warnings.of_plan(plan, start.graph, own.program.graph if own else None)
        about = own.calibrated if own else None
        few = build_warnings.warn_few_images(about.measured if about else None)
        built, slower = build_warnings.choose_methods(spec, plan, start)
        said += slower
        job = BundleJob(spec, given, kind, contract, about, golden, files, (*few, *said), images)
        yield _packed(job, device, _made(built, start, own, spec.name, progress))


def ready(spec: Spec, given: WeightSource, lower: Lower = passes.run) -> Model:
    """Return a model as calibration sees it."""
    return lower(Model(spec.graph, given.tensors), passes.INT8)


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What is calibrated for, by which method and how, and what made the model ready for it."""

    target: str
    method: "Method"
    options: "RunOptions"
    lower: Lower = passes.run
    passes: tuple[Pass, ...] = passes.INT8


def calibrate(
    spec: Spec, given: WeightSource, data: DataSet, wanted: CalibrationRequest
) -> "CalibrationDocument":
    """Return the calibration of a spec with weights for a target, by a method.

    Args:
        spec: The network as written.
        given: Its weights, and where they come from.
        data: Images, of which some may be held out to judge by.
        wanted: The target, the method, and how to run the network.

    Returns:
        What a calibration file says: scales, and what the images showed of each value.

    Raises:
        UserError: The network does not take these images, or gives no finite numbers for them.
    """
    # Calibration loads what runs networks, which a build out of the cache does without.
    from tcc.compiler.quant import calibrate as calibration
    from tcc.compiler.quant import calibration_file

    model, data = ready(spec, given, wanted.lower), data.first(wanted.method.most)
    found = calibration.calibrate(model, data, wanted.method, wanted.options)
    text = passes.spell(wanted.passes)
    about = calibration_file.Provenance(
        wanted.method.name, wanted.target, text, network(spec), given.origin
    )
    return calibration_file.document(about, model, found, data)


def fused(model: Model) -> Model:
    """Return a model as devices run it: nothing train-only, no batch norm, no dropout."""
    return passes.run(model, passes.INFERENCE)


def check(planned: Iterable[tuple[Device, Graph]]) -> None:
    """Refuse graphs that their targets cannot run, listing every such node.

    Raises:
        UserError: E0607 for each node and target.
    """
    found = tuple(refused(d, r) for d, graph in planned for r in d.refusals(graph))
    if found:
        raise UserError(found)


def refused(device: Device, refusal: Refusal) -> Diagnostic:
    """Return what to say of a node that a target cannot run."""
    node = refusal.node
    message = f"{device.name} cannot run `{node.name}` ({node.op.word})"
    notes = (refusal.rule,) if refusal.rule else ()
    return Diagnostic("E0607", message, node.at, refusal.why, notes, refusal.help)


def _texts(written: Graph, lean: Graph, stage: str) -> dict[str, bytes]:
    stages = {"float": written, stage: lean}
    return {
        f"{bundle_folder.GRAPH}/{s}.txt": printer.show(graph).encode()
        for s, graph in stages.items()
    }


def _made(
    plan: Plan, start: Model, own: Int8Program | None, model: str, progress: Progress
) -> Artifact:
    device, packager = plan.device, plan.device.packager
    if own is None or packager is None:
        return device.emit(start, plan.precision, progress)
    name = bundle_folder.name(model, device.name, plan.precision.name)
    sources = build_plan.package_sources(plan, start, own, name)
    return packager.package(device.target, sources, plan.precision, progress)


def _packed(job: BundleJob, device: Device, artifact: Artifact) -> BundleContents:
    ends = (device.packager.archive,) if device.packager and not job.images else ()
    own = {path: data for path, data in artifact.files.items() if path not in ends}
    files = {f"{bundle_folder.MODEL}/{path}": data for path, data in own.items()}
    files |= job.files
    executable = frozenset(f"{bundle_folder.MODEL}/{path}" for path in artifact.executable)
    about = manifest.Manifest(
        tcc_bundle=manifest.VERSION,
        model=network(job.spec),
        weights=job.given.origin,
        target=device.name,
        precision=job.precision.name,
        calibration=job.calibrated,
        # Backends list their libraries in any order; a manifest has the same bytes each time.
        made_with=dict(sorted(device.versions().items())),
        input=manifest.source(job.graph),
        outputs=manifest.results(job.graph),
        goldens=job.goldens,
        files=bundle_folder.listed(files, executable),
        compiled=artifact.compiled,
        memory=artifact.memory,
        warnings=job.warnings,
    )
    code = tuple(file.path for file in artifact_runs.list_code(device, about.files))
    beside = {end: artifact.files[end] for end in ends}
    card, bill = model_card.encode(about, job.given.training), bill_of_materials.encode(about)
    papers = {model_card.NAME: card, bill_of_materials.NAME: bill}
    files |= papers
    whole = manifest.sealed(replace(about, files=bundle_folder.listed(files, executable)))
    return BundleContents(whole, files, artifact.layers, artifact.uncompiled, code, beside)


def network(spec: Spec) -> manifest.NetworkRecord:
    """Return what a manifest says of a spec."""
    params = {name: setting(value) for name, value in spec.params.items()}
    return manifest.NetworkRecord(spec.name, spec.doc, spec.digest, params)


def setting(value: object) -> str:
    """Return a parameter's value as `--set` takes it."""
    if isinstance(value, tuple | list):
        # As it would be typed: who reads a manifest can build the same again.
        return f"[{', '.join(map(setting, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
