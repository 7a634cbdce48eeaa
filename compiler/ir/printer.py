"""The printed form of a graph, which golden tests compare and `tcc show` prints."""

from collections.abc import Iterator

from tcc.compiler.ir.graph import Graph, Node, Output
from tcc.compiler.ir.types import TensorType


def show(graph: Graph) -> str:
    """Return the graph as text, one node a line, in order."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"graph {graph.name} {{"
    for source in graph.inputs:
        yield f"  input %{source.name} : {_type(source.type)}"
    for node in graph.nodes:
        yield f"  {_node(graph, node)}"
    for output in graph.outputs:
        yield f"  output {_output(output)}"
    yield "}"


def _node(graph: Graph, node: Node) -> str:
    inputs = ", ".join(f"%{value}" for value in node.inputs)
    attributes = node.op.attributes()
    listed = ", ".join(f"{k}={_value(v)}" for k, v in attributes.items())
    # Weights are named after their node but where a pass has nodes share them: only then is it
    # said.
    own = tuple(f"{node.name}.{graph.params[p].role}" for p in node.params)
    shared = "" if own == node.params else " params(" + ", ".join(node.params) + ")"
    braces = f" {{{listed}}}" if listed else ""
    return f"%{node.name} = {node.op.word}({inputs}){braces}{shared} : {_type(node.type)}"


def _type(kind: TensorType) -> str:
    """Return an element's type and the shape, with the scale of quantised integers."""
    # Nine digits tell every float32 from its neighbours.
    scale = "" if kind.scale is None else f" * {kind.scale:.9g}"
    return f"{kind.dtype}[{kind}]{scale}"


def _output(output: Output) -> str:
    extras = f" {output.activation}" if output.activation != "none" else ""
    extras += f" {output.kind}" if output.kind else ""
    extras += " train_only" if output.train_only else ""
    return f"{output.name} = %{output.value}{extras}"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
