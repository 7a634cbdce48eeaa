"""Names in loops: a value from before the loop is carried from iteration to iteration."""

from pathlib import Path
from textwrap import dedent

import pytest

from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.support.diagnostics import UserError

HEAD = """\
tcc: 1
name: net
input: {image: {shape: [4, 8, 8]}}
output: {y: {}}
"""


def load_spec(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "net.yaml"
    path.write_text(HEAD + dedent(text))
    return load(path)


def list_reads(built: Spec) -> dict[str, tuple[str, ...]]:
    """Return the inputs of each join."""
    return {n.name: n.inputs for n in built.graph.nodes if n.op.keyword in ("add", "concat", "mul")}


def list_widths(built: Spec) -> list[int]:
    return [n.type.shape[0] for n in built.graph.nodes if n.op.keyword == "conv"]


RECURRENT = """
    graph:
      - {sigmoid: , as: state}
      - LOOP
      - mul: [[], state]
"""
TURN = "body: [tanh, {add: [[], state], as: state}]"


@pytest.mark.parametrize(
    ("loop", "paths"),
    [
        (f"repeat: {{times: 3, {TURN}}}", [f"repeat_{i}/{{}}" for i in (1, 2, 3)]),
        (f"each: {{of: [5, 6, 7], as: n, {TURN}}}", [f"{{}}_{i}" for i in (1, 2, 3)]),
        (
            f"repeat: {{times: 1, body: [each: {{of: [1], as: n, {TURN}}}, repeat: {{times: 2, {TURN}}}]}}",
            ["repeat_1/{}", "repeat_1/repeat_1/{}", "repeat_1/repeat_2/{}"],
        ),
    ],
    ids=["repeat", "each", "nested"],
)
def test_a_name_from_before_the_loop_has_the_value_of_the_previous_iteration(
    tmp_path: Path, loop: str, paths: list[str]
) -> None:
    tanh, adds = ([p.format(op_name) for p in paths] for op_name in ("tanh", "add"))
    states = ["sigmoid", *adds[:2]]
    assert list_reads(load_spec(tmp_path, RECURRENT.replace("LOOP", loop))) == {
        **{a: (t, s) for a, t, s in zip(adds, tanh, states, strict=True)},
        "mul": (adds[-1], adds[-1]),
    }


def test_without_iterations_the_name_keeps_its_value(tmp_path: Path) -> None:
    loop = f"repeat: {{times: 0, {TURN}}}"
    assert list_reads(load_spec(tmp_path, RECURRENT.replace("LOOP", loop))) == {
        "mul": ("sigmoid", "sigmoid")
    }


def test_side_branches_and_taken_conditions_carry_values(tmp_path: Path) -> None:
    text = """
        graph:
          - {relu: , as: a}
          - {tanh: , as: b}
          - repeat:
              times: 3
              body:
                - side: {as: a, body: [add: [[], a]]}
                - when: {if: i == 1, then: [{add: [[], b], as: b}]}
          - concat: [a, b]
    """
    assert list_reads(load_spec(tmp_path, text)) == {
        "repeat_1/add": ("tanh", "relu"),
        "repeat_2/add_1": ("tanh", "repeat_1/add"),
        "repeat_2/add_2": ("tanh", "tanh"),
        "repeat_3/add": ("repeat_2/add_2", "repeat_2/add_1"),
        "concat": ("repeat_3/add", "repeat_2/add_2"),
    }


def test_names_bound_in_an_iteration_end_with_it(tmp_path: Path) -> None:
    text = "graph: [repeat: {times: 2, body: [WHEN, {relu: , as: own}]}, END]\n"
    late = "when: {if: i > 0, then: [add: [[], own]]}"
    for when, end in ((late, "relu"), ("relu", "add: [[], own]")):
        with pytest.raises(UserError) as caught:
            load_spec(tmp_path, text.replace("WHEN", when).replace("END", end))
        (diagnostic,) = caught.value.diagnostics
        assert (diagnostic.code, diagnostic.message) == ("E0217", "no value is called `own`")


@pytest.mark.parametrize(
    "local_step",
    [
        "seq: [{add: [[], a], as: a}]",
        "concat: [[{relu: , as: a}], []]",
        "mul: {times: 2, branch: [{add: [[], a], as: a}]}",
        "side: {as: other, body: [{relu: , as: a}]}",
        "same: {}",
    ],
)
def test_steps_with_local_names_carry_no_values(tmp_path: Path, local_step: str) -> None:
    text = f"""
        blocks: {{same: {{body: [{{relu: , as: a}}, mul: [[], a]]}}}}
        graph:
          - {{tanh: , as: a}}
          - repeat: {{times: 2, body: [{local_step}]}}
          - {{sigmoid: , from: a, id: last}}
    """
    assert load_spec(tmp_path, text).graph.nodes[-1].inputs == ("tanh",)


def test_let_values_are_carried(tmp_path: Path) -> None:
    text = """
        params: {width: 2}
        graph:
          - let: {n: 1}
          - repeat:
              times: 3
              body:
                - let: {n: n * 2, width: width + n, half: width // 2}
                - conv: {filters: n, kernel: 1}
                - each: {of: [1, 1], as: step, body: [let: {n: n + step}]}
          - conv: {filters: n, kernel: 1}
          - conv: {filters: width, kernel: 1}
    """
    assert list_widths(load_spec(tmp_path, text)) == [2, 8, 20, 22, 2 + 2 + 8 + 20]


def test_loop_variables_are_local(tmp_path: Path) -> None:
    text = """
        graph:
          - each:
              of: [3, 5]
              as: n
              body:
                - each: {of: [7], as: n, body: [let: {i: 9}, conv: {filters: n, kernel: 1}]}
                - repeat: {times: 3, body: [relu]}
                - conv: {filters: n, kernel: 1}
                - conv: {filters: 11 + i, kernel: 1}
                - when: {if: last, then: [conv: {filters: 2, kernel: 1}]}
    """
    assert list_widths(load_spec(tmp_path, text)) == [7, 3, 11, 7, 5, 12, 2]


def test_block_inputs_are_carried_in_its_body(tmp_path: Path) -> None:
    text = """
        blocks:
          running:
            inputs: [x, state]
            body: [repeat: {times: 2, body: [{add: [[], state], as: state}]}, mul: [[], state]]
        graph: [{relu: , as: a}, {tanh: , as: b}, {running: , from: [a, b]}, concat: [[], b]]
    """
    assert list_reads(load_spec(tmp_path, text)) == {
        "running/repeat_1/add": ("relu", "tanh"),
        "running/repeat_2/add": ("running/repeat_1/add", "running/repeat_1/add"),
        "running/mul": ("running/repeat_2/add", "running/repeat_2/add"),
        "concat": ("running/mul", "tanh"),
    }


def test_an_error_in_a_loop_body_is_reported_once(tmp_path: Path) -> None:
    text = """
        graph:
          - {relu: , as: a}
          - repeat: {times: 3, body: [{conv: {filters: wide, kernel: 1}, as: a}, add: [[], a]]}
          - linear: {units: channels(a)}
    """
    with pytest.raises(UserError) as caught:
        load_spec(tmp_path, text)
    assert [(d.code, d.notes[-1]) for d in caught.value.diagnostics] == [
        ("E0221", "the same error in further calls or iterations: 2")
    ]
