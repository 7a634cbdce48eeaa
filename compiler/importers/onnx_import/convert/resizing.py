"""Resize and Upsample, recognized by the pixels that they sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.convert.onnx_node import Array, OnnxNode
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ops import Resize

Coordinates = NDArray[np.float32]
"""Input position of each output pixel along one axis."""
COORDINATE_TOLERANCE = 1e-4
"""Maximum difference of two positions, in pixels, that rounding explains."""
KNOWN_MODES = "use nearest with integer factors, or bilinear with half_pixel coordinates"

ROUNDINGS: Mapping[str, Callable[[Coordinates], Coordinates]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    # Halves round down here and up below; `np.rint` rounds halves to even numbers.
    "round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
}


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """Numbers of pixels before and after, and the exact factor between them."""

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
            raise OperatorRefusal(f"its mode `{mode}` is not supported", KNOWN_MODES)
    if not is_same_sampling:
        raise _make_mismatch_refusal(node, mode, axes)
    height, width = (axis.out for axis in axes)
    return node.emit(Resize((height, width), mode=mode if mode == "nearest" else "bilinear"), x)


def _check(node: OnnxNode) -> None:
    """Refuse options that change the sampling in ways that coordinates do not describe."""
    if node.get_attribute("antialias", 0):
        raise OperatorRefusal("it resizes with antialiasing", "export it with `antialias=False`")
    policy = node.get_attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise OperatorRefusal(
            f"its size depends on the policy `{policy}`", "export it with a fixed size"
        )


def _make_mismatch_refusal(
    node: OnnxNode, mode: str, axes: Sequence[ResizedAxis]
) -> OperatorRefusal:
    """Return the refusal of a resize that samples other pixels than tcc's op."""
    for axis in axes:
        # Runtimes sample by the exact factor, although the output has a whole number of pixels. At
        # factor 1.5 of 3 pixels (4, not 4.5) the positions differ from those of a resize to 4.
        exact = axis.n * axis.factor
        if (
            abs(exact - axis.out) > COORDINATE_TOLERANCE
            and _get_coordinate_mode(node) != "align_corners"
        ):
            return OperatorRefusal(
                f"its factor {axis.factor:g} turns {axis.n} into {axis.out} pixels, with rounding",
                "export it with a size instead of a factor",
            )
    return OperatorRefusal(
        f"`{mode}` with `{_get_coordinate_mode(node)}` coordinates is not supported here",
        KNOWN_MODES,
    )


def _get_coordinate_mode(node: OnnxNode) -> str:
    # Opset 11 added coordinate modes; before, positions were index / scale.
    is_old_opset = node.origin.op == "Upsample" or node.opset < 11
    coordinate_mode = str(node.get_attribute("coordinate_transformation_mode", "half_pixel"))
    return "asymmetric" if is_old_opset else coordinate_mode


def _compute_coordinates(node: OnnxNode, axis: ResizedAxis) -> Coordinates:
    """Return the positions in each coordinate mode, in float32 as in runtimes."""
    n, out, scale = axis.n, axis.out, np.float32(axis.factor)
    at = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    match _get_coordinate_mode(node):
        case "half_pixel":
            return (at + half) / scale - half
        # Like half_pixel, but an output of one pixel uses the first.
        case "pytorch_half_pixel":
            return (at + half) / scale - half if out > 1 else np.zeros(out, np.float32)
        # Since opset 18: half_pixel around the center of the exact, fractional size.
        case "half_pixel_symmetric":
            offset = np.float32(n / 2 * (1 - out / (n * axis.factor)))
            return offset + (at + half) / scale - half
        # Only opsets 11 and 12.
        case "tf_half_pixel_for_nn":
            return (at + half) / scale
        case "asymmetric":
            return at / scale
        case "align_corners":
            return at * np.float32((n - 1) / (out - 1)) if out > 1 else np.zeros(1, np.float32)
        case coordinate_mode:
            raise OperatorRefusal(
                f"its coordinate mode `{coordinate_mode}` is not supported", KNOWN_MODES
            )


def _is_nearest(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether nearest sampling uses the pixel at floor(y * in / out)."""
    n, out = axis.n, axis.out
    is_old_opset = node.origin.op == "Upsample" or node.opset < 11
    rounding = str(node.get_attribute("nearest_mode", "round_prefer_floor"))
    # For old files runtimes round up when they downscale.
    rounding = rounding if not is_old_opset else "ceil" if out < n else "floor"
    if rounding not in ROUNDINGS:
        raise OperatorRefusal(f"its rounding mode `{rounding}` is not supported", KNOWN_MODES)
    sampled = np.clip(ROUNDINGS[rounding](_compute_coordinates(node, axis)), 0, n - 1).astype(
        np.int64
    )
    # tcc's nearest is PyTorch's `nearest`, floor(y * in / out). Whatever the coordinate mode, equal
    # sampled pixels are the same resize.
    return bool(np.array_equal(sampled, np.arange(out) * n // out))


def _is_bilinear(node: OnnxNode, axis: ResizedAxis) -> bool:
    """Whether bilinear sampling is at (y + 1/2) * in / out - 1/2, clipped to the image."""
    n, out = axis.n, axis.out
    expected = (np.arange(out) + 0.5) * n / out - 0.5
    # Positions outside the image use its border pixels, in tcc and in ONNX, so only positions
    # inside can differ.
    differences = np.clip(expected, 0, n - 1) - np.clip(_compute_coordinates(node, axis), 0, n - 1)
    return bool(np.abs(differences).max() <= COORDINATE_TOLERANCE)


def _get_resized_axes(node: OnnxNode, x: View) -> Sequence[ResizedAxis]:
    """Return the sizes and factors of height and width."""
    # Resize-10 and Upsample-9 have the scales as second input; Resize-11 put `roi` before them.
    has_roi = len(node.inputs) > 2
    sizes = node.get_integers("sizes", 3)
    if sizes is not None:
        output_shape = _fill_axes(node, np.asarray(sizes), x.shape)
        factors = output_shape / np.asarray(x.shape)
    else:
        scales: Array | None = node.get_argument("scales", 2 if has_roi else 1)
        if scales is None or not scales.size:
            raise OperatorRefusal("it has neither sizes nor scales")
        factors = _fill_axes(node, scales.astype(np.float32), np.ones(4, np.float32))
        # In float32, as in runtimes: the floor of a float64 product may be one less.
        output_shape = np.floor(factors * np.asarray(x.shape, np.float32)).astype(np.int64)
    if [*output_shape[:2]] != [*x.shape[:2]]:
        raise OperatorRefusal("it resizes axes other than height and width")
    if output_shape.min() < 1:
        raise OperatorRefusal("its output has no pixels")
    axis_settings = zip(x.shape, output_shape, factors, strict=True)
    return [ResizedAxis(int(n), int(out), float(factor)) for n, out, factor in axis_settings][2:]


def _fill_axes(node: OnnxNode, numbers: Array, defaults: object) -> Array:
    """Return numbers for four axes: given for some axes, or in order for all."""
    # Since opset 18.
    axes = node.origin.attrs.get("axes", range(4))
    filled = np.array(defaults, numbers.dtype)
    if len(axes) != numbers.size:
        raise OperatorRefusal("its sizes or scales do not match its axes")
    for axis, number in zip(axes, numbers.ravel(), strict=True):
        filled[int(axis)] = number
    return filled
