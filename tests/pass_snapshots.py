"""Snapshots of passes on small networks, readable without the code.

Each file `tests/compiler/passes/PASS.txt` contains cases: a title, the network as steps of a spec,
and its graph before and after the pass. Attributes with default values are omitted.
tools/make_goldens.py regenerates the graphs. The other lines are written by hand.
"""

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from tcc.compiler import passes
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Pass
from tcc.compiler.support.atomic_files import create_scratch_folder
from tcc.testing.op_cases import sample_weights

FOLDER = Path(__file__).parent / "compiler/passes"
CASE = re.compile(r"^# (?P<title>.+)\n(?P<steps>(?:(?!--|#)[^\n]+\n)+)", re.MULTILINE)
SPEC = """\
tcc: 1
name: net
input: {{image: {{shape: {shape}{preprocess}}}}}
graph:
{steps}output: {{y: {{}}}}
"""


@dataclass(frozen=True)
class Snapshot:
    """A case of a file: its title, its handwritten lines, and the two graphs."""

    title: str
    head: str
    graph_before: str
    graph_after: str

    @property
    def text(self) -> str:
        """The case as text of its file."""
        return (
            f"# {self.title}\n{self.head}-- before\n{self.graph_before}-- after\n{self.graph_after}"
        )


def generate_snapshots(step: Pass) -> Iterator[Snapshot]:
    """Yield the cases of a pass with their current graphs."""
    for case in CASE.finditer((FOLDER / f"{step.name}.txt").read_text()):
        model = load_network(case["steps"])
        rewritten_model = passes.run(model, [step])
        yield Snapshot(
            case["title"],
            case["steps"],
            format_graph(model.graph),
            format_graph(rewritten_model.graph),
        )


def files() -> Iterator[tuple[Path, str]]:
    """Yield the file of each pass and its text."""
    for step in passes.PASSES:
        text = "\n".join(snapshot.text for snapshot in generate_snapshots(step))
        yield FOLDER / f"{step.name}.txt", text


def load_network(head: str) -> Model:
    """Return the network of a case: its input on the first line, then steps."""
    input_line, _, body = head.partition("\n")
    shape, _, preprocess = input_line.removeprefix("input: ").partition("; ")
    steps, _, outputs = body.partition("output:")
    text = SPEC.format(
        shape=shape, preprocess=f", preprocess: {preprocess}" * bool(preprocess), steps=steps
    )
    if outputs:
        text = text.replace("output: {y: {}}", f"output:{outputs.rstrip()}")
    with create_scratch_folder() as folder:
        path = folder / "net.yaml"
        path.write_text(text)
        graph = load(path).graph
    return Model(graph, sample_weights(graph))


def format_graph(graph: Graph) -> str:
    """Return a graph as text, one node per line, without attributes at their default."""
    lines = [f"%{i.name} : {i.type.dtype}[{i.type}]" for i in graph.inputs]
    if graph.inputs[0].preprocess:
        lines[0] += f" {'raw pixels' if graph.inputs[0].preprocess.raw else 'normalised'}"
    for node in graph.nodes:
        defaults = {f.name: f.default for f in fields(node.op) if f.default is not MISSING}  # type: ignore[arg-type]
        attributes = ", ".join(
            f"{name}={number}".replace("(", "[").replace(")", "]")
            for name, number in node.op.attributes().items()
            if name not in defaults or not is_default(defaults[name], number)
        )
        inputs = ", ".join(f"%{operand}" for operand in node.inputs)
        braces = f" {{{attributes}}}" if attributes else ""
        shared = [p for p in node.params if not p.startswith(f"{node.name}.")]
        params = f" weights of {', '.join(shared)}" if shared else ""
        lines.append(f"%{node.name} = {node.op.keyword}({inputs}){braces}{params} : {node.type}")
    outputs = ", ".join(
        f"{o.name} = %{o.value}" + " train only" * o.train_only for o in graph.outputs
    )
    return "\n".join([*lines, f"output {outputs}"]) + "\n"


def is_default(default: object, number: object) -> bool:
    """Whether an attribute has its default. A tuple of equal numbers matches a single default."""
    spread = isinstance(number, tuple) and bool(number) and set(number) == {default}
    return default == number or spread
