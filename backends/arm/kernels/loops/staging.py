"""Writing the staged copy of a map: its border, and its columns dealt into phases."""

from collections.abc import Callable

from tcc.backends.arm.kernels.base import SIZES
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import LANES, Buffer, Expr
from tcc.backends.arm.kernels.window import Staging

PARALLEL = 1 << 14
"""Elements from which a loop is worth several threads."""


Fill = Callable[[int], Expr]
"""Returns what lies outside of the input, in some lanes."""


def stage(plan: Staging, source: Buffer, copy: Buffer, levels: Buffer | None = None) -> None:
    """Write all of the copy; `levels` are what lies outside of each channel, if they differ."""
    if plan.spread != (1, 1):
        _scatter(plan, source, copy)
        return
    channels, height, width = plan.source
    first, last = plan.inside_rows
    line = plan.phases * plan.columns
    with tir.loop(channels, parallel=plan.space.elements >= PARALLEL) as c:
        start = c * plan.rows * line
        fill = _outside(plan, levels, c)
        _fill(copy, start, first * line, fill)
        if last > first:
            with tir.loop(last - first) as i:
                row = c * height + (i + first) * plan.row_step - plan.top
                _row(plan, source, row * width, copy, start + (i + first) * line, fill)
        _fill(copy, start + last * line, (plan.rows - last) * line, fill)


def _outside(plan: Staging, levels: Buffer | None, c: Expr) -> Fill:
    if levels is not None:
        return lambda lanes: tir.splat(tir.load(levels, c), lanes)
    if plan.dtype == tir.FLOAT:
        return lambda lanes: tir.constant(plan.fill, lanes)
    return lambda lanes: tir.integer(int(plan.fill), lanes)


def _scatter(plan: Staging, source: Buffer, copy: Buffer) -> None:
    """Write the copy of a map that is spread: all of it filled, then each element in its place."""
    channels, height, width = plan.source
    (down, across), size = plan.spread, plan.rows * plan.columns
    rows = _landing(height, plan.top, down, plan.rows)
    columns = _landing(width, plan.left, across, plan.columns)
    with tir.loop(channels, parallel=plan.space.elements >= PARALLEL) as c:
        _fill(copy, c * size, size, _outside(plan, None, c))
        if not (rows and columns):
            return
        with tir.loop(len(rows)) as i, tir.loop(len(columns)) as j:
            y, x = i + rows[0], j + columns[0]
            to = (plan.top + y * down) * plan.columns + plan.left + x * across
            tir.store(copy, c * size + to, tir.load(source, (c * height + y) * width + x))


def _landing(count: int, start: int, step: int, size: int) -> range:
    """Return which of `count` indices i have start + i * step within `size`."""
    return range(max(0, -(start // step)), min(count, (size - 1 - start) // step + 1))


def _row(plan: Staging, source: Buffer, row: Expr, copy: Buffer, line: Expr, fill: Fill) -> None:
    """Write one line of all phases from one row of the input."""
    paired = _pairs(plan, source, row, copy, line) if plan.phases == plan.phase_step == 2 else 0
    for phase in range(plan.phases):
        start = line + phase * plan.columns
        first, last = plan.inside(phase)
        _fill(copy, start, first, fill)
        done = first + paired
        from_ = row + done * plan.phase_step + phase - plan.left
        _copy(source, from_, plan.phase_step, copy, start + done, last - done)
        _fill(copy, start + last, plan.columns - last, fill)


def _pairs(plan: Staging, source: Buffer, row: Expr, copy: Buffer, line: Expr) -> int:
    """Deal whole vectors of an input row into two phases; return how many columns of each."""
    even = plan.left % 2
    ranges = [plan.inside(phase) for phase in (even, 1 - even)]
    count = min(last - first for first, last in ranges)
    if count < LANES:
        return 0
    _, lanes = tir.tile_width(count, LANES, _lanes(plan.dtype))
    with tir.tiles(count, lanes) as j:
        at = row + j * 2
        both = tir.stored(source, at, lanes), tir.stored(source, at + lanes, lanes)
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
    width, lanes = tir.tile_width(count, LANES, _lanes(str(copy.dtype)))
    with tir.tiles(count, width) as i:
        tir.store(copy, start + i, fill(lanes), lanes)


def _copy(source: Buffer, at: Expr, step: int, copy: Buffer, to: Expr, count: int) -> None:
    if count <= 0:
        return
    many = _lanes(str(copy.dtype))
    width, lanes = tir.tile_width(count, LANES, many) if step == 1 else (1, 1)
    with tir.tiles(count, width) as i:
        tir.store(copy, to + i, tir.stored(source, at + i * step, lanes), lanes)
