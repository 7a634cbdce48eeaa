"""The few words in which kernels are written: vectors of four floats, loops, tiles.

Every value is an expression of one float or of four (`lanes`). Vectors run along the last axis.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

Expr = Any
Buffer = Any

LANES = 4
"""Floats in a vector."""
FLOAT = "float32"


def function(symbol: str, sizes: Sequence[int], body: Callable[..., None]) -> Any:
    """Return the PrimFunc whose body `body` writes, given one buffer of floats for each size."""
    with IRBuilder() as builder, script.prim_func(s_tir=True):
        script.func_name(symbol)
        script.func_attr({"tirx.noalias": True, "global_symbol": symbol})
        body(*(script.arg(f"p{i}", script.buffer((size,), FLOAT)) for i, size in enumerate(sizes)))
    return builder.get()


@contextmanager
def loop(count: int, *, parallel: bool = False) -> Iterator[Expr]:
    """Run what follows for each of `count` indices; a single one needs no loop."""
    if count == 1:
        yield 0
        return
    with (script.parallel if parallel else script.serial)(0, count) as index:
        yield index


@contextmanager
def tiles(extent: int, width: int, *, parallel: bool = False) -> Iterator[Expr]:
    """Run what follows for tiles that cover `extent`; the last overlaps the one before it.

    Gives a tile's first index. `width` is at most `extent`; what runs must not mind being run
    twice for an index.
    """
    count = -(-extent // width)
    with loop(count, parallel=parallel) as tile:
        start = tile * width
        yield start if extent % width == 0 else script.min(start, extent - width)


def tile_width(extent: int, most: int) -> tuple[int, int]:
    """Return the width and the lanes of tiles that cover `extent`."""
    if extent < LANES:
        return 1, 1
    return max(LANES, min(most, extent) // LANES * LANES), LANES


def local(size: int) -> Buffer:
    """Return a small array that lives in registers."""
    # the annotation keeps it on the stack; otherwise TVM would call an allocator
    return script.alloc_buffer(
        (size,), FLOAT, scope="local", annotations={"disable_lower_builtin": True}
    )


def load(buffer: Buffer, index: Expr, lanes: int = 1) -> Expr:
    """Return the float, or the consecutive floats, at an index."""
    return buffer[index] if lanes == 1 else buffer.vload([index], f"{FLOAT}x{lanes}")


def store(buffer: Buffer, index: Expr, value: Expr, lanes: int = 1) -> None:
    """Write one float, or consecutive ones, at an index."""
    where = index if lanes == 1 else tirx.Ramp(index, 1, lanes)
    script.buffer_store(buffer, value, [where])


def splat(value: Expr, lanes: int) -> Expr:
    """Return a scalar in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def bind(value: Expr, lanes: int) -> Expr:
    """Return a value that is computed once, however often it is used, and exactly as it stands.

    It goes through an array: names for values TVM substitutes again, and then it takes
    floats for numbers without rounding and x + c - c for x.
    """
    named = local(lanes)
    store(named, 0, value, lanes)
    return load(named, 0, lanes)


def constant(value: float, lanes: int) -> Expr:
    """Return a constant in every lane."""
    return splat(tirx.FloatImm(FLOAT, value), lanes)


def sqrt(value: Expr) -> Expr:
    """Return the square root."""
    return tirx.sqrt(value)


def whole(value: Expr) -> Expr:
    """Return a float that is a whole number as an index."""
    return tirx.Cast("int32", value)


def maximum(a: Expr, b: Expr, lanes: int) -> Expr:
    """Return the larger one; NaN if either is NaN."""
    return _intrinsic("llvm.maximum", a, b, lanes)


def minimum(a: Expr, b: Expr, lanes: int) -> Expr:
    """Return the smaller one; NaN if either is NaN."""
    return _intrinsic("llvm.minimum", a, b, lanes)


def _intrinsic(name: str, a: Expr, b: Expr, lanes: int) -> Expr:
    kind = FLOAT if lanes == 1 else f"{FLOAT}x{lanes}"
    return tirx.call_llvm_pure_intrin(kind, name, a, b)


def even_odd(first: Expr, second: Expr) -> tuple[Expr, Expr]:
    """Return the elements of even and of odd index of two vectors in a row."""
    both = [first, second]
    return (
        tirx.Shuffle(both, list(range(0, 2 * LANES, 2))),
        tirx.Shuffle(both, list(range(1, 2 * LANES, 2))),
    )
