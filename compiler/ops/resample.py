"""Ops that change the resolution: transposed convolution and resizing."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import (
    Argument,
    Array,
    Call,
    Const,
    ExactIntegerOp,
    Family,
    Init,
    Op,
    OpError,
    Param,
    require_image_shape,
)
from tcc.compiler.ir.types import Pair, TensorType
from tcc.compiler.ops.window import compute_dilated_extent
from tcc.compiler.support.diagnostics import UnhandledError


@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """The transpose of a convolution: each input pixel adds a scaled kernel to the output.

    Output size: (n - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1.
    Weight: (channels, filters / groups, kernel height, kernel width).
    """

    keyword: ClassVar[str] = "conv_transpose"
    family: ClassVar[Family] = "conv"
    filters: int = arg(Kind.INT, low=1, doc="output channels")
    kernel: Pair = arg(Kind.PAIR, low=1, doc="kernel size")
    stride: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="upsampling factor")
    padding: Pair = arg(Kind.PAIR, (0, 0), low=0, doc="border cropped from the result")
    output_padding: Pair = arg(Kind.PAIR, (0, 0), low=0, doc="rows and columns added at the end")
    dilation: Pair = arg(Kind.PAIR, (1, 1), low=1, doc="distance of kernel taps")
    groups: int = arg(Kind.INT, 1, low=1, doc="independent channel groups")
    bias: bool = arg(Kind.BOOL, True, doc="add a learned offset per channel")

    def infer(self, x: TensorType) -> TensorType:
        """Return (filters, output height, output width)."""
        c, *size = require_image_shape(x, self.keyword)
        for dimension, n in (("channels", c), ("filters", self.filters)):
            if n % self.groups:
                raise OpError(
                    "E0303",
                    f"groups must divide the {dimension}",
                    f"{n} {dimension} in {self.groups} groups",
                    f"set `groups` to a divisor of {n}, or change the {dimension}",
                )
        for extra, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True):
            # The rule of PyTorch: further rows would contain only the bias.
            if extra >= max(s, d):
                raise OpError(
                    "E0309",
                    "output_padding must be smaller than the stride or the dilation",
                    f"it is {list(self.output_padding)}, the stride {list(self.stride)}, "
                    f"the dilation {list(self.dilation)}",
                    "use a smaller `output_padding`",
                )
        window = compute_dilated_extent(self.kernel, self.dilation)
        out = [
            (n - 1) * s - 2 * p + k + extra
            for n, s, p, k, extra in zip(
                size, self.stride, self.padding, window, self.output_padding, strict=True
            )
        ]
        if min(out) < 1:
            raise OpError(
                "E0302",
                "the output is empty after the padding is cropped",
                f"the input is {size[0]}x{size[1]}, padding {list(self.padding)}",
                "use less padding",
            )
        return TensorType((self.filters, *out))

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the weight and, if enabled, the bias."""
        # As in torch: by the second axis of the weight, here the filters of a group.
        depth = self.filters // self.groups
        fan_in = depth * self.kernel[0] * self.kernel[1]
        weight = Param("weight", (x.shape[0], depth, *self.kernel), Init.KAIMING, fan_in)
        bias = Param("bias", (self.filters,), Init.KAIMING, fan_in)
        return (weight, bias) if self.bias else (weight,)

    def macs(self, x: TensorType) -> int:
        """Return the number of input elements times filter taps."""
        return x.elements * (self.filters // self.groups) * self.kernel[0] * self.kernel[1]

    def _list_tensors(self) -> tuple[Argument, ...]:
        return ("x0", "weight", "bias") if self.bias else ("x0", "weight")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return conv_transpose2d."""
        attributes = {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }
        return (Call("conv_transpose2d", self._list_tensors(), attributes),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return ConvTranspose, after Pad if `output_padding` is the stride or more.

        With a dilation, PyTorch and this op allow such an `output_padding`, but ONNX Runtime does
        not. It is replaced by less cropping at the end (`pads`); if there is nothing to crop, Pad
        adds zeros at the end of the input.
        """
        axis_sizes = list(zip(self.padding, self.output_padding, self.stride, strict=True))
        # Zeros to add to the input; each adds `stride` to the output.
        extra_sizes = [
            -(-max(output_pad - pad, 0) // stride) if output_pad >= stride else 0
            for pad, output_pad, stride in axis_sizes
        ]
        end_pads = [
            pad + extra_size * stride - output_pad if output_pad >= stride else pad
            for (pad, output_pad, stride), extra_size in zip(axis_sizes, extra_sizes, strict=True)
        ]
        attributes = {
            "kernel_shape": [*self.kernel],
            "strides": [*self.stride],
            "pads": [*self.padding, *end_pads],
            "output_padding": [
                output_pad if output_pad < stride else 0 for _, output_pad, stride in axis_sizes
            ],
            "dilations": [*self.dilation],
            "group": self.groups,
        }
        if not any(extra_sizes):
            return (Call("ConvTranspose", self._list_tensors(), attributes),)
        widths = Const((*(0,) * 6, *extra_sizes))
        padded = Call("Pad", ("x0", widths, Const((0.0,), "float32", scalar=True)), output="room")
        return padded, Call("ConvTranspose", ("room", *self._list_tensors()[1:]), attributes)


@dataclass(frozen=True, slots=True)
class Resize(Op, ExactIntegerOp):
    """Resample to `size`, or to `scale` times the size of the input.

    Output pixel y reads the input at floor(y * in / out) for `nearest`, which needs one size to be
    a multiple of the other. For `bilinear` it reads at (y + 1/2) * in / out - 1/2, without
    antialiasing.
    """

    keyword: ClassVar[str] = "resize"
    family: ClassVar[Family] = "pool"
    size: Pair | None = arg(Kind.PAIR, None, low=1, doc="output height and width")
    scale: Pair | None = arg(Kind.PAIR, None, low=1, doc="factors, instead of `size`")
    mode: str = arg(Kind.ENUM, "nearest", choices=("nearest", "bilinear"), doc="how to sample")

    def resolve(self, x: TensorType) -> "Resize | None":
        """Return the op with its size resolved; None if the input has that size."""
        size = self.compute_output_size(x)
        return None if size == x.shape[1:] else Resize(size, mode=self.mode)

    def compute_output_size(self, x: TensorType) -> Pair:
        """Return the output size."""
        _, h, w = require_image_shape(x, self.keyword)
        match self.size, self.scale:
            case (int(), int()) as size, None:
                return size
            case None, (int(down), int(across)):
                return (h * down, w * across)
        raise OpError("E0310", "resize needs either `size` or `scale`", help="give one of them")

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, height, width)."""
        c, h, w = require_image_shape(x, self.keyword)
        target = self.compute_output_size(x)
        multiples = all(a % b == 0 or b % a == 0 for a, b in zip((h, w), target, strict=True))
        if self.mode == "nearest" and not multiples:
            raise OpError(
                "E0311",
                "nearest resizing needs a multiple or a divisor of the input size",
                f"the input is {h}x{w}, the output {target[0]}x{target[1]}",
                "use `mode: bilinear`, or another size",
            )
        return x.with_shape((c, *target))

    @property
    def moves(self) -> bool:
        """Whether elements are only moved: for nearest, but not for bilinear."""
        match self.mode:
            case "nearest":
                return True
            case "bilinear":
                return False
            case _:
                raise UnhandledError("resize mode", self.mode)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return interpolate."""
        attributes: dict[str, object] = {"size": self.compute_output_size(x), "mode": self.mode}
        match self.mode:
            case "nearest":
                return (Call("interpolate", ("x0",), attributes),)
            case "bilinear":
                return (Call("interpolate", ("x0",), {**attributes, "align_corners": False}),)
            case _:
                raise UnhandledError("resize mode", self.mode)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Resize by scales, so that the size of the batch axis is not fixed.

        `nearest` to a smaller size is Slice, which is exact, unlike a scale of 1/3.
        """
        _, *size = x.shape
        factors = [
            _compute_factor(out, n)
            for out, n in zip(self.compute_output_size(x), size, strict=True)
        ]
        match self.mode:
            case "nearest":
                return self._build_nearest_calls(x, size, factors)
            case "bilinear":
                return (_build_onnx_resize("x0", factors, "linear", "half_pixel"),)
            case _:
                raise UnhandledError("resize mode", self.mode)

    def _build_nearest_calls(
        self, x: TensorType, size: list[int], factors: list[float]
    ) -> tuple[Call, ...]:
        steps = [max(1, n // out) for out, n in zip(self.compute_output_size(x), size, strict=True)]
        bounds = (Const((0, 0)), Const((size[0], size[1])), Const((2, 3)), Const(tuple(steps)))
        upscale_factors = [max(1.0, f) for f in factors]
        if upscale_factors == [1.0, 1.0]:
            return (Call("Slice", ("x0", *bounds)),)
        slice_call = Call("Slice", ("x0", *bounds), output="t")
        source, slice_calls = ("x0", ()) if steps == [1, 1] else ("t", (slice_call,))
        return (*slice_calls, _build_onnx_resize(source, upscale_factors, "nearest", "asymmetric"))

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the nearest quantized values."""
        _, *size = types[0].shape
        rows, columns = (
            [y * n // out for y in range(out)]
            for n, out in zip(size, self.compute_output_size(*types), strict=True)
        )
        return xs[0][:, :, rows][:, :, :, columns]


def _build_onnx_resize(source: str, factors: list[float], mode: str, coordinates: str) -> Call:
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
        "nearest_mode": "floor",
    }
    scales = Const((1.0, 1.0, *factors), "float32")
    return Call("Resize", (source, Const((), "float32"), scales), attributes)


def _compute_factor(out: int, size: int) -> float:
    """Return out / size, rounded so that floor(float32(factor) * size) is `out`."""
    # Rounded to float32, a factor may be too small: its product with the size is below `out`, and
    # runtimes take the floor. The next larger float32 is large enough.
    exact = out / size
    return exact if out % size == 0 else exact * (1 + 2**-23)
