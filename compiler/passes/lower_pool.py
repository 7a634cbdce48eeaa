"""Write average poolings as what integers know how to do exactly."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, within
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Pair, Quad, TensorType
from tcc.compiler.ops import AvgPool, Conv, GlobalAvgPool
from tcc.compiler.ops.window import reached


@within(1e-4)
def lower_pool(model: Model) -> Model:
    """Make each average pooling a depthwise convolution, or a global one if it has one window.

    Identity: within rounding. A pooling whose windows count different numbers of pixels, because
    the border does not count or a last window is partial, stays; so does a global one, which
    needs no weights.
    """
    return rewrite(model, _rule)


def _rule(node: Node, view: RewriteContext) -> Replacement | None:
    x = view.types[node.inputs[0]]
    match node.op:
        # One window over all is a global mean, which targets have as such.
        case AvgPool() as pool if pool.kernel == x.shape[1:] and not any(pool.pads):
            return Replacement(GlobalAvgPool(), node.inputs, (), node.at)
        case AvgPool() as pool if (pads := _whole(pool, x, node.type)) is not None:
            return _mean(node, x, pool.kernel, pool.step, pads)
    return None


def _whole(pool: AvgPool, x: TensorType, result: TensorType) -> Quad | None:
    """Return the border that the windows reach, if all of them count equally many pixels."""
    (_, *size), (_, *out) = x.shape, result.shape
    top, left, bottom, right = pool.pads
    down, across = reached((size[0], size[1]), pool.kernel, pool.step, pool.pads, (out[0], out[1]))
    partial = down > bottom or across > right
    uncounted = any(pool.pads) and not pool.count_include_pad
    return None if partial or uncounted else (top, left, down, across)


def _mean(node: Node, x: TensorType, kernel: Pair, stride: Pair, pads: Quad) -> Replacement:
    channels = x.shape[0]
    conv = Conv(channels, kernel, stride, pads, groups=channels)
    # Equal taps are 127 each as int8: rounding loses nothing, since the scale has the factor.
    taps = np.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]), np.float32)
    return Replacement(conv, node.inputs, (taps, np.zeros(channels, np.float32)), node.at)
