"""Of very many mistakes the first are told, in the order of the text, and the others are counted."""

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


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "many.yaml"
    path.write_text(HEAD + text)
    return path


def told(tmp_path: Path, text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, text))
    return caught.value


def lines(error: UserError) -> list[int]:
    return [d.at.line for d in error.diagnostics]


def test_unknown_words(tmp_path: Path) -> None:
    found = told(tmp_path, "graph:\n" + "".join(f"  - word{n}\n" for n in range(130)))
    assert lines(found) == list(range(6, 56))
    assert (found.omitted_count, found.count) == (80, 130)
    assert str(found).endswith("\n\nand 80 more")


def test_more_than_are_looked_for(tmp_path: Path) -> None:
    rows = "".join(f"  p{n}: lost{n}\n" for n in range(1200))
    found = told(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert (found.omitted_count, found.count_text) == (950, "at least 1,000 errors")
    assert str(found).endswith("\n\nand at least 950 more")
    exact = told(tmp_path, "graph:\n" + "  - lost\n" * 1200)
    assert exact.count_text == "1,200 errors"


def test_mistakes_of_expansion_end_the_search(tmp_path: Path) -> None:
    rows = "".join(f"  - conv: {{filters: lost{n}, kernel: 1}}\n" for n in range(90))
    assert told(tmp_path, f"graph:\n{rows}").count_text == "at least 50 errors"


def test_nested_words_come_in_the_order_of_the_text(tmp_path: Path) -> None:
    nested = "".join(f"  - seq: [word{n}]\n  - other{n}\n" for n in range(40))
    found = told(tmp_path, "graph:\n" + nested)
    assert lines(found) == list(range(6, 56))
    assert found.omitted_count == 30


def test_unknown_arguments(tmp_path: Path) -> None:
    keys = ", ".join(f"key{n}: 1" for n in range(120))
    found = told(tmp_path, f"graph:\n  - relu: {{{keys}}}\n")
    assert [d.message for d in found.diagnostics] == [
        f"`relu` has no argument `key{n}`" for n in range(50)
    ]
    assert found.omitted_count == 70


def test_wrong_types(tmp_path: Path) -> None:
    found = told(tmp_path, "graph:\n" + "  - conv: {filters: [], kernel: 3}\n" * 99)
    assert lines(found) == list(range(6, 56))
    assert found.omitted_count == 49


def test_parameters(tmp_path: Path) -> None:
    wrong = "".join(f"  p{n}: {{type: int, default: 1.5}}\n" for n in range(90))
    found = told(tmp_path, f"params:\n{wrong}graph: [relu]\n")
    assert lines(found) == list(range(6, 56))
    assert found.omitted_count == 40


def test_an_output_of_a_wrong_parameter_is_not_another_mistake(tmp_path: Path) -> None:
    """Its labels are not known, which is no reason to call it `train_only`."""
    spec = "tcc: 1\nname: one\ninput: {image: {shape: [3, 8, 8]}}\n"
    spec += "params: {labels: {type: names, default: [a, b]}, classes: len(labels)}\n"
    spec += "graph:\n  - flatten\n  - linear: {units: classes}\n"
    path = tmp_path / "one.yaml"
    path.write_text(spec + "output:\n  logits:\n    labels: labels if classes > 1 else []\n")
    with pytest.raises(UserError) as caught:
        load(path, settings={"labels": "a,b"})
    assert [d.code for d in caught.value.diagnostics] == ["E0220"]


def test_words_and_what_comes_after_them_share_the_room(tmp_path: Path) -> None:
    words = "".join(f"  - word{n}\n" for n in range(45))
    steps = "  - conv: {filters: 0, kernel: 3}\n    from: image\n" * 45
    found = told(tmp_path, f"graph:\n{steps}{words}")
    assert len(found.diagnostics) == 50
    assert found.count == 90


def test_a_message_lists_no_thousands_of_names(tmp_path: Path) -> None:
    named = "".join(f"  - relu:\n    as: name{n}\n" for n in range(2000))
    found = told(tmp_path, f"graph:\n{named}  - add: [[], other]\n")
    (diagnostic,) = found.diagnostics
    assert diagnostic.message == "no value is called `other`"
    assert diagnostic.help.endswith(" and 1,971 more")
    assert len(diagnostic.help) < 500


def test_thousands_of_cases_are_bounded_and_equal_ones_compile_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    params = "params: {n: 3}\ngraph: [conv: {filters: n, kernel: 1}]\n"
    same = "  - {set: {n: 4}, params: 16}\n" * 2000
    path.write_text(f"{HEAD}{params}tests:\n{same}")
    facts = check_expectations(load(path))
    assert (len(facts), {fact.holds for fact in facts}) == (2000, {True})
    other = "".join(f"  - {{set: {{n: {n + 1}}}, params: {4 * (n + 1)}}}\n" for n in range(400))
    path.write_text(f"{HEAD}{params}tests:\n{other}")
    with pytest.raises(UserError) as caught:
        check_expectations(load(path))
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0242", "the cases of `tests` take too long")
    assert found.at.line > 200


def test_loops_over_nothing_end(tmp_path: Path) -> None:
    loop = "each: {of: range(4096), as: NAME, body: [BODY]}"
    work = "let: {v: sum(range(4096))}"
    body = loop.replace("NAME", "a").replace("BODY", loop.replace("NAME", "b"))
    found = told(tmp_path, f"graph:\n  - {body.replace('BODY', work)}\n")
    assert [(d.code, d.at.line) for d in found.diagnostics] == [("E0406", 6)]


def test_a_default_is_evaluated_in_one_scope_of_the_call() -> None:
    here = Span("a.yaml", 1, 1, "", 1)
    default = [Parameter("a", Kind.INT, Scalar(1, here))]
    default += [Parameter(f"p{n}", Kind.INT, Scalar("a + 1", here)) for n in range(50)]
    made: list[ArgumentValues] = []

    def own(bound: ArgumentValues) -> ExpressionScope:
        made.append(bound)
        return StepScope(PathNode(""), Bindings(bound)).create_expression_scope(ERROR_VALUE)

    bound, problems = bind_arguments(
        tuple(default), None, StepScope(PathNode("")).create_expression_scope(ERROR_VALUE), own
    )
    assert (problems, len(made)) == ([], 1)
    assert bound == {"a": 1, **{f"p{n}": 2 for n in range(50)}}


def test_collection_goes_on_after_a_wrong_spec(tmp_path: Path) -> None:
    assert gc.isenabled()
    told(tmp_path, "graph: [wrong]\n")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("value", "code"),
    [("'[1] * 4096 + [2] * {n}'", "E0223"), ("zzz", "E0221"), ("[zzz, zzz]", "E0221")],
)
def test_wrong_parameters_take_time_in_proportion(tmp_path: Path, value: str, code: str) -> None:
    rows = "".join(f"  p{n}: {value.format(n=n + 1)}\n" for n in range(1500))
    start = time.process_time()
    found = told(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert time.process_time() - start < 5
    assert {d.code for d in found.diagnostics} == {code}
    assert lines(found) == list(range(6, 56))


@pytest.mark.parametrize("turn", ["[", "{a: ", "['] ] ]',", "[ # ] ]\n  "])
def test_lists_of_any_depth_take_time_in_proportion(tmp_path: Path, turn: str) -> None:
    start = time.process_time()
    found = told(tmp_path, f"graph: {turn * (65_000 // len(turn))}\n")
    assert time.process_time() - start < 5  # all brackets at each word took 20 s
    assert [d.code for d in found.diagnostics] == ["E0105"]


def test_defaults_share_what_they_may_cost(tmp_path: Path) -> None:
    cost = " + ".join(["sum(range(4096))"] * 5)
    rows = "".join(f"  p{n}: {{type: int, default: {cost}}}\n" for n in range(500))
    found = told(tmp_path, f"params:\n{rows}graph: [relu]\n")
    assert found.diagnostics[0].code == "E0406"
