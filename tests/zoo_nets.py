"""The zoo networks for smaller images, for tests where the map size does not matter."""

from dataclasses import replace

from tcc.compiler.ir.graph import Graph, Node, verify
from tcc.compiler.ir.rewrite import extract_inference_graph

FULL_SIZE = ("ddsnet", "fastnet", "fastnet_block")
"""Our fast networks, tested at full size."""
PIXELS = 80
"""Image size of the other networks. inception_v3 needs at least 75."""


def shrink_network(graph: Graph) -> Graph:
    """Return a network for images of `PIXELS`, with the width of every layer unchanged.

    Layer comparisons depend on channels, taps and strides. Maps of 224 or 299 pixels take 8 to 14
    times as long and show nothing new.
    """
    if graph.name in FULL_SIZE:
        return graph
    graph = extract_inference_graph(graph)  # an auxiliary head fits only one size
    (source,) = graph.inputs
    source = replace(source, type=replace(source.type, shape=(3, PIXELS, PIXELS)))
    types, nodes = {source.name: source.type}, list[Node]()
    for node in graph.nodes:
        types[node.name] = node.op.infer(*(types[operand] for operand in node.inputs))
        nodes.append(replace(node, type=types[node.name]))
    return verify(replace(graph, inputs=(source,), nodes=tuple(nodes)))
