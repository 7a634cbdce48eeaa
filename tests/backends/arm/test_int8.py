"""The integer program as ARM kernels: each step matches the reference executor."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arm_calls import BrokenCallError, call_program
from arm_int8 import (
    build_random_program,
    count_differences,
    find_differing_steps,
    find_exact_values,
    run_artifact_layers,
)
from arm_steps import Array, Library, compile_library
from float_kernels import force_kernels
from tables import looped

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.compile_model import describe_step
from tcc.backends.arm.kernels.base import KernelCall, KernelWeights, Scratch, Space
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import Depthwise, FloatDepthwise, FloatMatrix, Matrix
from tcc.backends.arm.micro.winograd import Winograd
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.types import DType
from tcc.compiler.ops import Concat, Conv, Flatten, GlobalAvgPool, Linear, MaxPool, Relu, Silu
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import (
    build_int8_model,
    calibrate_on_input,
    lower_for_int8,
    sample_input,
)
from tcc.testing.nets import NetBuilder, build_chain, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

BY_NAME = {m.target.name: m for m in MACHINES}
HOST = BY_NAME["host"]
MICRO = force_kernels(HOST, "matrix", "channel_matrix", "vector", "depthwise")
"""This machine, with micro-kernels wherever supported."""
GRAPHS = (build_dense(), build_gated(), build_chain(30))
MODELS = {
    **{graph.name: build_int8_model(graph, sample_weights(graph)) for graph in GRAPHS},
    **{f"random-{seed}": build_random_program(seed) for seed in range(8)},
    # A pool of quantized values with the exponential of a float layer: twice the lanes.
    "random-770033": build_random_program(770033),
    # A float pool with disjoint windows, after quantized values.
    "random-2109": build_random_program(2109),
}
EMULATED = ("arm-a7",)
slow_targets = (
    pytest.param(name, marks=pytest.mark.slow) for name in ("arm-a53", "arm-a72", "arm-a76")
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, dict[str, Program]]:
    """The kernels of all models in one library, with loops in three parts."""
    folder = tmp_path_factory.mktemp("kernels")
    compiled, programs = compile_library(list(MODELS.values()), MICRO, folder, tasks=3)
    return compiled, dict(zip(MODELS, programs, strict=True))


@looped({name: name for name in MODELS})
def test_every_step_matches_the_reference(
    case: str, built: tuple[Library, dict[str, Program]]
) -> None:
    compiled, programs = built
    assert not find_differing_steps(compiled, programs[case], MODELS[case], seed=1)


def test_plain_loops_compute_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows or sums may be too large for micro-kernels: here no core has any."""
    monkeypatch.setitem(CORES, HOST.core, ())
    some = [MODELS["gated"], MODELS["random-3"]]
    compiled, programs = compile_library(some, HOST, tmp_path)
    kernels = [kernel for program in programs for kernel in program.kernels]
    assert not any(kernel.micro_kernels for kernel in kernels)
    for model, program in zip(some, programs, strict=True):
        assert not find_differing_steps(compiled, program, model)


def test_each_layer_names_its_kernel(built: tuple[Library, dict[str, Program]]) -> None:
    _, programs = built
    matrix = next(kernel.name for kernel in CORES[HOST.core] if isinstance(kernel, Matrix))
    depthwise = next(kernel.name for kernel in CORES[HOST.core] if isinstance(kernel, Depthwise))
    kernel_names = {describe_step(step) for step in programs["dense"].steps}
    assert kernel_names == {
        f"matrix in {matrix}", "vector in vector", f"depthwise in {depthwise}", "map", "global_pool",
    }  # fmt: skip


def test_test_models_cover_every_kind_of_step() -> None:
    """No random graph is all float, and together they contain every kind of step."""
    graphs = [model.graph for model in MODELS.values()]
    assert all(find_exact_values(graph) for graph in graphs)
    op_names = {node.op.keyword for graph in graphs for node in graph.nodes}
    assert op_names >= {
        "qconv",
        "real_conv",
        "qavg_pool",
        "qadd",
        "qmul",
        "table",
        "qpad",
        "concat",
    }


def test_a_wrong_weight_is_detected(built: tuple[Library, dict[str, Program]]) -> None:
    compiled, programs = built
    model = MODELS["dense"]
    name = next(n for n in model.weights if n.endswith(".weight"))
    rolled_weights = {**model.weights, name: np.roll(model.weights[name], 1, axis=0)}
    assert find_differing_steps(compiled, programs["dense"], Model(model.graph, rolled_weights))


@pytest.mark.parametrize("name", [*EMULATED, *slow_targets])
def test_every_step_matches_the_reference_under_qemu(name: str, tmp_path: Path) -> None:
    machine = force_kernels(BY_NAME[name], "matrix", "vector", "depthwise")
    if not machine.native and shutil.which(machine.qemu) is None:
        pytest.skip(f"needs {machine.qemu}: apt-get install qemu-user")
    models = [MODELS["gated"], MODELS["random-3"]]
    calls, plans = call_program(models, machine, tmp_path, tasks=2)
    for model, plan in zip(models, plans, strict=True):
        differences = count_differences(
            model, 2, lambda reference_values, p=plan: calls.results(p, reference_values)
        )
        assert set(differences.values()) == {0}


@pytest.mark.slow
def test_c_kernels_pass_the_sanitizers(tmp_path: Path) -> None:
    """The C code has no out-of-bounds access and no undefined behavior."""
    gcc = shutil.which("gcc")
    if gcc is None or HOST.arch != "x86_64":
        pytest.skip("needs gcc on an x86-64 machine")
    check = "-fsanitize=address,undefined"
    checked = (gcc, "-O1", "-g", "-march=x86-64-v2", check, "-fno-sanitize-recover=all", "-w")
    models = [MODELS["gated"], MODELS["random-3"], MODELS["random-6"]]
    calls, plans = call_program(models, MICRO, tmp_path, 2, checked)
    called = {micro for plan in plans for k in plan.kernels for micro in k.micro_kernels}
    floats = (FloatDepthwise, FloatMatrix, Winograd)
    assert called == {micro for micro in CORES[HOST.core] if not isinstance(micro, floats)}
    for model, plan in zip(models, plans, strict=True):
        differences = count_differences(
            model, 2, lambda reference_values, p=plan: calls.results(p, reference_values)
        )
        assert set(differences.values()) == {0}


def test_reads_out_of_bounds_are_detected(tmp_path: Path) -> None:
    """Tests the test setup: a missing weight is unreadable memory."""
    model = MODELS["dense"]
    calls, (plan,) = call_program([model], HOST, tmp_path)

    def halve_argument(argument: object) -> object:
        match argument:
            case KernelWeights(data) if data.size >= 64:
                return KernelWeights(data.ravel()[: data.size // 2])
            case Scratch(space):
                return Scratch(Space(space.elements // 2, space.dtype))
            case _:
                return argument

    def shrink_step(step: object) -> object:
        if isinstance(step, KernelCall):
            return replace(step, arguments=tuple(map(halve_argument, step.arguments)))
        return step

    shrunk_plan = replace(plan, steps=tuple(map(shrink_step, plan.steps)))
    with pytest.raises(BrokenCallError):
        count_differences(
            model, 0, lambda reference_values: calls.results(shrunk_plan, reference_values)
        )


@pytest.mark.parametrize(("off", "is_detected"), [(1e-5, False), (1e-3, True)])
@pytest.mark.parametrize("in_turn", [False, True])
def test_errors_of_float_layers_are_detected(off: float, is_detected: bool, in_turn: bool) -> None:
    """Tests the test setup: in turn, later layers compute from the wrong values correctly."""
    model = next(m for m in MODELS.values() if integer_program.find_inexact_nodes(m.graph))
    graph, source = model.graph, model.graph.inputs[0].name
    layer = next(
        n for n in integer_program.find_inexact_nodes(graph) if graph.types[n].dtype is DType.F32
    )

    def run_layer(reference_values: Mapping[str, Array]) -> Mapping[str, Array]:
        shifted_output = (
            reference_values[layer] + np.float32(off) * np.abs(reference_values[layer]).max()
        )
        (propagated,) = integer_program.run(
            model, [reference_values[source]], keep_all=True, overrides={layer: shifted_output}
        )
        return {**propagated, layer: shifted_output} if in_turn else {layer: shifted_output}

    differences = count_differences(model, 1, run_layer, in_turn=in_turn)
    assert {name for name, count in differences.items() if count} == (
        {layer} if is_detected else set()
    )


def build_image_program(real_ends: bool) -> Model:
    """Return the integer program of an image network with two outputs."""
    add = NetBuilder(3, 21, 23, name="pictured")
    add("stem", Conv(9, (7, 7), (2, 2), 3))
    skip = add("relu", Relu())
    add("pool", MaxPool((3, 3), (1, 1), 1))
    add("grow", Conv(5, (1, 1)))
    add("silu", Silu())
    joined = add("join", Concat(), skip, "silu")
    mask = add("mask", Conv(2, (1, 1)), joined)
    add("gap", GlobalAvgPool(), joined)
    add("flat", Flatten())
    add("fc", Linear(4))
    graph = add.build(Output("logits", "fc", "softmax"), Output("mask", mask))
    pre = Preprocess("rgb", PixelResize((21, 23), "cover"), None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=pre),))
    model = lower_for_int8(graph, sample_weights(graph))
    ranges = calibrate_on_input(model, sample_input(model.graph))
    return quantize(model, replace(ranges, float_io=real_ends))


@pytest.mark.parametrize("precision", ["int8", "int8-i8"])
def test_artifacts_are_bit_exact(precision: str, tmp_path: Path) -> None:
    arm, target = Arm(), HOST.target
    requested_precision = target.find_precision(precision)
    assert requested_precision is not None
    model = build_image_program(requested_precision.float_io)
    source = model.graph.inputs[0]
    assert source.type.dtype.value == "uint8"
    for name, content in arm.emit(target, model, requested_precision).files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    rng = np.random.default_rng(3)
    tensors = [rng.integers(0, 256, source.type.shape).astype(np.float32) for _ in range(3)]
    expected = integer_program.run(model, tensors)
    assert_same_bits(arm.infer(target, tmp_path, source, tensors), expected)
    images = [np.ascontiguousarray(t.transpose(1, 2, 0).astype(np.uint8)) for t in tensors]
    assert_same_bits(arm.run(target, tmp_path, images), expected)
    (expected_layers,) = integer_program.run(model, tensors[:1], keep_all=True)
    for threads in (1, 4):
        layers = run_artifact_layers(tmp_path, HOST, model, tensors[0], threads)
        assert len(layers) > 5
        assert {k: y.tobytes() for k, y in layers.items()} == {
            k: expected_layers[k].tobytes() for k in layers
        }


def assert_same_bits(all_outputs: list[dict[str, Array]], expected: list[dict[str, Array]]) -> None:
    assert len(all_outputs) == len(expected)
    for actual, reference in zip(all_outputs, expected, strict=True):
        assert {k: y.tobytes() for k, y in actual.items()} == {
            k: y.tobytes() for k, y in reference.items()
        }
