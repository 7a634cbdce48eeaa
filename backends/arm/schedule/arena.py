"""Where in one block of memory each buffer lies; what the device's preprocessing takes of it."""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_limits import MAX_SIDE
from tcc.compiler.ir.types import DType

ALIGNMENT = 64
"""Every buffer begins at a multiple of this many bytes: a cache line."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory in use from step `first` to step `last`, both included; for `scratch` or a value."""

    name: str
    nbytes: int
    first: int
    last: int
    scratch: bool = False

    def meets(self, other: "Buffer") -> bool:
        """Whether the two are ever in use at once."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Arena:
    """The offset of each buffer in bytes, and the size of the whole.

    No arena can be smaller than `bound`: the most bytes of values that are in use at once.
    """

    offsets: Mapping[str, int]
    nbytes: int
    bound: int


def plan(buffers: Iterable[Buffer]) -> Arena:
    """Return an arena in which buffers in use at once never overlap.

    Each buffer, the largest first, takes the lowest place that is free for all its time.
    """
    listed = list(buffers)
    placed: list[tuple[int, int, Buffer]] = []
    # Greedy by size, as in Pisarchyk and Lee (arXiv 2001.03288): large buffers find room first,
    # small ones fit between.
    for order, buffer in enumerate(sorted(listed, key=lambda b: (-b.nbytes, b.first, b.name))):
        offset = 0
        # Placed ones stand by their offsets: the first gap that is wide enough is the lowest.
        # Quadratic in the buffers.
        for start, _, other in placed:
            if not buffer.meets(other):
                continue
            if offset + buffer.nbytes <= start:
                break
            offset = max(offset, _aligned(start + other.nbytes))
        insort(placed, (offset, order, buffer), key=lambda p: p[:2])
    end = max((offset + buffer.nbytes for offset, _, buffer in placed), default=0)
    offsets = {buffer.name: offset for offset, _, buffer in placed}
    return Arena(offsets, _aligned(end), bound(listed))


def bound(buffers: Iterable[Buffer]) -> int:
    """Return the most bytes of values that are in use at once."""
    changes: dict[int, int] = {}
    for buffer in (b for b in buffers if not b.scratch):
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.nbytes
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.nbytes
    most = used = 0
    for step in sorted(changes):
        used += changes[step]
        most = max(most, used)
    return most


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


SCRATCH = "input scratch"
"""The name of its buffer: no value's name has a space."""


def input_scratch(source: Input) -> Buffer:
    """Return the memory that the largest image needs, in use while the input is made."""
    return Buffer(SCRATCH, sum(-(-part // 8) * 8 for part in _parts(source)), 0, 0, scratch=True)


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
