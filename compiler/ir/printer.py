"""The text form of a graph, which golden tests compare and `tcc show` prints."""

from collections.abc import Iterator

from tcc.compiler.ir.graph import Graph, Node, Output
from tcc.compiler.ir.types import TensorType


def print_graph(graph: Graph) -> str:
    """Return the graph as text, one node per line, in order."""
    return "\n".join(_print_lines(graph)) + "\n"


def _print_lines(graph: Graph) -> Iterator[str]:
    yield f"graph {graph.name} {{"
    for network_input in graph.inputs:
        yield f"  input %{network_input.name} : {_print_type(network_input.type)}"
    for node in graph.nodes:
        yield f"  {_print_node(graph, node)}"
    for output in graph.outputs:
        yield f"  output {_print_output(output)}"
    yield "}"


def _print_node(graph: Graph, node: Node) -> str:
    inputs = ", ".join(f"%{input_name}" for input_name in node.inputs)
    attributes = node.op.attributes()
    attributes_text = ", ".join(f"{k}={_print_attribute(v)}" for k, v in attributes.items())
    # Weights are named after their node unless a pass made nodes share them: only then they are
    # printed.
    default_params = tuple(f"{node.name}.{graph.params[p].role}" for p in node.params)
    shared = "" if default_params == node.params else " params(" + ", ".join(node.params) + ")"
    braces = f" {{{attributes_text}}}" if attributes_text else ""
    return f"%{node.name} = {node.op.keyword}({inputs}){braces}{shared} : {_print_type(node.type)}"


def _print_type(tensor_type: TensorType) -> str:
    """Return an element type and the shape, with the scale of quantized integers."""
    # Nine digits distinguish all float32 numbers.
    scale = "" if tensor_type.scale is None else f" * {tensor_type.scale:.9g}"
    zero_point = f" from {tensor_type.limits[0]}" if tensor_type.zero_point else ""
    return f"{tensor_type.dtype}[{tensor_type}]{scale}{zero_point}"


def _print_output(output: Output) -> str:
    extras = f" {output.activation}" if output.activation != "none" else ""
    extras += f" {output.kind}" if output.kind else ""
    extras += " train_only" if output.train_only else ""
    return f"{output.name} = %{output.value}{extras}"


def _print_attribute(attribute: object) -> str:
    if isinstance(attribute, tuple):
        return "[" + ", ".join(map(_print_attribute, attribute)) + "]"
    return str(attribute).lower() if isinstance(attribute, bool) else str(attribute)
