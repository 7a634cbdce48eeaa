"""Targets from another distribution, found through an entry point."""

import json

import pytest

DOT = """
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.target import Artifact, Target
from tcc.compiler.passes import PLAIN


class Dot:
    interface = 2
    targets = (Target("NAME", "Graphviz drawing of the graph", (FP32,)),)

    def passes(self, precision):
        return PLAIN

    def refusals(self, target, graph):
        return ()

    def emit(self, target, model, precision, progress):
        edges = "".join(f'  "{x}" -> "{n.name}";\\n' for n in model.graph.nodes for x in n.inputs)
        return Artifact({"graph.dot": f"digraph {{\\n{edges}}}\\n".encode()})


DOT = Dot()
"""
NAMED_DOT = DOT.replace("NAME", "dot")


@pytest.fixture
def install(home):
    """Install a distribution with one entry point, as pip does, and return its environment."""
    site = home / "site"

    def write(name="tcc-dot", code=NAMED_DOT, entry="dot = tcc_dot:DOT"):
        module = name.replace("-", "_")
        folder = site / f"{module}-1.0.dist-info"
        folder.mkdir(parents=True)
        (site / f"{module}.py").write_text(code)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[tcc.targets]\n{entry}\n")
        return {"PYTHONPATH": str(site)}

    return write


def test_installed_target_is_listed_with_its_distribution(process, home, install):
    env = install()
    targets = json.loads(process("targets", "--json", env=env).out)["targets"]
    (dot,) = (target for target in targets if target["name"] == "dot")
    assert (dot["distribution"], dot["builds"], dot["runs"]) == ("tcc-dot 1.0", True, False)
    assert {target["distribution"] for target in targets if target["name"] != "dot"} == {None}
    assert "\ndot comes from tcc-dot 1.0.\n" in process("targets", env=env).out
    built = process("build", "tiny.yaml", "--target", "dot", env=env)
    assert built.code == 0, built.err
    folder = home / "build/tiny-dot-fp32"
    assert (folder / "model/graph.dot").read_text().startswith("digraph {")
    made_with = json.loads((folder / "manifest.json").read_text())["made_with"]
    assert made_with["tcc-dot"] == "1.0"
    assert "# tiny for dot at fp32" in process("show", folder, env=env).out


def test_target_is_unknown_without_the_distribution(process, home, install):
    assert process("build", "tiny.yaml", "--target", "dot", env=install()).code == 0
    for args in (("build", "tiny.yaml", "--target", "dot"), ("verify", "build/tiny-dot-fp32")):
        outcome = process(*args)
        assert outcome.code == 2
        assert "error[E0605]: there is no target `dot`" in outcome.err


def mark_slow(cases):
    """Mark all cases but the first: each starts three processes."""
    return [cases[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in cases[1:])]


@pytest.mark.parametrize(
    ("code", "entry", "reason"),
    mark_slow(
        [
            (DOT.replace("NAME", "host"), "dot = tcc_dot:DOT", "the name `host` is already used"),
            (DOT.replace("NAME", "ort"), "dot = tcc_dot:DOT", "the name `ort` is already used"),
            (
                DOT.replace("NAME", "My Dot"),
                "dot = tcc_dot:DOT",
                "`My Dot` is not a valid target name",
            ),
            (
                NAMED_DOT.replace("interface = 2", "pass"),
                "dot = tcc_dot:DOT",
                "tcc_dot:DOT has no `interface` attribute",
            ),
            (
                NAMED_DOT.replace("interface = 2", "interface = 3"),
                "dot = tcc_dot:DOT",
                "tcc_dot:DOT is for interface 3, but this tcc has interface 2: install a release of tcc-dot "
                "with `interface = 2`",
            ),
            (
                NAMED_DOT.replace("def emit", "def draw"),
                "dot = tcc_dot:DOT",
                "needs both precisions and `emit`",
            ),
            ("raise OSError('no licence')", "dot = tcc_dot:DOT", "OSError('no licence')"),
            (
                "class D:\n    interface = 2\n\n\nDOT = D()",
                "dot = tcc_dot:DOT",
                "its `targets` is not a tuple of Target objects",
            ),
            (DOT, "dot = tcc_dot:MISSING", "tcc_dot:MISSING cannot be loaded: AttributeError("),
        ]
    ),
)
def test_unusable_distribution_is_reported(process, install, code, entry, reason):
    env = install(code=code, entry=entry)
    targets_outcome = process("targets", env=env)
    assert targets_outcome.code == 0
    assert "warning: target `dot` of tcc-dot 1.0 cannot be used: " in targets_outcome.err
    assert reason in targets_outcome.err
    assert "comes from" not in targets_outcome.out
    refused = process("build", "tiny.yaml", "--target", "dot", env=env)
    assert refused.code == 2
    assert "another distribution provides it but cannot be used, see `tcc targets`" in refused.err
    assert process("build", "tiny.yaml", "--target", "onnxruntime", "-q", env=env).code == 0


def test_of_two_equal_target_names_the_first_distribution_wins(process, install):
    install("tcc-b", entry="dot = tcc_b:DOT")
    env = install("tcc-a", entry="dot = tcc_a:DOT")
    outcome = process("targets", env=env)
    assert "\ndot comes from tcc-a 1.0.\n" in outcome.out
    assert "target `dot` of tcc-b 1.0 cannot be used: the name `dot` is already" in outcome.err
