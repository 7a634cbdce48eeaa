"""Run a build: get bundles from the cache or create them, compare them, and write them."""

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
"""Number of goldens that are replayed after a build; more would take long in an emulator."""


@dataclass(frozen=True)
class WrittenBundle:
    """A written bundle: its folder, its manifest, and the result of its comparison.

    `agreement` is empty if the artifact was not run; `unchecked` is the reason. `fp32_bytes` is the
    size of the target's files at fp32, if another precision was built; None if the target cannot
    build the network at fp32. `compares_size`: whether that size was requested.
    """

    folder: Path
    manifest: "Manifest"
    agreement: tuple[Agreement, ...]
    unchecked: str
    fp32_bytes: int | None = None
    compares_size: bool = False
    archive: Path | None = None
    """File of calibration images in a package for a vendor toolchain; None for other targets."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What computes each layer, if the target has its own kernels."""
    uncompiled: str = ""
    """Why no tool compiled the package."""
    tool: "ToolCheck | None" = None
    """Outputs of the tool that compiled a package, compared with the goldens."""
    compared: ComparedTarget | None = None
    """Its agreement as one of several targets."""
    simulated_file: str = ""
    """File of a package that ran in place of the vendor toolchain's result."""
    advice: str = ""
    """Advice about running it on this machine."""
    cached: tuple[str, ...] = ()
    """The stages with results from the cache."""

    @property
    def artifact(self) -> "tuple[BundleFile, ...]":
        """The target's files."""
        model = f"{bundle_folder.MODEL}/"
        return tuple(file for file in self.manifest.files if file.path.startswith(model))

    def __str__(self) -> str:
        """Return one line: how the artifact agrees with the reference."""
        if self.unchecked:
            return f"not compared with the reference: {self.unchecked}"
        worst = max(output.difference for output in self.agreement)
        verdict = f"agrees with the reference within {worst:.1e} of its largest value"
        if not any(output.allowed for output in self.agreement) and worst == 0:
            verdict = "matches the reference bit for bit"
        verdict = f"{verdict} (cached result)" if "replay" in self.cached else verdict
        if self.simulated_file:
            file = f"{self.simulated_file}, in ONNX Runtime"
            return f"{file}, {verdict}; the NPU itself cannot be run here"
        return verdict


@dataclass(frozen=True)
class BundleWriter:
    """Compare a bundle with the reference, on one golden or by `comparison`, and write it.

    Without `replaying`, nothing is run. Results in `stage_store` are not computed again. `model`
    and `int8_programs` serve to find a wrong layer. `page_graph` is the network for the bundle's
    report page; None for no page.
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
        """Write a bundle if its artifact agrees with the reference, or cannot be run here.

        A package that a vendor toolchain compiled is always written: its log may explain errors.

        Args:
            contents: The bundle.
            plan: Its target and precision.
            out: The parent folder.
            key: Cache key of the build, to find the result of an earlier replay.

        Raises:
            Disagreement: It does not agree; nothing is written.
        """
        device, comparisons = plan.device, []

        def accept(fresh: Bundle) -> None:
            self.stages("replay", 0, 1)
            comparisons.append(self._compare(fresh, plan, key))

        # A bundle that cannot be run here is written too, with a note: a missing emulator must not
        # prevent a build.
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

            # Written as a new bundle, so that the folder is complete at any time.
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
            compared=compared.with_bundle(bundle),
            simulated_file=compared.device.simulated_file,
            cached=("replay",) if compared.is_cached else (),
        )

    def _compare(self, fresh: Bundle, plan: Plan, key: str) -> ComparedTarget:
        """Return how a bundle agrees with the reference, from the cache if it ran here before.

        Raises:
            Disagreement: It does not agree.
        """
        max_goldens = MAX_REPLAYED_GOLDENS if self.comparison is None else None
        plan = replace(plan, device=plan.device.find_simulator() or plan.device)
        key = self.stage_store.compute_replay_key(key, fresh, plan, max_goldens)
        # Outputs for the user's images are not cached.
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
            # Find the first wrong layer, if layer outputs can be read.
            layer = comparison.wrong_layer
            wrong = f"the first layer that differs is `{layer.name}`" if layer else None
            wrong = wrong or _describe_wrong_layer(fresh, plan, self.model, self.int8_programs)
            raise Disagreement(device.name, comparison.outputs, wrong)
        return comparison


def _check_tool(bundle: Bundle, device: Device) -> "ToolCheck | None":
    """Return the check of a compiled package by its tool's log; None if it is not compiled."""
    if not bundle.manifest.compiled:
        return None
    from tcc.compiler.bundle import tool_check

    return tool_check.check(bundle, device, None)


def _explain_unchecked(device: Device) -> str:
    """Return why a device's artifacts are not run here; empty if they are."""
    device = device.find_simulator() or device
    if not device.target.runs:
        return f"this machine cannot run what is built for {device.name}"
    absent = device.list_missing_run_tools()
    return f"{absent[0].name} is not installed" if absent else ""


def check_plans(
    chosen_spec: ChosenSpec, plans: Sequence[Plan], pass_options: PassOptions, out: Path
) -> Collection[str]:
    """Refuse plans that cannot be built or written here, before any work is done.

    Returns:
        Messages of the warnings for vendor toolchains.

    Raises:
        UserError: A target refuses the network, an option is for other targets, or the output path
            has something else than a bundle.
        MissingTool: A build tool is not installed.
    """
    int8_builds.refuse_unused_options(plans)
    for plan in plans:
        if missing := plan.device.list_missing_build_tools():
            raise MissingTool(missing[0])
        plan.device.fetch()
        name = bundle_folder.build_bundle_name(
            chosen_spec.spec.name, plan.device.name, plan.precision.name
        )
        atomic_files.check_folder(out / name, bundle_folder.check_overwrite)
    makers = [plan for plan in plans if plan.starts_from_float_model and plan.precision.calibrated]
    if not makers or pass_options.text is not None:  # other passes give another graph
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
    """Return the stage results of a build, from the cache if it is used."""
    # Passes that are verified must run.
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
        work: The request and the inputs of the build.
        plans: The targets, each with its precision.
        out: The parent folder of the bundles.
        warned: Messages of earlier warnings.
        replaying: Whether to run each artifact before it is written, if it can run here.
        page: Whether each bundle gets a report page.

    Returns:
        The bundles, and the agreement of several targets or over images; None for one target
        without images.

    Raises:
        UserError: A target refuses the network, or there are no images to calibrate with.
        BelowFloor: The int8 model is below the accuracy floor.
        Disagreement: An artifact does not match the reference; it is not written.
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
    """Build and write the bundles one after the other."""
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
        # Warnings that were not known before weights and calibration.
        for warning in contents.manifest.warnings:
            if warning.message not in warned:
                text = f"{warning.message}: {warning.found}; {warning.rule}"
                work.report.warn_text(text, warning.code)
        bundle = writer.write(contents, plan, out, key)
        if cached_bundle is None:
            # Only after it agreed, if it can be run here.
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
    """Return the contents of each target; the first result reports refusals of all targets."""
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
    # The size takes a second build, so it is skipped if the output would not be shown.
    offered = any(precision.full for precision in plan.device.target.precisions)
    return offered and not plan.precision.full and not (report.quiet and not report.json)


def _measure_full_size(work: Int8Build, plan: Plan) -> int | None:
    """Return the size of a target's files at full precision, in bytes.

    None if the target has no such precision, or cannot build this network at it.
    """

    def measure() -> int | None:
        from tcc.compiler import passes

        # The files are built to measure them: alignment and file structure change their size.
        device = plan.device
        full = next((precision for precision in device.target.precisions if precision.full), None)
        if full is None:
            return None
        model = Model(work.chosen_spec.spec.graph, work.weight_source.tensors)
        model = passes.run(model, device.passes(full))
        # The int8 model was accepted; the float model may need missing kernels or more memory.
        if any(device.refusals(model.graph)):
            return None
        try:
            return sum(map(len, device.emit(model, full, work.stages).files.values()))
        except UserError:
            return None

    return work.stage_store.get_size(plan.device, measure)


def _find_archive(written_bundle: WrittenBundle, plan: Plan) -> Path | None:
    """Return the calibration image file of a package: in it, or next to it."""
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
        bundle: The new bundle. Its artifact runs here and does not reproduce its goldens.
        plan: Its target and precision.
        model: The float model as written.
        int8_programs: The integer programs of the build, if it has any.
    """
    try:
        check = _check_layers(bundle, plan, model, int8_programs)
    except (UserError, MissingTool) as error:
        return f"its layers could not be compared: {str(error).splitlines()[0]}"
    if check is None or check.layers is None:
        return f"layer outputs of {plan.device.name} at {plan.precision.name} cannot be read here"
    if check.wrong_layer:
        return f"the first layer that differs is `{check.wrong_layer.name}`"
    return (
        f"all {len(check.layers)} readable layers match for the golden inputs:"
        " the difference comes from preprocessing, or from a layer that cannot be read"
    )


def _check_layers(
    bundle: Bundle, plan: Plan, model: Model, int8_programs: "Int8Programs | None"
) -> "program_check.ProgramCheck | float_check.FloatCheck | None":
    """Compare the layers; None if the precision has no reference values for them."""
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
            # Rounded weights change every layer, so layers get the tolerance of the goldens.
            allowed = bundle.manifest.goldens.tolerance.relative
            return float_check.check(bundle, plan.device, network, allowed)
        case Arithmetic.VENDOR:
            return None
        case _:
            assert_never(plan.precision.arithmetic)
