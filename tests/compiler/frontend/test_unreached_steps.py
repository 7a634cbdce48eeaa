"""Steps that no parameter value reaches are checked as far as possible."""

from pathlib import Path

import pytest
from spec_texts import load_spec_text

from tcc.compiler.support.diagnostics import Diagnostic, UserError


def read_errors(tmp_path: Path, text: str, **settings: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(UserError) as caught:
        load_spec_text(tmp_path, text, **settings)
    return caught.value.diagnostics


WRONG = {
    "a name of an expression": ("conv: {filters: widht, kernel: 1}", "E0221", "widht"),
    "a value": ("add: [[], early]", "E0217", "early"),
    "an invalid list": ('{relu: , from: "a[0]"}', "E0217", '"a[0]"'),
    "a literal of the wrong type": ("conv: {filters: 1 / 2, kernel: 1}", "E0213", "1 / 2"),
    "an invalid expression": ("conv: {filters: 2 *, kernel: 1}", "E0220", None),
    "a number out of range": ("conv: {filters: 0, kernel: 1}", "E0214", "0"),
    "a choice": ("activation: {kind: rellu}", "E0213", "rellu"),
    "an expression of the wrong type": ("repeat: {times: \"'x'\", body: []}", "E0213", "\"'x'\""),
    "two values into one": ("{relu: , from: [image, image]}", "E0218", "relu"),
    "two values into a block": ("{half: {n: 1}, from: [image, image]}", "E0218", "half"),
    "an argument of a block": ("half: {n: 2.5}", "E0213", "2.5"),
    "a contract": ("half: {n: -1}", "E0219", "half"),
    "a size of a value": ("conv: {filters: channels(b), kernel: 1}", "E0221", "b"),
    "in a loop": (
        "repeat: {times: 3, body: [conv: {filters: i + n + j, kernel: 1}]}", "E0221", "j",
    ),
    "in a branch": ("concat: [[conv: {filters: j, kernel: 1}], []]", "E0221", "j"),
    "in computed branches": (
        "concat: {of: [1], as: k, branch: [conv: {filters: k + j, kernel: 1}]}", "E0221", "j",
    ),
    "in a let": ("let: {m: j}", "E0221", "j"),
    "in a side": ("side: {as: s, body: [conv: {filters: j, kernel: 1}]}", "E0221", "j"),
    "a name of a size": ("let: {C: 1}", "E0231", "C"),
    "a condition": ("when: {if: 3 + n, then: [relu], else: [conv: {filters: j, kernel: 1}]}", "E0221", "j"),
}  # fmt: skip
HALF = "half: {params: {n: 2}, require: [{that: n > 0, else: no}], body: [conv: {filters: n, kernel: 1}]}"
STEP_POSITIONS = {
    "an unused block": "blocks: {HALF, b: {params: {n: 2}, body: [STEP]}}\ngraph: [half]",
    "a side that is not chosen": (
        "params: {n: 0}\nblocks: {HALF}\ngraph: [half, when: {if: n > 0, then: [STEP]}]"
    ),
    "a loop without iterations": (
        "params: {n: 0}\nblocks: {HALF}\ngraph: [half, repeat: {times: n, body: [STEP]}]"
    ),
    "a list without entries": (
        "params: {n: 0, l: {type: list, default: []}}\nblocks: {HALF}\n"
        "graph: [half, each: {of: l, as: m, body: [STEP, conv: {filters: m + n, kernel: 1}]}]"
    ),
}


@pytest.mark.parametrize("template", STEP_POSITIONS.values(), ids=STEP_POSITIONS.keys())
@pytest.mark.parametrize(("step", "code", "pointed"), WRONG.values(), ids=WRONG.keys())
def test_errors_for_all_parameter_values_are_reported(
    tmp_path: Path, template: str, step: str, code: str, pointed: str | None
) -> None:
    text = template.replace("HALF", HALF).replace("STEP", step)
    if "image" in step and "b: {params" in template:
        text = text.replace("b: {params", "b: {inputs: [image], params")
    (diagnostic,) = read_errors(tmp_path, text)
    assert diagnostic.code == code
    assert pointed is None or diagnostic.at.text[diagnostic.at.column - 1 :].startswith(pointed)
    assert diagnostic.at.line == (5 if "b: {" in template else text.count("\n") + 5)


def test_errors_in_unreached_steps_are_located(tmp_path: Path) -> None:
    (diagnostic,) = read_errors(
        tmp_path, "blocks: {b: {body: [linear: {units: j}]}}\ngraph: [relu]\n"
    )
    assert diagnostic.notes[-1] == "in block `b`, which no step reaches"


VALID_SPECS = {
    "division by what the condition excludes": (
        "params: {n: 0}\ngraph: [relu, when: {if: n > 0, then: [conv: {filters: 8 // n, kernel: 1}]}]"
    ),
    "a default that no call uses": (
        "blocks: {b: {params: {n: 0, m: 8 // n}, body: [conv: {filters: m + n, kernel: 1}]}}\n"
        "graph: [b: {n: 2, m: 2}]"
    ),
    "shapes that would not fit": (
        "params: {n: 0}\ngraph: [relu, when: {if: n > 0, then: [linear: {units: 2}, conv: {filters: 2, kernel: 99}]}]"
    ),
    "a name from another side": (
        "params: {n: 0}\ngraph: [when: {if: n > 0, then: [{relu: , as: a}]}, tanh, when: {if: n > 0, then: [add: [[], a]]}]"
    ),
    "a list of unknown length": (
        "params: {n: 0}\nblocks: {two: {inputs: [a, b], body: [add: [a, b]]}}\n"
        "graph: [relu, when: {if: n > 0, then: [repeat: {times: 2, collect: ys, body: [conv: {filters: 4, kernel: 1}]},"
        ' {two: , from: ys}, concat: ["ys[7]", ys], conv: {filters: "len(ys) + channels(ys[9])", kernel: 1}]}]'
    ),
    "what a loop would bind": (
        "params: {n: 0, l: {type: list, default: []}}\n"
        "graph: [relu, repeat: {times: n, body: [conv: {filters: i + 1, kernel: 1}]},"
        " each: {of: l, as: w, body: [when: {if: not last, then: [conv: {filters: w, kernel: 1}]}]}]"
    ),
    "many turns": (
        "params: {n: 0}\ngraph: [relu, repeat: {times: n, body: [repeat: {times: 9999, body: [repeat: {times: 9999, body: [tanh]}]}]}]"
    ),
    "ids that are equal": (
        "params: {n: 0}\ngraph: [{relu: , id: a}, when: {if: n > 0, then: [{tanh: , id: a}]}]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", VALID_SPECS.values(), ids=VALID_SPECS.keys())
def test_errors_for_some_parameter_values_are_not_reported(tmp_path: Path, text: str) -> None:
    built = load_spec_text(tmp_path, text)
    assert [w.kind for w in built.warnings if w.kind.startswith("unused-br")] == []
    assert {n.name.partition("_")[0] for n in built.graph.nodes} <= {"relu", "tanh", "a", "b/conv"}


def test_checking_unreached_steps_changes_no_path(tmp_path: Path) -> None:
    text = """
        params: {n: N}
        graph:
          - when: {if: n > 0, then: [relu: {}], else: [sigmoid: {}]}
          - when: {if: n > 0, then: [tanh: {}], else: [relu: {}]}
    """
    for n, names in ((0, ["sigmoid", "relu"]), (1, ["relu", "tanh"])):
        built = load_spec_text(tmp_path, text.replace("N", str(n)))
        assert [node.name for node in built.graph.nodes] == names


def test_unused_recursive_blocks_are_refused(tmp_path: Path) -> None:
    text = "blocks: {a: {body: [b]}, b: {body: [c]}, c: {body: [a]}}\ngraph: [relu]\n"
    (diagnostic,) = read_errors(tmp_path, text)
    assert (diagnostic.code, diagnostic.label, diagnostic.at.line) == (
        "E0403",
        "a -> b -> c -> a",
        5,
    )


def test_a_mistake_in_reached_and_unreached_steps_counts_once(tmp_path: Path) -> None:
    text = """
        params: {n: 0}
        blocks: {b: {body: [conv: {filters: j, kernel: 1}]}}
        graph: [b, when: {if: n > 0, then: [b]}]
    """
    (diagnostic,) = read_errors(tmp_path, text)
    assert any(note.startswith("in block `b` called from") for note in diagnostic.notes)
    assert not any("the same error" in note for note in diagnostic.notes)


def test_other_mistakes_are_reported_with_a_condition_error(tmp_path: Path) -> None:
    text = "graph: [when: {if: half, then: [relu: {}, conv: {filters: j, kernel: 1}]}]\n"
    assert [d.message for d in read_errors(tmp_path, text)] == [
        "unknown name `half`",
        "unknown name `j`",
    ]


DECLARED = {
    "min above max": ("{type: int, default: 3, min: 5, max: 2}", "E0211", "5"),
    "a default that is no value": ("{type: enum, values: [a, b], default: c}", "E0213", "c"),
    "values without a type": ("{values: [a, b], default: c}", "E0213", "c"),
    "a default below min": ("{type: int, default: 3, min: 5}", "E0214", "3"),
    "a default of another type": ("{type: int, default: 1.5}", "E0213", "1.5"),
    "a default that is misspelt": ("{type: int, default: wdith}", "E0221", "wdith"),
    "min of a Boolean": ("{type: bool, default: true, min: 1}", "E0211", "min"),
    "max of text": ("{type: names, default: [a], max: 1}", "E0211", "max"),
    "values of a number": ("{type: int, default: 1, values: [a]}", "E0211", "values"),
}


@pytest.mark.parametrize(
    "template",
    [
        "params: {p: P}\ngraph: [relu]",
        "blocks: {b: {params: {p: P}, body: [relu]}}\ngraph: [b: {p: GIVEN}]",
    ],
    ids=["spec", "block"],
)
@pytest.mark.parametrize(("declared", "code", "pointed"), DECLARED.values(), ids=DECLARED.keys())
def test_a_contract_that_no_value_meets_is_refused(
    tmp_path: Path, template: str, declared: str, code: str, pointed: str
) -> None:
    """With and without its default."""
    setting = {"int": "6", "bool": "true", "names": "[a]"}.get(declared[7:].partition(",")[0], "b")
    text = template.replace("P}", f"{declared}}}").replace("GIVEN", setting)
    settings = {} if "blocks" in template else {"p": setting}
    (diagnostic,) = read_errors(tmp_path, text, **settings)
    assert (diagnostic.code, diagnostic.at.line) == (code, 5)
    assert diagnostic.at.text[diagnostic.at.column - 1 :].startswith(pointed)


@pytest.mark.parametrize(
    ("statistics", "column"),
    [("std: [1e-300]", 77), ("mean: [0.5], std: [0.5, 1e-45, 0.5]", 90), ("mean: [1e39]", 78)],
)
def test_normalization_that_gives_infinite_pixels_is_refused(
    tmp_path: Path, statistics: str, column: int
) -> None:
    image = (
        f"{{image: {{shape: [3, 8, 8], preprocess: {{resize: {{size: [8, 8]}}, {statistics}}}}}}}"
    )
    (diagnostic,) = read_errors(tmp_path, f"input: {image}\ngraph: [relu]\n")
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == ("E0214", 5, column)
    assert diagnostic.message.startswith("pixels become infinite")
