"""Plans the arena: the offset of each buffer in one block of memory."""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_limits import MAX_SIDE
from tcc.compiler.ir.types import DType

ALIGNMENT = 64
"""Alignment of every buffer in bytes: a cache line."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory in use from `first_step` to `last_step` inclusive: scratch, or a value."""

    name: str
    nbytes: int
    first_step: int
    last_step: int
    is_scratch: bool = False

    def has_overlap(self, buffer: "Buffer") -> bool:
        """Whether the two buffers are in use at the same time."""
        return self.first_step <= buffer.last_step and buffer.first_step <= self.last_step


@dataclass(frozen=True, slots=True)
class Arena:
    """The offset of each buffer in bytes, and the total size.

    No arena can be smaller than `bound`, the peak size of the values in use at the same time.
    """

    offsets: Mapping[str, int]
    nbytes: int
    bound: int


def plan(buffers: Iterable[Buffer]) -> Arena:
    """Return an arena in which buffers in use at the same time do not overlap.

    The largest buffer is placed first. Each gets the lowest offset that is free while it is used.
    """
    all_buffers = list(buffers)
    placed: list[tuple[int, int, Buffer]] = []
    # Greedy by size, as in Pisarchyk and Lee (arXiv 2001.03288): small buffers fit between large
    # ones.
    for order, buffer in enumerate(
        sorted(all_buffers, key=lambda b: (-b.nbytes, b.first_step, b.name))
    ):
        offset = 0
        # `placed` is sorted by offset: the first gap that is large enough is the lowest. Quadratic
        # in the number of buffers.
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
    """Return the peak size in bytes of the values in use at the same time."""
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
"""The name of the scratch buffer of preprocessing; names of values have no spaces."""


def create_input_scratch(network_input: Input) -> Buffer:
    """Return the preprocessing memory for the largest image, used while the input is computed."""
    return Buffer(
        SCRATCH_BUFFER,
        sum(-(-part // 8) * 8 for part in _iterate_part_sizes(network_input)),
        0,
        0,
        is_scratch=True,
    )


def _iterate_part_sizes(network_input: Input) -> Iterator[int]:
    """Yield the size of each part in bytes, for the widest image."""
    preprocess = network_input.preprocess
    if preprocess is None:
        return
    channels, height, width = network_input.type.shape
    is_quantized = network_input.type.dtype is DType.U8
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
        yield 4 * network_input.type.elements  # sums, which do not fit in an 8-bit input
