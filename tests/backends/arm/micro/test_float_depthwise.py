"""The float depthwise micro-kernel under qemu, with arguments at page ends."""

from pathlib import Path

import float_kernels
import host_forms
import numpy as np
import pytest
from arm_graphs import make_model_with_consumers
from float_kernels import A7, FloatKernels, force_kernels, make_conv_model, make_input

from tcc.backends.arm.kernels.loops import micro_float as loops
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise
from tcc.backends.arm.schedule.program import Program, build_program
from tcc.compiler.ir.graph import Output
from tcc.compiler.ops import Conv, LeakyRelu, Relu, Relu6
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

CONVOLUTIONS = {
    "3x3": make_conv_model(Conv(5, (3, 3), padding=1, groups=5), (5, 13, 14), Relu()),
    "3x3 of stride 2": make_conv_model(Conv(6, (3, 3), (2, 2), 1, groups=6), (6, 21, 30), Relu6()),
    "5x5": make_conv_model(Conv(3, (5, 5), padding=2, groups=3), (3, 12, 19), LeakyRelu(0.1)),
    "5x5 of stride 2": make_conv_model(Conv(4, (5, 5), (2, 2), 2, groups=4), (4, 17, 26), Relu()),
    "two filters a channel": make_conv_model(
        Conv(6, (3, 3), bias=False, groups=3), (3, 6, 8), Relu6()
    ),
    "rows of three": make_conv_model(Conv(2, (3, 3), (2, 2), (0, 1), groups=2), (2, 9, 5), Relu()),
    "one pixel": make_conv_model(Conv(2, (5, 5), padding=2, groups=2), (2, 1, 1), Relu()),
    "far outside": make_conv_model(
        Conv(2, (5, 5), (2, 2), (7, 6), groups=2), (2, 4, 3), LeakyRelu(0.2)
    ),
    "rows of eight and more": make_conv_model(
        Conv(3, (3, 3), padding=1, groups=3), (3, 5, 33), Relu6()
    ),
    "half of an odd row": make_conv_model(
        Conv(3, (3, 3), (2, 2), 1, groups=3), (3, 7, 45), LeakyRelu(0.1)
    ),
    "half of a short row": make_conv_model(
        Conv(3, (3, 3), (2, 2), 1, groups=3), (3, 6, 12), Relu()
    ),
    "bands of rows": make_conv_model(Conv(1, (3, 3), (2, 2), 1, groups=1), (1, 61, 301), Relu()),
    "two rows at once": make_conv_model(Conv(1, (5, 5), padding=2, groups=1), (1, 5, 1200), Relu()),
    "all that can be fused": make_model_with_consumers(
        Conv(4, (3, 3), padding=1, groups=4), (4, 9, 11)
    ),
}


@pytest.fixture(scope="module", params=[A7], ids=lambda machine: machine.target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FloatKernels:
    """The kernel for maps of any size, on several threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "PARALLEL", 1)
        folder = tmp_path_factory.mktemp("planes")
        machine = force_kernels(request.param, "float_depthwise")
        return float_kernels.compile_kernels(CONVOLUTIONS, folder, machine)


def list_depthwise_kernels(plan: Program) -> list[MicroFloatDepthwise]:
    """Return the depthwise kernels of a plan."""
    return [kernel for kernel in plan.kernels if isinstance(kernel, MicroFloatDepthwise)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_planes_match_the_reference(kernels: FloatKernels, name: str) -> None:
    assert list_depthwise_kernels(kernels.plans[name])
    kernels.assert_agrees(name, 2e-6)


def test_nan_is_propagated(kernels: FloatKernels) -> None:
    x = make_input(CONVOLUTIONS["3x3"])
    x[3, 5, 6] = np.nan
    actual, expected = kernels.results("3x3", x)
    np.testing.assert_array_equal(np.isnan(actual["after"]), np.isnan(expected["after"]))


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Conv(8, (3, 3), padding=1, groups=4), (8, 20, 20)),
        (Conv(8, (7, 7), padding=3, groups=8), (8, 20, 20)),
        (Conv(8, (3, 3), padding=2, dilation=(2, 2), groups=8), (8, 20, 20)),
        (Conv(8, (3, 3), (2, 1), 1, groups=8), (8, 20, 20)),
        (Conv(8, (5, 5), padding=2, groups=8), (8, 5, 1500)),
    ],
)
def test_other_windows_use_other_kernels(op: Conv, shape: tuple[int, int, int]) -> None:
    add = NetBuilder(*shape)
    add("op", op)
    graph = add.build(Output("y", "op"))
    machine = force_kernels(A7, "float_depthwise")
    assert not list_depthwise_kernels(build_program(graph, sample_weights(graph), machine))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_host_kernels_match_the_reference(name: str, tmp_path: Path) -> None:
    machine = force_kernels(host_forms.select_isa(name), "float_depthwise")
    kernels = float_kernels.compile_kernels(CONVOLUTIONS, tmp_path, machine)
    kernels.assert_all_agree({"float_depthwise_x86"}, 2e-6)
