"""Element-wise functions, softmax, and operators that do nothing at inference."""

import operator
from collections.abc import Callable
from dataclasses import replace
from math import isclose, pi, sqrt

import numpy as np

from tcc.compiler.importers.onnx_import.convert.layers import add_scale_shift
from tcc.compiler.importers.onnx_import.convert.onnx_node import Array, OnnxNode, Operand
from tcc.compiler.importers.onnx_import.graph_builder import OperatorRefusal
from tcc.compiler.importers.onnx_import.node_arguments import round_to_shortest
from tcc.compiler.importers.onnx_import.tensor_view import View, find_channels_last_pixels
from tcc.compiler.ops import (
    Add,
    Gelu,
    HardSigmoid,
    LeakyRelu,
    Mul,
    Op,
    Relu,
    Relu6,
    Scale,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from tcc.compiler.ops.elementwise import ScalarFunction

Combine = Callable[[Array, Array], Array]


def convert_add(node: OnnxNode) -> Operand:
    """Convert Add."""
    return _convert_binary(node, operator.add, Add(), lambda x, c: add_affine(node, x, offset=c))


def convert_mul(node: OnnxNode) -> Operand:
    """Convert Mul."""
    return _convert_binary(node, operator.mul, Mul(), lambda x, c: add_affine(node, x, factor=c))


def _convert_binary(
    node: OnnxNode, fold_constants: Combine, join: Op, constant: Callable[[View, Array], View]
) -> Operand:
    match node.get_operand(0), node.get_operand(1):
        case View(), View():
            return _join_views(node, join, node.get_view(0), node.get_view(1))
        case View(), b:
            return constant(node.get_view(0), _to_float_constant(b))
        case a, View():
            return constant(node.get_view(1), _to_float_constant(a))
        case a, b:
            return fold_constants(a, b)


def convert_sub(node: OnnxNode) -> Operand:
    """Convert Sub: adds the second value multiplied by -1."""
    match node.get_operand(0), node.get_operand(1):
        case View(), View():
            return _join_views(
                node, Add(), node.get_view(0), node.emit_elementwise(Scale(-1.0), node.get_view(1))
            )
        case View(), b:
            return add_affine(node, node.get_view(0), offset=-_to_float_constant(b))
        case a, View():
            return add_affine(
                node,
                node.emit_elementwise(Scale(-1.0), node.get_view(1)),
                offset=_to_float_constant(a),
            )
        case a, b:
            return a - b


def convert_div(node: OnnxNode) -> Operand:
    """Convert Div by a constant."""
    a, b = node.get_operand(0), node.get_operand(1)
    if isinstance(b, View):
        help = (
            "multiply by a sigmoid or another bounded value, or import only the part before it"
            " with --until"
        )
        raise OperatorRefusal("it divides by a computed value", help)
    with np.errstate(divide="ignore"):
        # There is no division op, so this multiplies by the inverse, with an additional rounding
        # error of 2^-24. The inverse of 0 is infinite and refused like every non-finite weight.
        inverse = np.float32(1) / _to_float_constant(b)
    return add_affine(node, node.get_view(), factor=inverse) if isinstance(a, View) else a / b


def convert_neg(node: OnnxNode) -> View:
    """Convert Neg."""
    return node.emit_elementwise(Scale(-1.0), node.get_view())


def convert_pow(node: OnnxNode) -> View:
    """Convert Pow with exponent 2 or 3: a product of the value with itself."""
    exponent = node.get_operand(1)
    exponents = [] if isinstance(exponent, View) else np.unique(exponent).tolist()
    if exponents not in ([2], [3]):
        raise OperatorRefusal("its exponent is not a constant 2 or 3")
    return node.emit_join(Mul(), *[node.get_view()] * int(exponents[0]))


def convert_sum(node: OnnxNode) -> Operand:
    """Convert Sum."""
    operand = node.get_operand(0)
    for position in range(1, len(node.inputs)):
        operand = convert_add(replace(node, inputs=(operand, node.get_operand(position))))
    return operand


def convert_mean(node: OnnxNode) -> Operand:
    """Convert Mean of several values."""
    operand, reciprocal = convert_sum(node), np.asarray(1 / len(node.inputs), np.float32)
    return (
        add_affine(node, operand, factor=reciprocal)
        if isinstance(operand, View)
        else operand * reciprocal
    )


def _join_views(node: OnnxNode, op: Op, a: View, b: View) -> View:
    """Return a sum or product; values expanded to all pixels are used before the expansion."""
    # ONNX broadcasts from the last axis backwards (numpy's rules), tcc from the channels. Both
    # agree if the ranks are equal.
    if a.is_materialized and b.is_materialized:
        if len(a.shape) != len(b.shape):
            raise OperatorRefusal(
                f"its inputs have {len(a.shape)} and {len(b.shape)} axes, not the same number"
            )
        # A mean that was expanded to all pixels for a product: `mul` broadcasts it without that.
        sources = [node.builder.find_unexpanded(view.value) for view in (a, b)]
        if (
            node.builder.get_type(sources[0]).shape[1:]
            == node.builder.get_type(sources[1]).shape[1:]
            == (1, 1)
        ):
            sources = [a.value, b.value]
        return node.emit(op, *(node.builder.make_view(value) for value in sources))
    # The order of elements does not matter if both inputs have the same. Transposed inputs are
    # joined before the transposition, and the result is the same view.
    if (
        a.type != b.type
        or not a.is_complete()
        or not np.array_equal(a.compute_positions(), b.compute_positions())
    ):
        raise OperatorRefusal("its inputs have different element orders")
    value = node.builder.emit(node.name, op, [a.value, b.value])
    return a.replace_value(value, node.builder.get_type(value))


def _to_float_constant(constant: Operand) -> Array:
    if isinstance(constant, View):
        raise TypeError(constant)
    # Integers and booleans are shapes or masks: arithmetic with them is not part of a layer.
    if constant.dtype not in (np.float32, np.float64, np.float16):
        raise OperatorRefusal(f"its constant is {constant.dtype}, not float32")
    return constant.astype(np.float32)


def add_affine(
    node: OnnxNode, x: View, factor: Array | None = None, offset: Array | None = None
) -> View:
    """Return a value times a constant, or plus a constant: a scalar, or one per channel.

    Args:
        node: The node to convert.
        x: The value.
        factor: The multiplier, with a shape that ONNX broadcasts.
        offset: The addend, with the same rule. One of the two is given.
    """
    constant = np.asarray(factor if factor is not None else offset, np.float32)
    # A scalar stays a scalar in the spec: it is visible there and is not a trainable weight.
    if constant.size == 1 and constant.ndim <= len(x.shape):
        number = round_to_shortest(float(constant.reshape(-1)[0]))
        return node.emit_elementwise(
            Scale(number) if factor is not None else Scale(offset=number), x
        )
    per_channel = _reduce_to_channels(x, constant)
    unit, zero = np.ones_like(per_channel), np.zeros_like(per_channel)
    if factor is not None:
        return add_scale_shift(node, x, per_channel, zero)
    # A product and a sum become two steps; `simplify` merges them.
    return add_scale_shift(node, x, unit, per_channel)


def _reduce_to_channels(x: View, constant: Array) -> Array:
    """Return a constant as one number per channel, with a shape that broadcasts."""
    try:
        spread = x.to_value_layout(constant)
    except ValueError:
        spread = None
    if spread is None:
        raise OperatorRefusal(
            f"its constant has shape {list(constant.shape)}, the value {list(x.shape)}"
        )
    rows = spread.reshape(spread.shape[0], -1)
    if (rows != rows[:, :1]).any():
        help = "use one constant per channel; position embeddings of transformers are not supported"
        raise OperatorRefusal("its constant is not the same for all pixels", help)
    return rows[:, :1].reshape(spread.shape[0], *(1 for _ in spread.shape[1:]))


UNBOUNDED = 3e38
"""Bounds beyond this mean no bound: exporters write the largest float32 or infinity."""
MAX_SCALED_BOUND = 100.0
"""Largest bound that is scaled to 0 or 6; scaling costs small values their last bits."""


def make_converter(op: type[Op]) -> Callable[[OnnxNode], View]:
    """Return the converter of an operator that equals one op; the op's class reads attributes."""

    def convert(node: OnnxNode) -> View:
        # Attributes in a file are float32: this gives 0.01 for 0.009999999776482582.
        file_attributes = node.origin.attrs.items()
        attributes = {
            name: round_to_shortest(v) if isinstance(v, float) else v for name, v in file_attributes
        }
        converted_op = op.from_onnx(attributes)
        # Element order does not matter, so transpositions around an activation need no step.
        if isinstance(converted_op, ScalarFunction):
            return node.emit_elementwise(converted_op, node.get_view())
        return node.emit(
            converted_op, *(node.get_materialized(position) for position in range(len(node.inputs)))
        )

    return convert


def convert_prelu(node: OnnxNode) -> View:
    """Convert PRelu; with one slope per channel: max(x, 0) - slope * max(-x, 0)."""
    x, slopes = node.get_view(), node.get_weights(1)
    if np.unique(slopes).size == 1:
        return node.emit_elementwise(LeakyRelu(round_to_shortest(float(slopes.flat[0]))), x)
    # leaky_relu has one slope per tensor. For slopes per channel the negative part is split off,
    # scaled and added again. This is exact, because one of the two terms is always 0.
    negated_part = node.emit_elementwise(Relu(), node.emit_elementwise(Scale(-1.0), x))
    return node.emit_join(
        Add(), node.emit_elementwise(Relu(), x), add_affine(node, negated_part, factor=-slopes)
    )


def convert_hard_sigmoid(node: OnnxNode) -> View:
    """Convert HardSigmoid; if it is not x / 6 + 1/2 between bounds, x is scaled first.

    Exporters write 1/6 in float32, and ONNX's own default is 1/5.
    """
    # PyTorch and tcc use relu6(x + 3) / 6; 0.2 is the default of ONNX and Keras 2.
    alpha, beta = node.get_attribute("alpha", 0.2), node.get_attribute("beta", 0.5)
    if isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return node.emit_elementwise(HardSigmoid(), node.get_view())
    return node.emit_elementwise(
        HardSigmoid(), _scale_view(node, node.get_view(), 6 * alpha, 6 * (beta - 0.5))
    )


def convert_gelu(node: OnnxNode) -> View:
    """Convert Gelu: exact, or x / 2 * (1 + tanh(a * x * (1 + b * x * x)))."""
    x = node.get_view()
    match node.get_attribute("approximate", "none"):
        case "none":
            return node.emit_elementwise(Gelu(), x)
        case "tanh":
            return _build_tanh_gelu(node, x)
        case approximation:
            raise OperatorRefusal(
                f"its approximation is `{approximation}`", "export it with `none` or `tanh`"
            )


def _build_tanh_gelu(node: OnnxNode, x: View) -> View:
    # 0.044715 and sqrt(2 / pi): Hendrycks and Gimpel, Gaussian Error Linear Units, 2016
    slope = sqrt(2 / pi)
    square = _scale_view(node, node.emit_join(Mul(), x, x), 0.044715 * slope, slope)
    gate = node.emit_elementwise(Tanh(), node.emit_join(Mul(), x, square))
    return node.emit_join(Mul(), x, _scale_view(node, gate, 0.5, 0.5))


def convert_swish(node: OnnxNode) -> View:
    """Convert Swish: x * sigmoid(alpha * x)."""
    x, alpha = node.get_view(), node.get_attribute("alpha", 1.0)
    if alpha == 1.0:
        return node.emit_elementwise(Silu(), x)
    return node.emit_join(
        Mul(), x, node.emit_elementwise(Sigmoid(), _scale_view(node, x, alpha, 0.0))
    )


def convert_clip(node: OnnxNode) -> Operand:
    """Convert Clip; other bounds are scaled to those of relu or relu6."""
    low, high = node.get_scalar("min", 1, float("-inf")), node.get_scalar("max", 2, float("inf"))
    return _clip_to_bounds(node, node.get_operand(0), low, high)


def convert_max(node: OnnxNode) -> Operand:
    """Convert Max with a scalar, which is the lower bound."""
    x, number = _split_number(node)
    return _clip_to_bounds(node, x, number, float("inf"))


def convert_min(node: OnnxNode) -> Operand:
    """Convert Min with a scalar, which is the upper bound."""
    x, number = _split_number(node)
    return _clip_to_bounds(node, x, float("-inf"), number)


def _split_number(node: OnnxNode) -> tuple[View, float]:
    # The scalar may be the first or the second input.
    views = [i for i, x in enumerate(node.inputs) if isinstance(x, View)]
    constant_positions = [i for i in range(len(node.inputs)) if i not in views]
    if (
        len(views) != 1
        or len(constant_positions) != 1
        or node.get_weights(constant_positions[0]).size != 1
    ):
        raise OperatorRefusal(
            "it compares two computed values", "use a bound that is a constant scalar"
        )
    return node.get_view(views[0]), float(node.get_weights(constant_positions[0]).flat[0])


def _clip_to_bounds(node: OnnxNode, operand: Operand, low: float, high: float) -> Operand:
    """Return a value clipped to bounds: scaled, then relu or relu6, then scaled back.

    Two bounds are scaled to 0 and 6; a single bound is shifted to 0.
    """
    has_low, has_high = low > -UNBOUNDED, high < UNBOUNDED
    if not isinstance(operand, View):
        return np.clip(operand, low, high)
    x = node.builder.materialize(operand)
    if not has_low and not has_high:
        return operand
    if low >= high or max(abs(low) * has_low, abs(high) * has_high) > MAX_SCALED_BOUND:
        reason = f"bounds must not exceed {MAX_SCALED_BOUND:g} in magnitude"
        reason = "its `min` is not below its `max`" if low >= high else reason
        raise OperatorRefusal(f"it clips to {low:g} ... {high:g}", reason)
    if has_low and has_high:
        # ReLU6 is the only op with two bounds.
        scale = (high - low) / 6
        inner = node.emit_elementwise(Relu6(), _scale_view(node, x, 1 / scale, -low / scale))
        return _scale_view(node, inner, scale, low)
    if has_low:
        return _scale_view(
            node, node.emit_elementwise(Relu(), _scale_view(node, x, 1.0, -low)), 1.0, low
        )
    return _scale_view(
        node, node.emit_elementwise(Relu(), _scale_view(node, x, -1.0, high)), -1.0, high
    )


def _scale_view(node: OnnxNode, x: View, factor: float, offset: float) -> View:
    is_identity = factor == 1.0 and offset == 0.0
    return (
        x
        if is_identity
        else node.emit_elementwise(Scale(round_to_shortest(factor), round_to_shortest(offset)), x)
    )


def convert_softmax(node: OnnxNode) -> View:
    """Convert Softmax over the channels or features."""
    x = node.get_view()
    rank = len(x.shape)
    # The default axis was 1 until opset 12 and is the last one since 13.
    axis = int(node.get_attribute("axis", 1 if node.opset < 13 else -1)) % rank
    # Before opset 13 softmax flattens all axes from `axis` on into one (Softmax-11). The result is
    # the same if only channels are left.
    is_channels_only = node.opset >= 13 or x.type.elements == x.type.shape[0]
    is_channel_axis = x.is_materialized and axis == 1 and is_channels_only
    if not is_channel_axis and (axis != rank - 1 or find_channels_last_pixels(x) is None):
        raise OperatorRefusal("its axis is not the channels")
    return node.emit_elementwise(Softmax(), x)


def convert_identity(node: OnnxNode) -> Operand:
    """Convert operators that are the identity at inference."""
    return node.get_operand(0)


def convert_dropout(node: OnnxNode) -> Operand:
    """Convert Dropout, if no node reads its mask."""
    # The second output, the mask, may have a name but no reader.
    if len(node.origin.outputs) > 1 and node.origin.outputs[1].outputs:
        raise OperatorRefusal("its mask is used")
    # Since opset 12 the training mode is an input; before, Dropout in a file always meant
    # inference.
    if node.has_input(2) and bool(node.get_scalar("training_mode", 2, 0.0)):
        raise OperatorRefusal("it is in training mode", "export the network in eval mode")
    return node.get_operand(0)


def convert_cast(node: OnnxNode) -> Operand:
    """Convert Cast to float32; constants are cast to any type."""
    from onnx import helper

    target_dtype = np.dtype(helper.tensor_dtype_to_np_dtype(int(node.get_attribute("to", 1))))
    operand = node.get_operand(0)
    if not isinstance(operand, View):
        return operand.astype(target_dtype)
    if target_dtype != np.float32:
        help = "export the network in float32"
        raise OperatorRefusal(f"it casts to {target_dtype.name}, not to float32", help)
    return operand
