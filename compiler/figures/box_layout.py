"""Boxes in boxes become frames, lines and texts at whole pixels.

In the spaces between rows lines turn sideways by the channel routing of circuit boards (Hashimoto
and Stevens, 1971): lines share a track where their spans do not overlap, and one that comes down
where another goes down turns above it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from tcc.compiler.figures.box_placement import Grid, GridItem, GridRoute, arrange
from tcc.compiler.figures.box_tree import Box
from tcc.compiler.figures.drawing import Drawing, DrawingStyle, Point, Wire, header_of

Group = tuple[str, str]
"""What shares one horizontal: the lines of a value, or those into an item."""


@dataclass(frozen=True, slots=True)
class SideStep:
    """A line's way through the space below a row: down at `start`, across, down at `end`.

    `target` is the item that it enters there, if any.
    """

    value: str
    start: int
    end: int
    target: int | None


@dataclass(frozen=True)
class Channel:
    """The space below a row: how many tracks it has, and the one of each line that turns."""

    count: int
    tracks: Mapping[SideStep, int]


def _turning_lines(grid: Grid, items: Sequence[GridItem]) -> list[list[SideStep]]:
    """Return, for the space below each row, the lines that start or end there, each once."""
    found: list[dict[SideStep, None]] = [{} for _ in range(max(grid.rows, default=0))]
    for route in grid.routes:
        first, last = grid.rows[route.source], grid.rows[route.target] - 1
        for row, jog in zip((first, last), _side_steps(grid, items, route), strict=False):
            found[row][jog] = None
    return [list(lines) for lines in found]


def _side_steps(grid: Grid, items: Sequence[GridItem], route: GridRoute) -> tuple[SideStep, ...]:
    """Return how a value's way goes through the first space and the last, if that is another."""
    start = grid.lane_of[route.source].x + items[route.source].bottoms[route.value]
    end = grid.lane_of[route.target].x + items[route.target].tops[route.value]
    if route.lane is None:
        return (SideStep(route.value, start, end, route.target),)
    lane = route.lane.x
    return SideStep(route.value, start, lane, None), SideStep(route.value, lane, end, route.target)


def _assign_tracks(lines: Sequence[SideStep]) -> Channel:
    """Return tracks for the lines that turn in one space."""
    groups = _groups(lines)
    order = _order(groups)
    ends = {g: _span(groups[g]) for g in order}
    level: dict[Group, int] = {}
    # With the ends as the key, so that the same network has the same picture.
    for group in nx.lexicographical_topological_sort(order, key=lambda g: (g[0], ends[g], g)):
        taken = {level[o] for o in level if _overlap(ends[o], ends[group])}
        least = max((level[o] + 1 for o in order.predecessors(group)), default=0)
        level[group] = next(n for n in range(least, least + len(taken) + 1) if n not in taken)
    tracks = {jog: level[group] for group, members in groups.items() for jog in members}
    return Channel(max(level.values(), default=-1) + 1, tracks)


def _groups(lines: Sequence[SideStep]) -> dict[Group, list[SideStep]]:
    """Lines of several values into one place meet before it; others part where they come from."""
    into: dict[tuple[int | None, int], set[str]] = {}
    for jog in lines:
        into.setdefault((jog.target, jog.end), set()).add(jog.value)
    groups: dict[Group, list[SideStep]] = {}
    for jog in lines:
        if jog.start == jog.end:
            continue
        meets = jog.target is not None and len(into[jog.target, jog.end]) > 1
        group = ("into", f"{jog.target}:{jog.end}") if meets else ("from", jog.value)
        groups.setdefault(group, []).append(jog)
    return groups


def _order(groups: Mapping[Group, Sequence[SideStep]]) -> "nx.DiGraph[Group]":
    """Return which groups turn above which: one comes down where the other goes down."""
    order: nx.DiGraph[Group] = nx.DiGraph()
    order.add_nodes_from(groups)
    starts: dict[int, list[Group]] = {}
    for group, members in groups.items():
        for jog in members:
            starts.setdefault(jog.start, []).append(group)
    for group, members in groups.items():
        for above in (a for jog in members for a in starts.get(jog.end, ()) if a != group):
            # Two groups may each have to turn above the other; one crossing is drawn then, rather
            # than none of the lines.
            if not nx.has_path(order, group, above):
                order.add_edge(above, group)
    return order


def _span(members: Sequence[SideStep]) -> tuple[int, int]:
    places = [x for jog in members for x in (jog.start, jog.end)]
    return min(places), max(places)


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


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
    channels = [_assign_tracks(lines) for lines in _turning_lines(grid, items)]
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
        jogged = _side_steps(grid, items, route)
        x, y = at[0] + jogged[0].start, ys[route.source] + items[route.source].height
        middle = [
            p for row, jog in zip((first, last), jogged, strict=False) for p in turn(row, jog)
        ]
        end = (at[0] + jogged[-1].end, ys[route.target])
        points = tuple(map(page.point, ((x, y), *middle, end)))
        yield Wire(inside, points, arrow=inner.plans[route.target] is not None)
