"""Text to located tree: values, spans, limits, and errors of broken files."""

import json
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tcc.compiler.frontend.yaml import (
    MAX_DEPTH,
    MAX_JSON_BYTES,
    MAX_NODES,
    MAX_YAML_BYTES,
    Mapping,
    Scalar,
    Sequence,
    find_key_span,
    find_span,
    parse,
    to_plain,
)
from tcc.compiler.support.diagnostics import UserError

SPEC = """\
# a header
tcc: 1
name: small  # as small as it gets
doc: >-
  Two lines
  of text.
params: {classes: 6, width: 1.5, bias: true, act: 'relu'}
blocks:
  cell:
    body:
      - concat: [[], [global_avg_pool, conv: {filters: 4}, relu]]
      - - let: {m: C}
        - conv: {filters: "m * 2"}
graph:
- cell
- repeat:
    times: 3
    body: [cell, {relu6: {}}]
output:
  logits:
"""


def read_errors(text, file="t.yaml"):
    with pytest.raises(UserError) as caught:
        parse(text, file)
    assert caught.value.diagnostics
    return caught.value.diagnostics


def format_errors(text, file="t.yaml"):
    return "\n".join(map(str, read_errors(text, file)))


def summarize_errors(text, file="t.yaml"):
    return [f"{d.code} {d.at.line}:{d.at.column} {d.message}" for d in read_errors(text, file)]


def collect_spans(tree):
    yield tree.span
    match tree:
        case Sequence(items=items):
            for item in items:
                yield from collect_spans(item)
        case Mapping(items=pairs):
            for key, value in pairs:
                yield key.span
                yield from collect_spans(value)


def assert_inside(span, text):
    """Check that a span is inside its text, at most just after the end of its line."""
    lines = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    assert span.text == lines[span.line - 1]
    assert 1 <= span.column <= len(span.text) + 1
    assert span.width == 1 or span.column - 1 + span.width <= len(span.text)


def get_pointed_text(span):
    return span.text[span.column - 1 : span.column - 1 + span.width]


# --- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("+7", 7),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e-5", 1e-5),
        ("1E3", 1000.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1:30", "1:30"),
        ("2001-12-14", "2001-12-14"),
        ("growth * 4", "growth * 4"),
        ("C // 2", "C // 2"),
        ("4.3e8 ± 1 %", "4.3e8 ± 1 %"),
        ("'12'", "12"),
        ('"true"', "true"),
        ('"a\\tb\\u00e9\\x41"', "a\tbéA"),
        ("'it''s'", "it's"),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
        ("! 12", "12"),
        ("=", "="),
    ],
)
def test_scalars_follow_the_yaml_core_schema(text, value):
    parsed = to_plain(parse(f"a: {text}\n", "t.yaml"))["a"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan_is_a_float():
    value = to_plain(parse("a: .nan", "t.yaml"))["a"]
    assert math.isnan(value)


def test_a_complete_spec_is_read():
    assert to_plain(parse(SPEC, "t.yaml")) == {
        "tcc": 1,
        "name": "small",
        "doc": "Two lines of text.",
        "params": {"classes": 6, "width": 1.5, "bias": True, "act": "relu"},
        "blocks": {
            "cell": {
                "body": [
                    {"concat": [[], ["global_avg_pool", {"conv": {"filters": 4}}, "relu"]]},
                    [{"let": {"m": "C"}}, {"conv": {"filters": "m * 2"}}],
                ]
            }
        },
        "graph": ["cell", {"repeat": {"times": 3, "body": ["cell", {"relu6": {}}]}}],
        "output": {"logits": None},
    }


def test_quotes_are_remembered():
    tree = parse("a: 'x'\nb: x\nc: |\n  x\n", "t.yaml")
    assert [tree.get(k).quoted for k in "abc"] == [True, False, True]


@pytest.mark.parametrize("text", [SPEC.encode(), "\ufeff" + SPEC, SPEC.replace("\n", "\r\n")])
def test_byte_order_marks_and_line_endings_do_not_matter(text):
    tree = parse(text, "t.yaml")
    assert to_plain(tree) == to_plain(parse(SPEC, "t.yaml"))
    assert [str(s) for s in collect_spans(tree)] == [
        str(s) for s in collect_spans(parse(SPEC, "t.yaml"))
    ]


# --- spans ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "line", "column", "text"),
    [
        (["tcc"], 2, 6, "1"),
        (["name"], 3, 7, "small"),
        (["doc"], 4, 6, ">-"),
        (["params"], 7, 9, "{classes: 6, width: 1.5, bias: true, act: 'relu'}"),
        (["params", "act"], 7, 51, "'relu'"),
        (["blocks"], 9, 3, "cell"),
        (["blocks", "cell", "body"], 11, 7, "-"),
        (["blocks", "cell", "body", 0], 11, 9, "concat"),
        (["blocks", "cell", "body", 0, "concat", 0], 11, 18, "[]"),
        (["blocks", "cell", "body", 0, "concat", 1, 1], 11, 40, "conv"),
        (["blocks", "cell", "body", 0, "concat", 1, 1, "conv"], 11, 46, "{filters: 4}"),
        (["blocks", "cell", "body", 1], 12, 9, "-"),
        (["blocks", "cell", "body", 1, 1, "conv", "filters"], 13, 27, '"m * 2"'),
        (["graph"], 15, 1, "-"),
        (["graph", 1, "repeat", "body", 1], 18, 18, "{relu6: {}}"),
        (["output", "logits"], 20, 10, ""),
    ],
)
def test_every_node_has_its_span(path, line, column, text):
    span = find_span(parse(SPEC, "t.yaml"), path)
    assert (span.line, span.column) == (line, column)
    assert get_pointed_text(span) == text
    assert str(span) == f"t.yaml:{line}:{column}"


def test_the_span_of_a_missing_path_is_its_last_existing_part():
    tree = parse(SPEC, "t.yaml")
    assert find_span(tree, ["graph", 9, "conv"]) == find_span(tree, ["graph"])
    assert find_span(tree, ["params", "depth"]) == find_span(tree, ["params"])
    assert find_span(tree, ["name", "first"]) == find_span(tree, ["name"])


def test_keys_have_spans():
    tree = parse(SPEC, "t.yaml")
    assert str(find_key_span(tree, ["params"], "width")) == "t.yaml:7:22"
    assert find_key_span(tree, ["params"], "depth") == find_span(tree, ["params"])
    assert tree.keys == ("tcc", "name", "doc", "params", "blocks", "graph", "output")
    assert tree.get_key("graph").span.line == 14
    assert tree.get_key("head") is None
    assert tree.get("head") is None


def test_columns_count_characters():
    tree = parse("é: {ü: 'ß', x: 3}\n", "t.yaml")
    assert get_pointed_text(find_span(tree, ["é", "x"])) == "3"
    assert find_span(tree, ["é", "x"]).column == 16


def test_spans_exclude_anchors_and_tags():
    tree = parse("a: &x !!str 12\nb: &y\n  - 1\nc: &z {d: 1}\ne: *y\n", "t.yaml")
    assert get_pointed_text(find_span(tree, ["a"])) == "12"
    assert find_span(tree, ["b"]).line == 3
    assert get_pointed_text(find_span(tree, ["c"])) == "{d: 1}"
    assert to_plain(tree)["e"] == [1]
    assert find_span(tree, ["e"]) == find_span(tree, ["b"])


# --- errors ---------------------------------------------------------------------------------

BROKEN = {
    "tab-indent": ("a:\n\tb: 2", "2:1 a tab is not allowed here"),
    "tab-before-key": ("a:\n  -\tb: 1", "2:4 a tab is not allowed here"),
    "no-space": ("shape:[3, 4]\nb: 1", "1:6 a space is missing after this `:`"),
    "no-space-below": ("x:\n  shape:[3]\n  y: 2\n", "2:8 a space is missing after this `:`"),
    "no-space-in-braces": ("a: {stride:2}", "1:5 a space is missing after the `:` of `stride:2`"),
    "second-colon": ("a: b: c", "1:5 a second `: ` on one line"),
    "indented-key": (
        "a: 1\n  b: 2",
        "2:3 this key is indented below a line that already has a value",
    ),
    "text-then-key": ("foo\nbar: 1", "1:1 expected `key: value`, found no `:`"),
    "no-colon": ("a: 1\nfoo\nb: 2", "2:1 expected `key: value`, found no `:`"),
    "no-space-after-dash": ("a:\n- b\n-c\n", "3:1 a space is missing after this `-`"),
    "dash-in-line": ("a: - b", "1:4 a list with `- ` cannot start in the middle of a line"),
    "open-list": ("a: [1, 2", "1:4 this `[` is never closed"),
    "open-list-goes-on": ("a: [1, 2\nb: 3", "1:4 this `[` is never closed"),
    "open-comma": ("a: {b: 1,\n  c: [1,", "2:6 this `[` is never closed"),
    "wrong-bracket": ("a: {b: [1, 2}", "1:13 expected `]`, found `}`"),
    "two-commas": ("a: [1,, 2]", "1:7 a value is missing before this `,`"),
    "no-comma": ("a: {b: 1 c: 2}", "1:11 expected `,` or `}`, found `:`"),
    "lone-bracket": ("a: ]", "1:4 expected a value, found `]`"),
    "extra-bracket": ("a: {b: 1}}", "1:10 this `}` closes nothing"),
    "bare-comma": ("a: [1], b", "1:7 a comma outside of brackets"),
    "open-quote": ("a: 'x", "1:4 this quote is never closed"),
    "open-quote-goes-on": ('a: "x\nb: "y"\n', "1:4 this quote is not closed on its line"),
    "quote-in-quote": ("a: 'it's bad'", "1:8 there is more text after the closing quote"),
    "after-bracket": ("a: [b] c", "1:8 expected the end of the line, found text"),
    "escape": ('a: "\\d"', "1:5 `\\d` is not a complete escape"),
    "short-escape": ('a: "\\x1"', "1:5 `\\x` is not a complete escape"),
    "escape-too-far": ('a: "\\U00110000"', "1:5 `\\U` is not a complete escape"),
    "at-sign": ("a: @b", "1:4 `@` cannot start a value"),
    "backtick": ("a: `b`", "1:4 a backtick cannot start a value"),
    "percent": ("a: %b", "1:4 `%` cannot start a value"),
    "star": ("a: * 2", "1:4 the name of an anchor must follow `*`"),
    "bang": ("a: {if: !last}", "1:9 `!` starts a YAML tag, and this is not one"),
    "directive": (
        "%FOO",
        "1:1 a line that starts with `%` is a YAML directive, which specs do not",
    ),
    "block-text": ("a: |x\n  b", "1:5 the text after `|` must start on the next line"),
    "less-indented": ("  a: 1\nb: 2", "2:1 this line has less indentation than the first one"),
    "between": ("a:\n  - b\n c: 1", "3:2 the indentation of this line matches no line above it"),
    "list-then-key": (
        "- a\nb: 1",
        "2:1 expected another item or the end of the list, found a key",
    ),
    "key-then-list": (
        "a: b\n- c",
        "2:1 expected another key or the end of the mapping, found a list item (`- `)",
    ),
    "two-values": ("{a: 1} x", "1:8 expected the end of the file, found text"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_broken_yaml_is_located_and_explained(text, expected):
    (summary,) = summarize_errors(text)
    assert summary.startswith(f"E0102 {expected}")
    (error,) = read_errors(text)
    assert error.help
    assert_inside(error.at, text)


def test_text_of_a_syntax_error():
    assert format_errors("graph:\n  - conv: {filters: 4, kernel: [3, 3}\n  - relu\n") == (
        "error[E0102]: expected `]`, found `}`\n"
        " --> t.yaml:2:37\n"
        "  |\n"
        "2 |   - conv: {filters: 4, kernel: [3, 3}\n"
        "  |                                     ^\n"
        "   = `[` opened at t.yaml:2:32\n"
        "   = help: close the last opened bracket first"
    )


def test_unterminated_text_is_reported():
    assert format_errors("a: [1,\n  2\nb: 3\n") == (
        "error[E0102]: this `[` is never closed\n"
        " --> t.yaml:1:4\n"
        "  |\n"
        "1 | a: [1,\n"
        "  |    ^\n"
        "   = help: add `]`: the text continues to t.yaml:3:2 without it"
    )


def test_duplicate_keys_are_reported_in_text_order():
    assert format_errors("a: 1\nb: {c: 1, d: 2, c: 3}\na: 2\n") == (
        "error[E0103]: the key `c` appears twice\n"
        " --> t.yaml:2:17\n"
        "  |\n"
        "2 | b: {c: 1, d: 2, c: 3}\n"
        "  |                 ^ second occurrence\n"
        "   = first at t.yaml:2:5\n"
        "   = help: remove one of them, or correct its name\n"
        "error[E0103]: the key `a` appears twice\n"
        " --> t.yaml:3:1\n"
        "  |\n"
        "3 | a: 2\n"
        "  | ^ second occurrence\n"
        "   = first at t.yaml:1:1\n"
        "   = help: remove one of them, or correct its name"
    )


def test_keys_that_differ_only_in_quotes_are_duplicates():
    assert summarize_errors('on: 1\n"on": 2') == ["E0103 2:1 the key `on` appears twice"]


def test_errors_before_a_syntax_error_are_reported_too():
    assert summarize_errors("a: {b: 1, b: 2}\n1: 2\nc: [") == [
        "E0103 1:11 the key `b` appears twice",
        "E0102 3:4 this `[` is never closed",
    ]


def test_keys_must_be_names():
    assert summarize_errors("1: a\ntrue: b\n? [c]\n: d\n: e\n2.5: f\nnull: g\n") == [
        "E0107 1:1 a key must be a name, found the number 1",
        "E0107 2:1 a key must be a name, found the Boolean `true`",
        "E0107 3:3 a key must be a name, found a list",
        "E0107 5:1 a key is missing before this `:`",
        "E0107 6:1 a key must be a name, found the number 2.5",
        "E0107 7:1 a key must be a name, found nothing (`null`)",
    ]
    assert to_plain(parse("'1': a\n'true': b\n", "t.yaml")) == {"1": "a", "true": "b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<<: {a: 1}", "1:1 merge keys (`<<`) are not part of YAML 1.2"),
        ("a: !last x", "1:4 the tag `!last` is not allowed here"),
        ("a: !!python/object:os.system x", "1:4 the tag `!!python/object:os.system` is not"),
        ("a: !!map [1]", "1:4 the tag `!!map` is not allowed here"),
        ("a: !!int x", "1:4 the text `x` is not a valid !!int"),
        ("a: *b", "1:4 there is no `&b` before `*b`"),
        ("a: &b [*b]", "1:8 `*b` is inside the value that it refers to"),
        ("a: 1\n---\nb: 2", "2:1 a second document starts here"),
        ("a: 1\n...\nb: 2", "3:1 a second document starts here"),
        ("%YAML 1.1\n---\na: 1", "2:1 the file needs YAML 1.1, but only 1.2 is supported"),
    ],
)
def test_unsupported_yaml_features_are_refused(text, expected):
    assert summarize_errors(text)[0].startswith(f"E0107 {expected}")


def test_a_quoted_merge_key_is_a_key():
    assert to_plain(parse("'<<': 1", "t.yaml")) == {"<<": 1}


def test_a_misspelt_alias_gets_a_suggestion():
    assert read_errors("a: &stem 1\nb: *stm\n")[0].help == "did you mean `*stem`?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1 the file is empty"),
        ("\n  \n", "1:1 the file is empty"),
        ("# nothing\n", "1:10 the file is empty"),
        ("foo", "1:1 expected `key: value`, found only the text `foo`"),
        ("42", "1:1 expected `key: value`, found only the number 42"),
        ("---\n", "2:1 expected `key: value`, found only nothing (`null`)"),
    ],
)
def test_empty_files_are_refused(text, expected):
    assert summarize_errors(text) == [f"E0106 {expected}"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a: 1\nb: \xff\n", "2:4 the file is not UTF-8 text: byte 0xff at offset 8"),
        ("a: é\nb: ü".encode("latin-1"), "1:4 the file is not UTF-8 text: byte 0xe9 at offset 3"),
        (b"a: \xc3", "1:4 the file is not UTF-8 text: byte 0xc3 at offset 3"),
        (b"a: b\0c", "1:5 the file contains a NUL character (U+0000)"),
        (b"a: \x1b[31m", "1:4 the file contains a control character (U+001B)"),
        ("a: 1\nb: \ufeff", "2:4 the file contains a byte order mark (U+FEFF)"),
        ("a: x\u2028y", "1:5 the file contains a line separator (U+2028)"),
        ("a: \ud800", "1:4 the file contains a control character (U+D800)"),
        ('a: "x\\u001by"', "1:4 the quoted text contains the character U+001B"),
        ('a: "\\ud800"', "1:4 the quoted text contains the character U+D800"),
        ("a: 1".encode("utf-16"), "0:0 the file is UTF-16, not UTF-8"),
    ],
)
def test_files_that_are_no_text_are_refused(raw, expected):
    assert summarize_errors(raw) == [f"E0101 {expected}"]


def test_undecodable_bytes_are_escaped_in_messages():
    assert format_errors(b"name: caf\xe9 # x\n") == (
        "error[E0101]: the file is not UTF-8 text: byte 0xe9 at offset 9\n"
        " --> t.yaml:1:10\n"
        "  |\n"
        "1 | name: caf\ufffd # x\n"
        "  |          ^ cannot be decoded\n"
        "   = help: save the file as UTF-8"
    )


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 10_000,
        "a: " + "{b: " * 10_000,
        "- " * 10_000,
        "[" * 10_000 + "]" * 10_000,
        "".join(" " * i + "a:\n" for i in range(300)),
        "? " * 10_000,
    ],
)
def test_nesting_is_bounded(text):
    (error,) = read_errors(text)
    assert error.code == "E0105"
    assert error.message == f"more than {MAX_DEPTH} nested lists and mappings"


def test_nesting_up_to_the_limit_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(to_plain(parse(text, "t.yaml"))) == text
    assert [d.code for d in read_errors(f"[{text}]")] == ["E0105"]


def test_nesting_through_aliases_is_bounded():
    text = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300))
    (error,) = read_errors(text)
    assert error.code == "E0105"
    assert error.at.line == MAX_DEPTH
    assert get_pointed_text(error.at) == f"*a{MAX_DEPTH - 2}"


def test_alias_bombs_are_refused():
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{previous}'] * 9)}]\n"
        for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (error,) = read_errors(text)
    assert error.code == "E0104"
    assert error.message == f"the file has more than {MAX_NODES:,} values, with aliases expanded"
    assert get_pointed_text(error.at) == "*e"


def test_aliases_within_the_limits_are_resolved():
    text = "a: &a {k: 3}\nb: [*a, *a]\nc: &n relu\nd: {*n : *n}\n"
    assert to_plain(parse(text, "t.yaml")) == {
        "a": {"k": 3},
        "b": [{"k": 3}, {"k": 3}],
        "c": "relu",
        "d": {"relu": "relu"},
    }


def test_size_is_bounded():
    (error,) = read_errors(b"#" * (MAX_YAML_BYTES + 1))
    assert error.code == "E0104"
    assert error.message == "the file is too large: 65,537 of at most 65,536 bytes"
    assert error.help.endswith("a spec in JSON, named `*.json`, may have 1,048,576 bytes")
    (error,) = read_errors(b" " * (MAX_JSON_BYTES + 1), "t.json")
    assert error.message == "the file is too large: 1,048,577 of at most 1,048,576 bytes"
    assert error.help == "use `repeat`, `each` and blocks for parts that repeat"


def test_json_may_exceed_the_yaml_limits():
    numbers = list(range(20_000))
    text = json.dumps({"a": numbers})
    assert len(text) > MAX_YAML_BYTES
    assert to_plain(parse(text, "t.json")) == {"a": numbers}


@pytest.mark.parametrize("file", ["t.yaml", "t.json"])
def test_numbers_are_bounded(file):
    assert to_plain(parse('{"a": -9223372036854775808}', file)) == {"a": -(2**63)}
    assert summarize_errors('{"a": 9223372036854775809}', file) == [
        "E0104 1:7 the number is too large for 64 bits"
    ]
    assert summarize_errors("[1e999, 2]", "t.json") == [
        "E0104 1:2 the number is too large for 64 bits"
    ]
    assert summarize_errors('{"a": ' + "9" * 9000 + "}", file) == [
        "E0104 1:7 the number is too large for 64 bits"
    ]


def test_the_number_of_errors_is_bounded():
    assert len(read_errors("a: 1\n" * 1000)) == 50


# --- JSON -----------------------------------------------------------------------------------

JSON = '{\n\t"tcc": 1,\n\t"graph": ["relu", {"conv": {"filters": 4}}],\n\t"x": [1.5e-3, null]\n}\n'


@pytest.mark.parametrize("file", ["t.json", "t.yaml"])
def test_json_with_tabs_is_read_with_spans(file):
    tree = parse(JSON, file)
    assert to_plain(tree) == json.loads(JSON)
    span = find_span(tree, ["graph", 1, "conv", "filters"])
    assert (span.line, span.column, get_pointed_text(span)) == (3, 41, "4")
    assert get_pointed_text(find_key_span(tree, ["graph", 1], "conv")) == '"conv"'
    assert get_pointed_text(find_span(tree, ["graph", 1])) == '{"conv": {"filters": 4}}'
    assert tree.get("graph").items[0].quoted


def test_json_and_yaml_give_the_same_values():
    assert to_plain(parse(json.dumps(to_plain(parse(SPEC, "t.yaml"))), "t.json")) == to_plain(
        parse(SPEC, "t.yaml")
    )


def test_json_escapes_are_read():
    text = '{"a": "\\ud83d\\ude00\\/\\n\\u00e9"}'
    assert to_plain(parse(text, "t.json")) == {"a": "😀/\né"}


def test_bracketed_yaml_is_not_json():
    assert to_plain(parse("{a: 1, b: [x, y: 2]}", "t.yaml")) == {"a": 1, "b": ["x", {"y": 2}]}


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        ("{", "1:1 this `{` is never closed", "the file ends before a `}` closes it"),
        ('{"a": [1, 2}', "1:12 expected `,` or `]`, found `}`", ""),
        ('{"a": 1,}', "1:9 expected a key in double quotes, found `}`", "remove the comma"),
        ("[1, 2, ]", "1:8 expected a value, found `]`", "remove the comma"),
        ('{"a" 1}', "1:6 expected `:` after the key, found `1`", ""),
        ('{"a": 1 "b": 2}', '1:9 expected `,` or `}`, found `"b"`', ""),
        ("{a: 1}", "1:2 `a` is not JSON", "names and text need double quotes"),
        ("{'a': 1}", "1:2 `'` is not JSON", "JSON text needs double quotes"),
        ('{"a": NaN}', "1:7 `NaN` is not JSON", "names and text"),
        ('{"a": 01}', "1:7 `01` is not JSON", ""),
        ('{"a": +1}', "1:7 `+1` is not JSON", ""),
        ('{"a": 1} x', "1:10 `x` is not JSON", ""),
        ('{"a": 1} 2', "1:10 expected the end of the file, found `2`", ""),
        ('{\n  // no\n  "a": 1}', "2:3 `/` is not JSON", "JSON has no comments"),
        ('{"a": "x\ny"}', "1:7 this quote is not closed on its line", "close the quotes"),
        ('{"a": "x', "1:7 this quote is not closed on its line", "close the quotes"),
        ('{"a": "\\d"}', "1:8 JSON has no such escape", "write a backslash as"),
        ('{1: "a"}', "1:2 expected a key in double quotes, found `1`", ""),
    ],
)
def test_broken_json_is_located_and_explained(text, expected, hint):
    (error,) = read_errors(text, "t.json")
    assert summarize_errors(text, "t.json") == [f"E0102 {expected}"]
    assert error.help.startswith(hint)
    assert_inside(error.at, text)


def test_json_duplicates_and_limits_are_checked():
    assert summarize_errors('{"a": 1, "a": 2, "b": {"c": 1, "c": 2}}', "t.json") == [
        "E0103 1:10 the key `a` appears twice",
        "E0103 1:32 the key `c` appears twice",
    ]
    assert read_errors('{"a": ' + "[" * 10_000, "t.json")[0].code == "E0105"
    assert read_errors("[" + "1," * MAX_NODES + "1]", "t.json")[0].code == "E0104"
    assert summarize_errors("", "t.json") == ["E0106 1:1 the file is empty"]
    assert summarize_errors("3", "t.json") == [
        "E0106 1:1 expected `key: value`, found only the number 3"
    ]


# --- random input ---------------------------------------------------------------------------


def parse_outcome(text, file):
    """Return the tree of a text and its errors. Exactly one of them is present."""
    try:
        return parse(text, file), ()
    except UserError as error:
        return None, error.diagnostics


def check(text):
    """Read a text as YAML and JSON. Only a located user error is allowed."""
    for file in ("t.yaml", "t.json"):
        tree, diagnostics = parse_outcome(text, file)
        assert bool(tree) != bool(diagnostics)
        assert all(d.code.startswith("E01") and str(d) for d in diagnostics)
        if isinstance(text, str):
            for span in (*(collect_spans(tree) if tree else ()), *(d.at for d in diagnostics)):
                assert_inside(span, text)


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(raw):
    check(raw)


@given(st.text(max_size=200))
def test_random_text_is_read_or_refused(text):
    check(text)


FRAGMENTS = st.sampled_from(
    [
        *("a", "b: ", ": ", "- ", "-", "? ", "\n", "\n  ", "\n    ", " ", "[", "]", "{", "}", ","),
        *("#", "'", '"', "|\n", ">-\n", "&a ", "*a", "!", "!!str ", "!!s%t", "%", "---\n", "...\n"),
        *("\\", "<<: ", "@", "`", "\t", "\r", "\r\n", "1", "1.5", "true", "null", "~", "é", "\0"),
    ]
)


@given(st.lists(FRAGMENTS, max_size=40).map("".join))
@example("a: !!st%r 5")
@example('a: "\\U00110000"')
@example("%YAML 1.2\n%YAML 1.2\n---\n")
@example("%TAG ! ! \n---\n!a!b c")
@example("&a")
@example("a: &a")
@example("[a: ]")
@example("? ")
def test_random_yaml_tokens_are_read_or_refused(text):
    check(text)


@given(st.integers(0, len(SPEC)))
def test_a_truncated_spec_is_read_or_refused(length):
    check(SPEC[:length])
    check(JSON[:length])


@st.composite
def draw_mutant(draw):
    text = draw(st.sampled_from([SPEC, JSON]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = (
            text[:start] + draw(st.one_of(st.just(""), FRAGMENTS, st.text(max_size=3))) + text[end:]
        )
    return text


@given(draw_mutant())
def test_a_mutated_spec_is_read_or_refused(text):
    check(text)


PLAIN_TEXT = st.text(
    st.characters(
        exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\u2028\u2029\ufffe\uffff"
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | PLAIN_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(PLAIN_TEXT, inner),
    max_leaves=20,
)


@given(st.lists(VALUES) | st.dictionaries(PLAIN_TEXT, VALUES))
def test_any_json_round_trips(value):
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert to_plain(parse(text, "t.json")) == value
        assert to_plain(parse(text, "t.yaml")) == value


def test_the_type_of_a_scalar_follows_from_its_text():
    tree = parse("a: 1\nb: '1'\n", "t.yaml")
    assert [tree.get("a"), tree.get("b")] == [
        Scalar(1, find_span(tree, ["a"]), quoted=False),
        Scalar("1", find_span(tree, ["b"]), quoted=True),
    ]


@pytest.mark.parametrize("prefix", ["", "a: 1\n...\n"])
def test_the_number_of_directives_is_bounded(prefix):
    tags = "".join(f"%TAG !a{n}! tag:x\n" for n in range(101))
    row = 101 + prefix.count("\n")
    message = "more than 100 lines start with `%`, as YAML directives do"
    assert summarize_errors(f"{prefix}{tags}---\na: 1\n") == [f"E0104 {row}:1 {message}"]
    assert parse(f"{tags[: tags.rindex('%')]}---\na: 1\n", "t.yaml")
