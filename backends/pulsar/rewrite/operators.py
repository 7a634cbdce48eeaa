"""Operations that these passes make, and no other target needs."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.op import Call, Const, Op, OpError, Param, image
from tcc.compiler.ir.types import Pair, TensorType


@dataclass(frozen=True, slots=True)
class ChannelTranspose(Op):
    """A channel shuffle in four dimensions: the pixels are one of them."""

    word: ClassVar[str] = "channel_transpose"
    groups: int

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        return x.like(image(x, self.word))

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return channel_shuffle."""
        return (Call("channel_shuffle", ("x0",), {"groups": self.groups}),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Reshape, Transpose, Reshape; the batch axis stays open."""
        c, h, w = x.shape
        # The batch is 0, which a Reshape copies; height and width are one dimension, so that there
        # are four.
        split, joined = Const((0, self.groups, c // self.groups, h * w)), Const((0, c, h, w))
        return (
            Call("Reshape", ("x0", split), output="r"),
            Call("Transpose", ("r",), {"perm": [0, 2, 1, 3]}, "t"),
            Call("Reshape", ("t", joined)),
        )


@dataclass(frozen=True, slots=True)
class PixelScale(Op):
    """x * weight, per pixel: one factor for all channels. Weight: (1, height, width)."""

    word: ClassVar[str] = "pixel_scale"
    size: Pair

    def infer(self, x: TensorType) -> TensorType:
        """Return the input's type."""
        _, *size = image(x, self.word)
        if tuple(size) != self.size:
            raise OpError("E0313", "pixel_scale needs a factor a pixel", f"{self.size} for {x}")
        return x

    def params(self, x: TensorType) -> tuple[Param, ...]:
        """Return the factors."""
        return (Param("weight", (1, *self.size)),)

    def torch(self, x: TensorType) -> tuple[Call, ...]:
        """Return mul."""
        return (Call("mul", ("x0", "weight")),)

    def onnx(self, x: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Mul."""
        return (Call("Mul", ("x0", "weight")),)
