"""Writing copies of maps: their border, and their columns dealt into phases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import LANES, SIZES, tile_width
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.window import Band, Layout, Staging

PARALLEL = 1 << 14
"""Elements from which a loop is worth several threads."""


Fill = Callable[[int], Expr]
"""Returns what lies outside of the input, in some lanes."""
Read = Callable[[Expr, int], Expr]
"""Returns what is copied of what lies at an index, in some lanes."""
Copied = Callable[[Sequence[Expr], Expr, int], Expr]
"""Returns what becomes of each tap's numbers, of a channel, as they are copied, in some lanes."""


def as_they_are(values: Sequence[Expr], _channel: Expr, _lanes: int) -> Expr:
    """Return the numbers of the only tap unchanged."""
    (value,) = values
    return value


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the output: the first, how many, and whether threads are to share them.

    The first one's windows begin at `start` in what they read.
    """

    read: Buffer
    start: Expr
    first: Expr
    count: Expr
    parallel: bool


@dataclass(frozen=True, slots=True)
class BandedMap:
    """A map that windows read: in bands, or where it lies."""

    band: Band | None
    layout: Layout
    height: int
    source: Buffer
    scratch: Sequence[Buffer]
    copied: Copied = as_they_are

    @contextmanager
    def rows(self, channel: Expr, *, parallel: bool) -> Iterator[Rows]:
        """Run what follows for each band of the output.

        `channel` is the first that is read. Where each thread makes bands of its own, they are what
        is `parallel`.
        """
        band = self.band
        if band is None:
            yield Rows(self.source, channel * self.layout.channel, 0, self.height, parallel)
            return
        plan, each = band.staging, parallel and band.own
        with tir.pieces(self.height, band.rows, parallel=each) as (first, count):
            own = (tir.local(plan.space.elements, plan.dtype),) if band.own else ()
            (copy,) = own or self.scratch[:1]
            shared = parallel and not band.own
            start = (channel, first * band.step)
            stage(plan, self.source, copy, start=start, copied=self.copied, parallel=shared)
            yield Rows(copy, 0, first, count, shared)


def stage(
    plan: Staging,
    source: Buffer,
    copy: Buffer,
    levels: Buffer | None = None,
    *,
    start: tuple[Expr, Expr] = (0, 0),
    copied: Copied = as_they_are,
    parallel: bool,
) -> None:
    """Write channels and rows of a copy, from `start` on.

    `levels` are what lies outside of each channel, if they differ.
    """
    channels, height, width = plan.source
    line = plan.phases * plan.columns

    def read(at: Expr, lanes: int) -> Expr:
        return copied([tir.stored(source, at, lanes)], start[0] + c, lanes)

    with tir.loop(channels, parallel=parallel) as c:
        fill, to = _outside(plan, levels, c), c * (plan.rows * line)
        if plan.spread != (1, 1):
            _spread(plan, source, (start[0] + c, start[1]), copy, to, fill)
            return
        if plan.taps > 1:
            with tir.loop(plan.rows) as i:
                above = _above(plan, source, copied, (start[0] + c, start[1] + i))
                _row(plan, above, 0, copy, to + i * line, fill)
            return
        first, last = (tir.clamped(n - start[1], 0, plan.rows) for n in plan.inside_rows)
        with tir.loop(first) as i:
            _fill(copy, to + i * line, line, fill)
        with tir.loop(last - first) as i:
            at = (start[1] + first + i) * plan.row_step - plan.top
            row = ((start[0] + c) * height + at) * width
            _row(plan, read, row, copy, to + (first + i) * line, fill)
        with tir.loop(plan.rows - last) as i:
            _fill(copy, to + (last + i) * line, line, fill)


def _above(plan: Staging, source: Buffer, copied: Copied, place: tuple[Expr, Expr]) -> Read:
    """Return how columns of several taps of a channel's row are read."""
    (channel, row), (_, height, width) = place, plan.source
    first = row * plan.row_step - plan.top
    each = [tir.clamped(first + tap, 0, height - 1) for tap in range(plan.taps)]

    def read(at: Expr, lanes: int) -> Expr:
        starts = ((channel * height + tap) * width + at for tap in each)
        return copied([tir.stored(source, start, lanes) for start in starts], channel, lanes)

    return read


def _outside(plan: Staging, levels: Buffer | None, c: Expr) -> Fill:
    if levels is not None:
        return lambda lanes: tir.splat(tir.load(levels, c), lanes)
    if plan.dtype == tir.FLOAT:
        return lambda lanes: tir.constant(plan.fill, lanes)
    return lambda lanes: tir.integer(int(plan.fill), lanes)


def _spread(
    plan: Staging, source: Buffer, start: tuple[Expr, Expr], copy: Buffer, to: Expr, fill: Fill
) -> None:
    """Write the rows of a channel that is spread: filled, then each element in its place."""
    (channel, first), (down, across) = start, plan.spread
    _, height, width = plan.source
    columns = _landing(width, plan.left, across, plan.columns)
    _fill(copy, to, plan.rows * plan.columns, fill)
    if not columns:
        return
    with tir.loop(height) as y:
        row = y * down + plan.top - first
        with tir.only_if(row >= 0, row < plan.rows), tir.loop(len(columns)) as j:
            x = j + columns[0]
            at = to + row * plan.columns + plan.left + x * across
            tir.store(copy, at, tir.load(source, (channel * height + y) * width + x))


def _landing(count: int, start: int, step: int, size: int) -> range:
    """Return which of `count` indices i have start + i * step within `size`."""
    return range(max(0, -(start // step)), min(count, (size - 1 - start) // step + 1))


def _row(plan: Staging, read: Read, row: Expr, copy: Buffer, line: Expr, fill: Fill) -> None:
    """Write one line of all phases from one row of the input."""
    # A stride of 2 is by far the most frequent: whole vectors are loaded and dealt, not element
    # by element.
    paired = _pairs(plan, read, row, copy, line) if plan.phases == plan.phase_step == 2 else 0
    for phase in range(plan.phases):
        start = line + phase * plan.columns
        first, last = plan.inside(phase)
        _fill(copy, start, first, fill)
        done = first + paired
        from_ = row + done * plan.phase_step + phase - plan.left
        _copy(read, from_, plan.phase_step, copy, start + done, last - done)
        _fill(copy, start + last, plan.columns - last, fill)


def _pairs(plan: Staging, read: Read, row: Expr, copy: Buffer, line: Expr) -> int:
    """Deal whole vectors of an input row into two phases; return how many columns of each."""
    even = plan.left % 2
    ranges = [plan.inside(phase) for phase in (even, 1 - even)]
    count = min(last - first for first, last in ranges)
    if count < LANES:
        return 0
    _, lanes = tile_width(count, LANES, _lanes(plan.dtype))
    with tir.tiles(count, lanes) as j:
        at = row + j * 2
        both = read(at, lanes), read(at + lanes, lanes)
        dealt = tir.even_odd(*both, lanes)
        for phase, (first, _), values in zip((even, 1 - even), ranges, dealt, strict=True):
            tir.store(copy, line + phase * plan.columns + first + j, values, lanes)
    return count


def _lanes(dtype: str) -> int:
    """Return how many numbers of a type fill a vector."""
    return 16 // SIZES[dtype]


def _fill(copy: Buffer, start: Expr, count: int, fill: Fill) -> None:
    if count <= 0:
        return
    width, lanes = tile_width(count, LANES, _lanes(str(copy.dtype)))
    with tir.tiles(count, width) as i:
        tir.store(copy, start + i, fill(lanes), lanes)


def _copy(read: Read, at: Expr, step: int, copy: Buffer, to: Expr, count: int) -> None:
    if count <= 0:
        return
    many = _lanes(str(copy.dtype))
    width, lanes = tile_width(count, LANES, many) if step == 1 else (1, 1)
    with tir.tiles(count, width) as i:
        tir.store(copy, to + i, read(at + i * step, lanes), lanes)
