"""Replace average poolings by ops that int8 models compute exactly."""

import numpy as np

from tcc.compiler.ir.graph import Model, Node, bounded_pass
from tcc.compiler.ir.rewrite import Replacement, RewriteContext, rewrite
from tcc.compiler.ir.types import Pair, Quad, TensorType
from tcc.compiler.ops import AvgPool, Conv, GlobalAvgPool
from tcc.compiler.ops.window import compute_reached_padding


@bounded_pass(1e-4)
def lower_pool(model: Model) -> Model:
    """Replace each average pooling by a depthwise convolution, or a global one for one window.

    Identity: within rounding. A pooling stays if its windows count different numbers of pixels,
    because the padding does not count or the last window is partial. A global pooling stays too,
    because it needs no weights.
    """
    return rewrite(model, _lower_pool_node)


def _lower_pool_node(node: Node, context: RewriteContext) -> Replacement | None:
    x = context.types[node.inputs[0]]
    match node.op:
        # One window over the entire map is a global mean, which targets support directly.
        case AvgPool() as pool if pool.kernel == x.shape[1:] and not any(pool.pads):
            return Replacement(GlobalAvgPool(), node.inputs, (), node.at)
        case AvgPool() as pool if (pads := _find_uniform_padding(pool, x, node.type)) is not None:
            return _build_mean_convolution(node, x, pool.kernel, pool.step, pads)
    return None


def _find_uniform_padding(pool: AvgPool, x: TensorType, output_type: TensorType) -> Quad | None:
    """Return the padding that the windows read, if all of them count equally many pixels."""
    (_, *size), (_, *out) = x.shape, output_type.shape
    pad_top, pad_left, pad_bottom, pad_right = pool.pads
    down, across = compute_reached_padding(
        (size[0], size[1]), pool.kernel, pool.step, pool.pads, (out[0], out[1])
    )
    has_partial_window = down > pad_bottom or across > pad_right
    excludes_padding = any(pool.pads) and not pool.count_include_pad
    return None if has_partial_window or excludes_padding else (pad_top, pad_left, down, across)


def _build_mean_convolution(
    node: Node, x: TensorType, kernel: Pair, stride: Pair, pads: Quad
) -> Replacement:
    channels = x.shape[0]
    conv = Conv(channels, kernel, stride, pads, groups=channels)
    # Equal taps become 127 in int8: rounding loses nothing, because the scale has the factor.
    taps = np.full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]), np.float32)
    return Replacement(conv, node.inputs, (taps, np.zeros(channels, np.float32)), node.at)
