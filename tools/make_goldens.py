"""Write the golden graphs of every shipped spec at each stage, and the ops that targets refuse.

    python tools/make_goldens.py [--check]

With `--check`, write nothing and fail if a file differs. Give the reason for new goldens in the
commit message.
"""

import sys
from collections.abc import Iterator
from difflib import unified_diff
from importlib import import_module
from itertools import islice
from pathlib import Path

from tcc.compiler.data.weights import make_placeholders
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.passes import INFERENCE, INT8, run
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


def print_stages(spec: Path) -> dict[str, str]:
    """Return the printed graph by stage.

    `float` is the graph of the spec, `fused` the graph that fp32 targets run, `ready` the lowered
    model for calibration, and `int8` the integer program if every value is in [-1, 1].
    """
    graph = load(spec).graph
    model = Model(graph, make_placeholders(graph))
    fused = run(model, INFERENCE)
    stage_graphs = {
        "fused": fused.graph,
        "ready": run(model, INT8).graph,
        "int8": quantize_negative(fused),
    }
    return {
        "float": print_graph(graph),
        **{stage: print_graph(stage_graph) for stage, stage_graph in stage_graphs.items()},
    }


def quantize_negative(fused: Model) -> Graph:
    """Return the integer program of a model with negative weights, as some always are."""
    negative = Model(fused.graph, {name: -weight for name, weight in fused.weights.items()})
    lowered_model = run(negative, INT8)
    bounds = dict.fromkeys(list_unfused_values(lowered_model.graph), (-1.0, 1.0))
    return quantize(lowered_model, Calibration(compute_minmax_ranges(lowered_model, bounds))).graph


def generate_goldens() -> Iterator[tuple[Path, str]]:
    """Yield every golden file with its text."""
    for spec in list_specs():
        for stage, text in print_stages(spec).items():
            yield GOLDEN / f"{spec.stem}.{stage}.txt", text
    sys.path.append(str(GOLDEN.parent))
    yield GOLDEN / "refused_ops.txt", import_module("refused_ops").refused_ops()
    yield from import_module("pass_snapshots").files()


def list_specs() -> list[Path]:
    """Return the specs, sorted."""
    return sorted([*ROOT.glob("spec/*.yaml"), *ROOT.glob("spec/baselines/*.yaml")])


def main() -> int:
    """Write or check all goldens; return the exit code."""
    checking = "--check" in sys.argv
    stale = 0
    for path, text in generate_goldens():
        old_text = path.read_text() if path.exists() else None
        if old_text == text:
            continue
        stale += 1
        if checking:
            old = (old_text or "").splitlines()
            diff = unified_diff(old, text.splitlines(), path.name, "now", n=1)
            print("\n".join(islice(diff, 20)))
        else:
            path.write_text(text)
            print(f"written: {path.name}")
    return int(checking and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
