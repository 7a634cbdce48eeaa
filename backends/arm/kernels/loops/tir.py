"""Helpers to write kernels in TVM's IR: vectors, loops, tiles.

Every value is an expression of one element or of several consecutive ones (`lanes`). Vectors are
along the last axis. 8-bit and 16-bit elements are int32 in expressions: loads widen, stores narrow.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from tcc.backends.arm.kernels.base import Space, get_memory_dtype, get_zero_point

Expr = Any
Buffer = Any

FLOAT, INT = "float32", "int32"
NARROW_TYPES = {"int8", "uint8", "int16"}
"""Types that are narrower in memory than in expressions."""


def build_function(symbol: str, spaces: Sequence[Space], emit_body: Callable[..., None]) -> Any:
    """Return the PrimFunc with the body from `emit_body`, which gets one buffer per space."""
    with IRBuilder() as builder, script.prim_func(s_tir=True):
        script.func_name(symbol)
        # The arena's plan never overlaps the arguments of a call, so loads may move past stores.
        script.func_attr({"tirx.noalias": True, "global_symbol": symbol})
        shapes = [
            script.buffer((space.elements,), get_memory_dtype(space.dtype)) for space in spaces
        ]
        arguments = (script.arg(f"p{i}", shape) for i, shape in enumerate(shapes))
        emit_body(
            *(
                _add_zero_point(argument, space.dtype)
                for argument, space in zip(arguments, spaces, strict=True)
            )
        )
    return builder.get()


@contextmanager
def emit_loop(count: Expr, *, parallel: bool = False) -> Iterator[Expr]:
    """Run the body for each of `count` indices; a single index needs no loop."""
    if isinstance(count, int) and count == 1:
        yield 0
        return
    with (script.parallel if parallel else script.serial)(0, count) as index:
        yield index


@contextmanager
def tile_loop(extent: int, width: int, *, parallel: bool = False) -> Iterator[Expr]:
    """Run the body for tiles that cover `extent`; the last one overlaps the one before it.

    Yields a tile's first index. `width` is at most `extent`. The body must allow running twice
    for an index.
    """
    count = -(-extent // width)
    with emit_loop(count, parallel=parallel) as tile:
        start = tile * width
        # The last tile begins earlier instead of being narrower: all tiles are full vectors, and
        # no second loop is needed.
        yield start if extent % width == 0 else script.min(start, extent - width)


@contextmanager
def split_loop(extent: int, width: int, *, parallel: bool = False) -> Iterator[tuple[Expr, Expr]]:
    """Run the body for pieces that cover `extent`; yields the first index and the length."""
    with emit_loop(-(-extent // width), parallel=parallel) as piece:
        start = piece * width
        yield start, width if extent % width == 0 else script.min(width, extent - start)


@contextmanager
def emit_if(*conditions: Expr) -> Iterator[None]:
    """Run the body if all conditions are true."""
    with script.If(tirx.all(*conditions)), script.Then():
        yield


def clamp_index(value: Expr, low: int, high: int) -> Expr:
    """Return an index clamped to [low, high]."""
    return script.max(low, script.min(value, high))


def select_smaller_index(a: Expr, b: Expr) -> Expr:
    """Return the smaller of two indices."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else script.min(a, b)


def allocate_local(size: int, dtype: str = FLOAT) -> Buffer:
    """Return a small array in registers."""
    # The annotation keeps it on the stack; otherwise TVM calls an allocator.
    local_buffer = script.alloc_buffer(
        (size,),
        get_memory_dtype(dtype),
        scope="local",
        annotations={"disable_lower_builtin": True},
    )
    return _add_zero_point(local_buffer, dtype)


@dataclass(frozen=True, slots=True)
class ZeroPointBuffer:
    """A buffer of quantized values with a zero point, of which the low 8 bits are stored."""

    buffer: Any
    zero_point: int

    @property
    def dtype(self) -> str:
        """The type of an element in memory."""
        return str(self.buffer.dtype)

    def __getitem__(self, index: Expr) -> Expr:
        """Return the stored byte at an index."""
        return self.buffer[index]

    def vload(self, indices: list[Expr], dtype: str) -> Expr:
        """Return consecutive stored bytes."""
        return self.buffer.vload(indices, dtype)


def read_stored(byte: Expr, dtype: str, lanes: int) -> Expr:
    """Return the quantized values of a type, in int32, from bytes of any 8-bit type."""
    value = convert(reinterpret(byte, get_memory_dtype(dtype), lanes), INT, lanes)
    return _widen(value, get_zero_point(dtype), lanes)


def _widen(byte: Expr, zero_point: int, lanes: int) -> Expr:
    """Return the values with a zero point of which `byte` has the low 8 bits."""
    if not zero_point:
        return byte
    shift = create_integer(zero_point, lanes)
    return ((byte + shift) & create_integer(0xFF, lanes)) - shift


def _add_zero_point(buffer: Any, dtype: str) -> Buffer:
    zero_point = get_zero_point(dtype)
    return ZeroPointBuffer(buffer, zero_point) if zero_point else buffer


def load(buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
    """Return one element, or consecutive ones, from an index; narrow types as int32."""
    value = load_raw(buffer, index, lanes)
    if str(buffer.dtype) in NARROW_TYPES:
        value = convert(value, INT, lanes)
    return _widen(value, buffer.zero_point if isinstance(buffer, ZeroPointBuffer) else 0, lanes)


def load_raw(buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
    """Return one element, or consecutive ones, from an index, without widening."""
    return buffer[index] if lanes == 1 else buffer.vload([index], f"{buffer.dtype}x{lanes}")


def store(buffer: Buffer, index: Expr, value: Expr, lanes: int = 1) -> None:
    """Write one element, or consecutive ones, at an index; for narrow types, truncated."""
    target_index = index if lanes == 1 else tirx.Ramp(index, 1, lanes)
    if str(buffer.dtype) in NARROW_TYPES:
        value = convert(value, str(buffer.dtype), lanes)
    target = buffer.buffer if isinstance(buffer, ZeroPointBuffer) else buffer
    script.buffer_store(target, value, [target_index])


def get_dtype(value: Expr) -> str:
    """Return the element type of a value."""
    return str(value.ty.dtype).partition("x")[0]


def convert(value: Expr, dtype: str, lanes: int) -> Expr:
    """Return elements in another type: truncated integers, or rounded floats."""
    return tirx.Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def splat(value: Expr, lanes: int) -> Expr:
    """Return a scalar broadcast to every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def bind(value: Expr, lanes: int) -> Expr:
    """Return a value that is computed once, and without changes by TVM.

    It goes through an array: TVM substitutes let-bound values again, treats floats as exact
    numbers, and simplifies x + c - c to x.
    """
    local_buffer = allocate_local(lanes, get_dtype(value))
    store(local_buffer, 0, value, lanes)
    return load(local_buffer, 0, lanes)


def create_constant(number: float, lanes: int) -> Expr:
    """Return a float constant in every lane."""
    return splat(tirx.FloatImm(FLOAT, number), lanes)


def create_integer(number: int, lanes: int) -> Expr:
    """Return an int32 constant in every lane."""
    return splat(tirx.IntImm(INT, number), lanes)


def reinterpret(value: Expr, dtype: str, lanes: int) -> Expr:
    """Return the same bits as another type."""
    return tirx.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def compute_sqrt(value: Expr) -> Expr:
    """Return the square root."""
    return tirx.sqrt(value)


def to_index(value: Expr) -> Expr:
    """Return an integral float as an index."""
    # Tables store indices as floats, which is exact below 2^24.
    return tirx.Cast("int32", value)


def compute_maximum(a: Expr, b: Expr, lanes: int) -> Expr:
    """Return the larger float; NaN if either is NaN."""
    # C's fmaxf drops a NaN. This keeps it, like PyTorch's max and IEEE 754-2019's maximum.
    return _call_intrinsic("llvm.maximum", a, b, lanes)


def compute_minimum(a: Expr, b: Expr, lanes: int) -> Expr:
    """Return the smaller float; NaN if either is NaN."""
    return _call_intrinsic("llvm.minimum", a, b, lanes)


def _call_intrinsic(name: str, a: Expr, b: Expr, lanes: int) -> Expr:
    kind = FLOAT if lanes == 1 else f"{FLOAT}x{lanes}"
    return tirx.call_llvm_pure_intrin(kind, name, a, b)


def select_larger(a: Expr, b: Expr) -> Expr:
    """Return the larger integer."""
    return tirx.Select(a > b, a, b)


def split_even_odd(low: Expr, high: Expr, lanes: int) -> tuple[Expr, Expr]:
    """Return the elements of even and of odd index of two consecutive vectors."""
    both = [low, high]
    return (
        tirx.Shuffle(both, list(range(0, 2 * lanes, 2))),
        tirx.Shuffle(both, list(range(1, 2 * lanes, 2))),
    )


def get_address(buffer: Buffer, index: Expr) -> Expr:
    """Return a pointer to the element at an index."""
    return tirx.address_of(buffer[index])


def call(symbol: str, *arguments: Expr) -> None:
    """Call a C function."""
    script.evaluate(tirx.call_extern("int32", symbol, *arguments))
