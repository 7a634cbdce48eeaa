"""Hard sigmoids where the documents have them: after a convolution."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, exact
from tcc.compiler.ir.rewrite import ChainedOp, Replacement, RewriteContext, rewrite
from tcc.compiler.ops import Conv, HardSigmoid, HardSwish


@exact
def gate_convolutions(model: Model) -> Model:
    """Put a depthwise convolution that changes nothing before each hard sigmoid without one.

    Identity: exact.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    match node.op:
        case HardSigmoid() | HardSwish() if len(node.type.shape) == 3:
            source = view.producer(node.inputs[0])
            if source is not None and isinstance(source.op, Conv):
                return None
            channels = node.type.shape[0]
            # One product a channel, the least that counts as a convolution.
            conv = Conv(channels, (1, 1), padding=(0, 0, 0, 0), groups=channels, bias=False)
            # x * 1, with nothing added: exact for every float.
            weight = np.ones((channels, 1, 1, 1), np.float32)
            gate = ChainedOp(node.op, (), node.at)
            return Replacement(conv, node.inputs, (weight,), node.at, (gate,))
    return None
