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
    """Memory in use from `first_step` to `last_step`, both included; scratch or a value."""

    name: str
    nbytes: int
    first_step: int
    last_step: int
    is_scratch: bool = False

    def has_overlap(self, buffer: "Buffer") -> bool:
        """Whether the two are ever in use at once."""
        return self.first_step <= buffer.last_step and buffer.first_step <= self.last_step


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
    all_buffers = list(buffers)
    placed: list[tuple[int, int, Buffer]] = []
    # Greedy by size, as in Pisarchyk and Lee (arXiv 2001.03288): large buffers find room first,
    # small ones fit between.
    for order, buffer in enumerate(
        sorted(all_buffers, key=lambda b: (-b.nbytes, b.first_step, b.name))
    ):
        offset = 0
        # Placed ones stand by their offsets: the first gap that is wide enough is the lowest.
        # Quadratic in the buffers.
        for start, _, placed_buffer in placed:
            if not buffer.has_overlap(placed_buffer):
                continue
            if offset + buffer.nbytes <= start:
                break
            offset = max(offset, _align(start + placed_buffer.nbytes))
        insort(placed, (offset, order, buffer), key=lambda p: p[:2])
    used_bytes = max((offset + buffer.nbytes for offset, _, buffer in placed), default=0)
    offsets = {buffer.name: offset for offset, _, buffer in placed}
    return Arena(offsets, _align(used_bytes), compute_bound(all_buffers))


def compute_bound(buffers: Iterable[Buffer]) -> int:
    """Return the most bytes of values that are in use at once."""
    changes: dict[int, int] = {}
    for buffer in (b for b in buffers if not b.is_scratch):
        changes[buffer.first_step] = changes.get(buffer.first_step, 0) + buffer.nbytes
        changes[buffer.last_step + 1] = changes.get(buffer.last_step + 1, 0) - buffer.nbytes
    peak = used = 0
    for step in sorted(changes):
        used += changes[step]
        peak = max(peak, used)
    return peak


def _align(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


SCRATCH_BUFFER = "input scratch"
"""The name of its buffer: no value's name has a space."""


def create_input_scratch(source: Input) -> Buffer:
    """Return the memory that the largest image needs, in use while the input is made."""
    return Buffer(
        SCRATCH_BUFFER,
        sum(-(-part // 8) * 8 for part in _iterate_part_sizes(source)),
        0,
        0,
        is_scratch=True,
    )


def _iterate_part_sizes(source: Input) -> Iterator[int]:
    """Yield the bytes of each part; what is for images of any width is for the widest."""
    preprocess = source.preprocess
    if preprocess is None:
        return
    channels, height, width = source.type.shape
    is_quantized = source.type.dtype is DType.U8
    yield channels * width  # a line
    if not is_quantized:
        yield channels * 256 * 4  # the table
    if preprocess.resize is None:
        return
    for side in (height, width):
        yield from (8 * side, 8 * side)  # spans and totals
    yield 4 * (2 * MAX_SIDE + 3 * width)  # factors: at most 2 * source / width + 3 for each
    if preprocess.color == "gray":
        yield MAX_SIDE  # a row
    if is_quantized:
        yield 4 * source.type.elements  # sums, which cannot lie in an input of bytes
