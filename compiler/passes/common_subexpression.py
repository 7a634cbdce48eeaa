"""Merge equal nodes."""

from dataclasses import dataclass, field

import numpy as np

from tcc.compiler.ir.graph import Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Bypass, NodeWeights, RewriteContext, rewrite
from tcc.compiler.ops import Op


@exact_pass
def common_subexpression(model: Model) -> Model:
    """Merge equal nodes, so that their value is computed once.

    Nodes are equal if their op, their inputs and the values of their weights are equal. Readers of
    the later node read the earlier one instead. Identity: exact.
    """
    return rewrite(model, _Rule())


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule, with the nodes that it has seen.

    Nodes with the same op and inputs are compared one by one, by the values of their weights.
    Usually there is only one, so the time is proportional to the graph's size.
    """

    seen_nodes: dict[tuple[Op, tuple[str, ...]], list[tuple[str, NodeWeights]]] = field(
        default_factory=dict
    )

    def __call__(self, node: Node, context: RewriteContext) -> Bypass | None:
        # Ops are frozen records, which are equal if all arguments are; inputs are already renamed,
        # so that chains of equal nodes are merged in one walk.
        candidates = self.seen_nodes.setdefault((node.op, node.inputs), [])
        tensors = context.get_weights(node)
        for name, candidate_tensors in candidates:
            # Values decide, not names: specs make a tensor for each call of a block. NaN equals
            # nothing, so weights with NaN are never merged.
            if all(map(np.array_equal, tensors, candidate_tensors)):
                return Bypass(name)
        candidates.append((node.name, tensors))
        return None
