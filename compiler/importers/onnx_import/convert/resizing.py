"""Resize and Upsample: understood by the pixels that they sample, however that is said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.convert.onnx_node import Array, OnnxNode
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ops import Resize

Coordinates = NDArray[np.float32]
"""Where in the input each pixel of the output lies, along one axis."""
COORDINATE_TOLERANCE = 1e-4
"""Distance of two places, in pixels, that rounding explains."""
KNOWN_MODES = "nearest with whole factors and bilinear with half_pixel coordinates are known"

ROUNDINGS: Mapping[str, Callable[[Coordinates], Coordinates]] = {
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


def convert_resize(node: OnnxNode) -> View:
    """Convert Resize and Upsample."""
    x = node.get_map()
    _check(node)
    mode = str(node.get_attribute("mode", "nearest"))
    axes = _get_resized_axes(node, x)
    match mode:
        case "nearest":
            is_same_sampling = all(_is_nearest(node, axis) for axis in axes)
        case "linear" | "bilinear":
            is_same_sampling = all(_is_bilinear(node, axis) for axis in axes)
        case _:
            raise OperatorRefusal(f"it resizes by `{mode}`", KNOWN_MODES)
    if not is_same_sampling:
        raise _make_mismatch_refusal(node, mode, axes)
    height, width = (axis.out for axis in axes)
    return node.emit(Resize((height, width), mode=mode if mode == "nearest" else "bilinear"), x)


def _check(node: OnnxNode) -> None:
    """Refuse what samples in other ways than the coordinates say."""
    if node.get_attribute("antialias", 0):
        raise OperatorRefusal("it resizes with antialiasing", "export it with `antialias=False`")
    policy = node.get_attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise OperatorRefusal(
            f"its size follows from the policy `{policy}`", "give it the size itself"
        )


def _make_mismatch_refusal(
    node: OnnxNode, mode: str, axes: Sequence[ResizedAxis]
) -> OperatorRefusal:
    """Return what to say of a resizing that samples other pixels than the language's."""
    for axis in axes:
        # A runtime samples by the factor that is written, though it makes a whole number of pixels:
        # at a factor of 1.5 of 3 pixels (4 and not 4.5) places drift from those of a resize to 4.
        exact = axis.n * axis.factor
        if (
            abs(exact - axis.out) > COORDINATE_TOLERANCE
            and _get_coordinate_mode(node) != "align_corners"
        ):
            return OperatorRefusal(
                f"its factor {axis.factor:g} makes {axis.out} of {axis.n} pixels: it is rounded",
                "export it with the size in place of the factor",
            )
    return OperatorRefusal(
        f"it resizes by `{mode}` with `{_get_coordinate_mode(node)}` coordinates", KNOWN_MODES
    )


def _get_coordinate_mode(node: OnnxNode) -> str:
    # Coordinates came with opset 11; until then places were index / scale.
    is_old_opset = node.origin.op == "Upsample" or node.opset < 11
    coordinate_mode = str(node.get_attribute("coordinate_transformation_mode", "half_pixel"))
    return "asymmetric" if is_old_opset else coordinate_mode


def _compute_coordinates(node: OnnxNode, axis: ResizedAxis) -> Coordinates:
    """Return the places that each way to count defines, in float32 as runtimes compute them."""
    n, out, scale = axis.n, axis.out, np.float32(axis.factor)
    at = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    match _get_coordinate_mode(node):
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
        case coordinate_mode:
            raise OperatorRefusal(f"it resizes with `{coordinate_mode}` coordinates", KNOWN_MODES)


def _is_nearest(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether nearest sampling takes the pixel at floor(y * in / out)."""
    n, out = axis.n, axis.out
    is_old_opset = node.origin.op == "Upsample" or node.opset < 11
    rounding = str(node.get_attribute("nearest_mode", "round_prefer_floor"))
    # Runtimes round up where old files make images smaller.
    rounding = rounding if not is_old_opset else "ceil" if out < n else "floor"
    if rounding not in ROUNDINGS:
        raise OperatorRefusal(f"it rounds by `{rounding}`", KNOWN_MODES)
    sampled = np.clip(ROUNDINGS[rounding](_compute_coordinates(node, axis)), 0, n - 1).astype(
        np.int64
    )
    # The language's nearest is PyTorch's `nearest`, floor(y * in / out); whatever a file calls its
    # coordinates, pixels that are equal are the same resize.
    return bool(np.array_equal(sampled, np.arange(out) * n // out))


def _is_bilinear(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether bilinear sampling is at (y + 1/2) * in / out - 1/2, held inside the image."""
    n, out = axis.n, axis.out
    expected = (np.arange(out) + 0.5) * n / out - 0.5
    # Places outside the image take its border's pixel, in the language as in ONNX: only what is
    # inside can differ.
    differences = np.clip(expected, 0, n - 1) - np.clip(_compute_coordinates(node, axis), 0, n - 1)
    return bool(np.abs(differences).max() <= COORDINATE_TOLERANCE)


def _get_resized_axes(node: OnnxNode, x: View) -> Sequence[ResizedAxis]:
    """Return what becomes of height and width."""
    # Resize-10 and Upsample-9 have the scales as second input, Resize-11 put `roi` before them.
    has_roi = len(node.inputs) > 2
    sizes = node.get_integers("sizes", 3)
    if sizes is not None:
        output_shape = _fill_axes(node, np.asarray(sizes), x.shape)
        factors = output_shape / np.asarray(x.shape)
    else:
        scales: Array | None = node.get_argument("scales", 2 if has_roi else 1)
        if scales is None or not scales.size:
            raise OperatorRefusal("how much it resizes is not said")
        factors = _fill_axes(node, scales.astype(np.float32), np.ones(4, np.float32))
        # In float32, as runtimes compute it: the floor of another product may be one less.
        output_shape = np.floor(factors * np.asarray(x.shape, np.float32)).astype(np.int64)
    if [*output_shape[:2]] != [*x.shape[:2]]:
        raise OperatorRefusal("it resizes other axes than height and width")
    if output_shape.min() < 1:
        raise OperatorRefusal("nothing is left of its input")
    axis_settings = zip(x.shape, output_shape, factors, strict=True)
    return [ResizedAxis(int(n), int(out), float(factor)) for n, out, factor in axis_settings][2:]


def _fill_axes(node: OnnxNode, numbers: Array, defaults: object) -> Array:
    """Return what is said for some axes, or in their order for all, for each of four axes."""
    # Since opset 18.
    axes = node.origin.attrs.get("axes", range(4))
    filled = np.array(defaults, numbers.dtype)
    if len(axes) != numbers.size:
        raise OperatorRefusal("how much it resizes is not said for every axis")
    for axis, number in zip(axes, numbers.ravel(), strict=True):
        filled[int(axis)] = number
    return filled
