"""Compute once what is computed several times."""

from dataclasses import dataclass, field

import numpy as np

from tcc.compiler.ir.graph import Model, Node, exact
from tcc.compiler.ir.rewrite import Bypass, NodeWeights, RewriteContext, rewrite
from tcc.compiler.ops import Op


@exact
def common_subexpression(model: Model) -> Model:
    """Compute once what several equal nodes compute.

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

    met: dict[tuple[Op, tuple[str, ...]], list[tuple[str, NodeWeights]]] = field(
        default_factory=dict
    )

    def __call__(self, node: Node, view: RewriteContext) -> Bypass | None:
        # Ops are frozen records, equal where all arguments are; inputs are renamed already, so that
        # chains of equal nodes fall in one walk.
        same = self.met.setdefault((node.op, node.inputs), [])
        tensors = view.values(node)
        for name, others in same:
            # Numbers decide, not names: specs make a tensor for each call of a block. NaN equals
            # nothing, so that what holds one is never merged.
            if all(map(np.array_equal, tensors, others)):
                return Bypass(name)
        same.append((node.name, tensors))
        return None
