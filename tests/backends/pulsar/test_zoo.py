"""The table of the zoo: rows match measurements, and every network builds."""

import re
import sys

import numpy as np
import pytest

from tcc.backends.pulsar.chips import AX620, CHIPS
from tcc.backends.pulsar.rules.rule import Severity
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph
from tcc.compiler.passes import validate
from tcc.compiler.zoo.shipped import list_specs


@pytest.fixture(scope="module")
def pulsar_zoo(root):
    sys.path.insert(0, str(root / "tools"))
    import pulsar_zoo

    yield pulsar_zoo
    sys.path.remove(str(root / "tools"))


def parse_cells(page):
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", page, re.MULTILINE)
    return {name: row.split(" | ") for name, row in rows if name in list_specs()}


def test_every_network_builds_for_every_chip(root):
    rows = parse_cells((root / "docs/pulsar.md").read_text())
    assert list(rows) == list(list_specs())
    for name, (*answers, _) in rows.items():
        assert len(answers) == len(CHIPS)
        assert all(re.fullmatch(r"builds, within 1e-[567]", answer) for answer in answers), name


@pytest.mark.parametrize(
    "name", ["fastnet_block", pytest.param("squeezenet", marks=pytest.mark.slow)]
)
def test_a_table_row_matches_a_new_measurement(pulsar_zoo, root, name):
    assert pulsar_zoo.format_row(name) in (root / "docs/pulsar.md").read_text().splitlines()


SAMPLED = ("ddsnet", "shufflenet_v2", "squeezenet")
SLOW_NETWORKS = [
    pytest.param(name, marks=pytest.mark.nightly if name == "vgg11" else pytest.mark.slow)
    for name in list_specs()
    if name not in SAMPLED
]


@pytest.mark.parametrize("name", [*SAMPLED, *SLOW_NETWORKS])
def test_no_network_breaks_a_rule(pulsar_zoo, name):
    violations = pulsar_zoo.find_violations(load(list_specs()[name]).graph, AX620)
    assert [violation for violation in violations if violation.severity is Severity.REFUSED] == []


@pytest.mark.parametrize("factor", [1.01, 0.0, float("nan")])
def test_a_file_that_computes_something_else_is_found(pulsar_zoo, monkeypatch, factor):
    graph = load(list_specs()["fastnet_block"]).graph
    scaled_weights = dict(pulsar_zoo.sample_weights(graph))
    name = next(iter(scaled_weights))
    scaled_weights[name] = scaled_weights[name] * np.float32(factor)
    run = pulsar_zoo.passes.run
    monkeypatch.setattr(
        pulsar_zoo.passes, "run",
        lambda model, pipeline: run(pulsar_zoo.Model(model.graph, scaled_weights), pipeline),
    )  # fmt: skip
    for answer in pulsar_zoo.check_network("fastnet_block"):
        assert answer.cell.startswith("WRONG by")


def test_sampled_weights_keep_all_values_nonzero(pulsar_zoo):
    graph: Graph = load(list_specs()["ddsnet"]).graph
    (tensors,) = validate.compute_values(
        pulsar_zoo.Model(graph, pulsar_zoo.sample_weights(graph)), (0,)
    )
    assert min(float(abs(tensor).max()) for tensor in tensors.values()) > 0.01
