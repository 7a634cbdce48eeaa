"""A custom target: a backend that only writes files, added to the list of backends."""

import pytest

from tcc.backends import BACKENDS
from tcc.compiler.ir.backend import Builder, Packager, Runner
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.target import Artifact, Target
from tcc.compiler.passes import PLAIN
from tcc.compiler.targets import devices

BUILD = ("build", "tiny.yaml", "--target", "dot")
CANNOT_RUN = "this machine cannot run what is built for dot"


class Dot:
    """A backend that writes the graph in Graphviz format."""

    targets = (Target("dot", "Graphviz drawing of the graph", (FP32,)),)

    def passes(self, precision):
        return PLAIN

    def refusals(self, target, graph):
        return ()

    def emit(self, target, model, precision, progress):
        edges = (f'  "{x}" -> "{n.name}";\n' for n in model.graph.nodes for x in n.inputs)
        return Artifact({"graph.dot": f"digraph {{\n{''.join(edges)}}}\n".encode()})


@pytest.fixture(autouse=True)
def dot(monkeypatch):
    monkeypatch.setattr(devices, "BACKENDS", (*BACKENDS, Dot()))


def test_custom_target_is_listed(tcc):
    target_by_name = {
        target["name"]: target for target in tcc("targets", "--json").document["targets"]
    }
    assert target_by_name["dot"] == {
        "name": "dot", "aliases": [], "title": "Graphviz drawing of the graph",
        "precisions": ["fp32"], "calibrates": False, "builds": True, "runs": False, "missing": [],
        "distribution": None,
    }  # fmt: skip
    outcome = tcc("targets", "--verbose")
    assert "This machine cannot run what is built for dot." in outcome.out.splitlines()
    assert any(
        line.startswith("fp32 ") and FP32.summary in line for line in outcome.out.splitlines()
    )
    assert "did you mean `dot`?" in tcc("build", "tiny.yaml", "--target", "dots").err


def test_custom_target_is_built_without_replay(tcc, home):
    outcome = tcc(*BUILD)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[2] == f"  not compared with the reference: {CANNOT_RUN}"
    text = (home / "build/tiny-dot-fp32/model/graph.dot").read_text()
    assert text.startswith('digraph {\n  "image" -> "conv";\n  "conv" -> "batch_norm";\n')
    (bundle_report,) = tcc(*BUILD, "--json").document["bundles"]
    assert (bundle_report["unchecked"], bundle_report["agreement"]) == (CANNOT_RUN, [])
    both = tcc(*BUILD, "--target", "ort", "-q")
    assert both.out.split() == ["build/tiny-dot-fp32", "build/tiny-onnxruntime-fp32"]


def test_custom_bundle_is_shown_but_not_run(tcc, home, images):
    assert tcc(*BUILD, "-q").code == 0
    graph_text = tcc("show", "build/tiny-dot-fp32").out
    assert graph_text.splitlines()[0] == "# tiny for dot at fp32"
    for args in (("verify",), ("bench",), ("run", images), ("eval", "--data", images)):
        command, *other_args = args
        outcome = tcc(command, "build/tiny-dot-fp32", *other_args)
        assert outcome.code == 2
        assert f"error[E0657]: {CANNOT_RUN}\n  --> build/tiny-dot-fp32/model\n" in outcome.err


def test_other_precisions_are_refused(tcc, home):
    outcome = tcc(*BUILD, "--precision", "int8", "--data", "nowhere")
    assert outcome.code == 2
    assert "error[E0606]: dot does not support precision `int8`\n" in outcome.err
    assert "= help: supported precisions: fp32" in outcome.err


class Scales:
    """A backend for calibration only."""

    targets = (Target("scales", "scales alone", calibrates=True),)


def test_calibration_only_target_is_not_built(tcc, monkeypatch):
    monkeypatch.setattr(devices, "BACKENDS", (*BACKENDS, Scales()))
    assert "This machine cannot run what is built for scales." not in tcc("targets").out
    outcome = tcc("build", "tiny.yaml", "--target", "scales")
    assert outcome.code == 2
    assert (
        "error[E0606]: this version can calibrate for scales, but cannot build for it"
        in outcome.err
    )
    assert "--> command line: --target scales" in outcome.err


def test_target_fields_match_their_backends():
    for backend in BACKENDS:
        for target in backend.targets:
            assert target.runs == isinstance(backend, Runner)
            assert bool(target.precisions) == isinstance(backend, Builder | Packager)
            names = [precision.name for precision in target.precisions]
            assert len(names) == len(set(names))
            assert all(precision.summary for precision in target.precisions)
