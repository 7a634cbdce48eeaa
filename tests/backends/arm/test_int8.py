"""The integer program as kernels of the ARM family: each result is the reference executor's."""

import numpy as np
import pytest
from arm_int8 import differing, exact_results, seeded
from arm_steps import Library, library
from nets import chain, dense, gated
from op_cases import trained
from quantised import int8
from tables import looped

from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Model

HOST = next(m for m in MACHINES if m.target.name == "host")
GRAPHS = (dense(), gated(), chain(30))
MODELS = {
    **{graph.name: int8(graph, trained(graph)) for graph in GRAPHS},
    **{f"random-{seed}": seeded(seed) for seed in range(12)},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, dict[str, Program]]:
    """All models' kernels in one library, whose loops run in three parts."""
    folder = tmp_path_factory.mktemp("kernels")
    compiled, programs = library(list(MODELS.values()), HOST, folder, tasks=3)
    return compiled, dict(zip(MODELS, programs, strict=True))


@looped({name: name for name in MODELS})
def test_every_step_is_the_references(case: str, built: tuple[Library, dict[str, Program]]) -> None:
    compiled, programs = built
    assert not differing(compiled, programs[case], MODELS[case], seed=1)


def test_what_is_compared_is_there() -> None:
    """No random graph is all floats, and together they hold every kind of step."""
    graphs = [model.graph for model in MODELS.values()]
    assert all(exact_results(graph) for graph in graphs)
    words = {node.op.word for graph in graphs for node in graph.nodes}
    assert words >= {"qconv", "real_conv", "qavg_pool", "qadd", "qmul", "table", "qpad", "concat"}


def test_a_wrong_weight_is_seen(built: tuple[Library, dict[str, Program]]) -> None:
    compiled, programs = built
    model = MODELS["dense"]
    name = next(n for n in model.weights if n.endswith(".weight"))
    other = {**model.weights, name: np.roll(model.weights[name], 1, axis=0)}
    assert differing(compiled, programs["dense"], Model(model.graph, other))
