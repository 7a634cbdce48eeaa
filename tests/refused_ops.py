"""The reviewed list of ops that a target has no rule for."""

from pathlib import Path

from tcc.backends import BACKENDS
from tcc.compiler import passes
from tcc.compiler.ir.backend import GraphReader
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.target import Target
from tcc.testing.op_cases import CASES, build_one_input_model

REFUSED_OPS_FILE = Path(__file__).with_name("golden") / "refused_ops.txt"
"""The ops that a target has no rule for, as `target: op`. Written by tools/make_goldens.py."""


def format_refusals(backend: GraphReader, target: Target, graph: Graph) -> set[str]:
    """Return the ops of a graph that a target refuses, as lines of the list."""
    return {
        f"{target.name}: {refusal.node.op.keyword}" for refusal in backend.refusals(target, graph)
    }


def run_target_passes(backend: GraphReader, target: Target, model: Model) -> Model:
    """Return a model after the passes of a target."""
    return passes.run(model, backend.passes(target.precisions[0]))


def is_refused(backend: GraphReader, target: Target, graph: Graph) -> bool:
    """Whether a target refuses a graph because of listed ops. Fails for unlisted ops."""
    refused_lines = format_refusals(backend, target, graph)
    assert refused_lines <= set(REFUSED_OPS_FILE.read_text().splitlines())
    return bool(refused_lines)


def refused_ops() -> str:
    """Return the expected list."""
    line_sets = (
        format_refusals(
            backend, target, run_target_passes(backend, target, build_one_input_model(case)).graph
        )
        for backend in BACKENDS
        if isinstance(backend, GraphReader)
        for target in backend.targets
        for case in CASES.values()
    )
    return "".join(f"{line}\n" for line in sorted(set().union(*line_sets)))
