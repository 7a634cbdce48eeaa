"""The conformance kit: the targets of tcc pass it, and each planted fault is caught."""

import itertools
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.backends.onnxruntime.precisions import FP16, INT8, INT8_QDQ
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.target import Artifact, Refusal, Target
from tcc.compiler.ops import Conv, Relu
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.testing import ConformanceError, check_backend, list_checks


@dataclass(frozen=True)
class Wrapped:
    """ONNX Runtime's target. The subclasses below add one fault each."""

    inner = OnnxRuntime()

    @property
    def targets(self):
        (target,) = self.inner.targets
        return (replace(target, name="faulty", aliases=(), precisions=(FP32, INT8)),)

    def passes(self, precision):
        return self.inner.passes(precision)

    def refusals(self, target, graph):
        return self.inner.refusals(target, graph)

    def emit(self, target, model, precision=FP32, progress=None):
        return self.inner.emit(target, model, precision)

    def infer(self, target, folder, source, tensors):
        return self.inner.infer(target, folder, source, tensors)


def catch_failures(backend, **options):
    with pytest.raises(ConformanceError) as caught:
        check_backend(backend, **options)
    return caught.value.failures


def find_failing_checks(backend, *names):
    """Return the names of the checks that fail."""
    failed_checks = set()
    for check in list_checks(backend):
        if check.name.removeprefix("faulty-") in names:
            try:
                check()
            except AssertionError:
                failed_checks.add(check.name.removeprefix("faulty-"))
    return failed_checks


CHECK_NAMES = ("fp32-replay", "fp32-planted-fault", "fp32-preprocessing", "int8-replay", "int8-rounding",
         "int8-saturation", "int8-random-0", "int8-op-conv", "fp32-op-conv", "fp32-unknown-op")  # fmt: skip


def test_a_correct_backend_passes_all_checks():
    names = {check.name.removeprefix("faulty-") for check in list_checks(Wrapped())}
    assert names >= set(CHECK_NAMES)
    passing = [name for name in CHECK_NAMES if name != "fp32-unknown-op"]
    assert find_failing_checks(Wrapped(), *passing, "fp32-same-bytes", "int8-op-avg_pool") == set()


def test_skipped_checks_are_reported_with_the_reason():
    report = check_backend(RefusesConv(), ops=["conv", "relu"], precisions=["fp32"])
    assert report.skipped["faulty-fp32-op-conv"] == "refused, E0607: no products here"
    assert "faulty-fp32-op-relu" in report.passed
    head = f"{len(report.passed)} checks passed, {len(report.skipped)} skipped"
    assert str(report).splitlines()[0] == head


class RefusesConv(Wrapped):
    def refusals(self, target, graph):
        return [Refusal(n, "no products here") for n in graph.nodes if isinstance(n.op, Conv)]


class OffByOne(Wrapped):
    """One integer weight of each convolution is off by one."""

    def emit(self, target, model, precision=FP32, progress=None):
        weights = dict(model.weights)
        for node in model.graph.nodes:
            if isinstance(node.op, QConv | RealConv):
                name = node.params[0]
                weights[name] = weights[name].copy()
                weights[name].flat[0] += 1 if weights[name].flat[0] < 0 else -1
        return super().emit(target, Model(model.graph, weights), precision)


def test_an_op_off_by_one_is_caught():
    assert find_failing_checks(OffByOne(), "int8-op-conv", "int8-op-relu") == {"int8-op-conv"}


class HalfUpProgram(Wrapped):
    """Adds a little to the sums of each integer convolution, so that ties round up."""

    def emit(self, target, model, precision=FP32, progress=None):
        weights = dict(model.weights)
        for node in model.graph.nodes:
            if isinstance(node.op, QConv):
                factor = node.params[1]
                weights[factor] = np.nextafter(weights[factor], np.float32(np.inf))
        return super().emit(target, Model(model.graph, weights), precision)


def test_rounding_ties_up_is_caught_by_tie_inputs():
    names = ("int8-rounding", "int8-op-relu", "int8-op-max_pool")
    assert find_failing_checks(HalfUpProgram(), *names) == {"int8-rounding"}


class NoClamp(Wrapped):
    """Wraps out-of-range values, like a cast without saturation."""

    def infer(self, target, folder, source, tensors):
        outputs = super().infer(target, folder, source, tensors)
        return [
            {k: np.where(y >= 255, y - 256, y).astype(np.float32) for k, y in named_outputs.items()}
            for named_outputs in outputs
        ]


def test_a_cast_that_wraps_is_caught():
    assert find_failing_checks(NoClamp(), "int8-saturation", "int8-op-relu") == {"int8-saturation"}


class RefusesAll(Wrapped):
    def refusals(self, target, graph):
        return [Refusal(node, "not today") for node in graph.nodes]


def test_a_backend_that_refuses_every_op_fails():
    failed_checks = catch_failures(RefusesAll(), ops=["relu"])
    assert set(failed_checks) == {"faulty-fp32-some-op-runs", "faulty-int8-some-op-runs"}
    assert "faulty refuses all " in failed_checks["faulty-fp32-some-op-runs"]


class Counts(Wrapped):
    counter = itertools.count()

    def emit(self, target, model, precision=FP32, progress=None):
        artifact = super().emit(target, model, precision)
        return Artifact({**artifact.files, "build.txt": str(next(self.counter)).encode()})


def test_non_reproducible_bytes_are_caught():
    names = ("fp32-same-bytes", "fp32-replay", "fp32-op-relu")
    assert find_failing_checks(Counts(), *names) == {"fp32-same-bytes"}


class HalfWeights(Wrapped):
    """Declares fp32 and stores float16."""

    def emit(self, target, model, precision=FP32, progress=None):
        return super().emit(target, model, FP16 if precision is FP32 else precision)


class SimulatedIntegers(Wrapped):
    """Declares exact integers and computes in float between them."""

    def emit(self, target, model, precision=FP32, progress=None):
        return super().emit(target, model, INT8_QDQ if precision is INT8 else precision)


def test_a_wrong_declared_precision_is_caught():
    assert find_failing_checks(HalfWeights(), "fp32-op-conv", "fp32-op-relu") == {"fp32-op-conv"}
    assert find_failing_checks(SimulatedIntegers(), "int8-replay", "int8-op-relu") == {
        "int8-replay"
    }


class Remembers(Wrapped):
    """Answers from the first artifact of each shape, whatever is in the folder."""

    def __init__(self):
        object.__setattr__(self, "first", {})

    def infer(self, target, folder, source, tensors):
        key = tuple(t.tobytes() for t in tensors)
        if key not in self.first:
            self.first[key] = super().infer(target, folder, source, tensors)
        return self.first[key]


def test_outputs_not_computed_from_the_artifact_are_caught():
    names = ("fp32-replay", "fp32-planted-fault")
    assert find_failing_checks(Remembers(), *names) == {"fp32-planted-fault"}


class FallsThrough(Wrapped):
    """Has no rule for relu and does not refuse it."""

    def emit(self, target, model, precision=FP32, progress=None):
        if any(isinstance(node.op, Relu) for node in model.graph.nodes):
            raise KeyError("relu")
        return super().emit(target, model, precision)


class SaysNothing(Wrapped):
    def refusals(self, target, graph):
        return [Refusal(node, " ") for node in graph.nodes if isinstance(node.op, Relu)]


def test_unsupported_ops_without_a_refusal_are_caught():
    assert catch_failures(FallsThrough(), ops=["relu"])["faulty-fp32-op-relu"] == "KeyError: 'relu'"
    message = catch_failures(SaysNothing(), ops=["relu"], precisions=["fp32"])[
        "faulty-fp32-op-relu"
    ]
    assert message == "the refusal of `op` has no reason"


class NoTargets:
    targets: ClassVar = [Target("listed", "a list", (FP32,))]


def test_an_object_that_is_no_backend_fails():
    assert "is not a tuple of Target objects" in catch_failures(NoTargets())["interface"]


def test_unknown_op_and_precision_names_are_refused():
    with pytest.raises(ValueError, match="there is no op `convolution`; known: "):
        list_checks(Wrapped(), ops=["convolution"])
    with pytest.raises(ValueError, match="there is no precision `int4`; known: fp32, int8"):
        list_checks(Wrapped(), precisions=["int4"])


def test_the_ops_argument_limits_the_cases():
    names = [check.name for check in list_checks(Wrapped(), ops=["relu"], precisions=["fp32"])]
    assert names == [
        "interface", "faulty-fp32-tools", "faulty-fp32-op-relu", "faulty-fp32-op-relu-vector",
        "faulty-fp32-some-op-runs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "precisions",
    [
        ["fp32", "int8"],
        pytest.param(["fp16", "dynamic", "int8-i8"], marks=pytest.mark.slow),
        pytest.param(["int8-u8u8", "int8-qdq"], marks=pytest.mark.slow),
    ],
)
def test_onnxruntime_conforms(precisions):
    assert len(check_backend(OnnxRuntime(), precisions=precisions).passed) > 350


@pytest.mark.slow
def test_tflite_conforms():
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    from tcc.backends.tflite.backend import TfLite

    report = check_backend(TfLite())
    assert len(report.passed) > 1000


PLUGIN_TEST = """
import pytest
from tcc.backends.onnxruntime.backend import OnnxRuntime


@pytest.mark.tcc_backend(OnnxRuntime(), ops=["relu"], precisions=["fp32"])
def test_target(tcc_check):
    tcc_check()
"""


def run_pytest(folder, text, *arguments):
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tcc_pytest", "-p", "no:cacheprovider", "-v"]
    return subprocess.run(
        [*command, "--strict-markers", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pytest_plugin_makes_a_test_per_check(tmp_path):
    completed = run_pytest(tmp_path, PLUGIN_TEST)
    assert completed.returncode == 0, completed.stdout
    assert "test_it.py::test_target[onnxruntime-fp32-op-relu-vector] PASSED" in completed.stdout
    assert "5 passed" in completed.stdout


def test_the_pytest_plugin_requires_a_backend(tmp_path):
    completed = run_pytest(tmp_path, "def test_target(tcc_check):\n    tcc_check()\n")
    assert completed.returncode != 0
    assert "mark it with @pytest.mark.tcc_backend(BACKEND)" in completed.stdout + completed.stderr


def test_the_pytest_plugin_loads_nothing_when_unused(tmp_path):
    text = (
        "import sys\n\n\ndef test_others():\n    assert not {'tcc', 'numpy'} & set(sys.modules)\n"
    )
    completed = run_pytest(tmp_path, text)
    assert completed.returncode == 0, completed.stdout


HOST = ("op-conv", "replay", "planted-fault", "preprocessing", "rounding", "saturation", "random-0")


@pytest.mark.slow
def test_programs_for_this_machine_conform():
    """The program does its own preprocessing. tests/backends/arm compares all its op cases."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    from tcc.backends.arm.backend import Arm

    names = {f"host-int8-{name}" for name in HOST}
    checks = [check for check in list_checks(Arm(), precisions=["int8"]) if check.name in names]
    assert len(checks) == len(names)
    for check in checks:
        check()
