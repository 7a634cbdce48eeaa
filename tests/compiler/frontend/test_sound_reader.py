"""What libyaml reads is what ruamel.yaml reads: each value, place and mistake."""

import itertools
from dataclasses import replace
from random import Random

import pytest

from tcc.compiler.frontend.formatter import layout
from tcc.compiler.frontend.yaml import read, tree_builder
from tcc.compiler.frontend.yaml.reader import read_yaml
from tcc.compiler.frontend.yaml.sound_reader import DoubtError, read_sound
from tcc.compiler.frontend.yaml.source_text import decode
from tcc.compiler.frontend.yaml.tree_builder import TreeBuilder
from tcc.compiler.support.diagnostics import UserError

FRAMES = (
    "X",
    "a: X",
    "[X]",
    "{X}",
    "{a: X}",
    "- X\n",
    "a:X\nb: 1",
    '{"a"X}',
    "b:\n X\n c",
    "[a,Xb]",
    "---\nX",
)
"""Around which all short strings stand."""
LETTERS = "a \n:-,[]{}?#'\"\t|&1"
PIECES = (
    *"[]{},:?-#&*!|>%@`'\"\\~\t\r\n 1é😀",
    ": ", "- ", "? ", " #", "\n  ", "\n    ", "\n\n", "\r\n", "\n- ", "\n-", "  - b: c\n    d: e\n",
    "&a ", "*a", "!x ", "!!str ", "<<: ", "---\n", "...\n", "%YAML 1.2\n", "a:\n", "a: b\n",
    "[]", "{}", "[a: b]", "{a}", "{a: }", "{? a : b}", "[a, b]", "{a: 1, b: 2}", ", ,", "x:y", '"a":1',
    "a" * 1030 + ": 1", "[[a]: 1]", "''", '""', '"x\n  y"', "'x\n\n y'", '"a\\\n b"', '"\\x41\\u00e9"',
    "!!seq ", "!!map\n  a: b\n", "!!int ", "! ", "!!null\n", "!!float 1", "!!bool true", "!!foo ", "!!str",
    "&é ", "*é", "'&é'", "# &é\n", "&😀 x", "&a !!str ", "!!str &a ", "&é !!int 3", "!!str,", "&a ! ",
    '{"a":[]}', '{"a":"b"}', '["a":1]', '{"a"', "::", '{"a":,', "{'a':1,'b':{}}", '[{"a":b}]',
    "|-\n  a\n  b\n", ">-\n  a\n\n  b\n", "|2\n   a\n", ">+\n a\n\n\n", "0x1", "-1", "C // 2", "# x\n",
)  # fmt: skip


def by_ruamel(text):
    """A text's tree, or what is wrong with it."""
    builder = TreeBuilder(decode(text, "t.yaml"))
    try:
        read_yaml(builder, [])
    except UserError as error:
        return builder.failed(*error.diagnostics).diagnostics
    return finished(builder)


def by_libyaml(text):
    """The same, None in doubt."""
    builder = TreeBuilder(decode(text, "t.yaml"))
    try:
        read_sound(builder)
    except DoubtError:
        return None
    except UserError as error:
        return builder.failed(*error.diagnostics).diagnostics
    return finished(builder)


def finished(builder):
    try:
        return builder.finish()
    except UserError as error:
        return error.diagnostics


def differing(texts):
    """The texts that are read in two ways, and how many are read in one."""
    wrong, alike = [], 0
    for text in texts:
        found = by_libyaml(text)
        if found is not None:
            alike += 1
            if repr(found) != repr(by_ruamel(text)):
                wrong.append(text)
    return wrong, alike


def mutated(texts, numbers):
    """A stretch of one of some texts with a few changes."""
    text = numbers.choice(texts)
    start = numbers.randrange(len(text))
    if numbers.random() < 0.8:
        start = text.rfind("\n", 0, start) + 1
        text = text[start : start + numbers.choice((60, 200, 600))]
    for _ in range(numbers.choice((0, 1, 1, 1, 2, 3))):
        at, other = numbers.randrange(len(text) + 1), numbers.randrange(len(text) + 1)
        match numbers.randrange(4):
            case 0 | 1:
                text = text[:at] + numbers.choice(PIECES) + text[at:]
            case 2:
                text = text[:at] + text[at + numbers.randrange(1, 9) :]
            case 3:
                text = text[:at] + text[other : other + 30] + text[at:]
    return text


def pieced(numbers):
    """A few pieces of YAML side by side."""
    return "".join(numbers.choices(PIECES, k=numbers.randrange(1, 9)))


@pytest.fixture(scope="module")
def specs(root):
    """The texts of all shipped specs."""
    return [
        path.read_text() for folder in ("spec", "zoo") for path in (root / folder).rglob("*.yaml")
    ]


def test_shipped_specs_are_read_alike(specs):
    for text in specs:
        assert by_libyaml(text) == by_ruamel(text)


@pytest.mark.parametrize("frame", FRAMES)
def test_short_texts_are_read_alike(frame):
    letters = itertools.product(LETTERS, repeat=2)
    wrong, alike = differing(frame.replace("X", "".join(pair)) for pair in letters)
    assert wrong == []
    assert alike >= 10


def test_mutated_texts_are_read_alike(specs):
    numbers = Random(17)
    wrong, alike = differing(mutated(specs, numbers) for _ in range(300))
    assert wrong == []
    assert alike > 60
    wrong, alike = differing(pieced(numbers) for _ in range(1500))
    assert wrong == []
    assert alike > 60


def test_broken_limits_are_told_alike(specs, monkeypatch):
    monkeypatch.setattr(tree_builder, "MAX_NODES", 9)
    monkeypatch.setattr(tree_builder, "MAX_DEPTH", 3)
    monkeypatch.setattr(tree_builder, "MAX_ERRORS", 2)
    numbers = Random(18)
    wrong, alike = differing(mutated(specs, numbers) for _ in range(300))
    assert wrong == []
    assert alike > 60


def test_layouts_are_read_alike(specs):
    numbers = Random(19)
    texts = [*specs[::4], *(mutated(specs, numbers) for _ in range(300))]
    alike = 0
    for text in texts + [pieced(numbers) for _ in range(300)]:
        source = decode(text, "t.yaml")
        try:
            known = read(source)
        except UserError:
            continue
        alike += known.sound
        if known.sound:
            assert layout.read(source, known) == layout.read(source, replace(known, sound=False))
    assert alike > 60


@pytest.mark.parametrize(
    "text",
    [
        "- !!str 1\n- !!seq []\n- !!map\n  a: ! b\n- !!int x\n- !!str &a\n- &b !!str 3\n",
        "- &é relu\n- *é\n- &😀 [*é]\n- !!str &ß 1\n- *ß\n- *ä\n",
        '- {"a":1,"b":{},\'c\':[]}\n- {"a":"b"}\n- {"a":}\n',
    ],
    ids=["tags", "anchors", "JSON"],
)
def test_what_both_read_alike_is_read_by_libyaml(text):
    assert by_libyaml(text) == by_ruamel(text) is not None


@pytest.mark.parametrize("fault", ["'x", '"\\q"', "\ta: b", "[", "a: b: c", "@", "%", "? "])
@pytest.mark.parametrize("between", ["", "a: b\n", "# " + "x" * 9000 + "\n", f"a: {'x' * 9000}\n"])
def test_a_fault_near_a_broken_limit_is_told_alike(monkeypatch, between, fault):
    monkeypatch.setattr(tree_builder, "MAX_NODES", 9)
    text = "".join(f"k{n}: {n}\n" for n in range(5)) + between + fault
    assert by_libyaml(text) in (None, by_ruamel(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: |#\n", "a: |2\n   b\n", "a: |\n#b\n", "[[]\t:]", "? a\n: b\n", "{? }", '["":b]', "- &a:\n", "- *a:\n",
        "a: !!str,\n", "a: !<tag:yaml.org,2002:str> b\n", 'a: "&é"\n', "%YAML 1.2\n---\na: 1\n", "a: 1\n---\nb: 1\n", "a: [", "[[]:]",
    ],
    ids=repr,
)  # fmt: skip
def test_what_may_be_read_otherwise_is_left_to_the_other(text):
    assert by_libyaml(text) is None
