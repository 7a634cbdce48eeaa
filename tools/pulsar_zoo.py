"""Write the table of docs/pulsar.md: every network of the zoo on every AXERA chip.

    python tools/pulsar_zoo.py [--check] [NETWORK ...]

With `--check`, write nothing and fail if a row differs. If you name networks, only these are
checked. Each network is lowered and written for each toolchain, and the file is checked against the
rules of the chip. ONNX Runtime runs the file and the network of the spec on two images. Every
common value is compared, relative to that value's largest magnitude, because an error in an early
layer may hardly affect the outputs.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, inf, log10, sqrt
from pathlib import Path
from typing import assert_never

import numpy as np
from generated import write_or_check
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import CHIPS, Chip
from tcc.backends.pulsar.onnx_model import build_npu_onnx
from tcc.backends.pulsar.rewrite import FLOAT_PASSES
from tcc.backends.pulsar.rules.check import check
from tcc.backends.pulsar.rules.rule import Finding, Severity
from tcc.compiler import passes
from tcc.compiler.data.weights import Weights, make_placeholders, sample_uniform
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.op import Init, Param
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.passes.validate import compute_values, sample
from tcc.compiler.zoo.shipped import list_specs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pulsar.md"
HEAD = (
    f"| network | {' | '.join(f'`{chip.target}`' for chip in CHIPS)} |"
    f" remarks on `{CHIPS[0].target}` |",
    f"|---|{'---|' * len(CHIPS)}---|",
)
SEEDS = (0, 1)
BOUND = 1e-4
"""The largest allowed difference that passes may cause."""

BROKEN = frozenset({Severity.REFUSED})
SMALL, VARIANCE, STATISTICS = 0.2, 2.0, frozenset({"var"})
"""The bound of random offsets, the mean of random variances, and the roles of variances."""

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """The rule violations in a network's file, and the difference of its values from the spec's."""

    findings: tuple[Finding, ...]
    max_difference: float

    @property
    def cell(self) -> str:
        """A short text that states whether the network builds."""
        broken = [finding for finding in self.findings if finding.severity in BROKEN]
        if broken:
            return f"refused: {broken[0]}"
        if self.max_difference > BOUND:
            return f"WRONG by {self.max_difference:.0e}"
        return f"builds, within 1e{ceil(log10(max(self.max_difference, 1e-7)))}"

    def count_slow_operators(self) -> str:
        """Return the number of operators that break each performance rule."""
        rules = (finding.rule.partition(":")[0].removeprefix("rule ") for finding in self.findings)
        return ", ".join(f"{count} {name}" for name, count in Counter(rules).items()) or "-"


def sample_weights(graph: Graph) -> Weights:
    """Return random weights that are not initial ones and keep every value from vanishing."""
    return {name: _sample_weight(name, param) for name, param in graph.params.items()}


def _sample_weight(name: str, param: Param) -> Tensor:
    match param.init:
        case Init.KAIMING:
            bound = sqrt(6 / param.fan_in) if len(param.shape) > 1 else SMALL
            return sample_uniform(param.shape, bound, name)
        case Init.ONES:
            middle = VARIANCE if param.role in STATISTICS else 1.0
            return np.float32(middle) + sample_uniform(param.shape, middle / 2, name)
        case Init.ZEROS:
            return sample_uniform(param.shape, SMALL, name)
        case _:
            assert_never(param.init)


def find_violations(graph: Graph, chip: Chip) -> tuple[Finding, ...]:
    """Return the rule violations of a network, which do not depend on its weights."""
    model = Model(graph, make_placeholders(graph))
    return check(build_npu_onnx(passes.run(model, FLOAT_PASSES[chip.toolchain]), chip), chip)


def check_network(name: str) -> Iterator[Answer]:
    """Yield the result of a network on each chip."""
    graph = extract_inference_graph(load(list_specs()[name]).graph)
    model = Model(graph, sample_weights(graph))
    expected_by_seed = compute_values(model, SEEDS)

    @cache
    def measure_difference(model_bytes: bytes) -> float:
        return _measure_difference(model_bytes, model, expected_by_seed)

    for chip in CHIPS:
        lean = passes.run(model, FLOAT_PASSES[chip.toolchain])
        probed_graph = replace(
            lean.graph, outputs=tuple(_list_probes(lean.graph, expected_by_seed[0]))
        )
        model_bytes = build_npu_onnx(Model(probed_graph, lean.weights), chip).SerializeToString(
            deterministic=True
        )
        yield Answer(check(build_npu_onnx(lean, chip), chip), measure_difference(model_bytes))


def _list_probes(graph: Graph, expected: Mapping[str, Tensor]) -> Iterator[Output]:
    """Yield the outputs of a graph, and each other value that the spec's network has too."""
    yield from graph.outputs
    output_names = {name for output in graph.outputs for name in (output.name, output.value)}
    yield from (
        Output(n.name, n.name) for n in graph.nodes if n.name in expected.keys() - output_names
    )


def _measure_difference(
    model_bytes: bytes, model: Model, expected_by_seed: list[Mapping[str, Tensor]]
) -> float:
    """Return the difference of a file's values from the network's, relative to the largest."""
    import onnxruntime  # after tcc, which switches its telemetry off

    session = onnxruntime.InferenceSession(model_bytes)
    names = [output.name for output in session.get_outputs()]
    (source,) = model.graph.inputs
    max_difference = 0.0
    for seed, expected in zip(SEEDS, expected_by_seed, strict=True):
        ran = session.run(names, {source.name: sample(source, seed)[None]})
        for name, (computed,) in zip(names, ran, strict=True):
            max_difference = max(max_difference, _compute_difference(computed, expected[name]))
    return max_difference


def _compute_difference(computed: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite if one is a NaN."""
    if computed.shape != expected.shape or not np.isfinite(computed).all():
        return inf
    largest = float(np.abs(expected).max())
    return float(np.abs(computed - expected).max()) / (largest or 1.0)


def format_row(name: str) -> str:
    """Return the table row of a network."""
    chip_answers = tuple(check_network(name))
    return (
        f"| {name} | {' | '.join(answer.cell for answer in chip_answers)} | "
        f"{chip_answers[0].count_slow_operators()} |"
    )


def update_table(text: str, names: list[str]) -> str:
    """Return a page with new rows for some networks."""
    text_above, start, text_below = text.partition(f"{HEAD[0]}\n{HEAD[1]}\n")
    assert start, f"{PAGE.name} has no table with the header {HEAD[0]}"
    lines = text_below.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    old = {line.split(" | ")[0].removeprefix("| "): line for line in lines[:count]}
    rows = {
        name: format_row(name) if name in names or not names else old[name] for name in list_specs()
    }
    text_behind = "\n".join(lines[count:])
    return f"{text_above}{start}{chr(10).join(rows.values())}\n{text_behind}\n"


def main() -> int:
    """Write or check the page; return the exit code."""
    names = [argument for argument in sys.argv[1:] if argument != "--check"]
    return write_or_check({PAGE: update_table(PAGE.read_text(), names)})


if __name__ == "__main__":
    sys.exit(main())
