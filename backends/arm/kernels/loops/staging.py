"""Writing the staged copy of a map: its border, and its columns dealt into phases."""

from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import LANES, Buffer, Expr
from tcc.backends.arm.kernels.window import Staging

PARALLEL = 1 << 14
"""Elements from which a loop is worth several threads."""


def stage(plan: Staging, source: Buffer, copy: Buffer) -> None:
    """Write all of the copy."""
    if plan.spread != (1, 1):
        _scatter(plan, source, copy)
        return
    channels, height, width = plan.source
    first, last = plan.inside_rows
    line = plan.phases * plan.columns
    with tir.loop(channels, parallel=plan.floats >= PARALLEL) as c:
        start = c * plan.rows * line
        _fill(copy, start, first * line, plan.fill)
        if last > first:
            with tir.loop(last - first) as i:
                row = c * height + (i + first) * plan.row_step - plan.top
                _row(plan, source, row * width, copy, start + (i + first) * line)
        _fill(copy, start + last * line, (plan.rows - last) * line, plan.fill)


def _scatter(plan: Staging, source: Buffer, copy: Buffer) -> None:
    """Write the copy of a map that is spread: all of it filled, then each element in its place."""
    channels, height, width = plan.source
    (down, across), size = plan.spread, plan.rows * plan.columns
    rows = _landing(height, plan.top, down, plan.rows)
    columns = _landing(width, plan.left, across, plan.columns)
    with tir.loop(channels, parallel=plan.floats >= PARALLEL) as c:
        _fill(copy, c * size, size, plan.fill)
        if not (rows and columns):
            return
        with tir.loop(len(rows)) as i, tir.loop(len(columns)) as j:
            y, x = i + rows[0], j + columns[0]
            to = (plan.top + y * down) * plan.columns + plan.left + x * across
            tir.store(copy, c * size + to, tir.load(source, (c * height + y) * width + x))


def _landing(count: int, start: int, step: int, size: int) -> range:
    """Return which of `count` indices i have start + i * step within `size`."""
    return range(max(0, -(start // step)), min(count, (size - 1 - start) // step + 1))


def _row(plan: Staging, source: Buffer, row: Expr, copy: Buffer, line: Expr) -> None:
    """Write one line of all phases from one row of the input."""
    paired = _pairs(plan, source, row, copy, line) if plan.phases == plan.phase_step == 2 else 0
    for phase in range(plan.phases):
        start = line + phase * plan.columns
        first, last = plan.inside(phase)
        _fill(copy, start, first, plan.fill)
        done = first + paired
        from_ = row + done * plan.phase_step + phase - plan.left
        _copy(source, from_, plan.phase_step, copy, start + done, last - done)
        _fill(copy, start + last, plan.columns - last, plan.fill)


def _pairs(plan: Staging, source: Buffer, row: Expr, copy: Buffer, line: Expr) -> int:
    """Deal whole vectors of an input row into two phases; return how many columns of each."""
    even = plan.left % 2
    ranges = [plan.inside(phase) for phase in (even, 1 - even)]
    count = min(last - first for first, last in ranges)
    if count < LANES:
        return 0
    with tir.tiles(count, LANES) as j:
        at = row + j * 2
        dealt = tir.even_odd(tir.load(source, at, LANES), tir.load(source, at + LANES, LANES))
        for phase, (first, _), values in zip((even, 1 - even), ranges, dealt, strict=True):
            tir.store(copy, line + phase * plan.columns + first + j, values, LANES)
    return count


def _fill(copy: Buffer, start: Expr, count: int, value: float) -> None:
    if count <= 0:
        return
    width, lanes = tir.tile_width(count, LANES)
    with tir.tiles(count, width) as i:
        tir.store(copy, start + i, tir.constant(value, lanes), lanes)


def _copy(source: Buffer, at: Expr, step: int, copy: Buffer, to: Expr, count: int) -> None:
    if count <= 0:
        return
    width, lanes = tir.tile_width(count, LANES) if step == 1 else (1, 1)
    with tir.tiles(count, width) as i:
        tir.store(copy, to + i, tir.load(source, at + i * step, lanes), lanes)
