"""The canonical form of specs: what changes, what is kept, and that nothing is lost."""

import json
import re
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.language_schema import build_schema
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.support.diagnostics import UserError


def format_checked(text, file="t.yaml"):
    """Return the canonical form. Check that it means the same and is stable."""
    result = format_spec(text, file)
    assert format_spec(result, file) == result
    assert is_same(to_plain(parse(result, file)), to_plain(parse(text, file)))
    return result


def is_same(actual, expected):
    return json.dumps(actual, sort_keys=True) == json.dumps(expected, sort_keys=True)


UNFORMATTED = """\
# the file's own comment

# about the output
output:   # end of a key's line
    logits: {activation: softmax, labels:
        [a, b]}
    # below the output
graph:
- conv: {filters: 64, kernel: 7,
         stride: 2}   # the stem
# before relu
- relu


- {batch_norm: {}} # after the braces
- add: # residual
    - [] # identity
    # the second branch
    - [conv: {filters: C,  # inside of braces
              kernel: 3}, 'batch_norm']
-   # beside a dash
    dropout: {rate: 0.5}
- - # nested
    sigmoid
  - tanh
  # below the nested list
extra: "yes"
tests:
- {params: 12, macs: 34}
name: "net"    # why not
tcc: 1
blocks:
    dense:
        doc: >-
            Folded text
              with its lines

            kept.
        body: [relu,
          'sigmoid']

    # about transition
    transition:
        doc: |
          # not a comment
           indented

        let: plain text
          on two lines # after it
        if: 'it''s'
        empty:
        'null': ~
# the end
"""

FORMATTED = """\
# the file's own comment
tcc: 1
name: net      # why not

blocks:
  dense:
    doc: >-
      Folded text
        with its lines

      kept.
    body: [relu, sigmoid]

  # about transition
  transition:
    doc: |
      # not a comment
       indented

    let: plain text
      on two lines     # after it
    if: it's
    empty:
    "null": ~

graph:
  - conv: {filters: 64, kernel: 7, stride: 2}  # the stem
  # before relu
  - relu

  - batch_norm: {}  # after the braces
  - add:  # residual
      - []  # identity
      # the second branch
      - - conv:
            filters: C     # inside of braces
            kernel: 3
        - batch_norm
  - dropout: {rate: 0.5}  # beside a dash
  - - sigmoid  # nested
    - tanh
    # below the nested list

# about the output
output:   # end of a key's line
  logits: {activation: softmax, labels: [a, b]}
  # below the output

tests:
  - {params: 12, macs: 34}

extra: "yes"
# the end
"""


def test_a_spec_is_formatted_canonically():
    assert format_checked(UNFORMATTED) == FORMATTED


@pytest.mark.parametrize(
    ("unformatted", "formatted"),
    [
        ("a:   1\n", "a: 1\n"),
        ("a: 1", "a: 1\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("\ufeffa: 1\n", "a: 1\n"),
        ("---\na: 1\n...\n", "a: 1\n"),
        ("a: 'b'\n", "a: b\n"),
        ("a: '1'\n", 'a: "1"\n'),
        ("a: 'true'\n", 'a: "true"\n'),
        ("a: 'no'\n", 'a: "no"\n'),
        ("a: 'null'\n", 'a: "null"\n'),
        ("a: ''\n", 'a: ""\n'),
        ("a: 'x: y'\n", 'a: "x: y"\n'),
        ("a: 'x #y'\n", 'a: "x #y"\n'),
        ("a: ' x'\n", 'a: " x"\n'),
        ("a: '*x'\n", 'a: "*x"\n'),
        ("a: 'say \"x\": y'\n", "a: 'say \"x\": y'\n"),
        ('a: "\\u00e9\\u2028"\n', 'a: "é\\u2028"\n'),
        ('a: "x\\ny"\n', 'a: "x\\ny"\n'),
        ("a: 'max(1, C // 4)'\n", "a: max(1, C // 4)\n"),
        ("a: {b: 'max(1, C)'}\n", 'a: {b: "max(1, C)"}\n'),
        ("a: 'labels if x else []'\n", "a: labels if x else []\n"),
        ("'a': 1\n", "a: 1\n"),
        ("'1': 1\n", '"1": 1\n'),
        ("a: 0o17\nb: 1e-5\nc: 4.3e8 ± 1 %\n", "a: 0o17\nb: 1e-5\nc: 4.3e8 ± 1 %\n"),
        ("a: [ 1,2 , 3 ]\n", "a: [1, 2, 3]\n"),
        ("a: { b : 1 }\n", "a: {b: 1}\n"),
        ("a: {b}\n", "a: {b: null}\n"),
        ("a: [{b: 1}, {c: 1, d: 2}]\n", "a: [b: 1, {c: 1, d: 2}]\n"),
        ("{a: 1, b: [x]}\n", "a: 1\n\nb: [x]\n"),
        ("a:\n- {b: 1}\n- c\n", "a:\n  - b: 1\n  - c\n"),
        ("a:\n-\n  - b\n-\n", "a:\n  - - b\n  -\n"),
        ("? a\n: b\n? c\n", "a: b\nc:\n"),
        ("a: |2\n    x\n   y\n", "a: |2\n    x\n   y\n"),
        ("a: |+\n  x\nb: 1\n", "a: |\n  x\nb: 1\n"),
        ("a: |+\n  x\n\nb: [1]\n", 'a: "x\\n\\n"\n\nb: [1]\n'),
        ("a: |\n  x", "a: |-\n  x\n"),
        ("a: |\n\nb: 1\n", 'a: ""\n\nb: 1\n'),
        ("a: >- # why\n  x\n  y\n", "a: >-  # why\n  x\n  y\n"),
        ("a: 'x\n\n  y'\n", "a: 'x\n\n  y'\n"),
        ("a: {b: 'x\n  y'}\n", "a: {b: x y}\n"),
        ("a: &x [1]\nb: *x\n", "a: &x [1]\n\nb: *x\n"),
        ("b: &x\n  c: 1\na: {*x : 1}\n", None),
        ("b: &x c\na: {*x : 1}\n", "b: &x c\n\na: {*x : 1}\n"),
        ("a: !!str 1\n", "a: !!str 1\n"),
        ("# x\n[ # y\n] # z\n", "# x\n# y\n# z\n[]\n"),
        ("a:\n  - &x\n    b: 1\n", "a:\n  - &x\n    b: 1\n"),
    ],
)
def test_small_formatting_rules(unformatted, formatted):
    if formatted is None:
        with pytest.raises(UserError, match="a key must be a name"):
            format_spec(unformatted, "t.yaml")
    else:
        assert format_checked(unformatted) == formatted


def test_long_lines_are_written_as_blocks():
    step = "conv: {filters: filters, kernel: kernel, stride: stride, padding: padding, bias: false}"
    assert format_checked(f"graph: [{step}, relu]\n") == f"graph:\n  - {step}\n  - relu\n"
    longer = step.replace("false", "bias if grouped else false")
    assert format_checked(f"graph:\n  - {longer}\n") == (
        "graph:\n  - conv:\n      filters: filters\n      kernel: kernel\n      stride: stride\n"
        "      padding: padding\n      bias: bias if grouped else false\n"
    )


def test_a_line_of_the_full_width_is_kept():
    row = "a: [" + "x" * 95 + "]"
    assert len(row) == 100
    assert format_checked(row) == row + "\n"
    assert format_checked(row.replace("x]", "xx]")) == "a:\n  - " + "x" * 96 + "\n"


def test_sections_are_sorted_with_their_comments():
    text = (
        "# top\n"
        "zebra: 1\n"
        "# about tests\n"
        "tests: [{params: 1}]\n"
        "graph: [relu]  # the graph\n"
        "# about the name\n"
        "name: n\n"
        "apple: 2\n"
        "tcc: 1\n"
        "# last\n"
    )
    assert format_checked(text) == (
        "# top\n"
        "tcc: 1\n"
        "# about the name\n"
        "name: n\n"
        "\n"
        "graph: [relu]  # the graph\n"
        "\n"
        "# about tests\n"
        "tests: [params: 1]\n"
        "\n"
        "zebra: 1\n"
        "apple: 2\n"
        "# last\n"
    )


def test_sections_with_aliases_keep_their_order():
    text = "graph: &g [relu]\n\ntcc: 1\nname: &n x\n\noutput: {y: *n}\n"
    assert format_checked(text) == text


def test_consecutive_empty_lines_are_reduced_to_one():
    text = "graph:\n\n  - a\n\n\n\n  - b\n  # c\n\n  - d\n\n\n\noutput: [x]\n\n\n"
    assert format_checked(text) == "graph:\n  - a\n\n  - b\n  # c\n\n  - d\n\noutput: [x]\n"


@pytest.mark.parametrize("file", ["t.json", "t.yaml"])
def test_json_stays_json(file):
    text = '{"graph": ["relu",\n\t{"conv": {"filters": 4}}], "tcc": 1, "name": "é"}'
    assert format_checked(text, file) == (
        "{\n"
        '  "tcc": 1,\n'
        '  "name": "é",\n'
        '  "graph": [\n'
        '    "relu",\n'
        "    {\n"
        '      "conv": {\n'
        '        "filters": 4\n'
        "      }\n"
        "    }\n"
        "  ]\n"
        "}\n"
    )


def test_parser_errors_are_reported():
    with pytest.raises(UserError) as caught:
        format_spec("a: [1\nb: 2\n", "t.yaml")
    assert str(caught.value).startswith("error[E0102]: this `[` is never closed\n --> t.yaml:1:4")
    with pytest.raises(UserError, match="E0103"):
        format_spec(b"a: 1\na: 2\n", "t.yaml")


def test_formatting_keeps_the_meaning_of_all_specs(root):
    files = sorted(root.glob("spec/**/*.yaml"))
    assert files
    for file in files:
        format_checked(file.read_text(), str(file))


# --- random input ---------------------------------------------------------------------------

NAMES = st.sampled_from(["tcc", "name", "graph", "output", "x", "y z", "on", "1", "a: b", "#h", ""])
TEXTS = st.text("ab,:#-'\"[]{} é\n\\|>&*!%@`0.~?", max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.sampled_from([0.5, 1e30]) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)


class Scribe:
    """Writes a value as YAML in a random style: with or without brackets, comments and empty lines."""

    def __init__(self, draw):
        self.draw = draw
        self.comments = []

    def draw_chance(self):
        return self.draw(st.integers(0, 5)) == 5

    def draw_comment(self):
        text = self.draw(st.text("ab #:-['\"", max_size=6))
        self.comments.append(f"#c{len(self.comments)}{text}".rstrip())
        return self.comments[-1]

    def write_row(self, text):
        yield f"{text} {self.draw_comment()}" if self.draw_chance() else text
        while self.draw_chance():
            yield (
                ""
                if self.draw_chance()
                else " " * self.draw(st.integers(0, 8)) + self.draw_comment()
            )

    def write_block(self, value, indent):
        pad = " " * indent
        if isinstance(value, dict):
            pairs = [(f"{json.dumps(key)}:", item) for key, item in value.items()]
        else:
            pairs = [("-", item) for item in value]
        for lead, item in pairs:
            if isinstance(item, dict | list) and item and not self.draw_chance():
                yield from self.write_row(f"{pad}{lead}")
                yield from self.write_block(item, indent + self.draw(st.integers(1, 4)))
            elif isinstance(item, dict | list) and self.draw_chance():
                yield from self.write_brackets(f"{pad}{lead} ", item, pad)
            else:
                yield from self.write_row(f"{pad}{lead} {json.dumps(item)}")

    def write_brackets(self, lead, value, pad):
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        yield from self.write_row(lead + opening)
        for item in value:
            text = json.dumps(item)
            text += f": {json.dumps(value[item])}" if isinstance(value, dict) else ""
            yield from self.write_row(f"{pad}   {text},")
        yield from self.write_row(pad + " " + closing)


@st.composite
def draw_document(draw):
    """Return a mapping, a YAML text of it, and the comments in the text."""
    value = draw(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5))
    scribe = Scribe(draw)
    rows = [*scribe.write_row(""), *scribe.write_block(value, draw(st.integers(0, 2)))]
    return value, "\n".join(rows) + "\n", scribe.comments


@given(draw_document())
def test_formatting_keeps_values_and_comments(example):
    value, text, remarks = example
    assert to_plain(parse(text, "t.yaml")) == value
    result = format_checked(text)
    assert to_plain(parse(result, "t.yaml")) == value
    assert sorted(re.findall(r"#c.*", result)) == sorted(remarks)


@given(st.data())
def test_a_mutated_spec_is_formatted_or_refused(data):
    text = UNFORMATTED
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + data.draw(TEXTS) + text[end:]
    check(text)


def check(text):
    """Format a text. A user error is allowed."""
    try:
        result = format_spec(text, "t.yaml")
    except UserError:
        return
    assert format_spec(result, "t.yaml") == result


@given(st.integers(0, len(UNFORMATTED)), st.integers(0, len(UNFORMATTED)))
@example(0, len(UNFORMATTED))
def test_any_part_of_a_spec_is_formatted_or_refused(start, end):
    assume(start < end)
    check(UNFORMATTED[start:end])


def test_lists_of_the_maximum_depth_are_formatted():
    text = f"graph: {'[' * 250}relu{']' * 250}\n"
    assert "relu" in format_checked(text)


def test_comments_after_deep_lists_take_linear_time():
    lists = "[" * 200 + "relu, #\n" * 5000 + "] #\n" * 200
    start = time.process_time()
    check(f"graph: {lists}")
    assert time.process_time() - start < 4  # comparing each comment with each entry took over 30 s


KEYS = (
    *("tcc", "name", "doc", "params", "use", "input"),
    *("blocks", "graph", "output", "accuracy", "allow", "tests"),
)


def test_every_key_of_a_spec_has_a_sort_position():
    assert set(KEYS) == set(build_schema()["$defs"]["spec"]["properties"])
    text = "".join(f"{key}: 1\n" for key in reversed(KEYS))
    assert tuple(to_plain(parse(format_checked(text), "t.yaml"))) == KEYS
