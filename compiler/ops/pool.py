"""Pooling: the maximum or the mean of windows, or of a channel."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from tcc.compiler.ir.argument_declarations import Kind, arg
from tcc.compiler.ir.op import (
    Alias,
    Array,
    Call,
    Const,
    ExactIntegerOp,
    Family,
    Op,
    OpError,
    require_image_shape,
)
from tcc.compiler.ir.types import DType, Pair, Quad, TensorType
from tcc.compiler.ops.window import (
    Padding,
    compute_output_size,
    compute_reached_padding,
    resolve_padding,
)


@dataclass(frozen=True, slots=True)
class Pool(Op):
    """A window over each channel; `stride` is the kernel size by default."""

    kernel: Pair = arg(Kind.PAIR, low=1, doc="window size")
    stride: Pair | None = arg(Kind.PAIR, None, low=1, doc="step; the kernel size if omitted")
    padding: Padding = arg(Kind.PADDING, 0, low=0, doc="border around the input")
    ceil: bool = arg(Kind.BOOL, False, doc="keep a last, partial window")

    @property
    def step(self) -> Pair:
        """Resolved stride."""
        return self.stride or self.kernel

    @property
    def pads(self) -> Quad:
        """Resolved padding: top, left, bottom, right."""
        return resolve_padding(self.padding, (0, 0), self.kernel, self.step)

    def resolve(self, x: TensorType) -> Self:
        """Return the op with resolved stride and padding."""
        _, h, w = require_image_shape(x, self.keyword)
        pad = resolve_padding(self.padding, (h, w), self.kernel, self.step)
        return replace(self, stride=self.step, padding=pad)

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, output height, output width)."""
        c, h, w = require_image_shape(x, self.keyword)
        pad = resolve_padding(self.padding, (h, w), self.kernel, self.step)
        # ONNX Runtime requires this. Otherwise the window in a corner would contain no pixel.
        if any(p >= k for p, k in zip(pad, (*self.kernel, *self.kernel), strict=True)):
            raise OpError(
                "E0305",
                f"{self.keyword} needs padding smaller than its window",
                f"window {self.kernel[0]}x{self.kernel[1]}, padding {list(pad)}",
                "use less padding, or a larger kernel",
            )
        size = compute_output_size((h, w), self.kernel, self.step, pad, ceil=self.ceil)
        return x.with_shape((c, *size))

    def _compute_reached_padding(self, x: TensorType) -> Pair:
        """Return the bottom and right padding that the windows reach."""
        _, h, w = x.shape
        _, out_h, out_w = self.infer(x).shape
        return compute_reached_padding((h, w), self.kernel, self.step, self.pads, (out_h, out_w))

    def _build_onnx_attributes(self, pad: Quad) -> dict[str, Any]:
        """Return attributes for the padding `pad`, in which the last window is complete.

        So `ceil_mode` is not needed. With padding, its meaning has differed between versions of
        ONNX and of its runtimes.
        """
        return {"kernel_shape": [*self.kernel], "strides": [*self.step], "pads": [*pad]}

    def _build_torch_calls(
        self, function: str, x: TensorType, fill: float, attributes: dict[str, Any]
    ) -> tuple[Call, ...]:
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        attributes = {
            "kernel_size": self.kernel,
            "stride": self.step,
            "ceil_mode": self.ceil,
            **attributes,
        }
        # Pooling in torch allows at most half of the window as padding.
        is_supported_padding = pad_top <= self.kernel[0] // 2 and pad_left <= self.kernel[1] // 2
        if (pad_top, pad_left) == (pad_bottom, pad_right) and is_supported_padding:
            return (Call(function, ("x0",), {**attributes, "padding": (pad_top, pad_left)}),)
        # Padding that no window reaches is left out: torch would start another window there.
        down, across = self._compute_reached_padding(x)
        border = {
            "pad": (pad_left, min(pad_right, across), pad_top, min(pad_bottom, down)),
            "value": fill,
        }
        return (Call("pad", ("x0",), border, "p"), Call(function, ("p",), attributes))


@dataclass(frozen=True, slots=True)
class MaxPool(Pool, ExactIntegerOp):
    """The maximum of each window; padding never wins."""

    keyword: ClassVar[str] = "max_pool"
    family: ClassVar[Family] = "pool"

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return max_pool2d."""
        return self._build_torch_calls("max_pool2d", x, float("-inf"), {})

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return MaxPool."""
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        down, across = self._compute_reached_padding(x)
        pad = (pad_top, pad_left, max(pad_bottom, down), max(pad_right, across))
        return (Call("MaxPool", ("x0",), self._build_onnx_attributes(pad)),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the largest quantized value of each window."""
        # Imported here because it loads numpy, which parsing a spec does not need.
        from tcc.compiler.ops import integer_arithmetic

        _, *size = self.infer(*types).shape
        return integer_arithmetic.compute_window_max(
            xs[0], self.kernel, self.step, self.pads[:2], (size[0], size[1])
        )


@dataclass(frozen=True, slots=True)
class AvgPool(Pool):
    """The mean of each window."""

    keyword: ClassVar[str] = "avg_pool"
    family: ClassVar[Family] = "pool"
    count_include_pad: bool = arg(Kind.BOOL, True, doc="count padding as zeros in the mean")

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return avg_pool2d, or two of them if torch would count explicit padding.

        The second one pools ones: it computes the share of each window that is not padding.
        """
        attributes = {"count_include_pad": self.count_include_pad}
        sums = self._build_torch_calls("avg_pool2d", x, 0.0, attributes)
        if self.count_include_pad or len(sums) == 1:
            return sums
        pad, pool = sums
        return (
            Call("ones_like", ("x0",), output="o"),
            pad,
            replace(pool, output="s"),
            replace(pad, inputs=("o",), output="q"),
            replace(pool, inputs=("q",), output="c"),
            Call("div", ("s", "c")),
        )

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return AveragePool, after a Pad if a window counts some padding but not all of it."""
        pad_top, pad_left, pad_bottom, pad_right = self.pads
        down, across = self._compute_reached_padding(x)
        overhang = (0, 0, max(down - pad_bottom, 0), max(across - pad_right, 0))
        if any(overhang) and any(self.pads) and self.count_include_pad:
            border = Const((0, 0, pad_top, pad_left, 0, 0, pad_bottom, pad_right))
            pad = Call("Pad", ("x0", border), output="p")
            return (pad, Call("AveragePool", ("p",), self._build_onnx_attributes(overhang)))
        inner = (pad_top, pad_left, max(pad_bottom, down), max(pad_right, across))
        # Without padding the attribute has no effect, and some readers do not know it.
        count_include_pad = int(self.count_include_pad and any(self.pads))
        attributes = {**self._build_onnx_attributes(inner), "count_include_pad": count_include_pad}
        return (Call("AveragePool", ("x0",), attributes),)


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Op):
    """The mean of each channel, as (channels, 1, 1)."""

    keyword: ClassVar[str] = "global_avg_pool"
    family: ClassVar[Family] = "pool"

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, 1, 1)."""
        return TensorType((require_image_shape(x, self.keyword)[0], 1, 1))

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return adaptive_avg_pool2d to one pixel."""
        return (Call("adaptive_avg_pool2d", ("x0",), {"output_size": 1}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return GlobalAveragePool."""
        return (Call("GlobalAveragePool", ("x0",)),)


@dataclass(frozen=True, slots=True)
class GlobalMaxPool(Op, ExactIntegerOp):
    """The maximum of each channel, as (channels, 1, 1)."""

    keyword: ClassVar[str] = "global_max_pool"
    family: ClassVar[Family] = "pool"

    def infer(self, x: TensorType) -> TensorType:
        """Return (channels, 1, 1)."""
        return x.with_shape((require_image_shape(x, self.keyword)[0], 1, 1))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return adaptive_max_pool2d to one pixel."""
        return (Call("adaptive_max_pool2d", ("x0",), {"output_size": 1}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return GlobalMaxPool for floats, or MaxPool."""
        # ONNX only defines GlobalMaxPool for floats; MaxPool takes 8-bit integers since opset 12.
        if x.dtype is not DType.F32:
            return (Call("MaxPool", ("x0",), {"kernel_shape": [*x.shape[1:]]}),)
        return (Call("GlobalMaxPool", ("x0",)),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the largest quantized value of each channel."""
        # Imported here because it loads numpy, which parsing a spec does not need.
        from tcc.compiler.ops import integer_arithmetic

        return integer_arithmetic.compute_window_max(
            xs[0], types[0].shape[1:], (1, 1), (0, 0), (1, 1)
        )


@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool(Alias):
    """The mean of windows chosen so that the output has the given size."""

    keyword: ClassVar[str] = "adaptive_avg_pool"
    family: ClassVar[Family] = "pool"
    size: Pair = arg(Kind.PAIR, low=1, doc="output height and width")

    def resolve(self, x: TensorType) -> Op | None:
        """Return the equivalent average pooling; None if the input already has that size."""
        _, h, w = require_image_shape(x, self.keyword)
        if (h, w) == self.size:
            return None
        # Otherwise the adaptive windows of torch have different sizes and overlap.
        if h % self.size[0] or w % self.size[1]:
            raise OpError(
                "E0307",
                "adaptive_avg_pool needs an input size that its output size divides",
                f"the input is {h}x{w}, the output {self.size[0]}x{self.size[1]}",
                "choose a divisor, or use `avg_pool` with an explicit window",
            )
        return AvgPool((h // self.size[0], w // self.size[1])).resolve(x)
