"""Types of tensors: shapes, element types and scales."""

from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Literal, assert_never

from tcc.compiler.support.diagnostics import UnhandledError

Shape = tuple[int, ...]
Pair = tuple[int, int]
"""Height, width."""
Quad = tuple[int, int, int, int]
"""Top, left, bottom, right."""
OutputActivation = Literal["none", "softmax", "sigmoid"]
"""The activation that whoever reads an output applies to its raw values."""
OutputKind = Literal["classes", "decisions", "regression"]
"""The meaning of an output's values: exclusive classes, independent yes/no decisions, or
quantities."""


class DType(StrEnum):
    """The type of one element."""

    F32 = "float32"
    F16 = "float16"
    I32 = "int32"
    I8 = "int8"
    U8 = "uint8"

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return {"float32": 4, "float16": 2, "int32": 4, "int8": 1, "uint8": 1}[self.value]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A shape without its batch axis, and the type of one element.

    An image or feature map is (channels, height, width), a vector (features,). The real value of
    a quantized integer q is scale * q; `scale` is a float32. Zero is always q = 0. A uint8 element
    with a zero point z has q from -z to 255 - z; runtimes store it as q + z.
    """

    shape: Shape
    dtype: DType = DType.F32
    scale: float | None = None
    zero_point: int = 0

    @property
    def limits(self) -> Pair:
        """The lowest and highest value of an 8-bit integer element."""
        match self.dtype:
            case DType.I8:
                return (-128, 127)
            case DType.U8:
                return (-self.zero_point, 255 - self.zero_point)
            case DType.F32 | DType.F16 | DType.I32:
                raise UnhandledError("8-bit type", self.dtype.value)
            case _:
                assert_never(self.dtype)

    def with_shape(self, shape: Shape) -> "TensorType":
        """Return the type with another shape and elements of the same meaning."""
        # A tensor has one scale (docs/decisions/0004-activations-per-tensor.md): moving its
        # elements keeps it.
        return TensorType(shape, self.dtype, self.scale, self.zero_point)

    @property
    def array_dtype(self) -> str:
        """The numpy type that holds the elements' values."""
        # With a zero point, 256 values that begin below 0 fit neither 8-bit type.
        return "int16" if self.zero_point else self.dtype.value

    @property
    def is_vector(self) -> bool:
        """Whether there is one number per channel: a vector, or a 1x1 map."""
        return self.elements == self.shape[0]

    @property
    def elements(self) -> int:
        """Number of elements of one batch item."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one batch item."""
        return self.elements * self.dtype.size

    def __str__(self) -> str:
        """Return the shape as diagnostics and tables print it: `64x112x112`."""
        return "x".join(map(str, self.shape))
