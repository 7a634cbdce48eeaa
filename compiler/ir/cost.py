"""The costs of a graph: parameters, multiply-accumulates and memory, per layer and in total."""

from collections.abc import Iterator
from dataclasses import dataclass

from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, slots=True)
class NodeCost:
    """One node: its inputs, its output shape, and its multiply-accumulates for one image."""

    path: str
    op: str
    inputs: tuple[str, ...]
    shape: Shape
    params: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True, slots=True, repr=False)
class Cost(ValueView):
    """Costs of a graph for one image, in fp32.

    `params` counts trainable numbers, `buffers` others (running statistics); both include outputs
    that only training uses. `macs` and `peak_bytes` are those of inference; `peak_bytes` is the
    largest sum of activations in use at the same time.
    """

    rows: tuple[NodeCost, ...]
    params: int
    buffers: int
    macs: int
    weight_bytes: int
    peak_bytes: int

    def _summarize(self) -> Iterator[str]:
        yield (
            f"Cost: {count(len(self.rows), 'layer')}, {self.params:,} parameters, "
            f"{self.macs:,} multiply-accumulates"
        )
        yield f"in fp32: {self.weight_bytes:,} bytes of weights, {self.peak_bytes:,} of activations"


def compute_cost(graph: Graph) -> Cost:
    """Return the costs of a graph; shared weights count once."""
    rows = []
    counted: set[str] = set()
    for node in graph.nodes:
        types = graph.get_input_types(node)
        new_params = [
            # Shared weights count for the first node that has them, so that the rows add up to the
            # total.
            p for name, p in zip(node.params, node.op.params(*types), strict=True)
            if name not in counted and p.trainable
        ]  # fmt: skip
        counted |= set(node.params)
        params = sum(p.elements for p in new_params)
        rows.append(
            NodeCost(
                node.name,
                node.op.keyword,
                node.inputs,
                node.type.shape,
                params,
                node.op.macs(*types),
                node.type.nbytes,
            )
        )
    inference = extract_inference_graph(graph)
    inference_names = {node.name for node in inference.nodes}
    all_params = graph.params.values()
    buffers = sum(p.elements for p in all_params if not p.trainable)
    total = sum(r.params for r in rows)
    return Cost(
        tuple(rows),
        total,
        buffers,
        sum(r.macs for r in rows if r.path in inference_names),
        # Bytes as float32; targets report the sizes that they store.
        4 * (total + buffers),
        compute_peak_bytes(inference),
    )


def compute_peak_bytes(graph: Graph) -> int:
    """Return the most bytes of activations in use at the same time, in node order."""
    # A linear scan over live ranges: an unread value lives until the first node is done, an output
    # until the end.
    last_read = dict.fromkeys(graph.types, 0)
    for index, node in enumerate(graph.nodes):
        last_read |= dict.fromkeys(node.inputs, index)
    last_read |= {o.value: len(graph.nodes) for o in graph.outputs}
    alive = {i.name: i.type.nbytes for i in graph.inputs}
    peak = total = sum(alive.values())
    last_reads: dict[int, list[str]] = {}
    for name, index in last_read.items():
        last_reads.setdefault(index, []).append(name)
    for index, node in enumerate(graph.nodes):
        # A result is written while its inputs are still in use.
        alive[node.name] = node.type.nbytes
        total += node.type.nbytes
        peak = max(peak, total)
        total -= sum(alive.pop(name, 0) for name in last_reads.get(index, ()))
    return peak
