"""Convolution on 8-bit integers."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Init, Op, Param
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import integer_arithmetic
from tcc.compiler.ops.conv import Conv
from tcc.compiler.ops.integer.base import (
    FLOAT32,
    INT32,
    IntegerSite,
    OpWithWeights,
    QuantizedOp,
    get_zero_point,
    make_float32,
    make_scale,
    make_zero_point,
)

MAX_EXACT_SUM = 1 << 24
"""Sums of products below this are exact in float32, in any order of addition."""


def _make_params(conv: Conv, x: TensorType, factor: str) -> tuple[Param, ...]:
    """Return the weight, a factor per filter with the given name, and the bias."""
    weight, bias = conv.params(x)
    return (
        Param("weight", weight.shape, Init.ZEROS, dtype=DType.I8),
        Param(factor, bias.shape, Init.ONES),
        Param("bias", bias.shape, Init.ZEROS, dtype=DType.I32),
    )


def _compute_sums(conv: Conv, x: Array, weight: Array, bias: Array) -> Array:
    """Return the sums of an integer convolution, including the bias."""
    padded = integer_arithmetic.pad_map(x, conv.pads)
    total = integer_arithmetic.compute_convolution(
        padded, weight, conv.stride, conv.dilation, conv.groups
    )
    # Added before the only rounding: the bias has the same scale as the sum.
    total += bias.astype(np.int32)[:, None, None]
    return total


@dataclass(frozen=True, slots=True)
class RealConv(Op, ExactIntegerOp):
    """float32(sum x * w + b) * factor: a float output without quantization to 8 bits.

    Weights are int8 in [-127, 127]. The bias is int32 with the scale x.scale * w.scale, which is
    the factor of each filter. All sums must be below `MAX_EXACT_SUM`: then float arithmetic on the
    integers gives the same result, so every runtime supports it.
    """

    keyword: ClassVar[str] = "real_conv"
    conv: Conv

    def infer(self, x: TensorType) -> TensorType:
        """Return (filters, output height, output width) in float32."""
        return TensorType(self.conv.infer(x).shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, the factor per filter, and the bias."""
        return _make_params(self.conv, x, "factor")

    def macs(self, x: TensorType) -> int:
        """Return the number of output elements times filter taps."""
        return self.conv.macs(x)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the float values."""
        weight, factor, bias = params
        total = _compute_sums(self.conv, xs[0], weight, bias)
        return total.astype(np.float32) * factor.astype(np.float32)[:, None, None]

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return a float Conv of the integers; its sums are converted like an int32 bias.

        A Mul instead of the last two calls would be folded into the weights, which rounds them.
        """
        # The zero point is subtracted in float32, where sums below `MAX_EXACT_SUM` are exact.
        shift = get_zero_point(x)
        attributes = self.conv.onnx(x, opset)[0].attributes
        shift_calls = (Call("Sub", ("xs", make_float32(shift)), output="xf"),) if shift else ()
        return (
            Call("Cast", ("x0",), {"to": FLOAT32}, "xs" if shift else "xf"),
            *shift_calls,
            Call("Cast", ("weight",), {"to": FLOAT32}, "wf"),
            Call("Cast", ("bias",), {"to": FLOAT32}, "bf"),
            Call("Conv", ("xf", "wf", "bf"), attributes, "sum"),
            Call("Cast", ("sum",), {"to": INT32}, "total"),
            Call("DequantizeLinear", ("total", "factor"), {"axis": 1}),
        )

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Not supported: integer graphs are not trained."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the fields of the convolution."""
        return self.conv.attributes()


def is_exact_in_float32(weight: Array, bias: Array, max_magnitude: int) -> bool:
    """Return whether all sums of weights times inputs, plus bias, are below `MAX_EXACT_SUM`.

    Args:
        weight: Integers (filters, channels / groups, kernel height, kernel width).
        bias: Bias (filters,), with the scale of the sums.
        max_magnitude: The largest magnitude of an input value.
    """
    # In int64, so that sums too large for int32 do not wrap around.
    total = np.abs(weight.reshape(len(weight), -1).astype(np.int64)).sum(axis=1)
    max_sum = total * max_magnitude + np.abs(bias.astype(np.int64))
    return bool((max_sum < MAX_EXACT_SUM).all())


CHANNELS_PER_WORD = 4
"""Channels of 8-bit values in one 32-bit word."""


@dataclass(frozen=True, slots=True)
class QConv(QuantizedOp):
    """clamp(rint(float32(sum x * w + b) * M)), with M = x.scale * w.scale / y.scale per filter.

    Weights are int8 in [-127, 127] with one scale per filter, as in the quantization specification
    of TFLite; this range is symmetric under negation. The bias is int32 with the scale
    x.scale * w.scale, so that it is added to the sum directly. `conv` is the float convolution.
    """

    keyword: ClassVar[str] = "qconv"
    float_ops: ClassVar[tuple[type[Op], ...]] = (Conv,)
    zero_weight: ClassVar[Const] = Const((0,), "int8", scalar=True)
    conv: Conv

    @classmethod
    def from_float_op(cls, op: Conv, site: IntegerSite) -> OpWithWeights:
        """Return the op, or a float output if it ends the network and is exact."""
        (x,), (weight, scale, bias) = site.types, site.weights
        # Always with a bias: zeros change nothing, and bias corrections need one.
        conv = replace(op, bias=True)
        if site.is_float_output and is_exact_in_float32(weight, bias, max(map(abs, x.limits))):
            return RealConv(conv), (weight, np.float32(x.scale) * scale, bias)
        return cls(*site.out, conv, zero_point=site.zero_point), (weight, scale, bias)

    def infer(self, x: TensorType) -> TensorType:
        """Return (filters, output height, output width)."""
        return self.make_type(self.conv.infer(x).shape)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scale per filter, and the bias."""
        return _make_params(self.conv, x, "scale")

    def macs(self, x: TensorType) -> int:
        """Return the number of output elements times filter taps."""
        return self.conv.macs(x)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        (x,), (weight, weight_scale, bias) = types, params
        y = self.infer(x)
        total = _compute_sums(self.conv, xs[0], weight, bias)
        factor = integer_arithmetic.compute_multiplier(x, weight_scale.astype(np.float32), y)
        return integer_arithmetic.requantize(total, factor[:, None, None], y, self.low, self.high)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return QLinearConv, and Clip if the clamp is narrower than the range of the type."""
        y = self.infer(x)
        clamp = self.clamp(y)
        weight = ("weight", "scale", self.zero_weight)
        attributes = self.conv.onnx(x, opset)[0].attributes
        operands = (
            "x0",
            make_scale(x),
            make_zero_point(x),
            *weight,
            make_scale(y),
            make_zero_point(y),
            "bias",
        )
        return (Call("QLinearConv", operands, attributes, "c" if clamp else "y"), *clamp)

    def attributes(self) -> dict[str, object]:
        """Return the fields of the convolution, and the clamp."""
        quantized_attributes = QuantizedOp.attributes(self)
        del quantized_attributes["conv"]
        return self.conv.attributes() | quantized_attributes


@dataclass(frozen=True, slots=True)
class UnsignedQConv(QConv):
    """A QConv with weights stored as uint8 with the zero point 128.

    The result is that of `QConv`, also on x86 processors without VNNI. Their instruction for
    unsigned times signed bytes, vpmaddubsw, adds two products in 16 bits, where 2 * 255 * 127
    saturates. For unsigned weights, ONNX Runtime widens both to 16 bits before it multiplies.
    """

    keyword: ClassVar[str] = "unsigned_qconv"
    float_ops: ClassVar[tuple[type[Op], ...]] = ()
    zero_weight: ClassVar[Const] = Const((128,), "uint8", scalar=True)

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scale per filter, and the bias."""
        weight, scales, bias = QConv.params(self, x)
        return (replace(weight, dtype=DType.U8), scales, bias)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        weight, *scale_and_bias = params
        # int16 first: a uint8 minus 128 would wrap around.
        signed = (weight.astype(np.int16) - 128).astype(np.int8)
        return QConv.compute(self, types, xs, (signed, *scale_and_bias))


@dataclass(frozen=True, slots=True)
class WideQConv(QConv):
    """A QConv with extra channels of zero weights, up to complete words; the result is the same.

    ONNX Runtime multiplies symmetric weights directly with the pixels if the number of channels is
    a multiple of four (`MlasConvSymPackWSize`). Otherwise it copies each window first, which takes
    most of the time for an image of three channels.
    """

    keyword: ClassVar[str] = "wide_qconv"
    float_ops: ClassVar[tuple[type[Op], ...]] = ()

    def count_padding_channels(self, x: TensorType) -> int:
        """Return the number of extra channels."""
        return -x.shape[0] % CHANNELS_PER_WORD

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight, its scale per filter, and the bias."""
        weight, scales, bias = QConv.params(self, x)
        filters, depth, *window = weight.shape
        return (
            replace(weight, shape=(filters, depth + self.count_padding_channels(x), *window)),
            scales,
            bias,
        )

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the quantized values of the output."""
        weight, *scale_and_bias = params
        return QConv.compute(self, types, xs, (weight[:, : types[0].shape[0]], *scale_and_bias))

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Pad, which adds the channels, and the convolution."""
        conv_call, *clamp = QConv.onnx(self, x, opset)
        pad_widths = Const((0, 0, 0, 0, 0, self.count_padding_channels(x), 0, 0))
        padded = Call("Pad", ("x0", pad_widths, make_zero_point(x)), output="w")
        return (padded, replace(conv_call, inputs=("w", *conv_call.inputs[1:])), *clamp)
