"""Linear layers of Pulsar: convolutions where one may have their window, else matrices."""

from tcc.backends.pulsar.rules.windows import LARGEST_KERNEL, MOST_TAPS
from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Linear
from tcc.compiler.passes.lower_linear import flattened_map, on_maps


@within(1e-4)
def lower_some_linear(model: Model) -> Model:
    """Make each linear layer of a map that a convolution may cover a convolution.

    Others stay, as does one of a vector, which was no map. Identity: within rounding.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case Linear() if not _covered(node.inputs[0], view):
            return None
    return on_maps(node, view)


def _covered(value: str, view: RewriteContext) -> bool:
    """Whether a vector was a map that is no larger than a kernel may be."""
    source = flattened_map(value, view)
    if source is None:
        return False
    x = view.types[source]
    # The kernel would be the whole map.
    return max(x.shape[1:]) <= LARGEST_KERNEL and x.elements <= MOST_TAPS
