"""The micro-kernels of floats and the loops around them, under qemu, at the ends of pages."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from arm_calls import CallProgram, call_program
from arm_graphs import followed_model
from nets import Steps
from op_cases import Array, trained

from tcc.backends.arm.kernels import micro_float
from tcc.backends.arm.kernels.loops import micro_float as loops
from tcc.backends.arm.kernels.micro_float import MicroFloatMatrix
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule.program import Program, program
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Conv, LeakyRelu, Op, Relu, Relu6
from tcc.compiler.reference import float_program

A7 = next(m for m in MACHINES if m.target.name == "arm-a7")


def followed(op: Conv, shape: tuple[int, int, int], after: Op) -> Model:
    add = Steps(*shape)
    add("op", op)
    add("after", after)
    graph = add.graph(Output("y", "after"))
    return Model(graph, trained(graph))


CONVOLUTIONS = {
    "in rows": followed(Conv(14, (1, 1)), (8, 5, 7), Relu()),
    "in many rows": followed(Conv(15, (1, 1)), (130, 3, 5), Relu6()),
    "3x3": followed(Conv(12, (3, 3), padding=1), (20, 7, 7), Relu()),
    "stem": followed(Conv(13, (7, 7), (2, 2), 3), (3, 21, 27), LeakyRelu(0.1)),
    "one row": followed(Conv(7, (1, 5), bias=False), (3, 1, 70), Relu6()),
    "strides": followed(Conv(6, (3, 2), (1, 3), (2, 1), (2, 2)), (5, 6, 40), Relu()),
    "groups": followed(Conv(14, (3, 3), groups=2), (12, 6, 9), Relu()),
    "a few pixels": followed(Conv(7, (3, 3), (3, 3), 1), (9, 6, 6), Relu()),
    "all that can be fused": followed_model(Conv(8, (3, 3), padding=1), (4, 9, 11)),
}
SMALL = {"MAX_FLOAT_PANELS": 1200, "NEAR": 300, "FAR": 600, "STREAMED": 2}
"""Limits under which taps, tiles and filters are all cut into parts."""


@dataclass(frozen=True)
class Built:
    """Programs, and their kernels compiled."""

    calls: CallProgram
    plans: Mapping[str, Program]


def _built(folder: Path) -> Built:
    if shutil.which(A7.qemu) is None:
        pytest.skip(f"needs {A7.qemu}: apt-get install qemu-user")
    calls, plans = call_program(list(CONVOLUTIONS.values()), A7, folder, tasks=3)
    return Built(calls, dict(zip(CONVOLUTIONS, plans, strict=True)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _built(tmp_path_factory.mktemp("products"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The same where every loop is cut into parts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in SMALL.items():
            patch.setattr(micro_float, name, limit)
        patch.setattr(loops, "PARALLEL", 1)
        yield _built(tmp_path_factory.mktemp("parts"))


def given(model: Model) -> Array:
    rng = np.random.default_rng(len(model.graph.nodes))
    return rng.standard_normal(model.graph.inputs[0].type.shape, np.float32)


def results(built: Built, name: str, x: Array) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Return what each step gives that reads right values, and what is right."""
    model = CONVOLUTIONS[name]
    every = tuple(Output(node.name, node.name) for node in model.graph.nodes)
    (right,) = float_program.run(replace(model, graph=replace(model.graph, outputs=every)), [x])
    return built.calls.results(built.plans[name], {model.graph.inputs[0].name: x, **right}), right


def assert_agrees(built: Built, name: str) -> None:
    assert any(isinstance(kernel, MicroFloatMatrix) for kernel in built.plans[name].kernels)
    found, right = results(built, name, given(CONVOLUTIONS[name]))
    assert found
    for step, values in found.items():
        bound = 2e-6 * float(np.abs(right[step]).max())
        np.testing.assert_allclose(values, right[step], rtol=0, atol=bound)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_products_are_those_of_the_reference(built: Built, name: str) -> None:
    assert_agrees(built, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_parts_give_the_same(cut: Built, name: str) -> None:
    assert_agrees(cut, name)


@pytest.mark.slow
def test_every_way_of_cutting_is_tried(cut: Built) -> None:
    kernels = [k for p in cut.plans.values() for k in p.kernels if isinstance(k, MicroFloatMatrix)]
    ways = {
        "taps": lambda k: k.channels < k.window.channels,
        "tiles": lambda k: 1 < k.together < k.tiles,
        "filters": lambda k: k.chunk < k.padded // k.shares,
        "shares": lambda k: k.shares > 1,
        "rows": lambda k: k.in_rows,
    }
    assert {way for way, told in ways.items() if any(map(told, kernels))} == ways.keys()


@pytest.mark.parametrize("name", ["in rows", "in many rows"])
def test_what_is_not_a_number_stays_so(built: Built, name: str) -> None:
    x = given(CONVOLUTIONS[name])
    x[3, 1, 2] = np.nan
    found, _ = results(built, name, x)
    assert np.isnan(found["after"][:, 1, 2]).all()
    assert np.isnan(found["after"]).sum() == len(found["after"])


def test_memory_on_a_stack_is_bounded() -> None:
    """However many taps, filters and pixels there are."""
    for channels, filters, size in ((2048, 2048, 7), (512, 512, 28), (3, 64, 224), (1, 9, 300)):
        add = Steps(channels, size, size)
        add("op", Conv(filters, (5, 5), padding=2))
        graph = add.graph()
        zeros = {p: np.zeros(kind.shape, np.float32) for p, kind in graph.params.items()}
        (kernel,) = program(graph, zeros, A7).kernels
        assert isinstance(kernel, MicroFloatMatrix)
        assert 4 * kernel.together * kernel.panel <= 1 << 16
