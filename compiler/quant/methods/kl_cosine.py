"""The DDSNet paper's method: a coarse search by divergence, a fine one by layer outputs.

SAC 2025, section 3.2.3. `kl_divergence` finds a clipping threshold of a value. `cosine_search`
finds the scale near it, and the weight scales of the layers that read the value. Scales that are
best for each layer can be bad for the network, so that `minmax_guard` compares the result with
min-max.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.range_method import RangeMethod

if TYPE_CHECKING:
    from tcc.compiler.ir.graph import Model, Node
    from tcc.compiler.quant.methods.searched_ranges import GroupScale, SearchedRanges
    from tcc.compiler.quant.methods.value_groups import ValueGroup
    from tcc.compiler.quant.observe.statistics import Statistics

MAX_NUMBERS = 1 << 14
"""Maximum samples of a value in the fine search, if no convolution reads it."""


def search(
    model: "Model", statistics: "Statistics", threads: int | None = None
) -> "SearchedRanges":
    """Return searched ranges, and the weights rounded at searched scales.

    Groups are searched in parallel, each on one thread, so that the result does not depend on the
    number of threads.

    Args:
        model: A lowered model.
        statistics: Statistics of its values.
        threads: Number of groups searched in parallel; None for Python's default.
    """
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    from tcc.compiler.quant.methods.searched_ranges import assemble_ranges
    from tcc.compiler.quant.methods.value_groups import build_value_groups

    groups = tuple(build_value_groups(model, statistics))
    readers = _find_readers(model.graph.nodes)

    def search_group(group: "ValueGroup") -> "GroupScale":
        nodes = [node for name in group.names for node in readers.get(name, ())]
        return _search_scales(group, nodes, model, statistics)

    # One BLAS thread: several threads would sum in another order.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        return assemble_ranges(model, groups, list(pool.map(search_group, groups)))


def _search_scales(
    group: "ValueGroup", readers: "list[Node]", model: "Model", statistics: "Statistics"
) -> "GroupScale":
    """Return the searched scale of a group, and the weight scales of its readers."""
    import numpy as np

    from tcc.compiler.quant.methods import cosine_search as fine
    from tcc.compiler.quant.methods import kl_divergence as coarse
    from tcc.compiler.quant.methods.searched_ranges import GroupScale, get_conv_params

    clipped = coarse.ClippingThreshold(1.0, 0.0)
    # Raw pixels and zeros have a fixed scale; only the weights that read them are searched.
    scales = np.array([group.range.scale], np.float32)
    if not group.fixed:
        clipped = coarse.search(group.compute_histogram(coarse.BINS), group.max_quantized)
        scales = fine.generate_candidates(group.range.scale * clipped.share, group.range.scale)
    # Samples of all members of the group.
    numbers = np.concatenate(
        [part.reshape(-1)[:: 1 + part.size // MAX_NUMBERS] for part in group.samples]
    )
    params = [get_conv_params(node, model) for node in readers]
    layers = tuple(
        fine.sample_conv(statistics.windows[node.name], *conv_weights)
        for node, conv_weights in zip(readers, params, strict=True)
    )
    scale, cosine, layers = fine.search(layers, numbers, scales, group.range.limits)
    weights = {
        node.name: fine.compute_absmax_scale(weight.reshape(len(weight), -1))[:, 0]
        * np.float32(part.factor)
        for node, (weight, _), part in zip(readers, params, layers, strict=True)
    }
    return GroupScale(scale, clipped.divergence, cosine, weights)


def _find_readers(nodes: "tuple[Node, ...]") -> "Mapping[str, tuple[Node, ...]]":
    """Return the convolutions that read each value."""
    from tcc.compiler.ops import Conv

    readers: dict[str, tuple[Node, ...]] = {}
    for node in nodes:
        if isinstance(node.op, Conv):
            readers[node.inputs[0]] = (*readers.get(node.inputs[0], ()), node)
    return readers


KL_COSINE = RangeMethod(
    "kl-cosine",
    "the DDSNet paper's method: smallest KL divergence, then largest cosine of layer outputs",
    search,
    guarded=True,
)
