"""Compute once what is computed several times."""

from dataclasses import dataclass, field

import numpy as np

from tcc.compiler.ir.graph import Model, Node, exact_pass
from tcc.compiler.ir.rewrite import Bypass, NodeWeights, RewriteContext, rewrite
from tcc.compiler.ops import Op


@exact_pass
def common_subexpression(model: Model) -> Model:
    """Merge equal nodes, so that their value is computed once.

    Equal is the same op on the same values with weights of equal numbers; who reads the later one
    reads the earlier. Identity: exact.
    """
    return rewrite(model, _Rule())


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule, and the nodes that it has met.

    Those of one op and inputs are compared one by one, weights by their numbers; as a rule there is
    one, so that a graph takes time in proportion to its size.
    """

    seen_nodes: dict[tuple[Op, tuple[str, ...]], list[tuple[str, NodeWeights]]] = field(
        default_factory=dict
    )

    def __call__(self, node: Node, context: RewriteContext) -> Bypass | None:
        # Ops are frozen records, equal where all arguments are; inputs are renamed already, so that
        # chains of equal nodes fall in one walk.
        candidates = self.seen_nodes.setdefault((node.op, node.inputs), [])
        tensors = context.get_weights(node)
        for name, candidate_tensors in candidates:
            # Numbers decide, not names: specs make a tensor for each call of a block. NaN equals
            # nothing, so that what holds one is never merged.
            if all(map(np.array_equal, tensors, candidate_tensors)):
                return Bypass(name)
        candidates.append((node.name, tensors))
        return None
