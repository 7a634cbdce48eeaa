"""Every example of the language reference compiles."""

import re
from pathlib import Path

import pytest

from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.importers.checkpoint.rule_files import read_rules

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "spec" / "reference.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", REFERENCE.read_text(), re.M | re.S)
AROUND = {
    "tcc": "tcc: 1\n",
    "name": "name: example\n",
    "input": "input: {image: {shape: [3, 16, 16]}}\n",
    "graph": "graph: [global_avg_pool, flatten, {linear: {units: 2}}]\n",
    "output": "output: {logits: {activation: none}}\n",
}


def complete_example(example: str) -> str:
    keys = set(re.findall(r"^(\w+):", example, re.M))
    return "".join(text for key, text in AROUND.items() if key not in keys) + example


def test_the_reference_has_examples() -> None:
    assert len(EXAMPLES) >= 9


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_compile_and_their_tests_pass(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(complete_example(example))
    spec = load(path)
    assert spec.graph.nodes
    assert [f for f in check_expectations(spec) if not f.holds] == []


def test_the_example_rule_file_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```text\n(rules:.*?)^```", REFERENCE.read_text(), re.M | re.S)
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    assert [rule.to for rule in read_rules(path)] == ["stage_1/repeat_{1+1}/conv_1", "linear", None]


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("spec/*.yaml"), *ROOT.glob("spec/baselines/*.yaml")]),
    ids=lambda p: p.stem,
)
def test_facts_in_shipped_specs_are_true(path: Path) -> None:
    facts = check_expectations(load(path))
    assert facts
    assert [f for f in facts if not f.holds] == []
