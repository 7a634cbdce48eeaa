"""Kernels on values with a zero point, of which the low 8 bits are stored."""

from pathlib import Path

import pytest
from arm_int8 import find_differing_steps
from arm_steps import compile_library

from tcc.backends.arm.machine import MACHINES
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import (
    Add,
    ChannelShuffle,
    Concat,
    Conv,
    GlobalAvgPool,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    MaxPool,
    Mul,
    Pad,
    Resize,
    Slice,
)
from tcc.testing.int8_models import build_int8_model
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

HOST = next(machine for machine in MACHINES if machine.target.name == "host")


def build_network() -> Graph:
    """Return a network in which each kind of kernel reads or writes such values."""
    add = NetBuilder(3, 11, 13)
    add("stem", Conv(8, (3, 3), padding=(1, 1)), "image")
    add("act", HardSwish(), "stem")
    add("pool", MaxPool((3, 3), (2, 2), (1, 1)), "act")
    add("depth", Conv(8, (3, 3), padding=(1, 1), groups=8), "pool")
    add("depth_act", HardSwish(), "depth")
    add("mean", GlobalAvgPool(), "depth_act")
    add("squeeze", Conv(8, (1, 1)), "mean")
    add("gate", HardSigmoid(), "squeeze")
    add("gated", Mul(), "depth_act", "gate")
    add("sum", Add(), "gated", "pool")
    add("sum_act", HardSwish(), "sum")
    add("shuffled", ChannelShuffle(2), "sum_act")
    add("part", Slice(0, 4, 1), "shuffled")
    add("joined", Concat(), "part", "sum_act")
    add("bordered", Pad((1, 0, 2, 1), 0.0), "joined")
    add("larger", Resize(scale=(2, 2)), "bordered")
    add("far", Conv(6, (3, 3), padding=(2, 2), dilation=(2, 2)), "larger")
    add("far_act", HardSwish(), "far")
    add("peak", GlobalMaxPool(), "far_act")
    add("end", Conv(3, (1, 1)), "peak")
    return add.build(Output("y", "end", kind="regression"))


@pytest.mark.parametrize("seed", range(3))
def test_every_step_matches_the_reference(seed: int, tmp_path: Path) -> None:
    graph = build_network()
    model = build_int8_model(graph, sample_weights(graph), seed)
    types = model.graph.types
    names = ("act", "pool", "gated", "joined", "bordered", "larger", "far", "far_act", "peak")
    assert all(types[name].zero_point for name in names)
    library, (program,) = compile_library([model], HOST, tmp_path)
    assert not find_differing_steps(library, program, model, seed)
