"""Remove operations that do nothing at inference."""

from tcc.compiler.graph import Model, Node, exact
from tcc.compiler.ops import Dropout, Identity, StochasticDepth
from tcc.compiler.rewrite import Vanish, View, rewrite


@exact
def drop_identity(model: Model) -> Model:
    """Return the model without dropout and identity; who reads them reads their input.

    Identity: exact.
    """
    return rewrite(model, _rule)


def _rule(node: Node, _: View) -> Vanish | None:
    match node.op:
        case Dropout() | StochasticDepth() | Identity():
            return Vanish(node.inputs[0])
    return None
