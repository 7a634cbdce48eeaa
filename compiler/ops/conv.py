"""Convolution and the linear layer."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import (
    Alias,
    Argument,
    Call,
    Family,
    Init,
    Op,
    OpError,
    Param,
    require_image_shape,
)
from tcc.compiler.ir.types import Pair, Quad, TensorType
from tcc.compiler.ops.window import (
    Padding,
    compute_dilated_extent,
    compute_output_size,
    resolve_padding,
)


@dataclass(frozen=True, slots=True)
class Conv(Op):
    """Convolve a feature map with filters, with zero padding.

    Weight: (filters, channels / groups, kernel height, kernel width).
    """

    keyword: ClassVar[str] = "conv"
    family: ClassVar[Family] = "conv"
    filters: int = arg(Kind.INT, low=1, doc="output channels")
    kernel: Pair = arg(Kind.PAIR, low=1, doc="kernel size")
    stride: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="step of the window")
    padding: Padding = arg(Kind.PADDING, 0, low=0, doc="zeros around the input")
    dilation: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="distance of kernel taps")
    groups: int = arg(Kind.INT, 1, low=1, doc="independent channel groups")
    bias: bool = arg(Kind.BOOL, True, doc="add a learned offset per channel")

    def resolve(self, x: TensorType) -> "Conv":
        """Return the op with its padding as four numbers."""
        _, h, w = require_image_shape(x, self.keyword)
        # Not resolved earlier, because `same` depends on the size of the input.
        pad = resolve_padding(self.padding, (h, w), self.window, self.stride)
        return Conv(
            self.filters, self.kernel, self.stride, pad, self.dilation, self.groups, self.bias
        )

    @property
    def window(self) -> Pair:
        """Extent of the dilated kernel."""
        return compute_dilated_extent(self.kernel, self.dilation)

    @property
    def pads(self) -> Quad:
        """Resolved padding: top, left, bottom, right."""
        return resolve_padding(self.padding, (0, 0), self.window, self.stride)

    def infer(self, x: TensorType) -> TensorType:
        """Return (filters, output height, output width)."""
        c, h, w = require_image_shape(x, self.keyword)
        for dimension, n in (("channels", c), ("filters", self.filters)):
            if n % self.groups:
                raise OpError(
                    "E0303",
                    f"groups must divide the {dimension}",
                    f"{n} {dimension} in {self.groups} groups",
                    f"set `groups` to a divisor of {n}, or change the {dimension}",
                )
        pad = resolve_padding(self.padding, (h, w), self.window, self.stride)
        return TensorType(
            (self.filters, *compute_output_size((h, w), self.window, self.stride, pad))
        )

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight and, if enabled, the bias."""
        depth = x.shape[0] // self.groups
        # As in torch: the inputs of one output, within one group.
        fan_in = depth * self.kernel[0] * self.kernel[1]
        weight = Param("weight", (self.filters, depth, *self.kernel), Init.KAIMING, fan_in)
        bias = Param("bias", (self.filters,), Init.KAIMING, fan_in)
        return (weight, bias) if self.bias else (weight,)

    def macs(self, x: TensorType) -> int:
        """Return the number of output elements times filter taps."""
        taps = x.shape[0] // self.groups * self.kernel[0] * self.kernel[1]
        return self.infer(x).elements * taps

    def _list_tensors(self) -> tuple[Argument, ...]:
        return ("x0", "weight", "bias") if self.bias else ("x0", "weight")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return conv2d, after an explicit pad if the padding is asymmetric."""
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        attributes = {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}
        # `same` with an even window or a stride gives asymmetric padding, as in TensorFlow.
        if (pad_top, pad_left) == (pad_bottom, pad_right):
            return (
                Call(
                    "conv2d", self._list_tensors(), {**attributes, "padding": (pad_top, pad_left)}
                ),
            )
        pad = Call("pad", ("x0",), {"pad": (pad_left, pad_right, pad_top, pad_bottom)}, "p")
        return (pad, Call("conv2d", ("p", *self._list_tensors()[1:]), attributes))

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Conv."""
        return (
            Call(
                "Conv",
                self._list_tensors(),
                {
                    "kernel_shape": [*self.kernel],
                    "strides": [*self.stride],
                    "pads": [*self.pads],
                    "dilations": [*self.dilation],
                    "group": self.groups,
                },
            ),
        )


@dataclass(frozen=True, slots=True)
class DepthwiseConv(Alias):
    """Convolve each channel separately, with `multiplier` filters per channel."""

    keyword: ClassVar[str] = "depthwise_conv"
    family: ClassVar[Family] = "conv"
    kernel: Pair = arg(Kind.PAIR, low=1, doc="kernel size")
    stride: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="step of the window")
    padding: Padding = arg(Kind.PADDING, 0, low=0, doc="zeros around the input")
    dilation: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="distance of kernel taps")
    bias: bool = arg(Kind.BOOL, True, doc="add a learned offset per channel")
    multiplier: int = arg(Kind.INT, 1, low=1, doc="filters per channel")

    def resolve(self, x: TensorType) -> Conv:
        """Return the equivalent grouped convolution."""
        c, _, _ = require_image_shape(x, self.keyword)
        full = Conv(
            c * self.multiplier, self.kernel, self.stride, self.padding, self.dilation, c, self.bias
        )
        return full.resolve(x)


@dataclass(frozen=True, slots=True)
class Linear(Op):
    """Multiply a vector by a learned matrix. Weight: (units, features)."""

    keyword: ClassVar[str] = "linear"
    family: ClassVar[Family] = "conv"
    units: int = arg(Kind.INT, low=1, doc="output features")
    bias: bool = arg(Kind.BOOL, True, doc="add a learned offset")

    def infer(self, x: TensorType) -> TensorType:
        """Return (units,)."""
        if len(x.shape) != 1:
            raise OpError(
                "E0304",
                "linear needs a vector",
                f"the input is {x}",
                "put `flatten` (after `global_avg_pool`) before it",
            )
        return TensorType((self.units,))

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight and, if enabled, the bias."""
        features = x.shape[0]
        weight = Param("weight", (self.units, features), Init.KAIMING, features)
        bias = Param("bias", (self.units,), Init.KAIMING, features)
        return (weight, bias) if self.bias else (weight,)

    def macs(self, x: TensorType) -> int:
        """Return the number of weights."""
        return x.shape[0] * self.units

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return linear."""
        return (Call("linear", ("x0", "weight", "bias") if self.bias else ("x0", "weight")),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Gemm with the weight transposed."""
        tensors: tuple[Argument, ...] = ("x0", "weight", "bias") if self.bias else ("x0", "weight")
        # transB, because PyTorch stores (units, features): the file contains the tensor of the
        # checkpoint unchanged.
        return (Call("Gemm", tensors, {"transB": 1}),)
