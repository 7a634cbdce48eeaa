"""Measure the zoo's memory use on a Cortex-A7, and update the table of docs/measuring.md.

    python tools/arena_zoo.py [NETWORK ...]

Nothing is compiled: kernels are selected and their buffers are allocated. If you name networks, the
rows of the others do not change.
"""

import sys
from pathlib import Path

import numpy as np

from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule.arena import create_input_scratch, plan
from tcc.backends.arm.schedule.program import build_program, compute_buffers
from tcc.compiler import passes
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.zoo import shipped

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measuring.md"
HEAD = "| fp32, arm-a7 | arena, KB | values, KB | ratio |"
RULE = "|---|---|---|---|"


def format_row(name: str) -> str:
    """Return the table row of a network."""
    graph = load(shipped.list_specs()[name]).graph
    zeros = {p: np.zeros(kind.shape, np.float32) for p, kind in graph.params.items()}
    model = drop_train_only(passes.run(Model(graph, zeros), passes.INFERENCE))
    steps = build_program(model.graph, model.weights, MACHINES[0])
    arena = plan((*compute_buffers(steps), create_input_scratch(model.graph.inputs[0])))
    sizes = f"{arena.nbytes / 1000:,.0f} | {arena.bound / 1000:,.0f}"
    return f"| {name} | {sizes} | {arena.nbytes / arena.bound:.2f} |"


def main() -> None:
    """Update the rows of the page."""
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(HEAD) + 2
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    rows = {line.split()[1]: line for line in lines[start:end]}
    for name in sys.argv[1:] or sorted(shipped.list_specs()):
        rows[name] = format_row(name)
        print(rows[name], flush=True)
    page_lines = [*lines[:start], *(rows[name] for name in sorted(rows)), *lines[end:]]
    PAGE.write_text("\n".join(page_lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
