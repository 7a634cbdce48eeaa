"""A text that libyaml reads to some way before a doubtful place is what ruamel.yaml reads."""

import json
from random import Random

import pytest

from tcc.compiler.frontend.formatter import layout
from tcc.compiler.frontend.yaml import ReadText, joined_reader, parse, plain, tree_builder
from tcc.compiler.frontend.yaml.joined_reader import read_joined
from tcc.compiler.frontend.yaml.reader import read_yaml
from tcc.compiler.frontend.yaml.sound_reader import DoubtError, read_sound
from tcc.compiler.frontend.yaml.source_text import decode
from tcc.compiler.frontend.yaml.tree_builder import TreeBuilder
from tcc.compiler.support.diagnostics import UserError

FAULTS = (
    "'x", '"x', "- a: b: c\n", "\t- x", "[", "{", "]", "}", "? x\n", "---\n", "...\n", "@", "%", "&",
    "*zz", "!x y", "!!str,", "\n x\n", "- - ", ": ", "a b: c d: e", "|x", '"\\q"', "{a: 1", "[a, b", "'a' b",
    "- a\nb: c\n", '["a":1]', "  - é&é", "x: |2\n    a\n", "\n   - q", "k: v: w", "- [a, {b: c, d: [e",
)  # fmt: skip
LISTS = "\nx:\n- a\n- b\n- - c\n  - d\n  -\n    e: f\n    g:\n    - h\n    - &q i\n    - ! j\n"


def told(builder, read, *more):
    """What a reader makes of a text: a tree or what is wrong."""
    try:
        read(builder, *more)
        return builder.finish()
    except UserError as error:
        return builder.failed(*error.diagnostics).diagnostics


def joined(text, kept):
    """What both libraries together make of a text, None where one of them reads all of it."""
    try:
        read_sound(TreeBuilder(decode(text, "t.yaml")))
    except DoubtError as error:
        doubt = error.at
    except UserError:
        return None
    else:
        return None
    try:
        return told(TreeBuilder(decode(text, "t.yaml")), read_joined, kept, doubt)
    except DoubtError:
        return None


@pytest.fixture(scope="module")
def texts(root):
    """The texts of shipped specs, as YAML and as JSON."""
    paths = [path for folder in ("spec", "zoo") for path in (root / folder).rglob("*.yaml")]
    trees = [plain(parse(path.read_text(), path.name)) for path in paths]
    glued = [json.dumps(tree, separators=(",", ":")) for tree in trees]
    return [*(path.read_text() for path in paths), *glued]


def broken(texts, numbers):
    """A text with a fault or two, mostly near its end."""
    text = numbers.choice(texts) + numbers.choice(("", LISTS, LISTS * 5))
    for _ in range(numbers.choice((1, 1, 2))):
        at = numbers.randrange(len(text) * 2 // 3, len(text) + 1)
        if numbers.random() < 0.4:
            at = text.rfind("\n", 0, at) + 1
        text = text[:at] + numbers.choice(FAULTS) + text[at:]
    return text


@pytest.mark.parametrize("nodes", [100_000, 60])
def test_broken_texts_are_read_alike(texts, monkeypatch, nodes):
    monkeypatch.setattr(joined_reader, "_NEAR", 300)
    monkeypatch.setattr(joined_reader, "_WINDOW", 900)
    monkeypatch.setattr(tree_builder, "MAX_NODES", nodes)
    monkeypatch.setattr(tree_builder, "MAX_ERRORS", 3)
    numbers = Random(nodes)
    alike = 0
    for text in (broken(texts, numbers) for _ in range(110)):
        kept = []
        found = joined(text, kept)
        if found is not None:
            alike += 1
            assert found == told(TreeBuilder(decode(text, "t.yaml")), read_yaml, [])
            if not isinstance(found, tuple):
                source = decode(text, "t.yaml")
                of_both, of_one = (ReadText(found, False, events) for events in (kept, []))
                assert layout.read(source, of_both) == layout.read(source, of_one)
    assert alike > 20


HEAD = "tcc: 1\nname: giant\n"
LATE = {
    "a quote": f"{HEAD}graph:\n" + "  - []\n" * 3000 + "  - 'x",
    "a bracket": f"{HEAD}graph: [" + "[]," * 5000,
    "a second document": f"{HEAD}graph:\n" + "- {a: 1}\n" * 2000 + "---\n",
    "tags": f"{HEAD}graph:\n" + "- !!str a\n" * 2000 + "- !<tag:yaml.org,2002:str> b\n",
    "JSON": json.dumps({"graph": [[]] * 5000})[:-1],
    "glued JSON": json.dumps({"graph": [{"a": 1}] * 3000}, separators=(",", ":"))[:-1],
}
"""Texts that are doubtful at their ends."""


@pytest.mark.parametrize("text", LATE.values(), ids=LATE)
def test_only_the_end_is_read_by_ruamel(text, monkeypatch):
    monkeypatch.setattr(joined_reader, "_WINDOW", 5000)
    kept = []
    assert joined(text, kept) is not None
    slow = sum("ruamel" in type(event).__module__ for event in kept)
    assert 20 < slow < len(kept) / 2


def test_broken_json_is_read_as_yaml_once(monkeypatch):
    """Where JSON's own reader knows that a text is none, the one with places is not asked."""
    monkeypatch.setattr("tcc.compiler.frontend.yaml.read_json", None)
    with pytest.raises(UserError, match="never closed"):
        parse('{"a": [1, 2', "t.yaml")
