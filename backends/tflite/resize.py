"""Resizing, written as TFLite operators."""

from tcc.backends.tflite.file_draft import FileDraft, channels_last
from tcc.compiler.ir.graph import Node
from tcc.compiler.ops import Resize
from tcc.compiler.support.diagnostics import UnhandledError

_HALF_PIXELS = {"alignCorners": False, "halfPixelCenters": True}


def resize(net: FileDraft, node: Node, op: Resize) -> str:
    """Write RESIZE_BILINEAR; or every nth pixel, and RESIZE_NEAREST_NEIGHBOR of what grows.

    Half pixels make the nearest pixel certain: no product is near a whole number.
    """
    (x,) = net.inputs(node)
    match op.mode:
        case "nearest":
            return _nearest(net, node, x)
        case "bilinear":
            name, shape = node.name, channels_last(node.type.shape)
            size = net.integers(f"{name}/size", shape[1:3])
            return net.add("RESIZE_BILINEAR", (x, size), (name, shape), _HALF_PIXELS)
        case _:
            raise UnhandledError("way to resize", op.mode)


def _nearest(net: FileDraft, node: Node, x: str) -> str:
    name, shape = node.name, channels_last(node.type.shape)
    _, height, width, channels = net.tensors[x].shape
    steps = [max(1, n // out) for n, out in zip((height, width), shape[1:3], strict=True)]
    if steps != [1, 1]:
        x = net.cut(x, f"{name}/taken", (0,) * 4, (1, height, width, channels), (1, *steps, 1))
    if net.tensors[x].shape == shape:
        return x
    size = net.integers(f"{name}/size", shape[1:3])
    return net.add("RESIZE_NEAREST_NEIGHBOR", (x, size), (name, shape), _HALF_PIXELS, 3)
