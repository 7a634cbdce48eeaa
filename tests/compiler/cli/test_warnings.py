"""Spec warnings: every command prints them once on standard error, and in JSON."""

import warnings

import pytest

import tcc as api

DOUBTFUL = """\
tcc: 1
name: doubtful
params: {spare: 3}
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8]}}}}
graph:
  - side: {as: head, body: [conv: {filters: 90, kernel: 1}]}
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output: {logits: {activation: softmax, labels: [cat, dog]}}
ALLOW
"""
KINDS = ["unused-parameter", "unused-branch"]
WARNING_TEXT = """\
warning[W0504]: nothing reads the parameter `spare` [unused-parameter]
 --> doubtful.yaml:3:10
  |
3 | params: {spare: 3}
  |          ^^^^^
   = help: read it in an expression, or remove it

warning[W0501]: nothing reads the side `head` [unused-branch]
 --> doubtful.yaml:6:16
  |
6 |   - side: {as: head, body: [conv: {filters: 90, kernel: 1}]}
  |                ^^^^
   = help: read it with `from`, in a branch or as an output, or remove it

2 warnings; `allow: [KIND]` in the spec turns a kind off
"""


@pytest.fixture
def doubtful(home):
    """Write the spec, with the warning kinds that it allows."""

    def write(*allowed: str) -> None:
        allow = f"allow: [{', '.join(allowed)}]" if allowed else ""
        (home / "doubtful.yaml").write_text(DOUBTFUL.replace("ALLOW", allow))

    write()
    return write


COMMANDS = {
    "check": (),
    "show": ("--format", "svg"),
    "build": ("--target", "onnxruntime,tflite"),
    "calibrate": ("--data", "set", "--method", "minmax"),
    "eval": ("--data", "set"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("quiet", [(), ("-q",)], ids=["", "quiet"])
def test_every_command_prints_warnings_once(tcc, doubtful, images, command, quiet):
    outcome = tcc(command, "doubtful.yaml", *COMMANDS[command], *quiet)
    assert outcome.code == 0
    assert outcome.err.count(WARNING_TEXT) == 1
    assert outcome.err.count("warning[W") == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_json_has_the_warnings(tcc, doubtful, images, command):
    document = tcc(command, "doubtful.yaml", *COMMANDS[command], "--json").document
    assert [w["kind"] for w in document["warnings"]] == KINDS
    assert [(w["severity"], w["line"]) for w in document["warnings"]] == [
        ("warning", 3),
        ("warning", 6),
    ]
    assert tcc(command, "tiny.yaml", *COMMANDS[command], "--json").document["warnings"] == []


def test_failed_command_has_the_warnings_in_json(tcc, doubtful):
    outcome = tcc("build", "doubtful.yaml", "--target", "nowhere", "--json")
    assert outcome.code == 2
    assert [w["kind"] for w in outcome.document["warnings"]] == KINDS
    assert "warnings" not in tcc("build", "absent.yaml", "--json").document


@pytest.mark.parametrize("command", ["check", "build", "calibrate", "eval"])
def test_strict_turns_warnings_into_errors(tcc, home, doubtful, images, command):
    outcome = tcc(command, "doubtful.yaml", *COMMANDS[command], "--strict", "--json")
    assert outcome.code == 2
    assert [d["kind"] for d in outcome.document["diagnostics"]] == KINDS
    assert "error[W0504]: nothing reads the parameter `spare`" in outcome.err
    assert outcome.err.endswith("2 errors\n")
    assert not (home / "build").exists()
    doubtful(*KINDS)
    assert tcc(command, "doubtful.yaml", *COMMANDS[command], "--strict").code == 0


def test_allowed_warnings_are_not_printed(tcc, doubtful):
    doubtful("unused-branch")
    outcome = tcc("check", "doubtful.yaml")
    assert outcome.err.count("warning[W") == 1
    assert "1 warning; " in outcome.err
    doubtful(*KINDS)
    assert tcc("check", "doubtful.yaml").err == ""
    assert tcc("check", "doubtful.yaml", "--json").document["warnings"] == []


def test_many_warnings_are_counted_and_json_has_all(tcc, home, doubtful):
    names = ", ".join(f"p{n}: {n}" for n in range(70))
    (home / "many.yaml").write_text(DOUBTFUL.replace("spare: 3", names).replace("ALLOW", ""))
    outcome = tcc("check", "many.yaml")
    assert outcome.err.count("warning[W") == 50
    assert "71 warnings, 50 of them shown; " in outcome.err
    assert len(tcc("check", "many.yaml", "--json").document["warnings"]) == 71


def test_unused_parts_are_not_in_the_totals(tcc, doubtful):
    totals = tcc("check", "doubtful.yaml", "--json").document["totals"]
    assert (totals["layers"], totals["params"], totals["macs"]) == (3, 8, 6)
    assert "conv" not in tcc("show", "doubtful.yaml").out


def test_imported_weights_may_omit_unused_parts(tcc, home, doubtful):
    import torch

    torch.save({"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}, home / "c.pth")
    outcome = tcc("import-weights", "doubtful.yaml", "c.pth", "-o", "w.safetensors")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("warning[W") == 2


def test_python_warns_and_stores_the_warnings(home, doubtful):
    with pytest.warns(api.SpecWarning) as caught:
        spec = api.load("doubtful.yaml")
    assert [w.kind for w in spec.warnings] == KINDS
    assert [str(w.message) for w in caught] == [str(w) for w in spec.warnings]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert api.load("tiny.yaml").warnings == ()
    with pytest.warns(api.SpecWarning):
        api.build("doubtful.yaml", "onnxruntime", out="a")
