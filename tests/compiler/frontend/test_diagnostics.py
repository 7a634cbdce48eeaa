"""Errors of wrong specs: code, location, caret, call chain and help."""

from pathlib import Path
from textwrap import dedent

import pytest

from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.expansion import FEWER_ITERATIONS
from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.support.diagnostics import Diagnostic, UserError

HEAD = """\
tcc: 1
name: wrong
input: {image: {shape: [3, 32, 32]}}
output: {logits: {}}
"""


def read_errors(
    tmp_path: Path, text: str, head: str = HEAD, **settings: str
) -> tuple[Diagnostic, ...]:
    path = tmp_path / "wrong.yaml"
    path.write_text(head + dedent(text))
    with pytest.raises(UserError) as caught:
        load(path, settings)
    return caught.value.diagnostics


def read_single_error(tmp_path: Path, text: str, head: str = HEAD, **settings: str) -> str:
    diagnostics = read_errors(tmp_path, text, head, **settings)
    assert len(diagnostics) == 1, "\n\n".join(map(str, diagnostics))
    return str(diagnostics[0]).replace(f"{tmp_path}/", "")


def test_a_concat_error_names_shapes_and_call_chain(tmp_path: Path) -> None:
    text = """
        blocks:
          cell:
            body:
              - concat: [[], [conv: {filters: 8, kernel: 3, stride: 2}]]
        graph:
          - repeat: {times: 3, body: [relu, cell]}
    """
    assert (
        read_single_error(tmp_path, text)
        == dedent("""\
        error[E0312]: concat needs equal heights and widths
         --> wrong.yaml:9:9
          |
        9 |       - concat: [[], [conv: {filters: 8, kernel: 3, stride: 2}]]
          |         ^^^^^^ branch 0 is 3x32x32, branch 1 is 8x15x15
           = in block `cell` called from wrong.yaml:11:37 (repeat 1 of 3)
           = help: use `padding: same` and equal strides in the convolutions, or pool the larger branch""")
    )


CASES = {
    "unknown op": ("graph: [rellu]", "E0201", 5, 9, "no op or block is called `rellu`", "did you mean `relu`?"),
    "unknown argument": (
        "graph: [conv: {filter: 8, filters: 8, kernel: 3}]", "E0202", 5, 16,
        "`conv` has no argument `filter`", "did you mean `filters`?",
    ),
    "missing argument": ("graph: [conv: {filters: 8}]", "E0215", 5, 9, "`conv` needs `kernel`", "add `kernel:`"),
    "bare op that needs arguments": (
        "graph: [max_pool]", "E0215", 5, 9, "`max_pool` needs the argument `kernel`",
        "add `kernel:`, an integer or [height, width]: window size",
    ),
    "unknown key": ("graph: [relu]\ngrph: 1", "E0202", 6, 1, "a spec has no key `grph`", "did you mean `graph`?"),
    "two words": (
        "graph:\n  - relu:\n    conv: {filters: 1, kernel: 1}", "E0205", 7, 5,
        "a step has exactly one op or block", "start a new step with `- conv`, or indent it under `relu:`",
    ),
    "wrong type": (
        "graph: [conv: {filters: true, kernel: 3}]", "E0204", 5, 25,
        "`filters` must be an integer or an expression", "",
    ),
    "float where an integer belongs": (
        "graph: [conv: {filters: C / 2, kernel: 3}]", "E0213", 5, 25, "`filters` must be an integer",
        "`//` divides to an integer; `round`, `ceil` and `floor` return one",
    ),
    "out of range": ("graph: [conv: {filters: 0, kernel: 3}]", "E0214", 5, 25, "`filters` must be at least 1", ""),
    "unknown name": (
        "params: {width: 3}\ngraph: [conv: {filters: widht, kernel: 3}]", "E0221", 6, 25, None,
        "did you mean `width`?",
    ),
    "unknown value": ("graph: [relu: {}, add: [[], early]]", "E0217", 5, 29, "no value is called `early`", None),
    "op as a branch": (
        "graph: [add: [[], relu]]", "E0217", 5, 19, "no value is called `relu`",
        "to apply the op in a branch of `add`, write [relu]",
    ),
    "linear on a map": (
        "graph: [linear: {units: 2}]", "E0304", 5, 9, "linear needs a vector",
        "put `flatten` (after `global_avg_pool`) before it",
    ),
    "window too large": (
        "graph: [conv: {filters: 2, kernel: 33}]", "E0302", 5, 9, "a window of height 33 does not fit the input", None,
    ),
    "groups": ("graph: [conv: {filters: 4, kernel: 1, groups: 2}]", "E0303", 5, 9, "groups must divide the channels", "set `groups` to a divisor of 3, or change the channels"),
    "recursive block": (
        "blocks: {a: {body: [b]}, b: {body: [a]}}\ngraph: [a]", "E0403", 5, 37, "a block calls itself", "repeat steps with `repeat` or `each`",
    ),
    "block named like an op": ("blocks: {relu: {body: []}}\ngraph: [relu]", "E0207", 5, 10, None, "rename the block"),
    "unknown parameter of a block": (
        "blocks: {b: {params: {n: int}, body: []}}\ngraph: [b: {m: 1, n: 2}]", "E0202", 6, 13,
        "`b` has no argument `m`", None,
    ),
    "enum": (
        "blocks: {b: {params: {a: {type: enum, values: [one, two]}}, body: []}}\ngraph: [b: {a: \"'tow'\"}]",
        "E0213", 6, 16, "`a` must be one of one, two", "did you mean `two`?",
    ),
    "too many nodes": ("graph: [repeat: {times: 9000, body: [relu, relu, relu]}]", "E0401", 5, 50, None, FEWER_ITERATIONS),
    "huge tensor": ("graph: [conv: {filters: 2000000000, kernel: 1}]", "E0405", 5, 9, None, "use a smaller input, or fewer filters or units"),
    "same id": ("graph: [{relu: , id: a}, {relu: , id: a}]", "E0210", 5, 39, "two steps have the id `a`", "change one `id`"),
    "id of the input": (
        "graph: [{relu: , id: image}]", "E0210", 5, 22, "a step and the input are both `image`",
        "change the `id` of the step, or the name of the input",
    ),
    "use that escapes": ("use: [../../etc/passwd]\ngraph: [relu]", "E0111", 5, 7, None, None),
    "use that is missing": ("use: [blocks/none.yaml]\ngraph: [relu]", "E0110", 5, 7, None, None),
    "labels": ("graph: [global_avg_pool, flatten]\noutput: {y: {labels: [a, b]}}", "E0233", 6, 22, None, None),
    "parameter named like a size": (
        "params: {C: 1}\ngraph: [relu]", "E0231", 5, 10, "`C` is a size of the current value, so nothing else can have this name", None,
    ),
    "parameter that no expression can read": (
        "blocks: {b: {params: {if: 1}, body: []}}\ngraph: [b]", "E0231", 5, 23,
        "`if` is a keyword of expressions, so nothing else can have this name", None,
    ),
    "loop variable named like a size": (
        "graph: [each: {of: [1], as: C, body: [relu]}]", "E0231", 5, 29, None, None,
    ),
    "branch variable named like a size": (
        "graph: [add: {of: [1], as: H, branch: [relu]}]", "E0231", 5, 28, None, None,
    ),
    "inputs of one name": (
        "blocks: {m: {inputs: [a, a], body: []}}\ngraph: [relu]", "E0210", 5, 26, "two inputs are called `a`", None,
    ),
    "label that is not text": (
        "graph: [global_avg_pool, flatten]\noutput: {y: {labels: [a, [b], c]}}", "E0213", 6, 26, None, "put it in quotes",
    ),
    "several values into branches": (
        "graph: [{relu: , as: a}, {concat: [[], a], from: [a, a]}]", "E0218", 5, 27, "`concat` takes one value",
        "remove the branches to concat the values of `from`",
    ),
    "several values into a loop": (
        "graph: [{relu: , as: a}, {repeat: {times: 1, body: []}, from: [a, a]}]", "E0218", 5, 27, None, None,
    ),
    "huge input": (
        "input: {x: {shape: [3, 99999, 99999]}}\ngraph: [relu]", "E0405", 5, 20, "the input is too large", None,
    ),
    "misspelt key is not missing as well": (
        "graph: [repeat: {time: 2, body: [relu]}]", "E0202", 5, 18, "`repeat` has no argument `time`",
        "did you mean `times`?",
    ),
    "misspelt argument of a block": (
        "blocks: {b: {params: {width: int}, body: []}}\ngraph: [b: {widht: 1}]", "E0202", 6, 13, None,
        "did you mean `width`?",
    ),
    "key of the input": (
        "input: {x: {shap: [3, 4, 4]}}\ngraph: [relu]", "E0202", 5, 13, "`x` has no key `shap`", "did you mean `shape`?",
    ),
    "key of a contract": (
        "blocks: {m: {require: [{that: true, els: x}], body: []}}\ngraph: [m]", "E0202", 5, 37,
        "`require` has no key `els`", "did you mean `else`?",
    ),
    "name of a parameter": (
        "params: {a: 1, my-width: 3}\ngraph: [relu]", "E0206", 5, 16, "`my-width` cannot be a name", None,
    ),
    "input without a name": (
        "input: {shape: [3, 4, 4]}\ngraph: [relu]", "E0204", 5, 16, None,
        "an input has a name: `input: {image: {shape: [...]}}`",
    ),
    "output as a list": (
        "graph: [relu]\noutput: [logits]", "E0204", 6, 9, None, "an output has a name: `output: {logits: {}}`",
    ),
    "steps without dashes": ("graph:\n  relu:\n  tanh:", "E0204", 6, 3, None, "start each entry with `- `"),
    "mapping as a value": ("graph: [let: {a: {b: 1}}]", "E0204", 5, 18, None, ""),
    "arguments next to a loop": (
        "graph:\n  - repeat:\n    times: 2\n    body: []", "E0204", 6, 12, None,
        "write `repeat: {times: ..., body: ...}`",
    ),
    "two sizes": ("input: {x: {shape: [4, 4]}}\ngraph: [relu]", "E0204", 5, 20, "`shape` needs exactly 3 entries",
        "channels come first: write [1, 4, 4] for one channel"),
    "pair in parentheses": (
        "graph: [conv: {filters: 3, kernel: (3, 3)}]", "E0202", 5, 40, None,
        'put text with commas in quotes: "max(a, b)"; write a list as [a, b]',
    ),
    "yes": (
        "graph: [conv: {filters: 3, kernel: 1, bias: no}]", "E0213", 5, 45, "`bias` must be true or false", "write `false`",
    ),
    "loops over nothing": (
        "graph: [each: {of: range(4000), as: a, body: [repeat: {times: 9999, body: []}]}]", "E0404", 5, 75, None, FEWER_ITERATIONS,
    ),
    "misspelt condition": (
        "params: {half: true}\ngraph: [when: {if: hafl, then: []}]", "E0221", 6, 20, None, "did you mean `half`?",
    ),
    "text in a list": (
        "params: {cfg: [[3, relu]]}\ngraph: [relu]", "E0221", 5, 20, "unknown name `relu`",
        "put text in an expression into its own quotes: \"'text'\"",
    ),
    "map and vector": (
        "graph: [concat: [[], [flatten]]]", "E0312", 5, 9, "concat cannot join feature maps and vectors",
        "put `flatten` into every branch, or into none",
    ),
    "labels without brackets": (
        "graph: [flatten]\noutput: {y: {labels: benign}}", "E0213", 6, 22, None, "put them in brackets: [a, b]",
    ),
    "else as a step": (
        "graph: [else: [relu]]", "E0201", 5, 9, None,
        "a condition is one step: `when: {if: ..., then: [...], else: [...]}`",
    ),
    "capitals": ("graph: [ReLU]", "E0201", 5, 9, None, "write `relu`"),
    "size with x": (
        "graph: [conv: {filters: 3, kernel: 3x3}]", "E0220", 5, 36, "`3x3` is not a number", "write sizes as [3, 3]",
    ),
    "underscore in a number": ("graph: [conv: {filters: 1_000, kernel: 1}]", "E0220", 5, 25, None, "write 1000"),
    "int()": (
        "graph: [conv: {filters: int(C / 2), kernel: 1}]", "E0221", 5, 25, None,
        "`//` divides to an integer; `round`, `ceil` and `floor` return one",
    ),
    "no colon": (
        "graph:\n  - conv {filters: 3, kernel: 1}", "E0102", 6, 10, "a `:` is missing here", "write `conv: {key: value}`",
    ),
    "no space after a colon": (
        "graph:\n  - conv:{filters: 3, kernel: 1}", "E0102", 6, 10, "a space is missing after the `:`", None,
    ),
    "index without quotes": (
        "graph: [conv: {filters: w[0], kernel: 1}]", "E0102", 5, 26, None,
        'put an expression with brackets in quotes: "widths[0]"',
    ),
    "tcc version": ("graph: [relu]\ntcc: 2", "E0209", 6, 6, "`tcc` must be 1", None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "message", "help"), CASES.values(), ids=CASES.keys()
)
def test_errors_have_location_and_help(
    tmp_path: Path,
    text: str,
    code: str,
    line: int,
    column: int,
    message: str | None,
    help: str | None,
) -> None:
    replaced = [k for k in ("tcc", "input", "output") if f"\n{k}:" in f"\n{text}"]
    head = "".join(
        "doc: x\n" if line.split(":")[0] in replaced else line for line in HEAD.splitlines(True)
    )
    (diagnostic,) = read_errors(tmp_path, text, head)
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == (code, line, column), str(
        diagnostic
    )
    assert message is None or diagnostic.message == message
    assert help is None or diagnostic.help == help


def test_independent_errors_are_reported_together(tmp_path: Path) -> None:
    diagnostics = read_errors(
        tmp_path,
        """
        graph:
          - conv: {filters: 8, kernal: 3}
          - rellu
          - max_pool: {kernel: 2, stride: half}
          - linear: {units: 2}
        """,
    )
    assert [(d.code, d.at.line) for d in diagnostics] == [
        ("E0202", 7),
        ("E0201", 8),
        ("E0221", 9),
    ]


def test_one_mistake_is_reported_once(tmp_path: Path) -> None:
    """Follow-on errors are suppressed."""
    diagnostics = read_errors(
        tmp_path,
        """
        graph:
          - conv: {filters: wide, kernel: 3}
          - conv: {filters: C * 2, kernel: H + 1}
          - add: [[], [conv: {filters: C, kernel: 1}]]
          - linear: {units: 4}
        """,
    )
    assert [d.code for d in diagnostics] == ["E0221"]


def test_an_error_in_a_reused_block_is_reported_once(tmp_path: Path) -> None:
    text = """
        blocks: {b: {body: [linear: {units: 2}]}}
        graph: [add: {times: 5, branch: [b]}]
    """
    (diagnostic,) = read_errors(tmp_path, text)
    assert diagnostic.notes[-1] == "the same error in further calls or iterations: 4"


def test_a_broken_block_contract_is_reported_at_the_call(tmp_path: Path) -> None:
    text = """
        blocks:
          keep:
            params: {kernel: int}
            require: [{that: kernel % 2 == 1, else: an even kernel cannot keep the size}]
            body: [conv: {filters: C, kernel: kernel, padding: kernel // 2}]
        graph:
          - keep: {kernel: 4}
    """
    assert read_single_error(tmp_path, text) == dedent("""\
        error[E0219]: `keep` cannot be used like this: an even kernel cannot keep the size
          --> wrong.yaml:12:5
           |
        12 |   - keep: {kernel: 4}
           |     ^^^^ `kernel % 2 == 1` is false (kernel = 4)
           = help: choose arguments for which `kernel % 2 == 1` is true""")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("widht", "3", "E0601"),
        ("width", "wide", "E0221"),
        ("width", "2.5", "E0213"),
        ("width", "[", "E0102"),
        ("width", "5\nmore: 6", "E0626"),
    ],
)
def test_a_wrong_setting_is_reported_with_its_location(
    tmp_path: Path, name: str, value: str, code: str
) -> None:
    (diagnostic,) = read_errors(tmp_path, "params: {width: 3}\ngraph: [relu]", **{name: value})
    assert diagnostic.code == code
    assert diagnostic.at.file == "--set"


def test_cyclic_libraries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("tcc: 1\nuse: [b.yaml]\nblocks: {}\n")
    (tmp_path / "b.yaml").write_text("tcc: 1\nuse: [a.yaml]\nblocks: {}\n")
    (diagnostic,) = read_errors(tmp_path, "use: [a.yaml]\ngraph: [relu]")
    assert (diagnostic.code, diagnostic.label) == ("E0112", "a.yaml -> b.yaml -> a.yaml")


def test_a_spec_used_as_a_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + "graph: [relu]\n")
    (diagnostic,) = read_errors(tmp_path, "use: [a.yaml]\ngraph: [relu]")
    assert diagnostic.message == "a spec with a graph cannot be used as a library"
    assert (Path(diagnostic.at.file).name, diagnostic.at.line) == ("a.yaml", 5)


def test_deep_nesting_is_an_error_not_a_crash(tmp_path: Path) -> None:
    nest = "relu"
    for _ in range(101):
        nest = f"seq: [{nest}]" if nest == "relu" else f"seq: [{{{nest}}}]"
    (diagnostic,) = read_errors(tmp_path, f"graph: [{{{nest}}}]")
    assert diagnostic.code in {"E0105", "E0402"}


@pytest.mark.parametrize("expected", ["3 ± 1..2", "1e5 * 4 ± 1 %", "1e400 ± 1 %", ".nan", "true"])
def test_expected_count_must_be_a_number(tmp_path: Path, expected: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(HEAD + f"graph: [relu]\ntests: {{params: {expected}}}\n")
    with pytest.raises(UserError) as caught:
        check_expectations(load(path))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) in {
        ("E0213", 6, 17),
        ("E0204", 6, 17),
    }


def test_an_impossible_file_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    (diagnostic,) = read_errors(tmp_path, "use: [circle.yaml]\ngraph: [relu]")
    assert (diagnostic.code, diagnostic.at.column) == ("E0114", 7)
    (diagnostic,) = read_errors(tmp_path, f"use: [{'x' * 5000}]\ngraph: [relu]")
    assert (diagnostic.code, diagnostic.at.column) == ("E0114", 7)


def test_a_quoted_boolean_is_a_boolean(tmp_path: Path) -> None:
    path = tmp_path / "right.yaml"
    path.write_text(HEAD + 'graph: [conv: {filters: 1, kernel: 1, bias: "false"}]\n')
    assert len(load(path).graph.params) == 1


@pytest.mark.parametrize("bound", ["1.5", "-0.1", "high", "'yes'", "true"])
def test_min_cosine_must_be_a_share(tmp_path: Path, bound: str) -> None:
    (error,) = read_errors(tmp_path, f"graph: [relu]\naccuracy: {{min_cosine: {bound}}}\n")
    assert error.at.line == 6
    assert error.at.text[error.at.column - 1 :].startswith(bound.strip("'"))


def test_an_error_bound_may_exceed_one(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(f"{HEAD}graph: [relu]\naccuracy: {{max_error: 2.5, min_correlation: 0}}\n")
    assert load(path).accuracy == Accuracy(max_error=2.5, min_correlation=0)
    (error,) = read_errors(tmp_path, "graph: [relu]\naccuracy: {max_error: -1}\n")
    assert error.message == "`max_error` must be a number that is not negative"


@pytest.mark.parametrize(
    ("settings", "meaning"),
    [
        ("activation: softmax", "classes"),
        ("activation: sigmoid", "decisions"),
        ("activation: sigmoid, labels: [a, b]", "decisions"),
        ("labels: [a, b]", "classes"),
        ("activation: none", "regression"),
        ("kind: classes", "classes"),
        ("activation: sigmoid, kind: regression", "regression"),
        ("activation: sigmoid, kind: classes", "classes"),
        ("labels: [a, b], kind: regression", "regression"),
    ],
)
def test_the_kind_of_an_output_is_inferred(tmp_path: Path, settings: str, meaning: str) -> None:
    path = tmp_path / "net.yaml"
    graph = "graph: [global_avg_pool, flatten, linear: {units: 2}]"
    head = HEAD[: HEAD.index("output:")]
    path.write_text(f"{head}{graph}\noutput: {{y: {{{settings}}}}}\n")
    assert load(path).graph.outputs[0].meaning == meaning


@pytest.mark.parametrize(
    ("units", "settings", "label"),
    [
        (2, "activation: softmax, kind: decisions", "its activation is `softmax`"),
        (2, "kind: decisions", "its activation is `none`, but decisions are probabilities"),
        (2, "activation: softmax, kind: regression", "softmax outputs are shares of classes"),
        (1, "activation: sigmoid, kind: classes", "the output is 1: one value"),
    ],
)
def test_a_contradicting_output_kind_is_refused(
    tmp_path: Path, units: int, settings: str, label: str
) -> None:
    graph = f"graph: [global_avg_pool, flatten, linear: {{units: {units}}}]"
    head = HEAD[: HEAD.index("output:")]
    path = tmp_path / "net.yaml"
    path.write_text(f"{head}{graph}\noutput:\n  y: {{{settings}}}\n")
    with pytest.raises(UserError) as caught:
        load(path)
    (error,) = caught.value.diagnostics
    assert error.code == "E0235"
    assert label in error.label
    assert error.at.line == len(path.read_text().splitlines())
    assert error.at.text[error.at.column - 1 :].startswith(settings.rpartition(" ")[2])


def test_accuracy_may_depend_on_parameters(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        f"{HEAD}params: {{least: 0.9}}\ngraph: [relu]\naccuracy: {{min_cosine: least}}\n"
    )
    assert load(path).accuracy == Accuracy(min_cosine=0.9)
    assert load(path, {"least": "0.95"}).accuracy == Accuracy(min_cosine=0.95)


def test_settings_of_a_case_keep_their_text(tmp_path: Path) -> None:
    labels = '[a, "b: c", "d, e", "01", "true", "it\'s \\"x\\""]'
    path = tmp_path / "right.yaml"
    path.write_text(
        HEAD
        + "params: {l: {type: names, default: [x]}}\ngraph: [conv: {filters: len(l), kernel: 1}]\n"
        + f"tests: [{{set: {{l: {labels}}}, params: 24}}]\n"
    )
    assert [f.holds for f in check_expectations(load(path))] == [True]
