"""Winograd on quantized values: bit-exact under qemu, with arguments at page ends."""

import shutil
from collections.abc import Mapping

import numpy as np
import pytest
from arm_calls import CallProgram, call_program
from arm_int8 import count_differences
from float_kernels import A7, BOTH, force_kernels

from tcc.backends.arm.kernels.loops import micro_float as loops
from tcc.backends.arm.kernels.micro_winograd import MicroQuantizedWinograd
from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro import winograd
from tcc.backends.arm.micro.window import MicroWindow
from tcc.backends.arm.micro.winograd import QuantizedWinograd
from tcc.backends.arm.schedule.program import Program, build_program
from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import Add, Conv, Op, Relu
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import build_int8_model, calibrate_on_input, lower_for_int8
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import Array, sample_weights

Shape = tuple[int, int, int]
FEW = 4000
"""Number of tile points that gives most bands few tiles."""


def build_chain(shape: Shape, *steps: Op) -> Model:
    """Return the integer program of a chain of ops."""
    add = NetBuilder(*shape)
    for number, op in enumerate(steps):
        add(f"op{number}", op)
    graph = add.build()
    return build_int8_model(graph, sample_weights(graph))


def build_residual() -> Model:
    """Return the integer program of a block whose add is fused after its last convolution."""
    add = NetBuilder(6, 11, 13)
    skip = add("skip", Conv(8, (3, 3), padding=1))
    add("relu", Relu())
    add("conv", Conv(8, (3, 3), padding=1))
    add("sum", Add(), "conv", skip)
    add("last", Relu())
    graph = add.build()
    return build_int8_model(graph, sample_weights(graph))


def build_extreme_case(op: Conv, shape: Shape) -> tuple[Model, Array]:
    """Return a program with extreme weights, and an input of extremes."""
    add = NetBuilder(*shape)
    add("conv", op)
    graph = add.build()
    rng = np.random.default_rng(3)
    signs = {
        name: np.sign(rng.standard_normal(kind.shape, np.float32))
        for name, kind in graph.params.items()
    }
    model = lower_for_int8(graph, signs)
    # Signs of one filter that give the largest possible sums.
    filter_weights = next(array for array in signs.values() if array.ndim == 4)[0]
    repeats = (-(-size // n) for size, n in zip(shape[1:], op.kernel, strict=True))
    x = np.tile(filter_weights, (1, *repeats))[:, : shape[1], : shape[2]].astype(np.float32)
    return quantize(model, calibrate_on_input(model, x)), x


LARGEST = {
    "3x3": (Conv(5, (3, 3), padding=1), (130, 6, 9)),
    "3x3 of stride 2": (Conv(5, (3, 3), (2, 2), 1), (130, 12, 15)),
    "4x4": (Conv(5, (4, 4), padding=1), (80, 8, 12)),
    "8x8 of stride 2": (Conv(5, (8, 8), (2, 2), 2), (20, 24, 16)),
}
MODELS = {
    "odd sizes": build_chain(
        (5, 13, 14), Conv(9, (3, 3), padding=1), Relu(), Conv(8, (3, 3)), Relu()
    ),
    "many tiles in a row": build_chain((3, 3, 83), Conv(7, (3, 3), padding=1), Conv(7, (3, 3))),
    "many channels": build_chain((135, 7, 6), Conv(5, (3, 3), padding=1), Relu()),
    "one pixel": build_chain((6, 3, 3), Conv(5, (3, 3)), Relu()),
    "one column": build_chain((9, 4, 1), Conv(5, (3, 3), padding=1), Relu()),
    "what is fused": build_residual(),
    "strides": build_chain(
        (5, 27, 30), Conv(9, (3, 3), (2, 2), 1), Relu(), Conv(6, (3, 3), (2, 2))
    ),
    "strides of many tiles": build_chain((3, 5, 150), Conv(7, (3, 3), (2, 2), 1), Relu()),
    "strides of many channels": build_chain((133, 9, 8), Conv(5, (3, 3), (2, 2), 1), Relu()),
    "strides at an edge": build_chain((3, 3, 5), Conv(5, (3, 3), (2, 2), 2), Relu()),
    "stem": build_chain((3, 45, 71), Conv(13, (7, 7), (2, 2), 3), Relu()),
    "stem of many tiles": build_chain((2, 9, 113), Conv(5, (7, 7), (2, 2), 3), Relu()),
    "even rows": build_chain((2, 30, 31), Conv(4, (8, 8), (2, 2), 3), Relu()),
    "5x6 of stride 2": build_chain((3, 20, 27), Conv(6, (5, 6), (2, 2), (2, 1)), Relu()),
    "4x4": build_chain((70, 9, 21), Conv(8, (4, 4), padding=2, bias=False), Relu()),
    "padding alone": build_chain((2, 1, 1), Conv(3, (3, 3), padding=2), Relu()),
    "far outside": build_chain((2, 3, 5), Conv(3, (7, 7), (2, 2), 6), Relu()),
    **{f"extremes {name}": build_extreme_case(*case)[0] for name, case in LARGEST.items()},
}
PARTS = "many channels"


@pytest.fixture(scope="module", params=BOTH, ids=lambda machine: machine.target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CallProgram, Mapping[str, Program]]:
    """The kernel wherever possible, in bands of few tiles and parts of few channels."""
    machine = request.param
    if not machine.native and shutil.which(machine.qemu) is None:
        pytest.skip(f"needs {machine.qemu}: apt-get install qemu-user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuantizedWinograd, "cache_points", FEW)
        patch.setattr(winograd, "MAX_SUM", 1 << 18)
        patch.setattr(winograd, "MAX_STRIDED_SUM", 1 << 18)
        patch.setattr(loops, "PARALLEL", 1)
        folder = tmp_path_factory.mktemp("levels")
        calls, plans = call_program(
            list(MODELS.values()), force_kernels(machine, "level_winograd"), folder, tasks=3
        )
    return calls, dict(zip(MODELS, plans, strict=True))


def list_winograd_kernels(plan: Program) -> list[MicroQuantizedWinograd]:
    """Return the Winograd kernels of a plan."""
    return [kernel for kernel in plan.kernels if isinstance(kernel, MicroQuantizedWinograd)]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_bit_exact(
    kernels: tuple[CallProgram, Mapping[str, Program]], name: str
) -> None:
    calls, plans = kernels
    assert list_winograd_kernels(plans[name])
    differences = count_differences(
        MODELS[name], 1, lambda reference_values: calls.results(plans[name], reference_values)
    )
    assert not any(differences.values())


@pytest.mark.parametrize("name", LARGEST)
def test_largest_sums_are_exact(
    kernels: tuple[CallProgram, Mapping[str, Program]], name: str
) -> None:
    calls, plans = kernels
    model, x = build_extreme_case(*LARGEST[name])
    (expected,) = integer_program.run(model, [x], keep_all=True)
    actual = calls.results(plans[f"extremes {name}"], {**expected, "image": x})
    assert abs(actual["conv"].astype(int)).max() >= 127
    for layer, output in actual.items():
        np.testing.assert_array_equal(output, expected[layer])


def test_partial_bands_parts_and_blocks_are_tested(
    kernels: tuple[CallProgram, Mapping[str, Program]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantizedWinograd, "cache_points", FEW)
    _, plans = kernels
    used = [kernel for plan in plans.values() for kernel in list_winograd_kernels(plan)]
    assert any(kernel.tile_count % kernel.band_tiles for kernel in used)
    assert any(kernel.filters < kernel.padded_filters for kernel in used)
    assert all(
        kernel.phases_per_sum < kernel.window.channels
        for kernel in list_winograd_kernels(plans[PARTS])
    )
    assert any(kernel.epilogue.steps for kernel in list_winograd_kernels(plans["what is fused"]))


def test_channels_per_sum_fit_the_accumulator() -> None:
    """For any quantized values, 64 times a sum is below 2^31."""
    window = MicroWindow(512, (7, 7), (7, 7), (3, 3), start=(1, 1))
    for weight, part in ((20, 512), (63, 256), (127, 128)):
        equal_weights = np.full((4, 512, 3, 3), weight, np.int8)
        equal_weights[:, :, 0, 0] = -1
        assert QuantizedWinograd.find_phases_per_sum(equal_weights, window) == part
        assert part * 8 * weight * 255 < 1 << 25


def uses_winograd(op: Conv, shape: Shape, machine: Machine = A7) -> bool:
    """Return whether a convolution uses Winograd."""
    model = build_chain(shape, op, Relu())
    return bool(list_winograd_kernels(build_program(model.graph, model.weights, machine)))


PAYING = Conv(32, (3, 3), padding=1)


def test_winograd_is_chosen_if_it_saves_cycles_on_the_core() -> None:
    assert uses_winograd(PAYING, (32, 12, 12))
    assert uses_winograd(Conv(128, (3, 3), (2, 2), 1), (64, 56, 56))
    assert not uses_winograd(Conv(64, (3, 3), (2, 2), 1), (3, 56, 56))
    without = [machine for machine in MACHINES if machine.cpu in {"cortex_a76", "x86_64_v2"}]
    assert not any(uses_winograd(PAYING, (32, 12, 12), machine) for machine in without)


@pytest.mark.parametrize(
    "op",
    [
        Conv(32, (1, 1)),
        Conv(32, (3, 3), padding=1, groups=2),
        Conv(32, (3, 3), padding=2, dilation=(2, 2)),
        Conv(32, (3, 3), (2, 1), 1),
        Conv(32, (5, 5), padding=2),
    ],
)
def test_other_windows_use_other_kernels(op: Conv) -> None:
    assert not uses_winograd(op, (32, 12, 12))
