"""The convolutions that `search_kernels.py` measures, as networks.

They are not copied from zoo networks. Their sizes are on both sides of the points where another
kernel becomes cheaper. Each amount that costs depend on is large in some and small in others.
"""

from collections.abc import Mapping

from tcc.compiler import passes
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ops import Add, AvgPool, Conv, GlobalAvgPool, MaxPool, Relu, Slice
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.zoo import shipped
from tcc.testing.int8_models import build_int8_model
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights as trained_weights

Sample = tuple[Conv, tuple[int, int]]
"""A convolution of a square feature map: its channels and its side length."""
CHANNELS, SIDE = 256, 112
SIDES = {(SIDE - 1) // step + 1: step for step in range(SIDE, 0, -1)}
"""The side lengths of feature maps, with the pixel step that produces each from the input."""


def _make_conv(filters: int, side: int, stride: int = 1, groups: int = 1) -> Conv:
    return Conv(filters, (side, side), (stride, stride), (side - 1) // 2, groups=groups)


def _make_depthwise(channels: int, side: int, stride: int = 1) -> Conv:
    return _make_conv(channels, side, stride, channels)


THREE: Mapping[str, Sample] = {
    f"three_{c}_{f}_{n}": (_make_conv(f, 3), (c, n))
    for c, f, n in (
        (3, 16, 56), (8, 16, 28), (16, 16, 28), (32, 32, 28), (64, 32, 14), (64, 64, 7),
        (128, 24, 7), (16, 64, 10), (24, 12, 14), (4, 2, 28), (32, 48, 4), (96, 5, 14),
        (64, 32, 3), (16, 48, 2), (48, 16, 1),
    )
}  # fmt: skip
STRIDED: Mapping[str, Sample] = {
    f"strided_{k}_{c}_{f}_{n}": (_make_conv(f, k, 2), (c, n))
    for k, c, f, n in (
        (7, 3, 32, 56), (7, 8, 16, 28), (5, 16, 16, 28), (5, 4, 24, 56), (3, 3, 16, 56),
        (3, 32, 32, 28), (3, 64, 64, 14), (1, 64, 32, 28), (3, 64, 8, 28), (3, 24, 4, 56),
    )
}  # fmt: skip
POINTWISE: Mapping[str, Sample] = {
    f"pointwise_{c}_{f}_{n}": (_make_conv(f, 1), (c, n))
    for c, f, n in (
        (16, 64, 28), (64, 16, 28), (48, 48, 19), (256, 64, 7), (128, 128, 14), (8, 8, 56),
        (96, 3, 14), (24, 1, 28), (32, 5, 12), (200, 200, 4), (64, 32, 3),
    )
}  # fmt: skip
FEW_PIXELS: Mapping[str, Sample] = {
    f"few_pixels_{c}_{f}_{n}": (_make_conv(f, 1), (c, n))
    for c, f, n in ((64, 128, 1), (256, 256, 1), (256, 10, 1), (8, 32, 1), (128, 64, 2))
}
GROUPS: Mapping[str, Sample] = {
    f"groups_{k}_{c}_{f}_{n}_{g}": (_make_conv(f, k, 1, g), (c, n))
    for k, c, f, n, g in (
        (3, 32, 32, 14, 2),
        (3, 32, 32, 14, 8),
        (1, 64, 64, 14, 4),
        (3, 16, 64, 8, 16),
    )
}
DEPTHWISE: Mapping[str, Sample] = {
    f"depthwise_{k}_{s}_{c}_{n}": (_make_depthwise(c, k, s), (c, n))
    for k, s, c, n in (
        (3, 1, 16, 4), (3, 1, 16, 7), (3, 1, 16, 8), (3, 1, 12, 10), (3, 1, 12, 12), (3, 1, 12, 14),
        (3, 1, 8, 19), (3, 1, 6, 28), (3, 1, 4, 56), (3, 2, 16, 7), (3, 2, 16, 14), (3, 2, 8, 28),
        (3, 2, 4, 56), (5, 1, 16, 7), (5, 1, 8, 14), (5, 1, 4, 28), (5, 2, 16, 14), (5, 2, 8, 28),
        (5, 2, 4, 56), (3, 1, 12, 16), (3, 1, 4, 112), (3, 2, 12, 16), (3, 2, 4, 112),
        (5, 1, 12, 16), (1, 1, 16, 7), (1, 1, 8, 28), (1, 1, 4, 56), (2, 2, 16, 14), (2, 2, 8, 28),
        (2, 2, 4, 56),
    )
}  # fmt: skip
MEANS: Mapping[str, Sample] = {
    f"mean_{c}_{n}": (_make_depthwise(c, 2, 2), (c, n))
    for c, n in ((16, 14), (8, 28), (4, 56), (6, 19))
}
"""Depthwise convolutions with equal weights, such as lowered average poolings."""
EVERY: Mapping[str, Sample] = {
    **THREE, **STRIDED, **POINTWISE, **FEW_PIXELS, **GROUPS, **DEPTHWISE, **MEANS,
}  # fmt: skip


def build_sample_network(names: "tuple[str, ...] | list[str]", *, levels: bool) -> Model:
    """Return a network in which each sample reads its part of the input; a ReLU follows it."""
    add = NetBuilder(CHANNELS, SIDE, SIDE, name="samples")
    outputs = []
    for name in names:
        op, (channels, side) = EVERY[name]
        input_name = add(f"{name}_channels", Slice(0, channels), "image")
        if side != SIDE:
            input_name = add(f"{name}_map", MaxPool((1, 1), (SIDES[side], SIDES[side])), input_name)
        add(f"{name}_sums", op, input_name)
        add(name, Relu())
        outputs.append(Output(f"{name}_mean", add(f"{name}_mean", GlobalAvgPool())))
    return _build_model(add.build(*outputs), levels=levels)


def build_loop_network() -> Model:
    """Return a network of layers that only plain loops compute, with the core's tile."""
    add = NetBuilder(16, 28, 28, name="loops")
    add("most", MaxPool((3, 3), (2, 2), 1), "image")
    mean = add("mean", AvgPool((3, 3), (1, 1), 1))
    add("narrow", MaxPool((2, 2), (2, 2)))
    add("end", GlobalAvgPool())
    add("sum", Add(), mean, mean)
    add("last", GlobalAvgPool())
    return _build_model(add.build(Output("a", "end"), Output("b", "last")), levels=False)


def _build_model(graph: Graph, *, levels: bool) -> Model:
    trained = trained_weights(graph)
    for name, tensor in trained.items():
        if name.startswith("mean_") and tensor.ndim > 1:
            tensor[:] = 1 / tensor[0].size
    return build_int8_model(graph, trained) if levels else Model(graph, trained)


def load_network(name: str, *, levels: bool) -> Model:
    """Return a zoo network with random weights, lowered as in a build."""
    graph = load(shipped.list_specs()[name]).graph
    random = weights.initialize_random(graph, 0)
    if levels:
        return build_int8_model(graph, random)
    return drop_train_only(passes.run(Model(graph, random), passes.INFERENCE))
