"""What operations on 8-bit integers share: their output's type, and how ONNX holds their values.

The int8 graph has zero point 0 everywhere. ONNX Runtime's kernels want one type throughout, so in
ONNX every value is a uint8, and a signed one has the zero point 128: the same meaning.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Op
from tcc.compiler.ir.types import DType, Shape, TensorType

OpWithWeights: TypeAlias = tuple[Op, tuple[Array, ...]]
"""An operation on integers, with its weights."""


@dataclass(frozen=True, slots=True, eq=False)
class IntegerSite:
    """Where a float op becomes one on integers.

    Attributes:
        types: Those of its inputs, with their scales.
        out: The output's scale, whether it is signed, and the levels that it is kept within.
        is_float_output: Whether nothing but outputs reads it, and these may be real numbers.
        weights: Of a convolution: int8 weights, their scale a filter, and the int32 bias.
    """

    types: tuple[TensorType, ...]
    out: tuple[float, bool, int, int]
    is_float_output: bool = False
    weights: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class QuantizedOp(Op, ExactIntegerOp):
    """An operation whose output has a scale of its own: real value = scale * level.

    Levels are clamped to [low, high], which an activation may have narrowed. The zero point is 0,
    so that zeros around a map, and the products of weights with them, need no correction.
    """

    float_ops: ClassVar[tuple[type[Op], ...]] = ()
    """The float ops whose form it is. They cannot name it themselves: it holds one of them."""
    scale: float
    signed: bool
    low: int
    high: int

    @classmethod
    def from_float_op(cls, op: Any, site: IntegerSite) -> OpWithWeights | None:
        """Return what a float op is on integers; None where it stays a float.

        Args:
            op: One that this stands for.
            site: What is before and behind it.
        """
        return cls(*site.out), ()

    def make_type(self, shape: Shape) -> TensorType:
        """Return the output's type."""
        return TensorType(shape, DType.I8 if self.signed else DType.U8, self.scale)

    def clamp(self, y: TensorType) -> tuple[Call, ...]:
        """Return the clamp of stored levels `c` to `y`, if there is one; name the result `y`."""
        low, high = (to_uint8(bound, y) for bound in (self.low, self.high))
        # What stores the levels saturates at the type's own bounds anyway.
        if (low, high) == (0, 255):
            return ()
        bounds = (Const((bound,), "uint8", scalar=True) for bound in (low, high))
        return (Call("Clip", ("c", *bounds)),)

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Never called: integer graphs do not train."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the fields by name, without those that the output's type shows."""
        fields = Op.attributes(self)
        return {name: fields[name] for name in fields if name not in {"scale", "signed"}}


def get_zero_point(tensor_type: TensorType) -> int:
    """Return the number that stands for zero in ONNX."""
    return -tensor_type.limits[0]


def to_uint8(quantized: int, tensor_type: TensorType) -> int:
    """Return the uint8 that stands for a level in ONNX."""
    return quantized + get_zero_point(tensor_type)


def make_zero_point(tensor_type: TensorType) -> Const:
    """Return the zero point as ONNX holds it."""
    return Const((get_zero_point(tensor_type),), "uint8", scalar=True)


def make_scale(tensor_type: TensorType) -> Const:
    """Return the scale as ONNX holds it."""
    return make_float32(float(tensor_type.scale or 0))


def make_dequantize(source: str, tensor_type: TensorType, output: str) -> Call:
    """Return the call that gives the levels of a stored value as float32.

    At scale 1 they are no real numbers. The axis, which says nothing of one scale, tells such a
    call from a layer in float whose scale is 1.

    Args:
        source: The name of a value as ONNX holds it, uint8.
        tensor_type: Its type.
        output: The name of the result.
    """
    return Call(
        "DequantizeLinear",
        (source, make_float32(1.0), make_zero_point(tensor_type)),
        {"axis": 0},
        output,
    )


def make_quantize(
    source: str, op: QuantizedOp, y: TensorType, step: float = 1.0
) -> tuple[Call, ...]:
    """Return calls that round float32 numbers of levels and store them as the output.

    A quantisation at scale 1 is the rounding to the nearest, ties to even, and the type's bounds.

    Args:
        source: The name of float32 numbers, in levels of the output.
        op: The operation, whose clamp they are kept within.
        y: The output's type.
        step: What one level is in the numbers, by which they are divided.
    """
    clamp = op.clamp(y)
    call = Call(
        "QuantizeLinear",
        (source, make_float32(step), make_zero_point(y)),
        output="c" if clamp else "y",
    )
    return (call, *clamp)


def make_float32(number: float) -> Const:
    """Return a float32 scalar."""
    return Const((number,), "float32", scalar=True)


def make_int32(number: int) -> Const:
    """Return an int32 scalar."""
    return Const((number,), "int32", scalar=True)


UINT8, INT32, FLOAT32 = 2, 6, 1
"""Element types by ONNX's numbers."""
