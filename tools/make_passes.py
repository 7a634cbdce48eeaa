"""Write spec/passes.md: the passes, the pipelines, and their effect on every network.

    python tools/make_passes.py [--check]

With `--check`, write nothing and fail if the file is out of date.
"""

import sys
from pathlib import Path

from generated import write_or_check

from tcc.compiler.data.weights import make_placeholders
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.passes import INFERENCE, INT8, PASSES, PIPELINES, format_pipeline, run
from tcc.compiler.zoo.shipped import list_specs

PATH = Path(__file__).resolve().parents[1] / "spec" / "passes.md"
TEXT = """\
# Passes

Look up which passes rewrite a network between its spec and an artifact. Each pass takes a model and
returns one that computes the same: bit for bit (exact), or within a bound relative to the outputs'
largest magnitude. Any order is correct, but some orders find more to rewrite. `tcc dev passes`
lists the passes. `tcc show` and `tcc build` run other ones with `--passes`. `--verify-passes` runs
the graph before and after each pass on a random input, and compares each value that keeps its
name.

`tools/make_passes.py` writes this file.

| pass | tolerance | what it does |
|---|---|---|
{passes}

## Pipelines

A pipeline is a list of names of passes or pipelines, separated by commas.

{pipelines}

## Effect

The table has the operations and the millions of multiply-accumulates of each network at inference.
`float` is the network as written, `fused` as devices run it in fp32, and `ready` is the lowered
model that calibration uses. In `ready`, poolings by windows and the scales that no layer absorbs
are depthwise convolutions, and are counted as such.

| network | ops: float | fused | ready | MACs (M): float | fused | ready |
|---|---:|---:|---:|---:|---:|---:|
{networks}
"""


def make_page() -> str:
    """Return the text of the file."""
    passes = (
        f"| `{p.name}` | {f'{p.bound:g}' if p.bound else 'exact'} | {p.doc} |" for p in PASSES
    )
    pipelines = (
        f"- `{name}`: `{format_pipeline(pipeline)}`" for name, pipeline in PIPELINES.items()
    )
    networks = (_format_row(name, load(path).graph) for name, path in list_specs().items())
    return TEXT.format(
        passes="\n".join(passes), pipelines="\n".join(pipelines), networks="\n".join(networks)
    )


def _format_row(name: str, graph: Graph) -> str:
    model = Model(graph, make_placeholders(graph))
    graphs = [
        extract_inference_graph(graph),
        *(run(model, stage).graph for stage in (INFERENCE, INT8)),
    ]
    nodes = (str(len(stage.nodes)) for stage in graphs)
    macs = (f"{compute_cost(stage).macs / 1e6:,.2f}" for stage in graphs)
    return f"| {name} | {' | '.join((*nodes, *macs))} |"


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: make_page()})


if __name__ == "__main__":
    sys.exit(main())
