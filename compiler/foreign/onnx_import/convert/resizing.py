"""Resize and Upsample: understood by the pixels that they sample, however that is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.foreign.onnx_import.convert.onnx_node import Array, OnnxNode
from tcc.compiler.foreign.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ops import Resize

Places = NDArray[np.float32]
"""Where in the input each pixel of the output lies, along one axis."""
NEAR = 1e-4
"""Distance of two places, in pixels, that rounding explains."""
KNOWN = "nearest with whole factors and bilinear with half_pixel coordinates are known"

ROUNDINGS: Mapping[str, Callable[[Places], Places]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    # Halves go down here and up below: `np.rint`, which takes halves to even numbers, is neither.
    "round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
}


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """Pixels before and after, and what their number is multiplied by, before it is rounded."""

    n: int
    out: int
    factor: float


def resize(node: OnnxNode) -> View:
    """Convert Resize and Upsample."""
    x = node.map()
    _check(node)
    mode = str(node.attribute("mode", "nearest"))
    axes = _axes(node, x)
    match mode:
        case "nearest":
            same = all(_nearest(node, axis) for axis in axes)
        case "linear" | "bilinear":
            same = all(_between(node, axis) for axis in axes)
        case _:
            raise OperatorRefusal(f"it resizes by `{mode}`", KNOWN)
    if not same:
        raise _unlike(node, mode, axes)
    height, width = (axis.out for axis in axes)
    return node.emit(Resize((height, width), mode=mode if mode == "nearest" else "bilinear"), x)


def _check(node: OnnxNode) -> None:
    """Refuse what samples in other ways than the coordinates say."""
    if node.attribute("antialias", 0):
        raise OperatorRefusal("it resizes with antialiasing", "export it with `antialias=False`")
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise OperatorRefusal(
            f"its size follows from the policy `{policy}`", "give it the size itself"
        )


def _unlike(node: OnnxNode, mode: str, axes: Sequence[ResizedAxis]) -> OperatorRefusal:
    """Return what to say of a resizing that samples other pixels than the language's."""
    for axis in axes:
        # A runtime samples by the factor that is written, though it makes a whole number of pixels:
        # at a factor of 1.5 of 3 pixels (4 and not 4.5) places drift from those of a resize to 4.
        exact = axis.n * axis.factor
        if abs(exact - axis.out) > NEAR and _coordinates(node) != "align_corners":
            return OperatorRefusal(
                f"its factor {axis.factor:g} makes {axis.out} of {axis.n} pixels: it is rounded",
                "export it with the size in place of the factor",
            )
    return OperatorRefusal(f"it resizes by `{mode}` with `{_coordinates(node)}` coordinates", KNOWN)


def _coordinates(node: OnnxNode) -> str:
    # Coordinates came with opset 11; until then places were index / scale.
    old = node.origin.op == "Upsample" or node.opset < 11
    how = str(node.attribute("coordinate_transformation_mode", "half_pixel"))
    return "asymmetric" if old else how


def _places(node: OnnxNode, axis: ResizedAxis) -> Places:
    """Return the places that each way to count defines, in float32 as runtimes compute them."""
    n, out, scale = axis.n, axis.out, np.float32(axis.factor)
    at = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    match _coordinates(node):
        case "half_pixel":
            return (at + half) / scale - half
        # As half_pixel, but a result of one pixel takes the first.
        case "pytorch_half_pixel":
            return (at + half) / scale - half if out > 1 else np.zeros(out, np.float32)
        # Since opset 18: half_pixel about the middle of the exact, fractional size.
        case "half_pixel_symmetric":
            offset = np.float32(n / 2 * (1 - out / (n * axis.factor)))
            return offset + (at + half) / scale - half
        # Of opsets 11 and 12 alone.
        case "tf_half_pixel_for_nn":
            return (at + half) / scale
        case "asymmetric":
            return at / scale
        case "align_corners":
            return at * np.float32((n - 1) / (out - 1)) if out > 1 else np.zeros(1, np.float32)
        case how:
            raise OperatorRefusal(f"it resizes with `{how}` coordinates", KNOWN)


def _nearest(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether nearest sampling takes the pixel at floor(y * in / out)."""
    n, out = axis.n, axis.out
    old = node.origin.op == "Upsample" or node.opset < 11
    rounding = str(node.attribute("nearest_mode", "round_prefer_floor"))
    # Runtimes round up where old files make images smaller.
    rounding = rounding if not old else "ceil" if out < n else "floor"
    if rounding not in ROUNDINGS:
        raise OperatorRefusal(f"it rounds by `{rounding}`", KNOWN)
    taken = np.clip(ROUNDINGS[rounding](_places(node, axis)), 0, n - 1).astype(np.int64)
    # The language's nearest is PyTorch's `nearest`, floor(y * in / out); whatever a file calls its
    # coordinates, pixels that are equal are the same resize.
    return bool(np.array_equal(taken, np.arange(out) * n // out))


def _between(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether bilinear sampling is at (y + 1/2) * in / out - 1/2, held inside the image."""
    n, out = axis.n, axis.out
    wanted = (np.arange(out) + 0.5) * n / out - 0.5
    # Places outside the image take its border's pixel, in the language as in ONNX: only what is
    # inside can differ.
    apart = np.clip(wanted, 0, n - 1) - np.clip(_places(node, axis), 0, n - 1)
    return bool(np.abs(apart).max() <= NEAR)


def _axes(node: OnnxNode, x: View) -> Sequence[ResizedAxis]:
    """Return what becomes of height and width."""
    # Resize-10 and Upsample-9 have the scales as second input, Resize-11 put `roi` before them.
    late = len(node.inputs) > 2
    sizes = node.numbers("sizes", 3)
    if sizes is not None:
        wanted = _every_axis(node, np.asarray(sizes), x.shape)
        factors = wanted / np.asarray(x.shape)
    else:
        given: Array | None = node.argument("scales", 2 if late else 1)
        if given is None or not given.size:
            raise OperatorRefusal("how much it resizes is not said")
        factors = _every_axis(node, given.astype(np.float32), np.ones(4, np.float32))
        # In float32, as runtimes compute it: the floor of another product may be one less.
        wanted = np.floor(factors * np.asarray(x.shape, np.float32)).astype(np.int64)
    if [*wanted[:2]] != [*x.shape[:2]]:
        raise OperatorRefusal("it resizes other axes than height and width")
    if wanted.min() < 1:
        raise OperatorRefusal("nothing is left of its input")
    ends = zip(x.shape, wanted, factors, strict=True)
    return [ResizedAxis(int(n), int(out), float(factor)) for n, out, factor in ends][2:]


def _every_axis(node: OnnxNode, given: Array, otherwise: object) -> Array:
    """Return what is said for some axes, or in their order for all, for each of four axes."""
    # Since opset 18.
    axes = node.origin.attrs.get("axes", range(4))
    found = np.array(otherwise, given.dtype)
    if len(axes) != given.size:
        raise OperatorRefusal("how much it resizes is not said for every axis")
    for axis, number in zip(axes, given.ravel(), strict=True):
        found[int(axis)] = number
    return found
