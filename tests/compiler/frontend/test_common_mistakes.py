"""Common mistakes: each message has the location and the correct form."""

from pathlib import Path

import pytest

from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.support.diagnostics import Diagnostic, UserError

HEAD = "tcc: 1\nname: slip\ninput: {image: {shape: [3, 32, 32]}}\noutput: {logits: {}}\n"
SHAPE = "tcc: 1\nname: slip\noutput: {{logits: {{}}}}\ngraph: [relu]\ninput: {{image: {{{}}}}}\n"


def read_diagnostic(tmp_path: Path, text: str, name: str = "slip.yaml") -> Diagnostic:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert len(caught.value.diagnostics) == 1, str(caught.value)
    return caught.value.diagnostics[0]


NEXT_LINE_HELP = "write `- {0}:`, and `{1}:` on the next line, below the first letter of `{0}`"
EVEN = (
    "an even kernel cannot keep a size with equal padding: use an odd one, or `padding: same`; "
    "if branches have strides, use `padding: same` in all of them"
)
CALL = "arguments are a mapping: write `conv: {filters: 8, kernel: 3}`"
NONE = "write a finite number"
STEPS = {
    "as below a bare op name": ("- identity\n      as: x", "E0102", 6, 5, NEXT_LINE_HELP.format("identity", "as")),
    "as next to a bare op name": ("- relu\n    as: x", "E0102", 6, 5, NEXT_LINE_HELP.format("relu", "as")),
    "from below a bare op name": ("- relu6  # clamps\n\n      from: image", "E0102", 6, 5, NEXT_LINE_HELP.format("relu6", "from")),
    "arguments below a bare op name": (
        "- conv\n      filters: 8\n      kernel: 3", "E0102", 6, 5, "write `- conv:`, and `filters:` below it, indented further"),
    "even kernel at add": ("- add: [[], [conv: {filters: 3, kernel: 2, padding: 1}]]", "E0313", 6, 5, EVEN),
    "even kernel at concat": ("- concat: [[], [max_pool: {kernel: 4, stride: 1, padding: 1}]]", "E0312", 6, 5, EVEN),
    "1e3": ("- conv: {filters: 1e3, kernel: 3}", "E0213", 6, 21, "write 1000"),
    "1e0 of a pair": ("- conv: {filters: 8, kernel: 1e0}", "E0213", 6, 32, "write 1"),
    "1.5": ("- conv: {filters: 3 / 2, kernel: 1}", "E0213", 6, 21, "`//` divides to an integer; `round`, `ceil` and `floor` return one"),
    ".inf": ("- conv: {filters: .inf, kernel: 3}", "E0204", 6, 21, NONE),
    ".nan": ("- conv: {filters: 8, kernel: .nan}", "E0204", 6, 32, NONE),
    ",, in a list": ("- conv: {filters: 8, kernel: [3,,3]}", "E0102", 6, 35, "remove one comma"),
    ",, in a mapping": ("- conv: {filters: 8,, kernel: 3}", "E0102", 6, 23, "remove one comma"),
    "from inside add": (
        "- add: {from: image}", "E0202", 6, 11,
        "write `add: [[], earlier]`, where `[]` is the current value; or write `add:` and next to it `from: [a, b]`"),
    "branches inside add": ("- add: {branches: [image, []]}", "E0202", 6, 11, "`add` takes the branches directly: write `add: [[], earlier]`"),
    "add of a name": ("- add: image", "E0204", 6, 10, "write `add: [[], image]`, a list of branches; `[]` is the current value"),
    "bound later": ("- add: [[], late]\n  - relu:\n    as: late", "E0217", 6, 15, "`late` is bound later, at slip.yaml:8:9; a step only sees earlier names"),
    "size of a value bound later": (
        "- conv: {filters: channels(late), kernel: 1}\n  - relu:\n    as: late", "E0221", 6, 30,
        "`late` is bound later, at slip.yaml:8:9; a step only sees earlier names"),
    "let later": ("- conv: {filters: n, kernel: 1}\n  - let: {n: 3}", "E0221", 6, 21, "`n` is bound later, at slip.yaml:7:11; a step only sees earlier names"),
    "bound inside": (
        "- seq:\n      - relu:\n        as: deep\n  - add: [[], deep]", "E0217", 9, 15,
        "`deep` is bound at slip.yaml:8:13, in inner steps; only those see it"),
    "a call": ("- conv(8, 3)", "E0201", 6, 5, CALL),
    "a call with names": ("- conv(filters=8, kernel=3)", "E0201", 6, 5, CALL),
    "a call of an activation": ("- relu()", "E0201", 6, 5, "arguments are a mapping: it takes no arguments: write `relu`"),
    "a number for relu": ("- relu: 3", "E0204", 6, 11, "it takes no arguments: write `relu`"),
    "a number for a pool": ("- max_pool: 2", "E0204", 6, 15, "write `max_pool: {kernel: 2}`"),
    "a list for conv": ("- conv: [8, 3]", "E0204", 6, 11, "write `conv: {filters: 8, kernel: 3}`"),
    "per cent": ("- dropout: {rate: 50%}", "E0220", 6, 24, "a percentage is a fraction: write 50 / 100"),
    "percent of a name": ("- dropout: 50%", "E0204", 6, 14, "write `dropout: {rate: 50 / 100}`"),
    "arguments with commas": ("- conv: 8, 3", "E0204", 6, 11, "write `conv: {filters: 8, kernel: 3}`"),
    "as without its colon": (
        "- relu as: x", "E0201", 6, 5,
        "write `- relu:`, and `as:` on the next line, below the first letter of `relu`"),
    "as in words": (
        "- relu as x", "E0201", 6, 5,
        "write `- relu:`, and `as:` on the next line, below the first letter of `relu`"),
    "an argument without a colon before it": (
        "- conv filters: 8", "E0201", 6, 5, "write `- conv:`, and `filters:` below it, indented further"),
    "a value without a colon": ("- dropout half", "E0201", 6, 5, "a `:` is missing: write `dropout: ...`"),
    "two words": ("- relu relu6", "E0201", 6, 5, "each step is a separate entry: start another with `- relu6`"),
    "the current value by name": (
        "- relu:\n    as: e\n  - concat: [current, e]", "E0217", 8, 14,
        "the current value has no name: write `[]` instead, as in `add: [[], earlier]`"),
    "a number of iterations": (
        "- each: {of: 3, as: i, body: [relu]}", "E0204", 6, 16,
        "write `of: range(3)` with `as: i`, or `repeat: {times: 3, body: [...]}`"),
    "only a number of iterations": (
        "- each: {of: 3}", "E0204", 6, 16,
        "write `of: range(3)` with `as: i`, or `repeat: {times: 3, body: [...]}`"),
    "as behind braces": (
        "- relu: {} as: x", "E0102", 6, 14,
        "write `as:` on the next line, below the first letter of `relu`"),
    "an argument behind braces": (
        "- conv: {filters: 8} kernel: 3", "E0102", 6, 24,
        "write `kernel: ...` inside the { } of `conv`"),
    "as behind brackets": (
        "- add: [[], [relu]] as: x", "E0102", 6, 23,
        "write `as:` on the next line, below the first letter of `add`"),
    "text behind braces": (
        "- relu: {} x", "E0102", 6, 14, "put the whole text in quotes, or start a new line"),
    "a computed number of iterations": (
        "- each: {of: C, as: i, body: [relu]}", "E0213", 6, 16,
        "write `of: range(3)` for 0 to 2, or `repeat: {times: 3}`"),
    "a side that is not used": (
        "- when: {if: 'false', then: [{relu: {}, as: q}]}\n  - add: [[], q]", "E0217", 7, 15,
        "`q` is bound at slip.yaml:6:47, in a branch of the `when` at slip.yaml:6:5 that is not used"
        " here: bind it in both branches, or after the `when`"),
    "a side within a side": (
        "- when: {if: 'C > 3', then: [relu], else: [when: {if: 'C > 3', then: [{relu: {}, as: q}]}]}\n"
        "  - conv: {filters: channels(q), kernel: 1}", "E0221", 7, 30,
        "`q` is bound at slip.yaml:6:88, in a branch of the `when` at slip.yaml:6:5 that is not used"
        " here: bind it in both branches, or after the `when`"),
    "infinite in float32": (
        "- scale: {factor: 1e39}", "E0214", 6, 21,
        "write a smaller number: the largest float32 is 3.4e38"),
    "infinite in float32, computed": (
        "- leaky_relu: {slope: -(10.0 ** 40)}", "E0214", 6, 25,
        "write a smaller number: the largest float32 is 3.4e38"),
    "a border that is infinite": (
        "- pad: {padding: 1, value: -1.0e+39}", "E0214", 6, 30,
        "write a smaller number: the largest float32 is 3.4e38"),
    "zero in float32": (
        "- batch_norm: {eps: 1.0e-60}", "E0214", 6, 23,
        "write 0 or a larger number: the smallest normal float32 is 1.2e-38"),
    "nearly zero in float32": (
        "- layer_norm: {eps: 1.0e-39}", "E0214", 6, 23,
        "write 0 or a larger number: the smallest normal float32 is 1.2e-38"),
    "tab as indentation": ("- relu:\n  \tas: x", "E0102", 7, 3, "indent with spaces"),
    "tab between dash and key": ("-\tconv: {filters: 8, kernel: 3}", "E0102", 6, 4, "indent with spaces"),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "code", "line", "column", "help"), STEPS.values(), ids=STEPS)
def test_a_common_mistake_in_a_step(
    tmp_path: Path, steps: str, code: str, line: int, column: int, help: str
) -> None:
    diagnostic = read_diagnostic(tmp_path, f"{HEAD}graph:\n  {steps}\n")
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == (code, line, column), str(
        diagnostic
    )
    assert diagnostic.help.replace(f"{tmp_path}/", "") == help


SHAPES = {
    "height, width, channels": (
        "shape: [224, 224, 3], preprocess: {color: rgb}", "E0234", 51, "channels come first: write `shape: [3, 224, 224]`"),
    "a batch": ("shape: [1, 3, 224, 224]", "E0204", 24, "the batch is implied: write [3, 224, 224]"),
    "a batch, channels last": ("shape: [8, 224, 224, 3]", "E0204", 24, "the batch is implied: write [3, 224, 224]"),
    "no channels": ("shape: [28, 28]", "E0204", 24, "channels come first: write [1, 28, 28] for one channel"),
    "gray of three": (
        "shape: [3, 32, 32], preprocess: {color: gray}", "E0234", 49,
        "`color: gray` gives one channel: write `shape: [1, 32, 32]`, or `color: rgb`"),
    "rgb of one": (
        "shape: [1, 32, 32], preprocess: {color: rgb}", "E0234", 49,
        "`color: rgb` gives three channels: write `shape: [3, 32, 32]`, or `color: gray`"),
}  # fmt: skip


@pytest.mark.parametrize(("input_text", "code", "column", "help"), SHAPES.values(), ids=SHAPES)
def test_a_common_mistake_in_a_shape(
    tmp_path: Path, input_text: str, code: str, column: int, help: str
) -> None:
    diagnostic = read_diagnostic(tmp_path, SHAPE.format(input_text))
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == (code, 5, column), str(
        diagnostic
    )
    assert diagnostic.help == help


PIXELS = {
    "a number for mean": (
        "mean: 0.5", "E0204", 56, "write [0.5] for all channels, or one number for each: [0.5, 0.5, 0.5]"),
    "a number for std": (
        "std: 1", "E0204", 55, "write [1] for all channels, or one number for each: [1, 1, 1]"),
    "a computed mean": ("mean: 1 / 2", "E0213", 56, "put it in brackets: [0.5]"),
    "a mean that is infinite": ("mean: [1.0e39]", "E0214", 56, ""),
    "statistics that are infinite": (
        "mean: [1.0e39], std: [1.0e39]", "E0214", 56,
        "write a smaller number: the largest float32 is 3.4e38"),
    "a mean that vanishes": (
        "mean: [1.0e-39]", "E0214", 56,
        "write 0 or a larger number: the smallest normal float32 is 1.2e-38"),
    "a std that vanishes": ("std: [1.0e-39]", "E0214", 55, ""),
}  # fmt: skip


@pytest.mark.parametrize(("input_text", "code", "column", "help"), PIXELS.values(), ids=PIXELS)
def test_a_common_mistake_in_preprocessing(
    tmp_path: Path, input_text: str, code: str, column: int, help: str
) -> None:
    diagnostic = read_diagnostic(
        tmp_path, SHAPE.format(f"shape: [3, 32, 32], preprocess: {{{input_text}}}")
    )
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == (code, 5, column), str(
        diagnostic
    )
    assert diagnostic.help == help


@pytest.mark.parametrize("factor", ["3.4e38", "-3.4e+38", "1.2e-38", "0", "0.0"])
def test_float32_numbers_are_accepted(tmp_path: Path, factor: str) -> None:
    path = tmp_path / "slip.yaml"
    path.write_text(f"{HEAD}graph:\n  - scale: {{factor: {factor}}}\n")
    assert load(path).graph.nodes


BLOCKS = {
    "a parameter": (
        "params: {width: 8}\nblocks: {b: {body: [conv: {filters: width, kernel: 1}]}}\ngraph: [b]\n",
        "E0221", 6, 37,
        "a block only sees its own parameters: declare `width` in `params:` of `b`, and pass it "
        "in the call, `b: {width: width}`"),
    "a value": (
        "blocks: {b: {body: [add: [[], image]]}}\ngraph: [b]\n", "E0217", 5, 31,
        "a block only sees its own values: add it to `inputs:` of `b`, and pass it "
        "in the call, `b:` with `from: [..., image]`"),
    "a let": (
        "blocks: {b: {body: [conv: {filters: n, kernel: 1}]}}\ngraph: [let: {n: 3}, b]\n", "E0221", 5, 37,
        "a block only sees its own parameters: declare `n` in `params:` of `b`, and pass it "
        "in the call, `b: {n: n}`"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "line", "column", "help"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_cannot_use_names_of_its_caller(
    tmp_path: Path, text: str, code: str, line: int, column: int, help: str
) -> None:
    diagnostic = read_diagnostic(tmp_path, HEAD + text)
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == (code, line, column), str(
        diagnostic
    )
    assert diagnostic.help == help


@pytest.mark.parametrize(
    ("steps", "line", "note"),
    [
        ("-\u00a0relu", 6, "column 4 contains U+00A0 (no-break space), not an ordinary space: write a space"),
        ("- conv:\u00a0{filters: 8, kernel: 3}", 6, "column 10 contains U+00A0 (no-break space), not an ordinary space: write a space"),
        ("- re\u200blu", 6, "column 7 contains U+200B (zero width space), not an ordinary space: remove it"),
        ("- relu\u3000", 6, "column 9 contains U+3000 (ideographic space), not an ordinary space: write a space"),
    ],
)  # fmt: skip
def test_invisible_characters_are_reported(
    tmp_path: Path, steps: str, line: int, note: str
) -> None:
    diagnostic = read_diagnostic(tmp_path, f"{HEAD}graph:\n  {steps}\n")
    assert diagnostic.at.line == line
    assert f"   = {note}" in str(diagnostic).splitlines()
    assert note in diagnostic.to_json()["notes"]  # type: ignore[operator]


GRAPH_END = "  - global_avg_pool\n  - flatten\n  - linear: {units: 2}\noutput: {logits: {}}\n"
SPACE_MESSAGE = "this is not a plain space"
GLUED = "a space is missing after this `-`"


@pytest.mark.parametrize(
    ("steps", "line", "column", "message"),
    [
        ("  -\u00a0relu\n", 6, 4, SPACE_MESSAGE),
        ("  -\u00a0conv: {filters: 3, kernel: 1}\n", 6, 4, SPACE_MESSAGE),
        ("  - relu\n  -\u00a0conv: {filters: 3, kernel: 1}\n", 7, 4, SPACE_MESSAGE),
        ("  - relu\n  -\u2003relu6\n  - relu\n", 7, 4, SPACE_MESSAGE),
        ("  - conv:\u00a0{filters: 3, kernel: 1}\n", 6, 10, SPACE_MESSAGE),
        (" \u00a0- relu\n", 6, 2, SPACE_MESSAGE),
        ("\u200b  - relu\n", 6, 1, SPACE_MESSAGE),
        ("  - relu:\n    as:\u00a0x\n", 7, 8, SPACE_MESSAGE),
        ("  - relu:\n   \u00a0as: x\n", 7, 4, SPACE_MESSAGE),
        ("  \u2013 relu\n", 6, 3, "`\u2013` (U+2013) is not `-`"),
        ("  - relu\n  \u2022 relu6\n", 7, 3, "`\u2022` (U+2022) is not `-`"),
        ("  - conv\uff1a {filters: 3, kernel: 1}\n", 6, 9, "`\uff1a` (U+FF1A) is not `:`"),
        ("  -relu\n", 6, 3, GLUED),
        ("  -relu\n  -conv: {filters: 3, kernel: 1}\n", 6, 3, GLUED),
        ("  - relu\n  -conv: {filters: 3, kernel: 1}\n", 7, 3, GLUED),
    ],
)
def test_characters_shown_as_line_breaks_are_reported(
    tmp_path: Path, steps: str, line: int, column: int, message: str
) -> None:
    diagnostic = read_diagnostic(tmp_path, f"{HEAD}graph:\n{steps}{GRAPH_END}")
    assert (diagnostic.message, diagnostic.at.line, diagnostic.at.column) == (
        message,
        line,
        column,
    ), str(diagnostic)


def test_quoted_text_may_contain_any_character(tmp_path: Path) -> None:
    doc = "doc: |\n  -glued\n  \u2013 dash\n  -\u00a0space\n"
    diagnostic = read_diagnostic(tmp_path, f"{HEAD}{doc}graph:\n  - relu\n  relu6\n{GRAPH_END}")
    assert diagnostic.message == "expected `key: value`, found no `:`"
    assert diagnostic.at.line == 11


def test_a_shape_that_looks_like_channels_last_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "slip.yaml"
    path.write_text(SHAPE.format("shape: [64, 64, 3]"))
    (diagnostic,) = load(path).warnings
    assert (diagnostic.kind, diagnostic.at.line, diagnostic.at.column) == ("channels-last", 5, 24)
    assert diagnostic.help == "channels come first: write [3, 64, 64] if you mean that"
    path.write_text(SHAPE.format("shape: [64, 3, 3]"))
    assert load(path).warnings == ()


@pytest.mark.parametrize(
    ("text", "column", "help"),
    [
        ("name:\ttabs\n", 6, "replace the tab with a space"),
        ("name: tabs\t# of the file\n", 11, "replace the tab with a space"),
        ("graph:\n\t- relu\n", 1, "indent with spaces"),
        ("graph:\n  -\trelu\n", 4, "indent with spaces"),
    ],
)
def test_tabs_in_the_indentation_are_refused_with_a_fix(text: str, column: int, help: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, "tabs.yaml")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("E0102", "a tab is not allowed here")
    assert (diagnostic.at.column, diagnostic.help) == (column, help)


def test_tabs_are_allowed_within_brackets() -> None:
    assert to_plain(parse("a: [1,\t2]\nb: {c:\t3}\n", "tabs.yaml")) == {"a": [1, 2], "b": {"c": 3}}
