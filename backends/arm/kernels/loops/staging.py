"""Writes copies of maps with their border and with columns split into phases."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import LANES, choose_tile_width, get_size
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr
from tcc.backends.arm.kernels.window import Band, Layout, Staging

PARALLEL = 1 << 14
"""Number of elements above which a loop runs on several threads."""


Fill = Callable[[int], Expr]
"""Returns the value outside of the input, in some lanes."""
LoadColumns = Callable[[Expr, int], Expr]
"""Returns the values to copy from an index, in some lanes."""
CombineTaps = Callable[[Sequence[Expr], Expr, int], Expr]
"""Returns the combination of all taps' values of a channel when they are copied, in some lanes."""


def pass_through(elements: Sequence[Expr], _channel: Expr, _lanes: int) -> Expr:
    """Return the values of the only tap unchanged."""
    (element,) = elements
    return element


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the output: the first, their count, and whether threads share them.

    The first row's windows begin at `start` in the buffer that they read.
    """

    buffer: Buffer
    start: Expr
    first_row: Expr
    count: Expr
    is_parallel: bool


@dataclass(frozen=True, slots=True)
class BandedMap:
    """A map that windows read, in bands or without a copy."""

    band: Band | None
    layout: Layout
    height: int
    source: Buffer
    scratch: Sequence[Buffer]
    combine_taps: CombineTaps = pass_through

    @contextmanager
    def iterate_rows(self, channel: Expr, *, parallel: bool) -> Iterator[Rows]:
        """Run the body for each band of the output.

        `channel` is the first channel to read. With `parallel`, threads share the bands if these
        are thread-local, and the rows otherwise.
        """
        band = self.band
        if band is None:
            yield Rows(self.source, channel * self.layout.channel, 0, self.height, parallel)
            return
        plan, is_band_parallel = band.staging, parallel and band.is_thread_local
        with tir.split_loop(self.height, band.rows, parallel=is_band_parallel) as (
            first_row,
            count,
        ):
            private_copies = (
                (tir.allocate_local(plan.space.elements, plan.dtype),)
                if band.is_thread_local
                else ()
            )
            (copy,) = private_copies or self.scratch[:1]
            is_shared = parallel and not band.is_thread_local
            start = (channel, first_row * band.step)
            write_staging(
                plan,
                self.source,
                copy,
                start=start,
                combine_taps=self.combine_taps,
                parallel=is_shared,
            )
            yield Rows(copy, 0, first_row, count, is_shared)


def write_staging(
    plan: Staging,
    source: Buffer,
    copy: Buffer,
    border_values: Buffer | None = None,
    *,
    start: tuple[Expr, Expr] = (0, 0),
    combine_taps: CombineTaps = pass_through,
    parallel: bool,
) -> None:
    """Write channels and rows of a copy, from `start` on.

    `border_values` are the values outside of each channel, if channels differ.
    """
    channels, height, width = plan.source
    line = plan.phases * plan.columns

    keeps_dtype = get_size(plan.dtype) == get_size(str(source.dtype))
    load = tir.load_raw if keeps_dtype else tir.load

    def load_columns(at: Expr, lanes: int) -> Expr:
        return combine_taps([load(source, at, lanes)], start[0] + c, lanes)

    with tir.emit_loop(channels, parallel=parallel) as c:
        fill, to = _create_fill(plan, border_values, c), c * (plan.rows * line)
        if plan.spread != (1, 1):
            _write_spread(plan, source, (start[0] + c, start[1]), copy, to, fill)
            return
        if plan.taps > 1:
            with tir.emit_loop(plan.rows) as i:
                load_tap_columns = _create_tap_loader(
                    plan, source, combine_taps, (start[0] + c, start[1] + i)
                )
                _write_row(plan, load_tap_columns, 0, copy, to + i * line, fill)
            return
        row_start, row_stop = (
            tir.clamp_index(n - start[1], 0, plan.rows) for n in plan.inside_rows
        )
        with tir.emit_loop(row_start) as i:
            _fill(copy, to + i * line, line, fill)
        with tir.emit_loop(row_stop - row_start) as i:
            at = (start[1] + row_start + i) * plan.row_step - plan.pad_top
            row = ((start[0] + c) * height + at) * width
            _write_row(plan, load_columns, row, copy, to + (row_start + i) * line, fill)
        with tir.emit_loop(plan.rows - row_stop) as i:
            _fill(copy, to + (row_stop + i) * line, line, fill)


def _create_tap_loader(
    plan: Staging, source: Buffer, combine_taps: CombineTaps, position: tuple[Expr, Expr]
) -> LoadColumns:
    """Return a function that reads columns of several taps of a channel's row."""
    (channel, row), (_, height, width) = position, plan.source
    first_row = row * plan.row_step - plan.pad_top
    tap_rows = [tir.clamp_index(first_row + tap, 0, height - 1) for tap in range(plan.taps)]

    def load_columns(at: Expr, lanes: int) -> Expr:
        starts = ((channel * height + tap) * width + at for tap in tap_rows)
        return combine_taps(
            [tir.load_raw(source, start, lanes) for start in starts], channel, lanes
        )

    return load_columns


def _create_fill(plan: Staging, border_values: Buffer | None, c: Expr) -> Fill:
    if border_values is not None:
        return lambda lanes: tir.splat(tir.load(border_values, c), lanes)
    if plan.dtype == tir.FLOAT:
        return lambda lanes: tir.create_constant(plan.fill, lanes)
    return lambda lanes: tir.create_integer(int(plan.fill), lanes)


def _write_spread(
    plan: Staging, source: Buffer, start: tuple[Expr, Expr], copy: Buffer, to: Expr, fill: Fill
) -> None:
    """Write the rows of a spread channel: fill them, then write each element to its position."""
    (channel, first_row), (down, across) = start, plan.spread
    _, height, width = plan.source
    columns = _compute_inside_range(width, plan.pad_left, across, plan.columns)
    _fill(copy, to, plan.rows * plan.columns, fill)
    if not columns:
        return
    with tir.emit_loop(height) as y:
        row = y * down + plan.pad_top - first_row
        with tir.emit_if(row >= 0, row < plan.rows), tir.emit_loop(len(columns)) as j:
            x = j + columns[0]
            at = to + row * plan.columns + plan.pad_left + x * across
            tir.store(copy, at, tir.load(source, (channel * height + y) * width + x))


def _compute_inside_range(count: int, start: int, step: int, size: int) -> range:
    """Return the range of the `count` indices i with start + i * step within `size`."""
    return range(max(0, -(start // step)), min(count, (size - 1 - start) // step + 1))


def _write_row(
    plan: Staging, load_columns: LoadColumns, row: Expr, copy: Buffer, line: Expr, fill: Fill
) -> None:
    """Write one line of all phases from one row of the input."""
    # Stride 2 is by far the most frequent: load and split whole vectors, not single elements.
    paired_columns = (
        _write_pairs(plan, load_columns, row, copy, line)
        if plan.phases == plan.phase_step == 2
        else 0
    )
    for phase in range(plan.phases):
        start = line + phase * plan.columns
        column_start, column_stop = plan.find_inside_columns(phase)
        _fill(copy, start, column_start, fill)
        next_column = column_start + paired_columns
        source_index = row + next_column * plan.phase_step + phase - plan.pad_left
        _copy(
            load_columns,
            source_index,
            plan.phase_step,
            copy,
            start + next_column,
            column_stop - next_column,
        )
        _fill(copy, start + column_stop, plan.columns - column_stop, fill)


def _write_pairs(
    plan: Staging, load_columns: LoadColumns, row: Expr, copy: Buffer, line: Expr
) -> int:
    """Split vectors of an input row into two phases; return the number of columns of each."""
    even_phase = plan.pad_left % 2
    ranges = [plan.find_inside_columns(phase) for phase in (even_phase, 1 - even_phase)]
    count = min(column_stop - column_start for column_start, column_stop in ranges)
    if count < LANES:
        return 0
    _, lanes = choose_tile_width(count, LANES, _get_lanes(plan.dtype))
    with tir.tile_loop(count, lanes) as j:
        at = row + j * 2
        loaded = load_columns(at, lanes), load_columns(at + lanes, lanes)
        dealt = tir.split_even_odd(*loaded, lanes)
        for phase, (column_start, _), columns in zip(
            (even_phase, 1 - even_phase), ranges, dealt, strict=True
        ):
            tir.store(copy, line + phase * plan.columns + column_start + j, columns, lanes)
    return count


def _get_lanes(dtype: str) -> int:
    """Return how many elements of a type fill a vector."""
    return 16 // get_size(dtype)


def _fill(copy: Buffer, start: Expr, count: int, fill: Fill) -> None:
    if count <= 0:
        return
    width, lanes = choose_tile_width(count, LANES, _get_lanes(str(copy.dtype)))
    with tir.tile_loop(count, width) as i:
        tir.store(copy, start + i, fill(lanes), lanes)


def _copy(
    load_columns: LoadColumns, at: Expr, step: int, copy: Buffer, to: Expr, count: int
) -> None:
    if count <= 0:
        return
    vector_lanes = _get_lanes(str(copy.dtype))
    width, lanes = choose_tile_width(count, LANES, vector_lanes) if step == 1 else (1, 1)
    with tir.tile_loop(count, width) as i:
        tir.store(copy, to + i, load_columns(at + i * step, lanes), lanes)
