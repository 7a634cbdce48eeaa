"""Memory sharing of values: the arena, and values placed inside others."""

import numpy as np
import pytest
from arm_graphs import make_random_graph, make_random_model
from hypothesis import given
from hypothesis import strategies as st

from tcc.backends.arm.kernels.base import KernelCall, Scratch, Value
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule.arena import ALIGNMENT, Buffer, plan
from tcc.backends.arm.schedule.program import (
    VALUE_ALIGNMENT,
    Copy,
    Program,
    build_program,
    compute_buffers,
    get_scratch_name,
)
from tcc.compiler.data.weights import initialize_random
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ops import Concat, Conv, Flatten, Identity, Relu, Slice
from tcc.compiler.zoo import shipped
from tcc.testing.nets import NetBuilder

BUFFERS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)), max_size=40
).map(lambda rows: [Buffer(f"b{i}", n, a, a + d) for i, (n, a, d) in enumerate(rows)])


def schedule_graph(graph: Graph) -> Program:
    return build_program(graph, initialize_random(graph), MACHINES[0])


@given(BUFFERS)
def test_buffers_in_use_at_once_never_overlap(all_buffers: list[Buffer]) -> None:
    arena = plan(all_buffers)
    assert set(arena.offsets) == {b.name for b in all_buffers}
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets.values())
    for buffer in all_buffers:
        start = arena.offsets[buffer.name]
        assert start + buffer.nbytes <= arena.nbytes
        for other_buffer in all_buffers:
            if (
                other_buffer is not buffer
                and buffer.first_step <= other_buffer.last_step
                and other_buffer.first_step <= buffer.last_step
            ):
                begins = arena.offsets[other_buffer.name]
                assert begins >= start + buffer.nbytes or start >= begins + other_buffer.nbytes


@given(BUFFERS)
def test_the_order_of_the_buffers_does_not_matter(all_buffers: list[Buffer]) -> None:
    assert plan(all_buffers) == plan(list(reversed(all_buffers)))


def test_memory_is_reused() -> None:
    arena = plan([Buffer("a", 100, 0, 1), Buffer("b", 100, 1, 2), Buffer("c", 100, 2, 3)])
    assert arena.offsets["a"] == arena.offsets["c"] == 0
    assert arena.nbytes == 256
    assert arena.bound == 200


@given(BUFFERS)
def test_the_bound_is_the_peak_memory_in_use(all_buffers: list[Buffer]) -> None:
    used = (
        sum(b.nbytes for b in all_buffers if b.first_step <= step <= b.last_step)
        for step in range(50)
    )
    assert plan(all_buffers).bound == max(used)


class Memory:
    """An arena in which each float records its value and element."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.arena = plan(compute_buffers(program))
        self.owner = np.full(self.arena.nbytes // 4, -1, np.int64)

    def get_view(self, value_name: str) -> np.ndarray:
        placement = self.program.locations[value_name]
        start = (self.arena.offsets[placement.buffer] + placement.offset) // 4
        return self.owner[start : start + self.program.graph.types[value_name].elements]

    def step(self, step: KernelCall | Copy, expected_contents: dict[str, np.ndarray]) -> None:
        if isinstance(step, Copy):
            assert np.array_equal(self.get_view(step.source), expected_contents[step.source])
            start = step.offset // 4
            self.get_view(step.output)[start:][: expected_contents[step.source].size] = (
                expected_contents[step.source]
            )
            return
        for index, argument in enumerate(step.arguments):
            if isinstance(argument, Scratch):
                start = self.arena.offsets[get_scratch_name(step, index)] // 4
                self.owner[start : start + argument.space.elements] = -2
        self.get_view(step.output)[:] = expected_contents[step.output]
        for argument in step.arguments:  # written first: inputs must not overlap it
            if isinstance(argument, Value):
                assert np.array_equal(
                    self.get_view(argument.name), expected_contents[argument.name]
                )


def compute_contents(graph: Graph) -> dict[str, np.ndarray]:
    """Return the contents of each value as marks. Only joins and renames pass marks on."""
    contents: dict[str, np.ndarray] = {}
    for i, (name, kind) in enumerate(graph.types.items()):
        contents[name] = np.arange(kind.elements) + (i << 32)
    for node in graph.nodes:
        inputs = [contents[v] for v in node.inputs]
        match node.op:
            case Concat():
                contents[node.name] = np.concatenate(inputs)
            case Flatten() | Identity():
                contents[node.name] = inputs[0]
            case Slice(start, stop, step) if step == 1:
                channels = inputs[0].reshape(graph.types[node.inputs[0]].shape)
                contents[node.name] = channels[start:stop].ravel()
    return contents


@pytest.mark.parametrize("seed", range(60))
def test_every_step_reads_the_values_written_for_it(seed: int) -> None:
    model = make_random_model(seed, steps=25)
    steps = build_program(model.graph, model.weights, MACHINES[0])
    memory, expected_contents = Memory(steps), compute_contents(model.graph)
    memory.get_view("x0")[:] = expected_contents["x0"]
    for step in steps.steps:
        memory.step(step, expected_contents)
    for output in model.graph.outputs:
        assert np.array_equal(memory.get_view(output.value), expected_contents[output.value])


@pytest.mark.parametrize("seed", range(10))
def test_every_value_is_aligned_for_vectors(seed: int) -> None:
    steps = schedule_graph(make_random_graph(seed, steps=25))
    assert all(placement.offset % VALUE_ALIGNMENT == 0 for placement in steps.locations.values())


def test_a_chain_of_concats_copies_nothing() -> None:
    add = NetBuilder(4, 6, 6)
    output_name = add("stem", Conv(8, (3, 3), padding=1))
    for i in range(4):
        grown = add(f"layer_{i}", Conv(4, (3, 3), padding=1), output_name)
        output_name = add(f"concat_{i}", Concat(), output_name, grown)
    steps = schedule_graph(add.build())
    assert all(isinstance(step, KernelCall) for step in steps.steps)
    assert {steps.locations[f"layer_{i}"].buffer for i in range(4)} == {"concat_3"}
    assert [steps.locations[f"layer_{i}"].offset for i in range(4)] == [
        channels * 6 * 6 * 4 for channels in (8, 12, 16, 20)
    ]


def test_a_value_in_two_concats_is_copied_into_the_second() -> None:
    add = NetBuilder(4, 4, 4)
    a = add("a", Relu(), "image")
    b = add("b", Conv(4, (1, 1)), "image")
    first_join = add("first", Concat(), a, b)
    second_join = add("second", Concat(), b, a)
    add("end", Concat(), first_join, second_join)
    steps = schedule_graph(add.build())
    assert [step for step in steps.steps if isinstance(step, Copy)] == [
        Copy("b", "second", 0),
        Copy("a", "second", 4 * 4 * 4 * 4),
    ]


def test_a_value_that_would_be_unaligned_is_copied() -> None:
    add = NetBuilder(3, 3, 3)
    a, b = add("a", Relu(), "image"), add("b", Conv(3, (1, 1)), "image")
    add("join", Concat(), a, b)
    steps = schedule_graph(add.build())
    assert [step for step in steps.steps if isinstance(step, Copy)] == [Copy("b", "join", 108)]
    assert steps.locations["a"].buffer == "join"


def test_the_arena_fits_the_values() -> None:
    graph = load(shipped.list_specs()["ddsnet"]).graph
    arena = plan(compute_buffers(schedule_graph(graph)))
    assert arena.bound < 5.7e6
    assert arena.nbytes <= 1.15 * arena.bound
