"""A build: its bundles, out of the cache or made, held against the reference, and written."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.bundle.agreement import Agreement, Disagreement
from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents
from tcc.compiler.driver import build_cache, int8_builds, target_agreement
from tcc.compiler.driver.build_cache import StoredStages
from tcc.compiler.driver.chosen_spec import ChosenSpec
from tcc.compiler.driver.int8_builds import BuiltPrograms, Int8Build
from tcc.compiler.driver.pass_options import PassOptions
from tcc.compiler.driver.target_agreement import BuildAgreement, ComparedTarget
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.support import atomic_files, stage_cache
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.stage_cache import StageCache

if TYPE_CHECKING:
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.bundle.manifest import BundleFile, Manifest
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.driver.build_comparison import BuildComparison
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.pipeline import WeightSource
    from tcc.compiler.ir.graph import Graph


MAX_REPLAYED_GOLDENS = 1
"""Goldens that are replayed after a build; under an emulator each takes its time."""


@dataclass(frozen=True)
class WrittenBundle:
    """The folder that a bundle was written to, and what it says of itself.

    `agreement` is empty where the artifact was not run; `unchecked` says why. `fp32_bytes` is the
    bytes of the target's files at fp32, where another precision was built: None where the target
    cannot build the network so, and `compares_size` is whether that was asked.
    """

    folder: Path
    manifest: "Manifest"
    agreement: tuple[Agreement, ...]
    unchecked: str
    fp32_bytes: int | None = None
    compares_size: bool = False
    archive: Path | None = None
    """The file of images that a package for a maker's tool takes; None for all else."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What computes each layer, where the target's own kernels do."""
    uncompiled: str = ""
    """Why no tool compiled a package."""
    tool: "ToolCheck | None" = None
    """What the tool that compiled a package gave for the goldens."""
    compared: ComparedTarget | None = None
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
        model = f"{bundle_folder.MODEL}/"
        return tuple(file for file in self.manifest.files if file.path.startswith(model))

    def __str__(self) -> str:
        """How the artifact agrees with the reference, in a line."""
        if self.unchecked:
            return f"not compared with the reference: {self.unchecked}"
        worst = max(output.difference for output in self.agreement)
        verdict = f"agrees with the reference within {worst:.1e} of its largest value"
        if not any(output.allowed for output in self.agreement) and worst == 0:
            verdict = "gives the outputs of the reference to the bit"
        verdict = f"{verdict} (cached: so it did before)" if "replay" in self.cached else verdict
        if self.simulated_file:
            file = f"{self.simulated_file}, in ONNX Runtime"
            return f"{file}, {verdict}; nothing here runs the NPU"
        return verdict


@dataclass(frozen=True)
class BundleWriter:
    """What is looked at before a bundle is written: one golden, or all that is in `comparison`.

    Without `replaying`, nothing is run; nor is what `stage_store` knows. `model` and
    `int8_programs` are what a wrong layer is looked for with. `page_graph` is the network of the
    page that goes into a bundle, where one is wanted.
    """

    stages: Stages
    replaying: bool
    stage_store: StoredStages
    model: Model
    int8_programs: "Int8Programs | None" = None
    comparison: "BuildComparison | None" = None
    page_graph: "Graph | None" = None

    def write(
        self, contents: BundleContents, plan: Plan, out: Path, key: str = ""
    ) -> WrittenBundle:
        """Write a bundle whose artifact agrees with the reference, or cannot be run here.

        What a maker's tool compiled is written whatever it gives: its log may tell why.

        Args:
            contents: The bundle.
            plan: Its target and precision.
            out: The folder of its folder.
            key: That of what is built, by which a replay of the very same is known.

        Raises:
            Disagreement: It does not agree; nothing is written.
        """
        device, comparisons = plan.device, []

        def accept(fresh: Bundle) -> None:
            self.stages("replay", 0, 1)
            comparisons.append(self._compare(fresh, plan, key))

        # What cannot be run here is written all the same, and says so: a target without an emulator
        # is no reason to build nothing.
        unchecked = _explain_unchecked(device) if self.replaying else "--no-replay"
        self.stages("write", 0, 1)
        folder = bundle_folder.write_bundle(contents, out, None if unchecked else accept)
        bundle = Bundle(folder, contents.manifest)
        compared = (
            comparisons[0]
            if comparisons
            else target_agreement.create_unchecked(device, bundle, unchecked)
        )
        if self.page_graph:
            from tcc.compiler.driver import report_page

            # Written anew, and not into the folder: what is there is whole at any time.
            contents = report_page.add_page(
                contents, self.page_graph, compared, self.stage_store.training
            )
            bundle = Bundle(bundle_folder.write_bundle(contents, out), contents.manifest)
        return WrittenBundle(
            folder,
            contents.manifest,
            compared.outputs,
            unchecked,
            layers=contents.layers,
            uncompiled=contents.uncompiled,
            tool=_check_tool(bundle, device),
            compared=compared.move_to(bundle),
            simulated_file=compared.device.simulated_file,
            cached=("replay",) if compared.is_cached else (),
        )

    def _compare(self, fresh: Bundle, plan: Plan, key: str) -> ComparedTarget:
        """Return how a bundle agrees with the reference, or agreed when the very same ran here.

        Raises:
            Disagreement: It does not.
        """
        max_goldens = MAX_REPLAYED_GOLDENS if self.comparison is None else None
        plan = replace(plan, device=plan.device.find_simulator() or plan.device)
        key = self.stage_store.compute_replay_key(key, fresh, plan, max_goldens)
        # What the user's images give is kept nowhere.
        if self.comparison is None or self.comparison.images is None:
            cached_comparison = self.stage_store.load_replay(key, fresh, plan)
            if cached_comparison:
                return cached_comparison
        comparison = self._run(fresh, plan)
        self.stage_store.keep_replay(key, comparison)
        return comparison

    def _run(self, fresh: Bundle, plan: Plan) -> ComparedTarget:
        from tcc.compiler.bundle.artifact_runs import Misfit
        from tcc.compiler.bundle.replay import replay_goldens

        device = plan.device
        try:
            if self.comparison is None:
                comparison = ComparedTarget(
                    device, fresh, replayed=replay_goldens(fresh, device, MAX_REPLAYED_GOLDENS)
                )
            else:
                comparison = self.comparison.compare(fresh, plan, self.stages)
        except Misfit as error:
            raise Disagreement(device.name, (), error.diagnostics[0].label) from None
        if not comparison.holds:
            # Which layer is wrong, as far as the target shows its layers.
            layer = comparison.wrong_layer
            wrong = f"the first layer that differs is `{layer.name}`" if layer else None
            wrong = wrong or _describe_wrong_layer(fresh, plan, self.model, self.int8_programs)
            raise Disagreement(device.name, comparison.outputs, wrong)
        return comparison


def _check_tool(bundle: Bundle, device: Device) -> "ToolCheck | None":
    """Return what the tool that compiled a package gave, if one did."""
    if not bundle.manifest.compiled:
        return None
    from tcc.compiler.bundle import tool_check

    return tool_check.check(bundle, device, None)


def _explain_unchecked(device: Device) -> str:
    """Return why a device's artifacts are not run here; nothing where they are."""
    device = device.find_simulator() or device
    if not device.target.runs:
        return f"this machine cannot run what is built for {device.name}"
    absent = device.list_missing_run_tools()
    return f"{absent[0].name} is not here" if absent else ""


def check_plans(
    chosen_spec: ChosenSpec, plans: Sequence[Plan], pass_options: PassOptions, out: Path
) -> Collection[str]:
    """Refuse, before any work is done, what cannot be built or written here.

    Returns:
        What was warned of for makers' tools.

    Raises:
        UserError: A target refuses the network, an option is for other targets, or something else
            lies where a bundle goes.
        MissingTool: Building needs what is not here.
    """
    int8_builds.require_targets(plans)
    for plan in plans:
        if missing := plan.device.list_missing_build_tools():
            raise MissingTool(missing[0])
        plan.device.fetch()
        name = bundle_folder.build_bundle_name(
            chosen_spec.spec.name, plan.device.name, plan.precision.name
        )
        atomic_files.check_folder(out / name, bundle_folder.check_overwrite)
    makers = [plan for plan in plans if plan.starts_from_float_model and plan.precision.calibrated]
    if not makers or pass_options.text is not None:  # other passes make another graph
        return ()
    from tcc.compiler.driver import support_check

    return support_check.require(chosen_spec.spec.graph, makers, pass_options.report.warn)


def open_stages(
    chosen_spec: ChosenSpec,
    weight_source: "WeightSource",
    pass_options: PassOptions,
    *,
    usable: bool,
) -> StoredStages:
    """Return what is known of the stages of a build, if the cache is to be used."""
    # Passes that are to be compared have to run.
    off = not usable or pass_options.verified
    cache = StageCache(None) if off else stage_cache.open_user_cache(pass_options.report.print_note)
    return build_cache.create_stages(cache, chosen_spec.spec, weight_source, pass_options.text)


def build(
    work: Int8Build,
    plans: Sequence[Plan],
    out: Path,
    warned: Collection[str],
    *,
    replaying: bool,
    page: bool,
) -> tuple[tuple[WrittenBundle, ...], BuildAgreement | None]:
    """Build and write the bundle of each target.

    Args:
        work: What was asked, and what the build works with.
        plans: The targets, each with its precision.
        out: The folder of the bundles' folders.
        warned: What was warned of before.
        replaying: Whether what was built runs before it is written, where it can run here.
        page: Whether each bundle gets a page.

    Returns:
        The bundles, and how several targets, or images, agree; None of one target without images.

    Raises:
        UserError: A target refuses the network, or there are no images to calibrate with.
        BelowFloor: The integers lose too much.
        Disagreement: An artifact gives something else than the reference; it is not written.
    """
    int8_builds.require_images(work, plans)
    built_programs = int8_builds.build_int8_programs(work, plans)
    model = Model(work.chosen_spec.spec.graph, work.weight_source.tensors)
    comparison = None
    if len(plans) > 1 or work.options.agree:  # else one golden of one target is enough
        from tcc.compiler.driver.build_comparison import BuildComparison

        comparison = BuildComparison(model, built_programs.programs, work.load_agreement_images())
    page_graph = work.chosen_spec.spec.graph if page else None
    writer = BundleWriter(
        work.stages,
        replaying,
        work.stage_store,
        model,
        built_programs.programs,
        comparison,
        page_graph,
    )
    written_bundles = tuple(_write_all(work, plans, built_programs, writer, out, warned))
    if comparison is None:
        return written_bundles, None
    return written_bundles, target_agreement.compare_targets(
        [bundle.compared for bundle in written_bundles if bundle.compared]
    )


def _write_all(
    work: Int8Build,
    plans: Sequence[Plan],
    built_programs: BuiltPrograms,
    writer: BundleWriter,
    out: Path,
    warned: Collection[str],
) -> Iterator[WrittenBundle]:
    """Build and write each bundle in turn."""
    stage_store, float_io_kinds = work.stage_store, [plan.precision.float_io for plan in plans]
    keys = [
        stage_store.compute_bundle_key(
            plan,
            built_programs.keys.get(end) if plan.precision.calibrated else None,
            images=work.options.images,
        )
        for plan, end in zip(plans, float_io_kinds, strict=True)
    ]
    cached_bundles = [
        stage_store.load_bundle(key, plan) for key, plan in zip(keys, plans, strict=True)
    ]
    fresh = _build_contents(
        work,
        [
            p
            for p, cached_bundle in zip(plans, cached_bundles, strict=True)
            if cached_bundle is None
        ],
        built_programs,
    )
    for plan, key, cached_bundle in zip(plans, keys, cached_bundles, strict=True):
        contents = cached_bundle or next(fresh)
        # Warn of what was not told before there were weights and integers.
        for warning in contents.manifest.warnings:
            if warning.message not in warned:
                text = f"{warning.message}: {warning.found}; {warning.rule}"
                work.report.warn_text(text, warning.code)
        bundle = writer.write(contents, plan, out, key)
        if cached_bundle is None:
            # Only now that it is known to agree, where anything here knows it.
            stage_store.keep_bundle(key, contents)
        cached = (
            built_programs.cached_stages[plan.precision.float_io]
            if plan.precision.calibrated
            else ()
        )
        compares = _should_compare_size(work.report, plan)
        yield replace(
            bundle,
            fp32_bytes=_measure_full_size(work, plan) if compares else None,
            compares_size=compares,
            archive=_find_archive(bundle, plan),
            advice=plan.device.describe_caveats(plan.precision),
            cached=(*cached, *(("bundle",) if cached_bundle else ()), *bundle.cached),
        )


def _build_contents(
    work: Int8Build, plans: Sequence[Plan], built_programs: BuiltPrograms
) -> Iterator[BundleContents]:
    """Return what is built for each target; the first says what any target refuses."""
    if not plans:
        return iter(())
    from tcc.compiler.driver import pipeline

    bundles = pipeline.build(
        work.chosen_spec.spec,
        work.weight_source,
        plans,
        work.stages,
        built_programs.programs,
        work.pass_options,
        images=work.options.images,
    )
    return itertools.chain([next(bundles)], bundles)


def _should_compare_size(report: Report, plan: Plan) -> bool:
    """Whether a build reports what its target's files would take at fp32."""
    # A second build, only for its size, is not for those who would not see the figure.
    offered = any(precision.full for precision in plan.device.target.precisions)
    return offered and not plan.precision.full and not (report.quiet and not report.json)


def _measure_full_size(work: Int8Build, plan: Plan) -> int | None:
    """Return the bytes of a target's files in floats, which those of its precision compare with.

    None: the size is unknown, because the target has no such precision, or cannot build this
    network at it.
    """

    def measure() -> int | None:
        from tcc.compiler import passes

        # Built to be weighed: a file's size is not that of its weights, by alignment and by its own
        # structure.
        device = plan.device
        full = next((precision for precision in device.target.precisions if precision.full), None)
        if full is None:
            return None
        model = Model(work.chosen_spec.spec.graph, work.weight_source.tensors)
        model = passes.run(model, device.passes(full))
        # The int8 network was accepted; the float one may need kernels or memory that there are
        # not.
        if any(device.refusals(model.graph)):
            return None
        try:
            return sum(map(len, device.emit(model, full, work.stages).files.values()))
        except UserError:
            return None

    return work.stage_store.get_size(plan.device, measure)


def _find_archive(written_bundle: WrittenBundle, plan: Plan) -> Path | None:
    """Return the file of images of a package: in it, or beside it."""
    if plan.device.packager is None:
        return None
    name = plan.device.packager.archive
    inside = written_bundle.folder / bundle_folder.MODEL / name
    return inside if inside.exists() else bundle_folder.locate_sidecar(written_bundle.folder, name)


def _describe_wrong_layer(
    bundle: Bundle, plan: Plan, model: Model, int8_programs: "Int8Programs | None"
) -> str:
    """Return a sentence that names the first layer that differs, or why none can be named.

    Args:
        bundle: What was built. Its artifact runs here, and does not give its goldens.
        plan: Its target and precision.
        model: The network in floats, as written.
        int8_programs: The integer programs of the build, if it has some.
    """
    try:
        check = _check_layers(bundle, plan, model, int8_programs)
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
    bundle: Bundle, plan: Plan, model: Model, int8_programs: "Int8Programs | None"
) -> "program_check.ProgramCheck | float_check.FloatCheck | None":
    """Return how the layers compare; None where the precision has no values to compare them by."""
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.driver import build_plan
    from tcc.compiler.ir.precision import Arithmetic
    from tcc.compiler.ir.rewrite import extract_inference_graph

    match plan.precision.arithmetic:
        case Arithmetic.INTEGER | Arithmetic.SIMULATED:
            program = build_plan.select_program(plan, int8_programs)
            assert program
            return program_check.check(bundle, plan.device, program.program)
        case Arithmetic.FLOAT:
            network = Model(extract_inference_graph(model.graph), model.weights)
            # Rounded weights move every layer: what the goldens may be off by, a layer may be too.
            allowed = bundle.manifest.goldens.tolerance.relative
            return float_check.check(bundle, plan.device, network, allowed)
        case Arithmetic.VENDOR:
            return None
        case _:
            assert_never(plan.precision.arithmetic)
