"""Checks that every backend must pass, run one by one.

A check builds a small network for one target and precision. If the target can run here, the check
runs the artifact and compares the outputs with the reference: bit-exact at exact int8 precisions,
within the tolerance of `tcc verify` otherwise. A check passes, is skipped with a reason (the
backend refuses the network), or raises AssertionError.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.installed import UnusableBackendError, check_interface
from tcc.compiler import passes
from tcc.compiler.bundle import agreement, manifest
from tcc.compiler.bundle.agreement import Agreement, compute_relative_difference
from tcc.compiler.bundle.bundle_folder import MODEL, Bundle, BundleContents, list_files
from tcc.compiler.bundle.replay import count_differences, replay_goldens
from tcc.compiler.driver import pipeline
from tcc.compiler.driver.build_plan import Int8Program
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.backend import Backend, Builder, Packager
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Graph, Input, Model
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.target import Artifact, PackageSources, Refusal
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.progress import silent
from tcc.testing.int8_models import calibrate_on_input, sample_input
from tcc.testing.nets import NetBuilder, build_dense, build_gated, build_unknown_op
from tcc.testing.op_cases import CASES, Case, build_one_input_model, sample_weights
from tcc.testing.random_steps import sample_graph

Array = NDArray[Any]
RANDOM_NETWORKS = 8
"""Number of random networks that are built at each exact int8 precision."""
CLOCK_STEP = 2.1
"""Seconds between two builds that must have equal bytes: archives store times in steps of 2 s."""
SPEC = """\
tcc: 1
name: conformance
input:
  image:
    shape: [3, 16, 16]
    preprocess:
      resize: {size: [16, 16]}
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
graph:
  - conv: {filters: 8, kernel: 3, padding: 1}
  - relu
  - max_pool: {kernel: 2}
  - conv: {filters: 6, kernel: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 4}
output:
  logits: {activation: softmax, labels: [a, b, c, d]}
"""
IMAGE_SIZES = ((16, 16), (16, 23), (41, 29), (7, 5), (1, 1))


class SkipCheck(Exception):  # noqa: N818 - as pytest's
    """A check does not apply; the text gives the reason."""


def _require(condition: object, reason: str) -> None:
    """Raise AssertionError with a reason if a condition is false; `python -O` removes `assert`."""
    if not condition:
        raise AssertionError(reason)


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a backend.

    Calling it returns nothing if the backend passes. It raises SkipCheck with the reason if the
    check does not apply, and AssertionError with the fault if the backend fails.
    """

    name: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Run the check."""
        self.run()


@dataclass(frozen=True, slots=True)
class Report:
    """Names of the checks that passed and of those that were skipped, with the reasons."""

    passed: tuple[str, ...]
    skipped: Mapping[str, str]

    def __str__(self) -> str:
        """Return a line of counts, then each skipped check with its reason."""
        head = f"{len(self.passed)} checks passed, {len(self.skipped)} skipped"
        return "\n".join([head, *(f"{name}: {reason}" for name, reason in self.skipped.items())])


class ConformanceError(AssertionError):
    """A backend fails checks; `failures` has the messages by the names of the checks."""

    def __init__(self, failures: Mapping[str, str], report: Report) -> None:
        lines = [f"{name}: {message}" for name, message in failures.items()]
        remainder = [f"... and {len(lines) - 30} more"] if len(lines) > 30 else []
        count = len(lines) + len(report.passed)
        head = f"{len(lines)} of {count} checks fail:"
        super().__init__("\n".join([head, *lines[:30], *remainder]))
        self.failures, self.report = dict(failures), report


def check_backend(
    backend: Backend,
    *,
    ops: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
) -> Report:
    """Run every check of a backend.

    Args:
        backend: The backend object that an entry point of `tcc.targets` names.
        ops: Names of ops, such as `conv`: run only their cases. None runs all ops.
        precisions: Names of precisions: run only these. None runs all.

    Returns:
        The checks that passed and the skipped ones with their reasons.

    Raises:
        ConformanceError: Some checks fail; the text lists them.
        ValueError: There is no such op or precision.
    """
    passed: list[str] = []
    skipped: dict[str, str] = {}
    failures: dict[str, str] = {}
    for check in list_checks(backend, ops=ops, precisions=precisions):
        try:
            check()
        except SkipCheck as reason:
            skipped[check.name] = str(reason)
        except AssertionError as error:
            failures[check.name] = str(error)
        else:
            passed.append(check.name)
    report = Report(tuple(passed), skipped)
    if failures:
        raise ConformanceError(failures, report)
    return report


def list_checks(
    backend: Backend,
    *,
    ops: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
) -> list[Check]:
    """Return the checks of a backend in the order of `check_backend`."""
    cases = {name: case for name, case in CASES.items() if ops is None or case.op.keyword in ops}
    _refuse_unknown("op", ops, {case.op.keyword for case in CASES.values()})
    targets = getattr(backend, "targets", ())
    offered = {precision.name for target in targets for precision in target.precisions}
    _refuse_unknown("precision", precisions, offered)
    checks = [Check("interface", _wrap_errors(partial(_check_interface, backend)))]
    for target in targets:
        for precision in target.precisions:
            if precisions is None or precision.name in precisions:
                plan = Plan(Device(backend, target), precision, compiles=False)
                checks += _list_plan_checks(plan, cases, includes_networks=ops is None)
    return checks


def _refuse_unknown(kind: str, names: Collection[str] | None, valid_names: Collection[str]) -> None:
    if unknown := sorted(set(names or ()) - set(valid_names)):
        raise ValueError(
            f"there is no {kind} `{unknown[0]}`; known: {', '.join(sorted(valid_names))}"
        )


def _wrap_errors(run: Callable[[], None]) -> Callable[[], None]:
    """Turn any exception of a backend's code into a failure of the check."""

    def run_guarded() -> None:
        try:
            run()
        except (AssertionError, SkipCheck):
            raise
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}"[:2000]) from error

    return run_guarded


def _list_plan_checks(
    plan: Plan, cases: Mapping[str, Case], *, includes_networks: bool
) -> Iterator[Check]:
    builds = _BuildChecks(plan)
    checks: dict[str, Callable[[], None]] = {"tools": builds.check_tools}
    checks |= {f"op-{name}": partial(builds.check_case, case) for name, case in cases.items()}
    checks["some-op-runs"] = partial(builds.check_some_case_runs, cases)
    if includes_networks:
        checks |= {
            "unknown-op": builds.check_unknown_op,
            "network-dense": partial(builds.check_graph, build_dense()),
            "network-gated": partial(builds.check_graph, build_gated()),
            "same-bytes": builds.check_same_bytes,
            "replay": builds.check_replay,
            "planted-fault": builds.check_planted_fault,
            "preprocessing": builds.check_preprocessing,
        }
    if includes_networks and plan.precision.exact:
        checks |= {"rounding": builds.check_rounding, "saturation": builds.check_saturation}
        checks |= {
            f"random-{seed}": partial(builds.check_random, seed) for seed in range(RANDOM_NETWORKS)
        }
    prefix = f"{plan.device.name}-{plan.precision.name}"
    yield from (Check(f"{prefix}-{name}", _wrap_errors(run)) for name, run in checks.items())


def _check_interface(backend: Backend) -> None:
    try:
        check_interface(backend, frozenset())
    except UnusableBackendError as error:
        raise AssertionError(str(error)) from error
    for target in backend.targets:
        names = [precision.name for precision in target.precisions]
        _require(len(names) == len(set(names)), f"{target.name} has a precision twice: {names}")


@dataclass(frozen=True)
class _LoweredNetwork:
    """A network, its float model for the target, and its int8 program."""

    source_model: Model
    float_model: Model | None
    program: Model | None

    @property
    def start(self) -> Model:
        """The model that the target's artifact is emitted from."""
        model = self.float_model or self.program
        assert model is not None
        return model

    @property
    def source(self) -> Input:
        """The input of the artifact."""
        return (self.program or self.source_model).graph.inputs[0]


@dataclass
class _BuildChecks:
    """The checks of one target at one precision."""

    plan: Plan
    _accepted: set[type[Op]] | None = field(default=None, init=False)

    @property
    def device(self) -> Device:
        return self.plan.device

    def check_tools(self) -> None:
        missing = [*self.device.list_missing_build_tools(), *self.device.list_missing_run_tools()]
        names = ", ".join(f"{tool.name} ({tool.install})" for tool in missing)
        _require(not missing, f"tools of {self.device.name} are missing; install them: {names}")

    def check_case(self, case: Case) -> None:
        self._check_model(build_one_input_model(case), 4.0)

    def check_graph(self, graph: Graph) -> None:
        self._check_model(Model(graph, sample_weights(graph)))

    def check_some_case_runs(self, cases: Mapping[str, Case]) -> None:
        _require(
            self._find_accepted(cases),
            (
                f"{self.device.name} refuses all {len(cases)} op cases at "
                f"{self.plan.precision.name}, so nothing was checked"
            ),
        )

    def check_unknown_op(self) -> None:
        """An op without a rule is refused, or built with the right outputs.

        Any other exception and wrong outputs fail.
        """
        self.check_graph(build_unknown_op())

    def check_random(self, seed: int) -> None:
        accepted = self._find_accepted(CASES)
        graph, weights = sample_graph(seed, steps=8, accepts=lambda op: type(op) in accepted)
        self._check_model(Model(graph, weights))

    def check_rounding(self) -> None:
        """Sums half way between two integers round to the even one."""
        self._check_requantization(range(1, 8))

    def check_saturation(self) -> None:
        """Sums beyond the range clip to its limits."""
        self._check_requantization(range(-3, 1))

    def _check_requantization(self, shifts: Sequence[int]) -> None:
        """Compare a convolution that divides its integer sums by powers of two.

        The scales of the input and of the sums are 1. The factor of a filter is therefore 2 **
        -shift, and each 2 ** shift-th sum is a tie. The last layer of a program may give real
        numbers, so another convolution reads the quantized values.
        """
        channels = 2 * len(shifts)
        steps = NetBuilder(2, 24, 24)
        steps("sums", Conv(channels, (1, 1)))
        steps("levels", Relu())
        steps("read", Conv(channels, (3, 3), padding=1, groups=channels))
        graph = steps.build()
        factors = np.array([2.0**-shift for shift in shifts] * 2, np.float32)
        weights = {name: np.zeros_like(w) for name, w in sample_weights(graph).items()}
        weights["sums.weight"][:, 0, 0, 0] = 127 * factors
        weights["sums.weight"][:, 1, 0, 0] = factors * np.arange(-channels, channels, 2)
        weights["read.weight"][:, :, 1, 1] = 1
        lowered_model = passes.run(Model(graph, weights), passes.INT8)
        limits = dict.fromkeys(list_unfused_values(lowered_model.graph), (0.0, 255.0))
        limits[graph.inputs[0].name] = (-127.0, 127.0)
        program = self._quantize(lowered_model, compute_minmax_ranges(lowered_model, limits))
        tensor = np.random.default_rng(0).integers(-127, 128, (2, 24, 24)).astype(np.float32)
        float_model = self._lower_floats(Model(graph, weights))
        self._compare(_LoweredNetwork(Model(graph, weights), float_model, program), [tensor])

    def check_same_bytes(self) -> None:
        contents = self._build_conformance()
        time.sleep(CLOCK_STEP)  # a time stamp in a file would now differ
        rebuilt = self._build_conformance()
        paths = contents.files.keys() | rebuilt.files.keys()
        differing = sorted(p for p in paths if contents.files.get(p) != rebuilt.files.get(p))
        _require(
            not differing,
            (
                f"two builds of the same network differ in {', '.join(differing)}: remove time "
                "stamps and random values"
            ),
        )

    def check_replay(self) -> None:
        disagreeing = self._replay(self._build_conformance())
        _require(
            not disagreeing, f"the artifact does not reproduce its golden outputs: {disagreeing}"
        )

    def check_planted_fault(self) -> None:
        """An artifact with other weights must not reproduce the goldens of the true weights."""
        contents, wrong_contents = self._build_conformance(), self._build_conformance(-1.0)
        forged_manifest = replace(contents.manifest, files=wrong_contents.manifest.files)
        artifact = {
            p: content for p, content in wrong_contents.files.items() if p.startswith(f"{MODEL}/")
        }
        true_files = {
            p: content for p, content in contents.files.items() if not p.startswith(f"{MODEL}/")
        }
        files = true_files | artifact
        executable = frozenset(
            file.path for file in wrong_contents.manifest.files if file.executable
        )
        forged_manifest = manifest.seal_manifest(
            replace(forged_manifest, files=list_files(files, executable))
        )
        forged = replace(contents, manifest=forged_manifest, files=files)
        _require(
            self._replay(forged),
            (
                "an artifact with other weights reproduces the golden outputs of the true "
                "weights: `infer` does not use the files in its folder"
            ),
        )

    def check_preprocessing(self) -> None:
        """Images of any size, and black and white ones, are preprocessed as the bundle states."""
        self._require_runs()
        contents = self._build_conformance()
        lowered = self._conformance[1.0][2]
        random = np.random.default_rng(1)
        images = [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in IMAGE_SIZES]
        images += [np.full((16, 16, 3), level, np.uint8) for level in (0, 255)]
        source = lowered.source
        assert source.preprocess is not None
        channels, height, width = source.type.shape
        shape = channels, height, width
        tensors = [preprocess.apply(source.preprocess, image, shape) for image in images]
        with atomic_files.create_scratch_folder() as folder:
            bundle = _write_bundle(contents, folder)
            outputs = self.device.run(bundle.model, source, images)
        self._check_outputs(lowered, tensors, outputs)

    @cached_property
    def _conformance(self) -> "dict[float, tuple[Spec, Int8Program | None, _LoweredNetwork]]":
        return {}

    def _build_conformance(self, sign: float = 1.0) -> BundleContents:
        """Return the bundle of the network of `SPEC`, with its weights multiplied by `sign`."""
        if sign not in self._conformance:
            self._conformance[sign] = self._lower_conformance(sign)
        spec, int8, lowered = self._conformance[sign]
        weight_source = pipeline.create_random_weights(spec.graph, 0)
        weight_source = replace(weight_source, tensors=lowered.source_model.weights)
        programs = {self.plan.precision.float_io: int8} if int8 else None
        try:
            (contents,) = pipeline.build(spec, weight_source, [self.plan], silent, programs)
        except UserError as error:
            raise SkipCheck(str(error).splitlines()[0]) from error
        return contents

    def _lower_conformance(self, sign: float) -> "tuple[Spec, Int8Program | None, _LoweredNetwork]":
        with atomic_files.create_scratch_folder() as folder:
            path = folder / "conformance.yaml"
            path.write_text(SPEC)
            spec = load(path)
        weights = {name: w * np.float32(sign) for name, w in sample_weights(spec.graph).items()}
        lowered = self._lower(Model(spec.graph, weights))
        self._refuse(lowered)
        if not self.plan.precision.calibrated:
            return spec, None, lowered
        if self.device.packager:
            raise SkipCheck("packages need images of the user")
        program = lowered.program or self._quantize_observed(lowered.source_model)
        inexact = tuple(integer_program.find_inexact_nodes(program.graph))
        calibrated_record = manifest.Calibrated("minmax", "0" * 64, "0" * 64, 1, None, (), inexact)
        return spec, Int8Program(lambda: program, calibrated_record, {}), lowered

    def _replay(self, contents: BundleContents) -> str:
        """Return what differs when a bundle's goldens are replayed; empty if nothing does."""
        self._require_runs()
        with atomic_files.create_scratch_folder() as folder:
            try:
                replayed = replay_goldens(_write_bundle(contents, folder), self.device)
            except UserError as error:
                return str(error)
        return "; ".join(
            (
                f"output {comparison.output} of golden {comparison.golden} differs in "
                f"{comparison.differing} of {comparison.values} values, by at most "
                f"{comparison.largest:.3g}"
            )
            for comparison in replayed.agreement
            if not comparison.holds
        )

    def _require_runs(self) -> None:
        if not self.device.target.runs:
            raise SkipCheck(f"this machine cannot run what is built for {self.device.name}")

    def _check_model(self, model: Model, spread: float = 1.0) -> None:
        lowered = self._lower(model)
        graph = Graph("input", (lowered.source,), (), ())
        tensors = [sample_input(graph, seed) * np.float32(spread) for seed in (1, 2)]
        self._compare(lowered, tensors)

    def _compare(self, lowered: _LoweredNetwork, tensors: Sequence[Array]) -> None:
        """Build a network and compare its outputs with the reference."""
        self._refuse(lowered)
        artifact = self._emit(lowered)
        _require(artifact.files, "the artifact has no files: `emit` must return at least one")
        self._require_runs()
        with atomic_files.create_scratch_folder() as folder:
            _write_files(folder, artifact.files, artifact.executable)
            outputs = self.device.infer(folder, lowered.source, tensors)
        self._check_outputs(lowered, tensors, outputs)

    def _check_outputs(
        self,
        lowered: _LoweredNetwork,
        tensors: Sequence[Array],
        outputs: Sequence[Mapping[str, Array]],
    ) -> None:
        _require(
            len(outputs) == len(tensors),
            f"`infer` returned {len(outputs)} results for {len(tensors)} inputs",
        )
        if lowered.program and self.plan.precision.integer:
            expected = integer_program.run(lowered.program, tensors)
            graph = lowered.program.graph
            layers, float_reach = (
                integer_program.find_inexact_nodes(graph),
                integer_program.compute_float_reach(graph),
            )
            allowed = agreement.get_tolerance(self.plan.precision, layers, float_reach).relative
        else:
            expected = float_program.run(lowered.source_model, tensors)
            allowed = agreement.get_tolerance(self.plan.precision).relative
        for expected_outputs, answer in zip(expected, outputs, strict=True):
            _require(
                expected_outputs.keys() == answer.keys(),
                (f"the outputs are named {sorted(answer)}, expected {sorted(expected_outputs)}"),
            )
            for name, expected_output in expected_outputs.items():
                _compare_output(
                    name, np.asarray(expected_output, np.float32), answer[name], allowed
                )

    def _emit(self, lowered: _LoweredNetwork) -> Artifact:
        backend, precision = self.device.backend, self.plan.precision
        if isinstance(backend, Packager):
            program = lowered.program or self._quantize_observed(lowered.source_model)
            shape = lowered.start.graph.inputs[0].type.shape
            tensor = np.zeros(shape, np.float32)
            sources = PackageSources(
                lowered.start, program, lambda: iter([tensor]), (tensor,), "case", compiles=False
            )
            return backend.build_package(self.device.target, sources, precision)
        assert isinstance(backend, Builder)
        return backend.emit(self.device.target, lowered.start, precision)

    def _refuse(self, lowered: _LoweredNetwork) -> None:
        """Skip a network that the target refuses; a refusal must have a node and a reason."""
        graphs = [model.graph for model in (lowered.float_model, lowered.program) if model]
        refusals: list[Refusal] = []
        for graph in graphs:
            for refusal in self.device.refusals(graph):
                _require(
                    isinstance(refusal, Refusal),
                    f"`refusals` returned {refusal!r}, which is not a Refusal",
                )
                name = refusal.node.name
                _require(
                    any(node.name == name for node in graph.nodes),
                    f"a refusal has the node `{name}`, which is not in the graph",
                )
                _require(refusal.reason.strip(), f"the refusal of `{name}` has no reason")
                refusals.append(refusal)
        if refusals:
            diagnostic = pipeline.describe_refusal(self.device, refusals[0])
            raise SkipCheck(f"refused, {diagnostic.code}: {refusals[0].reason}")

    def _find_accepted(self, cases: Mapping[str, Case]) -> set[type[Op]]:
        """Return the ops with at least one case that the target accepts."""
        if self._accepted is None:
            self._accepted = set()
            for case in cases.values():
                try:
                    self._refuse(self._lower(build_one_input_model(case)))
                except SkipCheck:
                    continue
                self._accepted.add(type(case.op))
        return self._accepted

    def _lower(self, model: Model) -> _LoweredNetwork:
        program = self._quantize_observed(model) if self.plan.precision.integer else None
        return _LoweredNetwork(model, self._lower_floats(model), program)

    def _lower_floats(self, model: Model) -> Model | None:
        if not self.plan.starts_from_float_model:
            return None
        return passes.run(model, self.device.passes(self.plan.precision))

    def _quantize_observed(self, model: Model) -> Model:
        """Return the int8 program with narrowed ranges of one input: some values clip."""
        lowered_model = passes.run(model, passes.INT8)
        return self._quantize(
            lowered_model,
            calibrate_on_input(lowered_model, sample_input(lowered_model.graph), 0.8).ranges,
        )

    def _quantize(self, lowered_model: Model, ranges: Any) -> Model:
        return quantize(lowered_model, Calibration(ranges, float_io=self.plan.precision.float_io))


def _write_files(folder: Path, files: Mapping[str, bytes], executable: Collection[str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name in executable else 0o644)


def _write_bundle(contents: BundleContents, folder: Path) -> Bundle:
    """Write a bundle to a scratch folder. It was built here, so it may run."""
    bundle_path = folder / contents.name
    executable = frozenset(file.path for file in contents.manifest.files if file.executable)
    files = {**contents.files, manifest.NAME: manifest.encode(contents.manifest)}
    _write_files(bundle_path, files, executable)
    return Bundle(bundle_path, contents.manifest, trusted=True)


def _compare_output(name: str, expected: Array, answer: object, allowed: float) -> None:
    if not isinstance(answer, np.ndarray):
        raise AssertionError(f"output {name} is of type {type(answer).__name__}, not a numpy array")  # noqa: TRY004 - a check fails
    _require(answer.dtype == np.float32, f"output {name} has dtype {answer.dtype}, not float32")
    _require(
        answer.shape == expected.shape,
        f"output {name} has shape {answer.shape}, not {expected.shape}",
    )
    differing, largest = count_differences(
        expected.reshape(-1), np.ascontiguousarray(answer).reshape(-1)
    )
    max_magnitude = float(np.abs(expected).max(initial=0.0))
    relative_error = compute_relative_difference(largest, max_magnitude, allowed)
    comparison = Agreement(
        "", name, relative_error, allowed, expected.size, differing, largest, max_magnitude
    )
    bound = f"{allowed:g} of its largest value is allowed" if allowed else "it must be bit-exact"
    _require(
        comparison.holds,
        (
            f"output {name} differs from the reference in {differing} of {expected.size} "
            f"values, by at most {largest:.3g}; {bound}"
        ),
    )
