"""Shared parts of ops on 8-bit integers: the output type, and the representation in ONNX.

In the int8 graph, quantized value 0 is the number 0 everywhere. Kernels of ONNX Runtime need one
type throughout, so in ONNX every value is a uint8, stored as value + zero point; a signed one has
the zero point 128.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from tcc.compiler.ir.op import Array, Call, Const, ExactIntegerOp, Op
from tcc.compiler.ir.types import DType, Shape, TensorType

OpWithWeights: TypeAlias = tuple[Op, tuple[Array, ...]]
"""An integer op with its weights."""


@dataclass(frozen=True, slots=True, eq=False)
class IntegerSite:
    """The context in which a float op becomes an integer op.

    Attributes:
        types: The types of its inputs, with their scales.
        out: The scale of the output, whether it is signed, and its smallest and largest values.
        zero_point: The zero point of an unsigned output.
        is_float_output: Whether only graph outputs read it, and these may be float.
        weights: For a convolution: int8 weights, their scale per filter, and the int32 bias.
    """

    types: tuple[TensorType, ...]
    out: tuple[float, bool, int, int]
    is_float_output: bool = False
    weights: tuple[Array, ...] = ()
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class QuantizedOp(Op, ExactIntegerOp):
    """An op with an output scale: real value = scale * quantized value.

    Quantized values are clamped to [low, high], which an activation may have narrowed. Value 0 is
    the number 0, so zeros around a map, and their products with weights, need no correction. The
    zero point of an unsigned output is the number of values below 0 (`TensorType`).
    """

    float_ops: ClassVar[tuple[type[Op], ...]] = ()
    """The float ops with this integer form. The link is here because an integer op contains one."""
    scale: float
    signed: bool
    low: int
    high: int
    zero_point: int = field(default=0, kw_only=True)

    @classmethod
    def from_float_op(cls, op: Any, site: IntegerSite) -> OpWithWeights | None:
        """Return the integer form of a float op; None if it stays float.

        Args:
            op: One of `float_ops`.
            site: Its inputs and its output.
        """
        return cls(*site.out, zero_point=site.zero_point), ()

    def make_type(self, shape: Shape) -> TensorType:
        """Return the type of the output."""
        dtype = DType.I8 if self.signed else DType.U8
        return TensorType(shape, dtype, self.scale, self.zero_point)

    def clamp(self, y: TensorType) -> tuple[Call, ...]:
        """Return the clamp of stored values `c` to `y`, if any; the result is named `y`."""
        low, high = (to_uint8(bound, y) for bound in (self.low, self.high))
        # Storing the values clips them to the range of the type anyway.
        if (low, high) == (0, 255):
            return ()
        bounds = (Const((bound,), "uint8", scalar=True) for bound in (low, high))
        return (Call("Clip", ("c", *bounds)),)

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Not supported: integer graphs are not trained."""
        raise AssertionError(self)

    def attributes(self) -> dict[str, object]:
        """Return the fields by name, without those that the output type contains."""
        fields = Op.attributes(self)
        in_type = {"scale", "signed", "zero_point"}
        return {name: fields[name] for name in fields if name not in in_type}


def get_zero_point(tensor_type: TensorType) -> int:
    """Return the number that represents zero in ONNX."""
    return -tensor_type.limits[0]


def to_uint8(quantized: int, tensor_type: TensorType) -> int:
    """Return the uint8 that represents a quantized value in ONNX."""
    return quantized + get_zero_point(tensor_type)


def make_zero_point(tensor_type: TensorType) -> Const:
    """Return the zero point in ONNX."""
    return Const((get_zero_point(tensor_type),), "uint8", scalar=True)


def make_scale(tensor_type: TensorType) -> Const:
    """Return the scale in ONNX."""
    return make_float32(float(tensor_type.scale or 0))


def make_dequantize(source: str, tensor_type: TensorType, output: str) -> Call:
    """Return the call that converts a stored value to quantized values as float32.

    With scale 1 the results are integer values. The axis has no effect for a single scale; it
    distinguishes such a call from a float layer with scale 1.

    Args:
        source: The name of a value in ONNX, uint8.
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
    """Return calls that round float32 numbers to quantized values and store them as the output.

    Quantization with scale 1 rounds to the nearest integer, ties to even, and clips to the range
    of the type.

    Args:
        source: The name of float32 numbers, in units of `step`.
        op: The op, which defines the clamp.
        y: The type of the output.
        step: The number that one quantization step represents; the numbers are divided by it.
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
"""Element type numbers of ONNX."""
