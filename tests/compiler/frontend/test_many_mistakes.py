"""With very many mistakes, the first are reported in text order and the others are counted."""

import gc
import time
from pathlib import Path

import pytest

from tcc.compiler.frontend.argument_values import ArgumentValues, bind_arguments
from tcc.compiler.frontend.expr import ExpressionScope
from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.frontend.step_scope import ERROR_VALUE, Bindings, PathNode, StepScope
from tcc.compiler.frontend.yaml import Scalar
from tcc.compiler.ir.argument_declarations import Kind, Parameter
from tcc.compiler.support.diagnostics import Span, UserError

HEAD = "tcc: 1\nname: many\ninput: {image: {shape: [3, 8, 8]}}\noutput: {logits: {}}\n"


def write_spec(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "many.yaml"
    path.write_text(HEAD + text)
    return path


def read_error(tmp_path: Path, text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load(write_spec(tmp_path, text))
    return caught.value


def list_lines(error: UserError) -> list[int]:
    return [d.at.line for d in error.diagnostics]


def test_unknown_op_names_are_limited(tmp_path: Path) -> None:
    error = read_error(tmp_path, "graph:\n" + "".join(f"  - word{n}\n" for n in range(130)))
    assert list_lines(error) == list(range(6, 56))
    assert (error.omitted_count, error.count) == (80, 130)
    assert str(error).endswith("\n\nand 80 more")


def test_the_search_stops_after_very_many_mistakes(tmp_path: Path) -> None:
    rows = "".join(f"  p{n}: lost{n}\n" for n in range(1200))
    error = read_error(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert (error.omitted_count, error.count_text) == (950, "at least 1,000 errors")
    assert str(error).endswith("\n\nand at least 950 more")
    exact = read_error(tmp_path, "graph:\n" + "  - lost\n" * 1200)
    assert exact.count_text == "1,200 errors"


def test_expansion_mistakes_end_the_search(tmp_path: Path) -> None:
    rows = "".join(f"  - conv: {{filters: lost{n}, kernel: 1}}\n" for n in range(90))
    assert read_error(tmp_path, f"graph:\n{rows}").count_text == "at least 50 errors"


def test_nested_op_names_are_reported_in_text_order(tmp_path: Path) -> None:
    nested = "".join(f"  - seq: [word{n}]\n  - other{n}\n" for n in range(40))
    error = read_error(tmp_path, "graph:\n" + nested)
    assert list_lines(error) == list(range(6, 56))
    assert error.omitted_count == 30


def test_unknown_arguments_are_limited(tmp_path: Path) -> None:
    keys = ", ".join(f"key{n}: 1" for n in range(120))
    error = read_error(tmp_path, f"graph:\n  - relu: {{{keys}}}\n")
    assert [d.message for d in error.diagnostics] == [
        f"`relu` has no argument `key{n}`" for n in range(50)
    ]
    assert error.omitted_count == 70


def test_wrong_types_are_limited(tmp_path: Path) -> None:
    error = read_error(tmp_path, "graph:\n" + "  - conv: {filters: [], kernel: 3}\n" * 99)
    assert list_lines(error) == list(range(6, 56))
    assert error.omitted_count == 49


def test_wrong_parameters_are_limited(tmp_path: Path) -> None:
    wrong = "".join(f"  p{n}: {{type: int, default: 1.5}}\n" for n in range(90))
    error = read_error(tmp_path, f"params:\n{wrong}graph: [relu]\n")
    assert list_lines(error) == list(range(6, 56))
    assert error.omitted_count == 40


def test_an_output_with_a_wrong_parameter_is_reported_once(tmp_path: Path) -> None:
    """Its labels are unknown. That must not suggest `train_only`."""
    spec = "tcc: 1\nname: one\ninput: {image: {shape: [3, 8, 8]}}\n"
    spec += "params: {labels: {type: names, default: [a, b]}, classes: len(labels)}\n"
    spec += "graph:\n  - flatten\n  - linear: {units: classes}\n"
    path = tmp_path / "one.yaml"
    path.write_text(spec + "output:\n  logits:\n    labels: labels if classes > 1 else []\n")
    with pytest.raises(UserError) as caught:
        load(path, settings={"labels": "a,b"})
    assert [d.code for d in caught.value.diagnostics] == ["E0220"]


def test_op_names_and_arguments_share_one_limit(tmp_path: Path) -> None:
    unknown_steps = "".join(f"  - word{n}\n" for n in range(45))
    steps = "  - conv: {filters: 0, kernel: 3}\n    from: image\n" * 45
    error = read_error(tmp_path, f"graph:\n{steps}{unknown_steps}")
    assert len(error.diagnostics) == 50
    assert error.count == 90


def test_long_lists_of_names_are_shortened(tmp_path: Path) -> None:
    named_steps = "".join(f"  - relu:\n    as: name{n}\n" for n in range(2000))
    error = read_error(tmp_path, f"graph:\n{named_steps}  - add: [[], other]\n")
    (diagnostic,) = error.diagnostics
    assert diagnostic.message == "no value is called `other`"
    assert diagnostic.help.endswith(" and 1,971 more")
    assert len(diagnostic.help) < 500


def test_thousands_of_cases_are_bounded_and_equal_ones_compile_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    params = "params: {n: 3}\ngraph: [conv: {filters: n, kernel: 1}]\n"
    equal_cases = "  - {set: {n: 4}, params: 16}\n" * 2000
    path.write_text(f"{HEAD}{params}tests:\n{equal_cases}")
    facts = check_expectations(load(path))
    assert (len(facts), {fact.holds for fact in facts}) == (2000, {True})
    different_cases = "".join(
        f"  - {{set: {{n: {n + 1}}}, params: {4 * (n + 1)}}}\n" for n in range(400)
    )
    path.write_text(f"{HEAD}{params}tests:\n{different_cases}")
    with pytest.raises(UserError) as caught:
        check_expectations(load(path))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("E0242", "the cases of `tests` take too long")
    assert diagnostic.at.line > 200


def test_loops_that_make_no_steps_terminate(tmp_path: Path) -> None:
    loop = "each: {of: range(4096), as: NAME, body: [BODY]}"
    work = "let: {v: sum(range(4096))}"
    body = loop.replace("NAME", "a").replace("BODY", loop.replace("NAME", "b"))
    error = read_error(tmp_path, f"graph:\n  - {body.replace('BODY', work)}\n")
    assert [(d.code, d.at.line) for d in error.diagnostics] == [("E0406", 6)]


def test_a_default_is_evaluated_in_one_scope_of_the_call() -> None:
    span = Span("a.yaml", 1, 1, "", 1)
    default = [Parameter("a", Kind.INT, Scalar(1, span))]
    default += [Parameter(f"p{n}", Kind.INT, Scalar("a + 1", span)) for n in range(50)]
    bound_values: list[ArgumentValues] = []

    def create_scope(bound: ArgumentValues) -> ExpressionScope:
        bound_values.append(bound)
        return StepScope(PathNode(""), Bindings(bound)).create_expression_scope(ERROR_VALUE)

    bound, problems = bind_arguments(
        tuple(default),
        None,
        StepScope(PathNode("")).create_expression_scope(ERROR_VALUE),
        create_scope,
    )
    assert (problems, len(bound_values)) == ([], 1)
    assert bound == {"a": 1, **{f"p{n}": 2 for n in range(50)}}


def test_error_collection_continues_after_a_wrong_spec(tmp_path: Path) -> None:
    assert gc.isenabled()
    read_error(tmp_path, "graph: [wrong]\n")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("value", "code"),
    [("'[1] * 4096 + [2] * {n}'", "E0223"), ("zzz", "E0221"), ("[zzz, zzz]", "E0221")],
)
def test_wrong_parameters_take_linear_time(tmp_path: Path, value: str, code: str) -> None:
    rows = "".join(f"  p{n}: {value.format(n=n + 1)}\n" for n in range(1500))
    start = time.process_time()
    error = read_error(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert time.process_time() - start < 5
    assert {d.code for d in error.diagnostics} == {code}
    assert list_lines(error) == list(range(6, 56))


@pytest.mark.parametrize("turn", ["[", "{a: ", "['] ] ]',", "[ # ] ]\n  "])
def test_nested_lists_take_linear_time(tmp_path: Path, turn: str) -> None:
    start = time.process_time()
    error = read_error(tmp_path, f"graph: {turn * (65_000 // len(turn))}\n")
    assert time.process_time() - start < 5  # scanning all brackets at each name took 20 s
    assert [d.code for d in error.diagnostics] == ["E0105"]


def test_defaults_share_one_evaluation_budget(tmp_path: Path) -> None:
    cost = " + ".join(["sum(range(4096))"] * 5)
    rows = "".join(f"  p{n}: {{type: int, default: {cost}}}\n" for n in range(500))
    error = read_error(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert error.diagnostics[0].code == "E0406"
