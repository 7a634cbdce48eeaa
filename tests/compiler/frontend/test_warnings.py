"""Warnings: their kinds and locations, code without warnings, and silencing."""

import json
from pathlib import Path
from textwrap import dedent

import pytest
from spec_texts import load_spec_text

from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.support.diagnostics import UserError

ROOT = Path(__file__).parents[3]


def list_warnings(built: Spec) -> list[tuple[str, int, str]]:
    """Return the kind, line and marked text of each warning."""
    assert all(w.severity == "warning" for w in built.warnings)
    return [
        (w.kind, w.at.line, w.at.text[w.at.column - 1 : w.at.column - 1 + w.at.width])
        for w in built.warnings
    ]


IMAGE = "input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8]}, STATISTICS}}}"
CLASSIFIER_END = "global_avg_pool, flatten, linear: {units: 2}"

WARNED = {
    # unused parts
    "a side": (
        "graph: [side: {as: aux, body: [conv: {filters: 3, kernel: 1}, relu]}, tanh]",
        [("unused-branch", 5, "aux")],
    ),
    "a result that the next step does not read": (
        "graph: [{relu: , as: a}, conv: {filters: 3, kernel: 1}, {tanh: , from: a}]",
        [("unused-branch", 5, "conv")],
    ),
    "a chain of them, at its end": (
        "graph: [{relu: , as: a}, conv: {filters: 3, kernel: 1}, sigmoid, silu, {tanh: , from: a}]",
        [("unused-branch", 5, "silu")],
    ),
    "a block's": (
        "blocks: {b: {body: [relu, conv: {filters: C, kernel: 1}]}}\ngraph: [{b: , as: a}, b, {tanh: , from: a}]",
        [("unused-branch", 6, "b")],
    ),
    "within a block, in all its uses": (
        "blocks: {b: {body: [{relu: , as: a}, sigmoid, {tanh: , from: a}]}}\ngraph: [b, b]",
        [("unused-branch", 5, "sigmoid")],
    ),
    "a loop's": (
        "graph: [{relu: , as: a}, repeat: {times: 2, body: [conv: {filters: 2, kernel: 1}]}, {tanh: , from: a}]",
        [("unused-branch", 5, "repeat")],
    ),
    "steps after the output": (
        "graph: [{relu: , as: a}, tanh]\noutput: {y: {from: a}}", [("unused-branch", 5, "tanh")],
    ),
    "a name of a dead value is one warning": (
        "graph: [{relu: , as: a}, {silu: , as: b}, {tanh: , from: a}]", [("unused-branch", 5, "b")],
    ),
    # unread names
    "as": ("graph: [{relu: , as: a}, tanh]", [("unused-value", 5, "a")]),
    "collect": (
        "graph: [repeat: {times: 2, collect: ys, body: [conv: {filters: 2, kernel: 1}]}]", [("unused-value", 5, "ys")],
    ),
    "an input of a block": (
        "blocks: {b: {inputs: [x, skip], body: [relu]}}\ngraph: [{tanh: , as: a}, {silu: , as: c}, {b: , from: [a, c]}]",
        [("unused-value", 5, "skip")],
    ),
    "in a block": ("blocks: {b: {body: [{relu: , as: a}, tanh]}}\ngraph: [b]", [("unused-value", 5, "a")]),
    "in a side's body": (
        "graph: [side: {as: b, body: [{relu: , as: a}, tanh]}, add: [[], b]]", [("unused-value", 5, "a")],
    ),
    "in an iteration": ("graph: [repeat: {times: 2, body: [{relu: , as: a}, tanh]}]", [("unused-value", 5, "a")]),
    "let": ("graph: [let: {n: 3, m: 4}, conv: {filters: m, kernel: 1}]", [("unused-name", 5, "n")]),
    "each": (
        "graph: [each: {of: [1, 2], as: n, body: [conv: {filters: 3, kernel: 1}]}]", [("unused-name", 5, "n")],
    ),
    "branches": (
        "graph: [concat: {of: [1, 2], as: n, branch: [conv: {filters: 3, kernel: 1}]}]", [("unused-name", 5, "n")],
    ),
    "parameters of the spec": (
        "params: {a: 1, b: {type: int, default: 2}, c: b}\ngraph: [conv: {filters: c, kernel: 1}]",
        [("unused-parameter", 5, "a")],
    ),
    "parameters of a block": (
        "blocks: {b: {params: {n: 3, m: 3}, body: [conv: {filters: n, kernel: 1}]}}\ngraph: [b: {n: 2, m: 1}]",
        [("unused-parameter", 5, "m")],
    ),
    "in quotes": (
        "params: {n: 1, kind: {type: enum, values: [n, m], default: m}}\n"
        "graph: [conv: {filters: \"1 if kind == 'n' else 2\", kernel: 1}]",
        [("unused-parameter", 5, "n")],
    ),
    "blocks": (
        "blocks: {a: {body: [b]}, b: {body: [relu]}, c: {body: [tanh]}}\ngraph: [c]",
        [("unused-block", 5, "a"), ("unused-block", 5, "b")],
    ),
    "libraries": (
        "use: [blocks/conv.yaml, blocks/vgg.yaml]\ngraph: [conv_bn: {filters: 2}]",
        [("unused-library", 5, "blocks/vgg.yaml")],
    ),
    # names bound twice
    "bound again before it is read": (
        "graph: [{relu: , as: a}, {tanh: , as: a}, add: [[], a]]", [("rebound-name", 5, "a")],
    ),
    "bound again after it": (
        "graph: [{relu: , as: a}, add: [[], a], {tanh: , as: a}, add: [[], a]]", [("rebound-name", 5, "a")],
    ),
    "let again": (
        "graph: [let: {n: 3}, conv: {filters: n, kernel: 1}, let: {n: 4}, conv: {filters: n, kernel: 1}]",
        [("rebound-name", 5, "n")],
    ),
    "the loop's own": (
        "graph: [repeat: {times: 2, body: [let: {i: 3}, conv: {filters: i, kernel: 1}]}]", [("rebound-name", 5, "i")],
    ),
    "a parameter that a loop hides": (
        "params: {last: 3}\ngraph: [repeat: {times: 2, body: [when: {if: last, then: [relu]}]}, conv: {filters: last, kernel: 1}]",
        [("shadowed-name", 6, "repeat")],
    ),
    "an inner loop's variable": (
        "graph: [each: {of: [1], as: n, body: [conv: {filters: n, kernel: 1}, each: {of: [1], as: n, body: [conv: {filters: n, kernel: 1}]}]}]",
        [("shadowed-name", 5, "n")],
    ),
    "in a branch": (
        "graph: [{relu: , as: a}, add: [[{tanh: , as: a}, sigmoid], a]]", [("shadowed-name", 5, "a")],
    ),
    "in a seq": (
        "graph: [{relu: , as: a}, seq: [{tanh: , as: a}, add: [[], a]], add: [[], a]]", [("shadowed-name", 5, "a")],
    ),
    "a parameter": (
        "params: {n: 3}\ngraph: [conv: {filters: n, kernel: 1}, seq: [let: {n: 4}, conv: {filters: n, kernel: 1}]]",
        [("shadowed-name", 6, "n")],
    ),
    # steps
    "add of one": ("graph: [add: [[tanh]]]", [("single-branch", 5, "add")]),
    "mul from one": ("graph: [{mul: , from: image}]", [("single-branch", 5, "mul")]),
    "concat of a name": ("graph: [relu, concat: [image]]", [("unused-branch", 5, "relu"), ("single-branch", 5, "concat")]),
    "one time": ("graph: [concat: {times: 1, branch: [relu]}]", [("single-branch", 5, "concat")]),
    "slice": ("graph: [slice: {start: 1, stop: 5}]", [("slice-beyond-end", 5, "slice")]),
    "slice before the start": ("graph: [slice: {start: -5}]", [("slice-beyond-end", 5, "slice")]),
    "relu of relu": ("graph: [relu, relu]", [("repeated-op", 5, "relu")]),
    "relu6 of relu": ("graph: [relu, relu6]", [("repeated-op", 5, "relu6")]),
    "norm of norm": ("graph: [batch_norm, batch_norm]", [("repeated-op", 5, "batch_norm")]),
    "across blocks": ("blocks: {b: {body: [relu]}}\ngraph: [b, relu]", [("repeated-op", 6, "relu")]),
    "no turn": ("graph: [relu, repeat: {times: 0, body: [tanh]}]", [("no-effect", 5, "0")]),
    "no entry": (
        "graph: [relu, each: {of: [], as: n, body: [conv: {filters: n, kernel: 1}]}]", [("no-effect", 5, "[]")],
    ),
    "empty body": ("graph: [relu, repeat: {times: 3, body: []}]", [("no-effect", 5, "[]")]),
    "always": ("graph: [when: {if: true, then: [relu]}]", [("no-effect", 5, "true")]),
    "nothing chosen": (
        "params: {a: true}\ngraph: [relu, when: {if: a, then: []}]", [("no-effect", 6, "a")],
    ),
    "dropout of 0": ("graph: [relu, dropout: {rate: 0}]", [("no-effect", 5, "0")]),
    # outputs and input
    "softmax twice": (
        f"graph: [{CLASSIFIER_END}, softmax]\noutput: {{y: {{activation: softmax}}}}", [("double-activation", 6, "softmax")],
    ),
    "softmax of sigmoid, before a dropout": (
        f"graph: [{CLASSIFIER_END}, sigmoid, dropout]\noutput: {{y: {{activation: softmax}}}}", [("double-activation", 6, "softmax")],
    ),
    "softmax of one number": (
        "graph: [global_avg_pool, flatten, linear: {units: 1}]\noutput: {y: {activation: softmax}}",
        [("constant-output", 6, "softmax")],
    ),
    "softmax of one channel": ("graph: [conv: {filters: 1, kernel: 1}, softmax]", [("constant-output", 5, "softmax")]),
    "one value, two outputs": ("graph: [relu]\noutput: {y: {}, z: {}}", [("same-output", 6, "z")]),
    "an unused image": (
        "input: {photo: {shape: [3, 8, 8]}}\ngraph: [relu]", [("no-preprocess", 5, "photo")]
    ),
    "channels last": ("input: {image: {shape: [32, 32, 3]}}\ngraph: [relu]", [("channels-last", 5, "[32, 32, 3]")]),
    "grey levels": (
        f"{IMAGE.replace('STATISTICS', 'mean: [124, 0.5, 0.5], std: [0.2, 0.2, 57]')}\ngraph: [relu]",
        [("pixel-statistics", 5, "124"), ("pixel-statistics", 5, "57")],
    ),
    "below black": (
        f"{IMAGE.replace('STATISTICS', 'mean: [-0.5], std: [0.0001]')}\ngraph: [relu]",
        [("pixel-statistics", 5, "-0.5"), ("pixel-statistics", 5, "0.0001")],
    ),
    "nothing to allow": ("graph: [relu]\nallow: [unused-block]", [("unused-allow", 6, "unused-block")]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WARNED.values(), ids=WARNED.keys())
def test_warnings_have_kind_line_and_marked_text(
    tmp_path: Path, text: str, expected: list[tuple[str, int, str]]
) -> None:
    assert list_warnings(load_spec_text(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("scale", "help"),
    [("", "write 0.4863"), (", scale: max", "measure it on such pixels")],
    ids=["255", "max"],
)
def test_advice_for_statistics_of_pixels(tmp_path: Path, scale: str, help: str) -> None:
    image = IMAGE.replace("STATISTICS", f"mean: [124, 0.5, 0.5]{scale}")
    (warning,) = load_spec_text(tmp_path, f"{image}\ngraph: [relu]").warnings
    assert (warning.kind, warning.help.partition(": ")[2]) == ("pixel-statistics", help)


@pytest.mark.parametrize(("text", "expected"), WARNED.values(), ids=WARNED.keys())
def test_each_warning_kind_can_be_silenced(
    tmp_path: Path, text: str, expected: list[tuple[str, int, str]]
) -> None:
    if "allow:" in text:
        text = text.replace("[", "[unused-allow, ", 2).replace("[unused-allow, relu", "[relu")
    else:
        text += f"\nallow: [{', '.join({kind for kind, _, _ in expected})}]"
    assert list_warnings(load_spec_text(tmp_path, text)) == []


def test_every_warning_kind_is_tested() -> None:
    assert {
        kind for _, expected_warnings in WARNED.values() for kind, _, _ in expected_warnings
    } == {k.name for k in WARNING_KINDS}


INTENDED_SPECS = {
    "a recurrence": "graph: [{relu: , as: a}, repeat: {times: 2, body: [{add: [[], a], as: a}]}, add: [[], a]]",
    "a recurrence that is read only in the next iteration": (
        "graph: [{relu: , as: a}, repeat: {times: 2, body: [mul: [[], a], {tanh: , as: a}]}]"
    ),
    "a recurrence of one iteration": (
        "params: {n: 1}\ngraph: [{relu: , as: a}, repeat: {times: n, body: [mul: [[], a], {tanh: , as: a}]}]"
    ),
    "counting": "graph: [let: {n: 1}, repeat: {times: 2, body: [let: {n: n + 1}, conv: {filters: n, kernel: 1}]}]",
    "counting without a loop": "graph: [let: {n: 1}, let: {n: n + 1}, conv: {filters: n, kernel: 1}]",
    "read on the side that is not chosen": (
        "params: {slim: false}\ngraph: [{relu: , as: a}, tanh, when: {if: slim, then: [add: [[], a]]}]"
    ),
    "bound by either side": (
        "params: {slim: false}\ngraph: [when: {if: slim, then: [{relu: , as: a}], else: [{tanh: , as: a}]}, silu, add: [[], a]]"
    ),
    "another on one side": (
        "params: {slim: false}\ngraph: [{relu: , as: a}, when: {if: slim, then: [{tanh: , as: a}]}, silu, add: [[], a]]"
    ),
    "read if the loop has no iterations": (
        "params: {n: 0}\ngraph: [let: {m: 3}, {relu: , as: a}, tanh, repeat: {times: n, body: [add: [[], a], conv: {filters: m, kernel: 1}]}]"
    ),
    "read in the branch of an expression that is not chosen": (
        "params: {a: 3, b: 4}\ngraph: [conv: {filters: a if true else b, kernel: 1}]"
    ),
    "two blocks, one name": (
        "blocks: {b: {params: {n: 1}, body: [{relu: , as: a}, conv: {filters: n, kernel: 1}, concat: [[], a]]}}\n"
        "params: {n: 2}\ngraph: [{tanh: , as: a}, b: {n: n}, concat: [[], a]]"
    ),
    "two branches, one name": "graph: [add: [[{relu: , as: a}, add: [[], a]], [{tanh: , as: a}, add: [[], a]]]]",
    "a block that another calls": "blocks: {a: {body: [b]}, b: {body: [relu]}}\ngraph: [a]",
    "a block in a condition": (
        "params: {slim: false}\nblocks: {b: {body: [tanh]}}\ngraph: [relu, when: {if: slim, then: [b]}]"
    ),
    "a library through a library": "use: [blocks/res2net.yaml]\ngraph: [res2net_scales: {scales: 2}]",
    "an output in training only": (
        "graph: [side: {as: aux, body: [conv: {filters: 2, kernel: 1}]}, tanh]\noutput: {y: {}, aux: {train_only: true}}"
    ),
    "its own name": "graph: [{relu: , as: y}]",
    "a value and a probability": (
        f"graph: [{CLASSIFIER_END}]\noutput: {{y: {{}}, p: {{activation: softmax}}}}"
    ),
    "one branch by a parameter": "params: {n: 1}\ngraph: [add: {times: n, branch: [relu]}]",
    "one list": "graph: [repeat: {times: 3, collect: ys, body: [relu, tanh]}, concat: [ys]]",
    "one list as source": "graph: [repeat: {times: 3, collect: ys, body: [relu, tanh]}, {concat: , from: ys}]",
    "the whole": "graph: [concat: [[slice: {stop: 4}], [slice: {start: -4}]]]",
    "undone division": f"{IMAGE.replace('STATISTICS', 'mean: [0.5], std: [0.00392156]')}\ngraph: [relu]",
    "as text": "params: {t: {type: string, default: n}, n: 3}\ngraph: [conv: {filters: \"n if t == 'x' else 1\", kernel: 1}]",
    "of the requirements": (
        "blocks: {b: {params: {n: 1}, require: [{that: n > 0}], body: [relu]}}\ngraph: [b]"
    ),
    "tensors": "input: {x: {shape: [5, 8, 8]}}\ngraph: [relu]",
    "tensors on purpose": (
        "input: {x: {shape: [3, 8, 8]}}\ngraph: [relu]\nallow: [no-preprocess]"
    ),
    "a gate": "graph: [mul: [[], [sigmoid]]]",
    "relu after sigmoid": "graph: [sigmoid, relu]",
}  # fmt: skip


@pytest.mark.parametrize("text", INTENDED_SPECS.values(), ids=INTENDED_SPECS.keys())
def test_intended_code_is_not_warned_about(tmp_path: Path, text: str) -> None:
    assert list_warnings(load_spec_text(tmp_path, text)) == []


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("spec/*.yaml"), *ROOT.glob("spec/baselines/*.yaml")]),
    ids=lambda p: p.stem,
)
def test_shipped_specs_have_no_warnings(path: Path) -> None:
    assert list_warnings(load(path)) == []


def test_shipped_blocks_have_no_warnings(tmp_path: Path) -> None:
    """The spec uses only the library of all shipped blocks."""
    names = sorted(f"blocks/{p.name}" for p in ROOT.glob("spec/blocks/*.yaml"))
    built = load_spec_text(tmp_path, f"use: [{', '.join(names)}]\ngraph: [relu]\n")
    assert {kind for kind, _, _ in list_warnings(built)} == {"unused-library"}


def test_text_of_a_warning(tmp_path: Path) -> None:
    text = """
        graph:
          - conv: {filters: 8, kernel: 1}
            as: a
          - relu
            # a comment
          - conv: {filters: 2, kernel: 1}
            as: a
          - concat: [[], a]
    """.replace("relu\n            #", "relu\n          #")
    (diagnostic,) = load_spec_text(tmp_path, text).warnings
    assert str(diagnostic).replace(f"{tmp_path}/", "") == dedent("""\
        warning[W0511]: the value `a` is bound again before anything reads it [rebound-name]
          --> net.yaml:12:9
           |
        12 |     as: a
           |         ^ bound before at net.yaml:8:9
           = help: use two different names""")
    assert diagnostic.to_json()["kind"] == "rebound-name"


@pytest.mark.parametrize(
    ("allow", "column", "help"),
    [
        ("[unused-blok]", 9, "did you mean `unused-block`?"),
        ("[unused-block, quiet]", 23, ""),
        ("unused-block", 8, None),
    ],
)
def test_only_warning_kinds_can_be_allowed(
    tmp_path: Path, allow: str, column: int, help: str | None
) -> None:
    with pytest.raises(UserError) as caught:
        load_spec_text(tmp_path, f"graph: [relu]\nallow: {allow}")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.at.line, diagnostic.at.column) == (6, column)
    if help is not None:
        assert (diagnostic.code, diagnostic.help) == ("E0213", help)
        assert all(kind.name in diagnostic.message for kind in WARNING_KINDS)


def test_json_specs_can_silence_warnings(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    body = {
        "tcc": 1, "name": "net", "input": {"image": {"shape": [4, 8, 8]}}, "output": {"y": {}},
        "graph": ["relu", "relu"], "allow": ["repeated-op"],
    }  # fmt: skip
    path.write_text(json.dumps(body))
    assert load(path).warnings == ()


DEAD = """
    params: {aux: true}
    graph:
      - side: {as: head, body: [conv: {filters: 5, kernel: 1}, relu]}
      - {tanh: , as: kept}
      - conv: {filters: 7, kernel: 3}
      - {conv: {filters: 2, kernel: 1}, from: kept}
    output: {y: {}, HEADhead: {train_only: true}}
    tests: {params: PARAMS, macs: 512, shape: {conv_3: [2, 8, 8]}}
"""


@pytest.mark.parametrize(("head", "params"), [("", 25 + 10), ("other_", 10)])
def test_costs_include_training_heads_but_not_dead_parts(
    tmp_path: Path, head: str, params: int
) -> None:
    text = DEAD.replace("HEADhead", f"{head}head").replace("PARAMS", str(params))
    built = load_spec_text(tmp_path, dedent(text).replace("params: {aux: true}\n", ""))
    counted = compute_cost(built.graph)
    assert (counted.params, counted.macs) == (params, 512)
    assert sum(row.params for row in counted.rows) == params
    names = {name.partition(".")[0] for name in built.graph.params}
    assert names == ({"conv_1", "conv_3"} if not head else {"conv_3"})
    assert [fact.holds for fact in check_expectations(built)] == [True, True, True]
