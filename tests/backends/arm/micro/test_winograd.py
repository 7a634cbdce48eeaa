"""The Winograd micro-kernel and its loops under qemu, with arguments at page ends."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import float_kernels
import host_forms
import numpy as np
import pytest
from arm_graphs import make_model_with_consumers
from float_kernels import A7, BOTH, FloatKernels, force_kernels, make_conv_model, make_input
from host_forms import HOST

from tcc.backends.arm.kernels.loops import micro_float as loops
from tcc.backends.arm.kernels.micro_winograd import MicroWinograd
from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro import winograd
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.winograd import WideWinograd, Winograd
from tcc.backends.arm.schedule.program import Program, build_program
from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import Conv, LeakyRelu, Relu, Relu6
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

CONVOLUTIONS = {
    "3x3": make_conv_model(Conv(9, (3, 3), padding=1), (5, 13, 14), Relu()),
    "stem": make_conv_model(Conv(13, (7, 7), (2, 2), 3), (3, 45, 71), LeakyRelu(0.1)),
    "even rows": make_conv_model(Conv(4, (8, 8), (2, 2), 3), (2, 30, 31), Relu()),
    "5x5 of stride 2": make_conv_model(Conv(6, (5, 6), (2, 2), (2, 1)), (3, 20, 27), Relu6()),
    "4x4": make_conv_model(Conv(8, (4, 4), padding=2, bias=False), (3, 9, 21), Relu6()),
    "many channels": make_conv_model(Conv(5, (3, 3)), (37, 7, 9), Relu()),
    "many tiles in a row": make_conv_model(Conv(3, (3, 3), padding=1), (1, 3, 83), Relu()),
    "one pixel": make_conv_model(Conv(2, (3, 3)), (6, 3, 3), Relu()),
    "padding alone": make_conv_model(Conv(3, (3, 3), padding=2), (2, 1, 1), LeakyRelu(0.5)),
    "far outside": make_conv_model(Conv(3, (7, 7), (2, 2), 6), (2, 3, 5), Relu()),
    "strides": make_conv_model(Conv(9, (3, 3), (2, 2), 1), (5, 27, 30), Relu()),
    "strides of many tiles": make_conv_model(Conv(7, (3, 3), (2, 2)), (3, 5, 151), Relu6()),
    "strides of many channels": make_conv_model(Conv(5, (3, 3), (2, 2), 1), (67, 9, 8), Relu()),
    "strides at an edge": make_conv_model(Conv(5, (3, 3), (2, 2), 2), (3, 3, 5), LeakyRelu(0.1)),
    "all that can be fused": make_model_with_consumers(Conv(8, (3, 3), padding=1), (4, 9, 11)),
}
FEW = 4000
"""Floats of tile points that give most bands few tiles."""


def compile_winograd(folder: Path, machine: Machine) -> FloatKernels:
    """Return Winograd kernels wherever possible, in bands of few tiles on several threads."""
    models = {name: model for name, model in CONVOLUTIONS.items() if "strides" not in name}
    if machine.target.name != HOST.target.name:  # no Winograd points exist for 3x3 with stride 2
        models = CONVOLUTIONS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Winograd, "cache_points", FEW)
        patch.setattr(WideWinograd, "cache_points", FEW)
        patch.setattr(loops, "PARALLEL", 1)
        return float_kernels.compile_kernels(models, folder, force_kernels(machine, "winograd"))


@pytest.fixture(scope="module", params=BOTH, ids=lambda machine: machine.target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FloatKernels:
    """The kernels of an ARM processor."""
    return compile_winograd(tmp_path_factory.mktemp("tiles"), request.param)


def list_winograd_kernels(plan: Program) -> list[MicroWinograd]:
    """Return the Winograd kernels of a plan."""
    return [kernel for kernel in plan.kernels if isinstance(kernel, MicroWinograd)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_outputs_are_close_to_the_reference(kernels: FloatKernels, name: str) -> None:
    assert list_winograd_kernels(kernels.plans[name])
    kernels.assert_agrees(name, 8e-6)


def test_partial_bands_and_blocks_are_tested(
    kernels: FloatKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Winograd, "cache_points", FEW)
    used = [kernel for plan in kernels.plans.values() for kernel in list_winograd_kernels(plan)]
    assert any(kernel.tile_count % kernel.band_tiles for kernel in used)
    assert any(kernel.filters < kernel.padded_filters for kernel in used)


def test_nan_reaches_only_its_tiles(kernels: FloatKernels) -> None:
    x = make_input(CONVOLUTIONS["3x3"])
    x[3, 5, 6] = np.nan
    actual, expected = kernels.results("3x3", x)
    is_nan = np.isnan(actual["after"])
    assert is_nan[np.isnan(expected["after"])].all()
    assert not is_nan[:, 8:].any()
    assert not is_nan[:, :, 8:].any()


def uses_winograd(op: Conv, shape: tuple[int, int, int], machine: Machine = A7) -> bool:
    """Return whether a convolution uses Winograd."""
    add = NetBuilder(*shape)
    add("op", op)
    graph = add.build(Output("y", "op"))
    return bool(list_winograd_kernels(build_program(graph, sample_weights(graph), machine)))


PAYING = Conv(32, (3, 3), padding=1)


def test_winograd_is_chosen_if_it_saves_cycles() -> None:
    assert uses_winograd(PAYING, (32, 28, 28))
    assert uses_winograd(Conv(32, (7, 7), (2, 2), 3), (3, 64, 64))
    assert not uses_winograd(Conv(2, (3, 3), padding=1), (4, 28, 28))
    assert not uses_winograd(PAYING, (32, 2, 2))
    strides = Conv(128, (3, 3), (2, 2), 1)
    assert uses_winograd(strides, (64, 56, 56))
    assert not uses_winograd(strides, (3, 56, 56))
    assert not uses_winograd(strides, (64, 56, 56), HOST)


@pytest.mark.parametrize(
    "op",
    [
        Conv(32, (1, 1)),
        Conv(32, (3, 3), padding=1, groups=2),
        Conv(32, (3, 3), padding=2, dilation=(2, 2)),
        Conv(32, (3, 3), (2, 1), 1),
        Conv(32, (6, 3), (2, 1), 1),
        Conv(32, (5, 5), padding=2),
        Conv(32, (3, 4), padding=1),
    ],
)
def test_other_windows_use_other_kernels(op: Conv) -> None:
    assert not uses_winograd(op, (32, 28, 28))


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.target.name)
def test_winograd_can_be_disabled_on_cores_that_have_it(machine: Machine) -> None:
    has_winograd = any(isinstance(kernel, Winograd) for kernel in CORES[machine.core])
    assert uses_winograd(PAYING, (32, 28, 28), machine) == has_winograd
    assert not uses_winograd(PAYING, (32, 28, 28), replace(machine, direct=True))
    offered = "fp32-direct" in {precision.name for precision in machine.target.precisions}
    assert offered == has_winograd


def test_kernel_memory_is_bounded() -> None:
    """For any number of channels, filters and pixels."""
    sizes = ((2048, 64, 9), (512, 512, 28), (3, 64, 600), (64, 64, 224))
    for machine, (channels, filters, size) in product((A7, HOST), sizes):
        add = NetBuilder(channels, size, size)
        add("op", Conv(filters, (3, 3), padding=1))
        graph = add.build()
        zeros = {p: np.zeros(kind.shape, np.float32) for p, kind in graph.params.items()}
        for kernel in list_winograd_kernels(build_program(graph, zeros, machine)):
            assert kernel.band_tiles <= winograd.MAX_TILES
            assert kernel.points_space.elements <= Winograd.max_points


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_host_kernels_are_close_to_the_reference(name: str, tmp_path: Path) -> None:
    kernels = compile_winograd(tmp_path, host_forms.select_isa(name))
    kernels.assert_all_agree({"winograd_x86"}, 8e-6)


@pytest.mark.slow
def test_bands_with_the_most_tiles_are_correct(tmp_path: Path) -> None:
    """The maximum of a call: their sums fill its memory."""
    models = {
        "3x3": make_conv_model(Conv(17, (3, 3), padding=1), (35, 32, 128), Relu()),
        "7x7": make_conv_model(Conv(16, (7, 7), (2, 2), 3), (3, 32, 88), Relu6()),
    }
    machine = force_kernels(host_forms.select_isa("x86-64-v3"), "winograd")
    kernels = float_kernels.compile_kernels(models, tmp_path, machine)
    bands = [
        kernel.band_tiles
        for plan in kernels.plans.values()
        for kernel in list_winograd_kernels(plan)
    ]
    assert bands == [64, 44]
    kernels.assert_all_agree({"winograd_x86"}, 8e-6)
