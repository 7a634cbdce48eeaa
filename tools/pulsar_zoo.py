"""Write the table of docs/pulsar.md: every network of the zoo on every chip of AXERA's.

    python tools/pulsar_zoo.py [--check] [NETWORK ...]

`--check` writes nothing and fails when a row is another one; networks that are named are looked at
alone. Each network is made ready for each toolchain and written; the rules of the chip read the
file, and ONNX Runtime runs it, for two images, beside the network as its spec says it. Every value
that both have is compared, relative to the largest number of that value, since what is wrong in an
early layer may hardly show in an output.
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
from generated import settle
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
"""What a pass may move; more is wrong."""

BROKEN = frozenset({Severity.REFUSED})
SMALL, VARIANCE, STATISTICS = 0.2, 2.0, frozenset({"var"})
"""Bounds of offsets, and the middle of variances."""

Tensor = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a chip's rules find in a network's file, and how far its values are from the spec's."""

    findings: tuple[Finding, ...]
    moved: float

    @property
    def cell(self) -> str:
        """Whether it builds, in a few words."""
        broken = [each for each in self.findings if each.severity in BROKEN]
        if broken:
            return f"refused: {broken[0]}"
        if self.moved > BOUND:
            return f"WRONG by {self.moved:.0e}"
        return f"builds, within 1e{ceil(log10(max(self.moved, 1e-7)))}"

    def slow(self) -> str:
        """Return how many operators break each rule of speed."""
        rules = (each.rule.partition(":")[0].removeprefix("rule ") for each in self.findings)
        return ", ".join(f"{count} {name}" for name, count in Counter(rules).items()) or "-"


def spread(graph: Graph) -> Weights:
    """Return weights that are neither those of a beginning, nor let values vanish."""
    return {name: _spread(name, param) for name, param in graph.params.items()}


def _spread(name: str, param: Param) -> Tensor:
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


def found(graph: Graph, chip: Chip) -> tuple[Finding, ...]:
    """Return what the rules of a chip find in a network, whatever its weights."""
    model = Model(graph, make_placeholders(graph))
    return check(build_npu_onnx(passes.run(model, FLOAT_PASSES[chip.toolchain]), chip), chip)


def answers(name: str) -> Iterator[Answer]:
    """Yield what each chip makes of a network."""
    graph = extract_inference_graph(load(list_specs()[name]).graph)
    model = Model(graph, spread(graph))
    known = compute_values(model, SEEDS)

    @cache
    def moved(data: bytes) -> float:
        return _moved(data, model, known)

    for chip in CHIPS:
        lean = passes.run(model, FLOAT_PASSES[chip.toolchain])
        taps = replace(lean.graph, outputs=tuple(_taps(lean.graph, known[0])))
        data = build_npu_onnx(Model(taps, lean.weights), chip).SerializeToString(deterministic=True)
        yield Answer(check(build_npu_onnx(lean, chip), chip), moved(data))


def _taps(graph: Graph, known: Mapping[str, Tensor]) -> Iterator[Output]:
    """Yield the outputs of a graph, and each other value that is known as one."""
    yield from graph.outputs
    taken = {name for output in graph.outputs for name in (output.name, output.value)}
    yield from (Output(n.name, n.name) for n in graph.nodes if n.name in known.keys() - taken)


def _moved(data: bytes, model: Model, known: list[Mapping[str, Tensor]]) -> float:
    """Return how far a file's values are from those of the network, of each the largest number."""
    import onnxruntime  # after tcc, which switches its telemetry off

    session = onnxruntime.InferenceSession(data)
    names = [output.name for output in session.get_outputs()]
    (source,) = model.graph.inputs
    most = 0.0
    for seed, expected in zip(SEEDS, known, strict=True):
        ran = session.run(names, {source.name: sample(source, seed)[None]})
        for name, (value,) in zip(names, ran, strict=True):
            most = max(most, _apart(value, expected[name]))
    return most


def _apart(value: Tensor, expected: Tensor) -> float:
    """Return the largest difference, of the largest number; infinite where one is no number."""
    if value.shape != expected.shape or not np.isfinite(value).all():
        return inf
    largest = float(np.abs(expected).max())
    return float(np.abs(value - expected).max()) / (largest or 1.0)


def row(name: str) -> str:
    """Return the line of a network."""
    each = tuple(answers(name))
    return f"| {name} | {' | '.join(answer.cell for answer in each)} | {each[0].slow()} |"


def table(text: str, names: list[str]) -> str:
    """Return a page with the rows of networks written anew."""
    before, start, rest = text.partition(f"{HEAD[0]}\n{HEAD[1]}\n")
    assert start, "the page has no table of networks"
    lines = rest.splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    old = {line.split(" | ")[0].removeprefix("| "): line for line in lines[:count]}
    rows = {name: row(name) if name in names or not names else old[name] for name in list_specs()}
    after = "\n".join(lines[count:])
    return f"{before}{start}{chr(10).join(rows.values())}\n{after}\n"


def main() -> int:
    """Write or check the page; return the exit code."""
    names = [word for word in sys.argv[1:] if word != "--check"]
    return settle({PAGE: table(PAGE.read_text(), names)})


if __name__ == "__main__":
    sys.exit(main())
