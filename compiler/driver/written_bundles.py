"""The bundles of a build: out of the cache or built, held against the reference, and written."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from tcc.compiler.bundle.agreement import Agreement, Disagreement
from tcc.compiler.driver.built_integers import BuiltIntegers, Int8Build
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool

if TYPE_CHECKING:
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents
    from tcc.compiler.bundle.manifest import BundleFile, Manifest
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.driver.build_comparison import BuildComparison
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.stored_stages import StoredStages
    from tcc.compiler.driver.target_agreement import ComparedTarget
    from tcc.compiler.ir.device import Device, Plan
    from tcc.compiler.ir.graph import Graph, Model
    from tcc.compiler.support.console import Stages


GOLDENS = 1
"""Goldens that are replayed after a build; under an emulator each takes its time."""


@dataclass(frozen=True)
class WrittenBundle:
    """The folder that a bundle was written to, and what it says of itself.

    `agreement` is empty where the artifact was not run; `unchecked` says why. `full` is the bytes
    of the target's files at fp32, where another precision was built: None where the target cannot
    build the network so, and `compares_size` is whether that was asked.
    """

    folder: Path
    manifest: "Manifest"
    agreement: tuple[Agreement, ...]
    unchecked: str
    full: int | None = None
    compares_size: bool = False
    archive: Path | None = None
    """The file of images that a package for a maker's tool takes; None for all else."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What computes each layer, where the target's own kernels do."""
    uncompiled: str = ""
    """Why no tool compiled a package."""
    tool: "ToolCheck | None" = None
    """What the tool that compiled a package gave for the goldens."""
    compared: "ComparedTarget | None" = None
    """How it agrees as one of several targets."""
    simulated_file: str = ""
    """The file of a package that ran in place of what the maker's tool makes of it."""
    advice: str = ""
    """What is worth knowing before it runs on this machine."""
    cached: tuple[str, ...] = ()
    """The stages whose results were known already."""

    @property
    def artifact(self) -> "tuple[BundleFile, ...]":
        """The target's own files."""
        from tcc.compiler.bundle.bundle_folder import MODEL

        return tuple(f for f in self.manifest.files if f.path.startswith(f"{MODEL}/"))

    def __str__(self) -> str:
        """How the artifact agrees with the reference, in a line."""
        if self.unchecked:
            return f"not compared with the reference: {self.unchecked}"
        worst = max(each.difference for each in self.agreement)
        found = f"agrees with the reference within {worst:.1e} of its largest value"
        if not any(each.allowed for each in self.agreement) and worst == 0:
            found = "gives the outputs of the reference to the bit"
        found = f"{found} (cached: so it did before)" if "replay" in self.cached else found
        if self.simulated_file:
            file = f"{self.simulated_file}, in ONNX Runtime"
            return f"{file}, {found}; nothing here runs the NPU"
        return found


@dataclass(frozen=True)
class BundleCheck:
    """What is looked at before a bundle is written: one golden, or all that is in `comparison`.

    Without `replaying`, nothing is run; nor is what `stored` knows, by the `keys` of what is built
    for each target. `model` and `integers` are what a wrong layer is looked for with. `drawn` is
    the network of the page that goes into a bundle, where one is wanted.
    """

    stages: "Stages"
    replaying: bool
    stored: "StoredStages"
    keys: Mapping[str, str]
    model: "Model"
    integers: "Int8Programs | None" = None
    comparison: "BuildComparison | None" = None
    drawn: "Graph | None" = None

    def compared(self, fresh: "Bundle", plan: "Plan") -> "ComparedTarget":
        """Return how a bundle agrees with the reference, or agreed when the very same ran here.

        Raises:
            Disagreement: It does not.
        """
        most = GOLDENS if self.comparison is None else None
        plan = replace(plan, device=plan.device.simulator() or plan.device)
        key = self.stored.replay_key(self.keys[plan.device.name], fresh, plan, most)
        # What the user's images give is kept nowhere.
        if self.comparison is None or self.comparison.images is None:
            known = self.stored.replay(key, fresh, plan)
            if known:
                return known
        found = self._run(fresh, plan)
        self.stored.keep_replay(key, found)
        return found

    def _run(self, fresh: "Bundle", plan: "Plan") -> "ComparedTarget":
        from tcc.compiler.bundle.artifact_runs import Misfit
        from tcc.compiler.bundle.replay import replay
        from tcc.compiler.driver.target_agreement import ComparedTarget

        device = plan.device
        try:
            if self.comparison is None:
                found = ComparedTarget(device, fresh, replayed=replay(fresh, device, GOLDENS))
            else:
                found = self.comparison.compared(fresh, plan, self.stages)
        except Misfit as error:
            raise Disagreement(device.name, (), error.diagnostics[0].label) from None
        if not found.holds:
            raise Disagreement(device.name, found.outputs, self._locate(fresh, plan, found))
        return found

    def _locate(self, fresh: "Bundle", plan: "Plan", compared: "ComparedTarget") -> str:
        """Return which layer of a bundle is wrong, as far as its target shows its layers."""
        if layer := compared.wrong_layer:
            return f"the first layer that differs is `{layer.name}`"
        return _describe_wrong_layer(fresh, plan, self.model, self.integers)


def write_bundle(
    contents: "BundleContents", plan: "Plan", out: Path, check: BundleCheck
) -> WrittenBundle:
    """Write a bundle whose artifact agrees with the reference, or cannot be run here.

    What a maker's tool compiled is written whatever it gives: its log may tell why.

    Raises:
        Disagreement: It does not agree; nothing is written.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver import target_agreement

    device, found = plan.device, []

    def accept(fresh: "Bundle") -> None:
        check.stages("replay", 0, 1)
        found.append(check.compared(fresh, plan))

    # What cannot be run here is written all the same, and says so: a target without an emulator is
    # no reason to build nothing.
    unchecked = _unchecked(device) if check.replaying else "--no-replay"
    check.stages("write", 0, 1)
    folder = bundle_folder.write(contents, out, None if unchecked else accept)
    bundle = Bundle(folder, contents.manifest)
    compared = found[0] if found else target_agreement.unchecked(device, bundle, unchecked)
    if check.drawn:
        from tcc.compiler.driver import report_page

        # Written anew, and not into the folder: what is there is whole at any time.
        contents = report_page.added(contents, check.drawn, compared, check.stored.training)
        bundle = Bundle(bundle_folder.write(contents, out), contents.manifest)
    return WrittenBundle(
        folder,
        contents.manifest,
        compared.outputs,
        unchecked,
        layers=contents.layers,
        uncompiled=contents.uncompiled,
        tool=_tool_check(bundle, device),
        compared=compared.at(bundle),
        simulated_file=compared.device.simulated_file,
        cached=("replay",) if compared.stored else (),
    )


def _tool_check(bundle: "Bundle", device: "Device") -> "ToolCheck | None":
    """Return what the tool that compiled a package gave, if one did."""
    if not bundle.manifest.compiled:
        return None
    from tcc.compiler.bundle import tool_check

    return tool_check.check(bundle, device, None)


def _unchecked(device: "Device") -> str:
    """Return why a device's artifacts are not run here; nothing where they are."""
    device = device.simulator() or device
    if not device.target.runs:
        return f"nothing here runs what is built for {device.name}"
    absent = device.absent()
    return f"{absent[0].name} is not here" if absent else ""


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """A target of a build, the key of what is built for it, and that out of the cache, if any."""

    plan: "Plan"
    key: str
    stored: "BundleContents | None"


def plan_bundles(
    work: Int8Build, plans: "Sequence[Plan]", whole: BuiltIntegers | None
) -> tuple[BundlePlan, ...]:
    """Return what is known already of each target."""
    found = []
    for plan in plans:
        integers = None
        if plan.precision.calibrated:
            assert whole
            integers = whole.keys[plan.precision.real_ends]
        key = work.stored.bundle_key(plan, integers, images=work.asked.images)
        found.append(BundlePlan(plan, key, work.stored.bundle(key, plan)))
    return tuple(found)


def write_all(
    work: Int8Build,
    targets: Sequence[BundlePlan],
    whole: BuiltIntegers | None,
    out: Path,
    check: BundleCheck,
    told: Collection[str],
) -> Iterator[WrittenBundle]:
    """Build and write each bundle in turn."""
    for target, contents in zip(targets, _contents(work, targets, whole), strict=True):
        plan, compares = target.plan, _compares_size(work.report, target.plan)
        _remark(work.report, contents, told)
        made = write_bundle(contents, plan, out, check)
        if target.stored is None:
            # Only now that it is known to agree, where anything here knows it.
            work.stored.keep_bundle(target.key, contents)
        cached = ("bundle",) if target.stored else ()
        if plan.precision.calibrated and whole:
            cached = (*whole.stored[plan.precision.real_ends], *cached)
        yield replace(
            made,
            full=_full_size(work, plan) if compares else None,
            compares_size=compares,
            archive=_archive(made, plan),
            advice=plan.device.advice(plan.precision),
            cached=(*cached, *made.cached),
        )


def _contents(
    work: Int8Build, targets: Sequence[BundlePlan], whole: BuiltIntegers | None
) -> "Iterator[BundleContents]":
    """Yield what is built for each target."""
    fresh = [each.plan for each in targets if each.stored is None]
    made: Iterator[BundleContents] = iter(())
    if fresh:
        from tcc.compiler.driver import pipeline

        programs = whole.programs if whole else None
        made = pipeline.build(
            work.chosen.spec, work.given, fresh, work.stages, programs, work.passing,
            images=work.asked.images,
        )  # fmt: skip
        # The first says what any target refuses, before a bundle is written for another.
        first = next(made)
        made = _before(first, made)
    for each in targets:
        yield each.stored or next(made)


def _before(
    first: "BundleContents", others: "Iterator[BundleContents]"
) -> "Iterator[BundleContents]":
    yield first
    yield from others


def _compares_size(report: Report, plan: "Plan") -> bool:
    """Whether a build reports what its target's files would take at fp32."""
    # A second build, only for its size, is not for those who would not see the figure.
    offered = any(precision.full for precision in plan.device.target.precisions)
    return offered and not plan.precision.full and not (report.quiet and not report.json)


def _full_size(work: Int8Build, plan: "Plan") -> int | None:
    """Return the bytes of a target's files in floats, which those of its precision compare with.

    None: the size is unknown, because the target has no such precision, or cannot build this
    network at it.
    """

    def measure() -> int | None:
        from tcc.compiler import passes
        from tcc.compiler.ir.graph import Model

        # Built to be weighed: a file's size is not that of its weights, by alignment and by its own
        # structure.
        device = plan.device
        full = next((each for each in device.target.precisions if each.full), None)
        if full is None:
            return None
        model = Model(work.chosen.spec.graph, work.given.tensors)
        model = passes.run(model, device.passes(full))
        # The int8 network was accepted; the float one may need kernels or memory that there are
        # not.
        if any(device.refusals(model.graph)):
            return None
        try:
            return sum(map(len, device.emit(model, full, work.stages).files.values()))
        except UserError:
            return None

    return work.stored.size(plan.device, measure)


def _remark(report: Report, contents: "BundleContents", told: Collection[str]) -> None:
    """Warn of what was not told before there were weights and integers."""
    for each in contents.manifest.warnings:
        if each.message not in told:
            report.notice(f"{each.message}: {each.found}; {each.rule}", each.code)


def _archive(made: WrittenBundle, plan: "Plan") -> Path | None:
    """Return the file of images of a package: in it, or beside it."""
    from tcc.compiler.bundle import bundle_folder

    if plan.device.packager is None:
        return None
    name = plan.device.packager.archive
    inside = made.folder / bundle_folder.MODEL / name
    return inside if inside.exists() else bundle_folder.beside(made.folder, name)


def keys(targets: Sequence[BundlePlan]) -> Mapping[str, str]:
    """Return the key of what is built for each target, by its name."""
    return {each.plan.device.name: each.key for each in targets}


def _describe_wrong_layer(
    bundle: "Bundle", plan: "Plan", model: "Model", integers: "Int8Programs | None"
) -> str:
    """Return a sentence that names the first layer that differs, or why none can be named.

    Args:
        bundle: What was built. Its artifact runs here, and does not give its goldens.
        plan: Its target and precision.
        model: The network in floats, as written.
        integers: The integer programs of the build, if it has some.
    """
    try:
        check = _check_layers(bundle, plan, model, integers)
    except (UserError, MissingTool) as error:
        return f"its layers could not be compared: {str(error).splitlines()[0]}"
    if check is None or check.layers is None:
        return f"nothing here looks into the layers of {plan.device.name} at {plan.precision.name}"
    if check.wrong_layer:
        return f"the first layer that differs is `{check.wrong_layer.name}`"
    return (
        f"all {len(check.layers)} layers that it shows agree on the goldens' tensors:"
        " what differs is its preprocessing, or a layer that it does not show"
    )


def _check_layers(
    bundle: "Bundle", plan: "Plan", model: "Model", integers: "Int8Programs | None"
) -> "program_check.ProgramCheck | float_check.FloatCheck | None":
    """Return how the layers compare; None where the precision has no values to compare them by."""
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.driver import build_plan
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.ir.precision import Arithmetic
    from tcc.compiler.ir.rewrite import for_inference

    match plan.precision.arithmetic:
        case Arithmetic.INTEGER | Arithmetic.SIMULATED:
            program = build_plan.program(plan, integers)
            assert program
            return program_check.check(bundle, plan.device, program.program)
        case Arithmetic.FLOAT:
            network = Model(for_inference(model.graph), model.weights)
            # Rounded weights move every layer: what the goldens may be off by, a layer may be too.
            allowed = bundle.manifest.goldens.tolerance.relative
            return float_check.check(bundle, plan.device, network, allowed)
        case Arithmetic.FOREIGN:
            return None
        case _:
            assert_never(plan.precision.arithmetic)
