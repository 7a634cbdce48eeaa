"""Boxes in boxes become frames, lines and texts at whole pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tcc.compiler.figures.box_placement import Grid, GridItem, arrange
from tcc.compiler.figures.box_tree import Box
from tcc.compiler.figures.drawing import Drawing, DrawingStyle, Point, Wire, header_of
from tcc.compiler.figures.line_routing import Channel, SideStep, channel, jogs, turns

TRACK, ARROW = 8, 12
"""Height of the space below a row: for each track, and for arrow heads."""


@dataclass(frozen=True)
class _Plan:
    """A box laid out about its axis: extents, where values enter and leave, what it holds.

    What it holds begins `before` pixels along the flow.
    """

    box: Box
    item: GridItem
    header: tuple[str, ...] = ()
    inner: "_Inner | None" = None
    before: int = 0


@dataclass(frozen=True)
class _Inner:
    """What an open box holds: its items in a grid, with the tops of rows relative to its own."""

    plans: Sequence[_Plan | None]
    items: Sequence[GridItem]
    grid: Grid
    channels: Sequence[Channel]
    tops: Sequence[int]
    heights: Sequence[int]
    stubs: Sequence[int]
    height: int


def lay_out(root: Box, page: DrawingStyle) -> Drawing:
    """Return a drawing of a graph's box, its top left corner at 0, 0."""
    inner = _inner(root, page, ports=False)
    drawing = Drawing(*page.point((inner.grid.left + inner.grid.right, inner.height)))
    _draw_inner(drawing, inner, -1, (inner.grid.left, 0), page)
    return drawing


def _plan(box: Box, page: DrawingStyle) -> _Plan:
    return _open(box, page) if box.children else _closed(box, page)


def _closed(box: Box, page: DrawingStyle) -> _Plan:
    """Plan a box that shows only text: values enter at its middle and leave side by side."""
    header = tuple(header_of(box))
    least, height = page.closed(header)
    labels = [page.label(value) for value in box.gives]
    offset = sum(labels) // 2 if len(labels) > 1 else 0
    places = {v: sum(labels[:n]) - offset for n, v in enumerate(box.gives)}
    # The same on both sides of its axis, by the larger: values enter at the middle.
    half = max(least, sum(labels) - offset)
    tops = dict.fromkeys(box.reads, 0)
    return _Plan(
        box, GridItem(box.reads, box.gives, half, half, height, tops, places, _weight(box)), header
    )


def _open(box: Box, page: DrawingStyle) -> _Plan:
    """Plan a box that shows what it holds: values enter and leave where they do so inside."""
    header = tuple(header_of(box))
    *_, least = page.opened(header, 0, 0)
    inner = _inner(box, page, ports=True, least=least)
    left, right, before, _ = page.opened(header, inner.grid.left, inner.grid.right)
    tops = {v: inner.grid.lane_of[n].x for n, v in enumerate(box.reads)}
    bottoms = {
        v: inner.grid.lane_of[len(inner.items) - len(box.gives) + n].x
        for n, v in enumerate(box.gives)
    }
    height = before + inner.height
    return _Plan(
        box,
        GridItem(box.reads, box.gives, left, right, height, tops, bottoms, _weight(box)),
        header,
        inner,
        before,
    )


def _weight(box: Box) -> int:
    return max(1, len(box.nodes)) * box.turns


def _inner(box: Box, page: DrawingStyle, *, ports: bool, least: int = 0) -> _Inner:
    """Lay out what a box holds, between ports for what it reads and gives."""
    plans = [_plan(child, page) for child in box.children]
    tops = [_port((), (v,), 8) for v in box.reads] if ports else []
    bottoms = [_port((v,), (), page.label(v)) for v in box.gives] if ports else []
    items = [*tops, *(plan.item for plan in plans), *bottoms]
    grid = arrange(items)
    count = max(grid.rows, default=0) + 1
    heights = [0] * count
    for item, row in zip(items, grid.rows, strict=True):
        heights[row] = max(heights[row], item.height)
    channels = [channel(lines) for lines in jogs(grid, items)]
    padded: list[_Plan | None] = [*(None for _ in tops), *plans, *(None for _ in bottoms)]
    stubs = [0] * count
    for route in grid.routes:
        if padded[route.source] and padded[route.target]:
            row = grid.rows[route.source]
            stubs[row] = max(stubs[row], page.stub(route.value))
    if ports:
        stubs[0] = max(stubs[0], page.inset)
    places, y = [], 0
    for row, height in enumerate(heights):
        places.append(y)
        y += height
        if row < count - 1:
            y += stubs[row] + TRACK * channels[row].count + ARROW
    # To the right, a header may be wider than what it holds is long.
    spare = max(least - y, 0)
    if ports and spare and count > 1:  # between the ports, which stand at its ends
        places = [places[0], *(p + spare // 2 for p in places[1:-1]), places[-1] + spare]
    return _Inner(padded, items, grid, channels, places, heights, stubs, y + spare)


def _port(reads: tuple[str, ...], gives: tuple[str, ...], right: int) -> GridItem:
    tops, bottoms = dict.fromkeys(reads, 0), dict.fromkeys(gives, 0)
    return GridItem(reads, gives, 8, right, 0, tops, bottoms, last=bool(reads))


def _draw(drawing: Drawing, plan: _Plan, inside: int, at: Point, page: DrawingStyle) -> None:
    """Draw a box whose axis meets the edge where its values enter at a point."""
    (x, y), item, index = at, plan.item, len(drawing.frames)
    size = (item.left + item.right, item.height)
    drawing.frames.append(page.frame(plan.box, inside, (x - item.left, y), size, plan.header))
    if plan.inner:
        _draw_inner(drawing, plan.inner, index, (x, y + plan.before), page)


def _draw_inner(
    drawing: Drawing, inner: _Inner, inside: int, at: Point, page: DrawingStyle
) -> None:
    ys = [_row_y(inner, index) + at[1] for index in range(len(inner.items))]
    leaving = _leaving(inner)
    for index, plan in enumerate(inner.plans):
        if plan is None:
            continue
        x = at[0] + inner.grid.lane_of[index].x
        _draw(drawing, plan, inside, (x, ys[index]), page)
        bottom = ys[index] + plan.item.height
        for value, dx in plan.item.bottoms.items():
            if value not in leaving:
                drawing.shapes.append(page.shape(value, (x + dx, bottom)))
    drawing.wires.extend(_wires(inner, ys, inside, at, page))


def _leaving(inner: _Inner) -> set[str]:
    """Return values that go nowhere but out of the block, where their shapes stand once more."""
    routes = inner.grid.routes
    within = {route.value for route in routes if inner.plans[route.target] is not None}
    return {route.value for route in routes} - within


def _row_y(inner: _Inner, index: int) -> int:
    """Return an item's top: it stands in the middle of its row."""
    row = inner.grid.rows[index]
    return inner.tops[row] + (inner.heights[row] - inner.items[index].height) // 2


def _wires(
    inner: _Inner, ys: Sequence[int], inside: int, at: Point, page: DrawingStyle
) -> Iterator[Wire]:
    grid, items = inner.grid, inner.items

    def turn(row: int, jog: SideStep) -> list[Point]:
        if jog.start == jog.end:
            return []
        below = at[1] + inner.tops[row] + inner.heights[row] + inner.stubs[row]
        y = below + TRACK * inner.channels[row].tracks[jog]
        return [(at[0] + jog.start, y), (at[0] + jog.end, y)]

    for route in grid.routes:
        first, last = grid.rows[route.source], grid.rows[route.target] - 1
        jogged = turns(grid, items, route)
        x, y = at[0] + jogged[0].start, ys[route.source] + items[route.source].height
        middle = [
            p for row, jog in zip((first, last), jogged, strict=False) for p in turn(row, jog)
        ]
        end = (at[0] + jogged[-1].end, ys[route.target])
        points = tuple(map(page.point, ((x, y), *middle, end)))
        yield Wire(inside, points, arrow=inner.plans[route.target] is not None)
