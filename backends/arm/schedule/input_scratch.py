"""The memory in which the device's preprocessing works: runtime/preprocess.h takes parts of it."""

from collections.abc import Iterator

from tcc.backends.arm.schedule.arena import Buffer
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_limits import MAX_SIDE
from tcc.compiler.ir.types import DType

NAME = "input scratch"
"""Of its buffer: no value's name has a space."""


def buffer(source: Input) -> Buffer:
    """Return the memory that the largest image needs, in use while the input is made."""
    return Buffer(NAME, sum(-(-part // 8) * 8 for part in _parts(source)), 0, 0, scratch=True)


def _parts(source: Input) -> Iterator[int]:
    """Yield the bytes of each part; what is for images of any width is for the widest."""
    pre = source.preprocess
    if pre is None:
        return
    channels, height, width = source.type.shape
    levels = source.type.dtype is DType.U8
    yield channels * width  # a line
    if not levels:
        yield channels * 256 * 4  # the table
    if pre.resize is None:
        return
    for side in (height, width):
        yield from (8 * side, 8 * side)  # spans and totals
    yield 4 * (2 * MAX_SIDE + 3 * width)  # factors: at most 2 * source / width + 3 for each
    if pre.color == "gray":
        yield MAX_SIDE  # a row
    if levels:
        yield 4 * source.type.elements  # sums, which cannot lie in an input of bytes
