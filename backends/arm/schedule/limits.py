"""The limits of the target, which are checked before any work is done."""

from collections.abc import Iterator

from tcc.backends.arm.schedule.program import is_supported
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.target import Refusal
from tcc.compiler.support.diagnostics import fail

MAX_BYTES = 1 << 30
"""Largest value or weight tensor in bytes: offsets in kernels are 32-bit."""
MAX_MEMORY = 3 << 29
"""Largest sum of weights and values in bytes: all targets can address this much static memory."""


def find_refusals(target: str, graph: Graph) -> Iterator[Refusal]:
    """Yield each node that cannot be built, with the reason."""
    for node in graph.nodes:
        if not is_supported(type(node.op)):
            yield Refusal(
                node,
                f"{target} has no kernel for `{node.op.keyword}`",
                "use other ops, or build for onnxruntime, which runs every op",
            )
        # In bytes, not elements: byte offsets above 2^31 would be negative.
        elif (size := _measure_largest_tensor(graph, node)) > MAX_BYTES:
            yield Refusal(
                node,
                f"{target} supports values and weights of up to {MAX_BYTES >> 20} MiB, "
                f"but this has {size >> 20} MiB",
                "use a smaller input, fewer filters or units, or stride earlier",
            )
    # The C interface has one input pointer. Reported at each reader, because an input has no
    # source location.
    if len(graph.inputs) > 1:
        extra_inputs = {network_input.name for network_input in graph.inputs[1:]}
        for node in graph.nodes:
            if extra_inputs & set(node.inputs):
                reason = f"{target} supports one network input, but this reads another one"
                yield Refusal(node, reason, "combine the inputs as channels of one input")


def check_memory(target: str, graph: Graph, arena: int) -> None:
    """Refuse a network whose values and weights need more memory than a program can have.

    `arena` is the size of the values' memory in bytes.

    Raises:
        UserError: E0654, at the largest value.
    """
    needed = arena + sum(p.elements * p.dtype.size for p in graph.params.values())
    if needed > MAX_MEMORY:
        largest = max(graph.nodes, key=lambda node: node.type.nbytes)
        raise fail(
            "E0654",
            f"the network needs {needed >> 20} MiB of memory, but {target} supports up to "
            f"{MAX_MEMORY >> 20} MiB",
            largest.at,
            label=f"the largest value has {largest.type.nbytes >> 20} MiB",
            help="use a smaller input, fewer filters or units, or stride earlier",
        )


def _measure_largest_tensor(graph: Graph, node: Node) -> int:
    """Return the size in bytes of the largest tensor that a node reads, stores or writes."""
    params = (graph.params[name] for name in node.params)
    value_sizes = (t.nbytes for t in (*graph.get_input_types(node), node.type))
    return max(*(param.elements * param.dtype.size for param in params), *value_sizes)
