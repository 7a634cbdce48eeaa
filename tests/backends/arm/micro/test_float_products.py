"""The float micro-kernels and their loops under qemu, with arguments at page ends."""

from collections.abc import Iterator
from pathlib import Path

import float_kernels
import host_forms
import numpy as np
import pytest
from arm_graphs import make_model_with_consumers
from float_kernels import A7, BOTH, FloatKernels, force_kernels, make_conv_model, make_input

from tcc.backends.arm.kernels import micro_float
from tcc.backends.arm.kernels.loops import micro_float as loops
from tcc.backends.arm.kernels.micro_float import MicroFloatMatrix
from tcc.backends.arm.schedule.program import build_program
from tcc.compiler.ops import Conv, LeakyRelu, Relu, Relu6
from tcc.testing.nets import NetBuilder

CONVOLUTIONS = {
    "in rows": make_conv_model(Conv(14, (1, 1)), (8, 5, 7), Relu()),
    "in many rows": make_conv_model(Conv(15, (1, 1)), (130, 3, 5), Relu6()),
    "3x3": make_conv_model(Conv(12, (3, 3), padding=1), (20, 7, 7), Relu()),
    "stem": make_conv_model(Conv(13, (7, 7), (2, 2), 3), (3, 9, 27), LeakyRelu(0.1)),
    "3x3 in steps of two": make_conv_model(Conv(10, (3, 3), (2, 2), 1), (3, 13, 37), Relu6()),
    "and without a border": make_conv_model(Conv(9, (3, 3), (2, 2)), (5, 17, 29), Relu()),
    "one row": make_conv_model(Conv(7, (1, 5), bias=False), (3, 1, 70), Relu6()),
    "strides": make_conv_model(Conv(6, (3, 2), (1, 3), (2, 1), (2, 2)), (5, 6, 40), Relu()),
    "groups": make_conv_model(Conv(14, (3, 3), groups=2), (12, 6, 9), Relu()),
    "a few pixels": make_conv_model(Conv(7, (3, 3), (3, 3), 1), (9, 6, 6), Relu()),
    "all that can be fused": make_model_with_consumers(Conv(8, (3, 3), padding=1), (4, 9, 11)),
}
SMALL = {"MAX_PANEL_FLOATS": 1200, "L1_FLOATS": 300, "L2_FLOATS": 600, "STREAMED_TILES": 2}
"""Limits that split taps, tiles and filters."""


@pytest.fixture(scope="module", params=BOTH, ids=lambda machine: machine.target.name)
def products(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> FloatKernels:
    """The kernel wherever possible, even where another would save cycles."""
    folder = tmp_path_factory.mktemp("products")
    return float_kernels.compile_kernels(
        CONVOLUTIONS, folder, force_kernels(request.param, "float_matrix")
    )


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FloatKernels]:
    """The same with every loop split."""
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in SMALL.items():
            patch.setattr(micro_float, name, limit)
        patch.setattr(loops, "PARALLEL", 1)
        folder = tmp_path_factory.mktemp("parts")
        yield float_kernels.compile_kernels(CONVOLUTIONS, folder, force_kernels(A7, "float_matrix"))


def assert_agrees(kernels: FloatKernels, name: str) -> None:
    assert any(isinstance(kernel, MicroFloatMatrix) for kernel in kernels.plans[name].kernels)
    kernels.assert_agrees(name, 2e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_products_match_the_reference(products: FloatKernels, name: str) -> None:
    assert_agrees(products, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_split_loops_match_the_reference(cut: FloatKernels, name: str) -> None:
    assert_agrees(cut, name)


@pytest.mark.slow
def test_every_way_of_splitting_is_tested(cut: FloatKernels) -> None:
    kernels = [k for p in cut.plans.values() for k in p.kernels if isinstance(k, MicroFloatMatrix)]
    conditions = {
        "taps": lambda k: k.chunk_channels < k.window.channels,
        "tiles": lambda k: 1 < k.tiles_per_round < k.tiles,
        "filters": lambda k: k.chunk_filters < k.filters_per_share,
        "shares": lambda k: k.share_count > 1,
        "rows": lambda k: k.reads_rows,
    }
    assert {
        condition_name for condition_name, is_met in conditions.items() if any(map(is_met, kernels))
    } == conditions.keys()


@pytest.mark.parametrize("name", ["in rows", "in many rows"])
def test_nan_is_propagated(products: FloatKernels, name: str) -> None:
    x = make_input(CONVOLUTIONS[name])
    x[3, 1, 2] = np.nan
    outputs, _ = products.results(name, x)
    assert np.isnan(outputs["after"][:, 1, 2]).all()
    assert np.isnan(outputs["after"]).sum() == len(outputs["after"])


def test_stack_memory_is_bounded() -> None:
    """For any number of taps, filters and pixels."""
    for channels, filters, size in ((2048, 2048, 7), (512, 512, 28), (3, 64, 224), (1, 9, 300)):
        add = NetBuilder(channels, size, size)
        add("op", Conv(filters, (5, 5), padding=2))
        graph = add.build()
        zeros = {p: np.zeros(kind.shape, np.float32) for p, kind in graph.params.items()}
        (kernel,) = build_program(graph, zeros, force_kernels(A7, "float_matrix")).kernels
        assert isinstance(kernel, MicroFloatMatrix)
        assert 4 * kernel.tiles_per_round * kernel.panel_floats <= 1 << 16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_host_kernels_match_the_reference(name: str, tmp_path: Path) -> None:
    machine = force_kernels(host_forms.select_isa(name), "float_matrix")
    kernels = float_kernels.compile_kernels(CONVOLUTIONS, tmp_path, machine)
    kernels.assert_all_agree({"float_x86"}, 2e-6)
