"""Rule files: the ambiguities they resolve, and errors in them."""

import os
from pathlib import Path

import pytest
import torch
from foreign_states import (
    assert_complete,
    catch_refusal,
    count_methods,
    make_state,
    make_twin_graph,
    save_state,
)
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.importers.checkpoint.rule_files import match_pattern
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ops import Add, BatchNorm, Conv, Relu
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import NetBuilder


def write_rule_file(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


def build_residual() -> Graph:
    """Return a residual block whose shortcut runs first but is registered last in PyTorch."""
    add = NetBuilder(4, 6, 6, name="residual")
    add("short", Conv(4, (1, 1), bias=False), "image")
    short = add("short_bn", BatchNorm())
    add("main_1", Conv(4, (1, 1), bias=False), "image")
    add("main_1_bn", BatchNorm())
    add("relu", Relu())
    add("main_2", Conv(4, (1, 1), bias=False))
    add("main_2_bn", BatchNorm())
    add("sum", Add(), "main_2_bn", short)
    return add.build()


TORCHVISION = {
    "main_1": "layer1.0.conv1",
    "main_1_bn": "layer1.0.bn1",
    "main_2": "layer1.0.conv2",
    "main_2_bn": "layer1.0.bn2",
    "short": "layer1.0.downsample.0",
    "short_bn": "layer1.0.downsample.1",
}


def test_a_rule_resolves_differing_registration_and_execution_orders(tmp_path: Path) -> None:
    graph = build_residual()
    path = save_state(tmp_path, make_state(graph, TORCHVISION, order=list(TORCHVISION)))
    rules = write_rule_file(
        tmp_path,
        "rules:\n"
        "  - {from: '*.0.downsample.0', to: short}\n"
        "  - {from: layer1.0.downsample.*, to: short_bn}\n",
    )
    imported = import_checkpoint(path, graph, rules)
    assert_complete(imported, graph)
    assert count_methods(imported) == {"rule": 5, "order": 10, "ignored": 3}


def test_rules_capture_parts_and_count(tmp_path: Path) -> None:
    graph = build_residual()
    names = {
        "main_1": "stage.0.body.0",
        "main_1_bn": "stage.0.body.1",
        "main_2": "stage.1.body.0",
        "main_2_bn": "stage.1.body.1",
        "short": "deep.er.short0.conv",
        "short_bn": "deep.er.short0.bn",
    }
    path = save_state(tmp_path, make_state(graph, names, order=list(names)))
    rules = write_rule_file(
        tmp_path,
        "rules:\n"
        "  - {from: stage.*.body.0, to: 'main_{1+1}'}\n"
        "  - {from: stage.*.body.1, to: 'main_{1+1}_bn'}\n"
        "  - {from: '**.short*.conv', to: short}\n"
        "  - {from: deep.**.bn, to: short_bn}\n",
    )
    imported = import_checkpoint(path, graph, rules)
    assert_complete(imported, graph)
    assert count_methods(imported) == {"rule": 15, "ignored": 3}


def test_a_rule_can_skip_training_only_modules(tmp_path: Path) -> None:
    state = make_state(make_twin_graph())
    state["second.head.fc.weight"] = torch.ones(3, 3)
    path = save_state(tmp_path, state)
    assert "second.head.fc <-> none" in catch_refusal(path, make_twin_graph())
    rules = write_rule_file(tmp_path, '{"rules": [{"ignore": "second.**"}]}')
    imported = import_checkpoint(path, make_twin_graph(), rules)
    assert_complete(imported, make_twin_graph())
    assert imported.rows[-1].how == "ignored"
    assert imported.rows[-1].name == ""


def test_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rules.yaml")
    path = save_state(tmp_path, make_state(make_twin_graph()))
    assert "it is a pipe, not a file" in catch_refusal(
        path, make_twin_graph(), tmp_path / "rules.yaml"
    )


BAD_RULES = {
    "rules:\n  - {from: net.9, to: a}\n": "E0514 2 no module of the checkpoint matches `net.9`",
    "rules:\n  - {from: net.0, to: aa}\n": "E0514 2 no layer is called `aa`",
    "rules:\n  - {from: net.0, to: b}\n": "E0514 2 the shapes of net.0 and b differ",
    "rules:\n  - {from: 'net.*', to: b}\n": "E0514 2 the shapes of net.0 and b differ",
    "rules:\n  - {from: net.2, to: c}\n  - {from: net.4, to: c}\n": "E0514 3 two modules with different values are mapped to c",
    "rules:\n  - {from: net.0, to: 'a{1}'}\n": "E0513 2 {1} has no matching star in the pattern",
    "rules:\n  - {from: '*.0', to: 'a{1+1}'}\n": "E0513 2 {1+1} needs a star that matches a number",
    "rules:\n  - {from: 'n*t*.0', to: a}\n": (
        "E0513 2 a pattern can have one `*` per part and one `**` in total"
    ),
    "rules:\n  - {form: net.0, to: a}\n": "E0513 2 a rule has no key `form`",
    "rules:\n  - net.0\n": "E0513 2 not a valid rule",
    "rules:\n  - {from: [net.0], to: a}\n": "E0513 2 `from` needs a name as its value",
    "rules: {from: net.0, to: a}\n": "E0513 1 a rule file must contain `rules:` with a list",
    "ruls: []\n": "E0513 1 a rule file must contain `rules:` with a list",
    "rules: [\n": "E0102 1 ",
    "": "E0106 ",
}


@pytest.mark.parametrize(("text", "expected"), BAD_RULES.items(), ids=BAD_RULES.values())
def test_bad_rules_are_reported_with_their_location(
    tmp_path: Path, text: str, expected: str
) -> None:
    path, rules = (
        save_state(tmp_path, make_state(make_twin_graph())),
        write_rule_file(tmp_path, text),
    )
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, make_twin_graph(), rules)
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.at.file == str(rules)
    assert f"{diagnostic.code} {diagnostic.at.line} {diagnostic.message}".startswith(expected)


def test_a_missing_rule_file_is_reported(tmp_path: Path) -> None:
    path = save_state(tmp_path, make_state(make_twin_graph()))
    assert catch_refusal(path, make_twin_graph(), tmp_path / "none.yaml").startswith(
        "error[E0513]: cannot read the rule file\n  --> rules.yaml\n"
    )


parts = st.lists(st.text("ab1_", min_size=1, max_size=3), min_size=1, max_size=5)


@given(parts=parts, data=st.data())
def test_wildcards_capture_the_matched_text(parts: list[str], data: st.DataObject) -> None:
    pattern, expected = [], []
    for part in parts:
        start = data.draw(st.integers(0, len(part)))
        end = data.draw(st.integers(start, len(part)))
        starred = data.draw(st.booleans())
        pattern.append(f"{part[:start]}*{part[end:]}" if starred else part)
        expected += [part[start:end]] if starred else []
    assert match_pattern(".".join(pattern), ".".join(parts)) == tuple(expected)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", ()),
        ("a.b", "a.c", None),
        ("a.b", "a.b.c", None),
        ("a.*", "a", None),
        ("**", "a.b.c", ("a.b.c",)),
        ("a.**.d", "a.b.c.d", ("b.c",)),
        ("a.**.d", "a.d", None),
        ("*.**", "a.b.c", ("a", "b.c")),
        ("a*a", "a", None),
        ("layer*.conv", "layer12.conv", ("12",)),
        ("a.+", "a.b", None),
    ],
)
def test_patterns_match_names(pattern: str, name: str, expected: tuple[str, ...] | None) -> None:
    assert match_pattern(pattern, name) == expected
