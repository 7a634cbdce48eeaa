"""Layout: nested boxes become frames, lines and texts at integer pixels.

Between rows, lines are routed by channel routing as on circuit boards (Hashimoto and Stevens,
1971). Lines share a track if their spans do not overlap. If one line ends at the position where
another one starts, its track is below the other's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from tcc.compiler.figures.box_placement import Grid, GridItem, GridRoute, place_items
from tcc.compiler.figures.box_tree import Box
from tcc.compiler.figures.drawing import Drawing, DrawingStyle, Point, Wire, build_header

Group = tuple[str, str]
"""Key of the lines that share a track: those of one value, or those into one item."""


@dataclass(frozen=True, slots=True)
class WireJog:
    """A line through the channel below a row: down at `start`, across, down at `end`.

    `target` is the item that it enters there, if any.
    """

    value: str
    start: int
    end: int
    target: int | None


@dataclass(frozen=True)
class Channel:
    """The space below a row: number of tracks, and the track of each horizontal line."""

    track_count: int
    tracks: Mapping[WireJog, int]


def _collect_jogs(grid: Grid, grid_items: Sequence[GridItem]) -> list[list[WireJog]]:
    """Return the lines that start or end in the channel below each row, each once."""
    jogs_by_row: list[dict[WireJog, None]] = [{} for _ in range(max(grid.rows, default=0))]
    for route in grid.routes:
        first_row, last_row = grid.rows[route.source], grid.rows[route.target] - 1
        for row, jog in zip(
            (first_row, last_row), _compute_jogs(grid, grid_items, route), strict=False
        ):
            jogs_by_row[row][jog] = None
    return [list(row_jogs) for row_jogs in jogs_by_row]


def _compute_jogs(
    grid: Grid, grid_items: Sequence[GridItem], route: GridRoute
) -> tuple[WireJog, ...]:
    """Return a route's jogs in its first channel and, if different, in its last channel."""
    start = grid.lane_of[route.source].x + grid_items[route.source].bottoms[route.value]
    end = grid.lane_of[route.target].x + grid_items[route.target].tops[route.value]
    if route.lane is None:
        return (WireJog(route.value, start, end, route.target),)
    lane = route.lane.x
    return WireJog(route.value, start, lane, None), WireJog(route.value, lane, end, route.target)


def _assign_tracks(jogs: Sequence[WireJog]) -> Channel:
    """Assign tracks to the lines in one channel."""
    groups = _group_jogs(jogs)
    order = _build_group_order(groups)
    spans = {g: _compute_span(groups[g]) for g in order}
    track_by_group: dict[Group, int] = {}
    # Sorted by span, so that the same network gives the same figure.
    for group in nx.lexicographical_topological_sort(order, key=lambda g: (g[0], spans[g], g)):
        used_tracks = {
            track_by_group[o] for o in track_by_group if _has_overlap(spans[o], spans[group])
        }
        min_track = max((track_by_group[o] + 1 for o in order.predecessors(group)), default=0)
        track_by_group[group] = next(
            n for n in range(min_track, min_track + len(used_tracks) + 1) if n not in used_tracks
        )
    tracks = {jog: track_by_group[group] for group, members in groups.items() for jog in members}
    return Channel(max(track_by_group.values(), default=-1) + 1, tracks)


def _group_jogs(jogs: Sequence[WireJog]) -> dict[Group, list[WireJog]]:
    """Group lines: those of several values into one position merge, others split by value."""
    values_by_end: dict[tuple[int | None, int], set[str]] = {}
    for jog in jogs:
        values_by_end.setdefault((jog.target, jog.end), set()).add(jog.value)
    groups: dict[Group, list[WireJog]] = {}
    for jog in jogs:
        if jog.start == jog.end:
            continue
        is_merging = jog.target is not None and len(values_by_end[jog.target, jog.end]) > 1
        group = ("into", f"{jog.target}:{jog.end}") if is_merging else ("from", jog.value)
        groups.setdefault(group, []).append(jog)
    return groups


def _build_group_order(groups: Mapping[Group, Sequence[WireJog]]) -> "nx.DiGraph[Group]":
    """Return a graph of which group's track must be above which other's."""
    order: nx.DiGraph[Group] = nx.DiGraph()
    order.add_nodes_from(groups)
    starts: dict[int, list[Group]] = {}
    for group, members in groups.items():
        for jog in members:
            starts.setdefault(jog.start, []).append(group)
    for group, members in groups.items():
        for above in (a for jog in members for a in starts.get(jog.end, ()) if a != group):
            # If two groups must each be above the other, one crossing remains.
            if not nx.has_path(order, group, above):
                order.add_edge(above, group)
    return order


def _compute_span(members: Sequence[WireJog]) -> tuple[int, int]:
    positions = [x for jog in members for x in (jog.start, jog.end)]
    return min(positions), max(positions)


def _has_overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


TRACK, ARROW = 8, 12
"""Height of a track, and of the space for arrow heads."""


@dataclass(frozen=True)
class _BoxPlan:
    """Layout of a box around its axis: extents, positions of inputs and outputs, and content.

    The content begins `inner_offset` pixels along the flow.
    """

    box: Box
    item: GridItem
    header: tuple[str, ...] = ()
    inner: "_InnerPlan | None" = None
    inner_offset: int = 0


@dataclass(frozen=True)
class _InnerPlan:
    """Content of an open box: items in a grid, with row tops relative to the content's top."""

    plans: Sequence[_BoxPlan | None]
    grid_items: Sequence[GridItem]
    grid: Grid
    channels: Sequence[Channel]
    row_tops: Sequence[int]
    row_heights: Sequence[int]
    stubs: Sequence[int]
    height: int


def build_drawing(root: Box, style: DrawingStyle) -> Drawing:
    """Return the drawing of a graph's box, with its top left corner at (0, 0)."""
    inner = _plan_children(root, style, ports=False)
    drawing = Drawing(
        *style.to_point((inner.grid.left_extent + inner.grid.right_extent, inner.height))
    )
    _draw_inner(drawing, inner, -1, (inner.grid.left_extent, 0), style)
    return drawing


def _plan_box(box: Box, style: DrawingStyle) -> _BoxPlan:
    return _plan_open_box(box, style) if box.children else _plan_closed_box(box, style)


def _plan_closed_box(box: Box, style: DrawingStyle) -> _BoxPlan:
    """Plan a closed box: inputs enter at its middle, and outputs leave next to each other."""
    header = tuple(build_header(box))
    min_half, height = style.measure_closed_box(header)
    label_widths = [style.measure_label(value) for value in box.outputs]
    offset = sum(label_widths) // 2 if len(label_widths) > 1 else 0
    bottoms = {v: sum(label_widths[:n]) - offset for n, v in enumerate(box.outputs)}
    # Symmetric around the axis, because inputs enter at the middle.
    half = max(min_half, sum(label_widths) - offset)
    tops = dict.fromkeys(box.inputs, 0)
    return _BoxPlan(
        box,
        GridItem(box.inputs, box.outputs, half, half, height, tops, bottoms, _compute_weight(box)),
        header,
    )


def _plan_open_box(box: Box, style: DrawingStyle) -> _BoxPlan:
    """Plan an open box: inputs and outputs have the positions of their ports inside."""
    header = tuple(build_header(box))
    *_, min_length = style.measure_open_box(header, 0, 0)
    inner = _plan_children(box, style, ports=True, min_length=min_length)
    left_extent, right_extent, inner_offset, _ = style.measure_open_box(
        header, inner.grid.left_extent, inner.grid.right_extent
    )
    tops = {v: inner.grid.lane_of[n].x for n, v in enumerate(box.inputs)}
    bottoms = {
        v: inner.grid.lane_of[len(inner.grid_items) - len(box.outputs) + n].x
        for n, v in enumerate(box.outputs)
    }
    height = inner_offset + inner.height
    return _BoxPlan(
        box,
        GridItem(
            box.inputs,
            box.outputs,
            left_extent,
            right_extent,
            height,
            tops,
            bottoms,
            _compute_weight(box),
        ),
        header,
        inner,
        inner_offset,
    )


def _compute_weight(box: Box) -> int:
    return max(1, len(box.nodes)) * box.repeats


def _plan_children(
    box: Box, style: DrawingStyle, *, ports: bool, min_length: int = 0
) -> _InnerPlan:
    """Lay out the content of a box, between ports for its inputs and outputs."""
    plans = [_plan_box(child, style) for child in box.children]
    top_ports = [_create_port((), (v,), 8) for v in box.inputs] if ports else []
    bottom_ports = (
        [_create_port((v,), (), style.measure_label(v)) for v in box.outputs] if ports else []
    )
    grid_items = [*top_ports, *(plan.item for plan in plans), *bottom_ports]
    grid = place_items(grid_items)
    row_count = max(grid.rows, default=0) + 1
    row_heights = [0] * row_count
    for grid_item, row in zip(grid_items, grid.rows, strict=True):
        row_heights[row] = max(row_heights[row], grid_item.height)
    channels = [_assign_tracks(jogs) for jogs in _collect_jogs(grid, grid_items)]
    padded_plans: list[_BoxPlan | None] = [
        *(None for _ in top_ports),
        *plans,
        *(None for _ in bottom_ports),
    ]
    stubs = [0] * row_count
    for route in grid.routes:
        if padded_plans[route.source] and padded_plans[route.target]:
            row = grid.rows[route.source]
            stubs[row] = max(stubs[row], style.measure_stub(route.value))
    if ports:
        stubs[0] = max(stubs[0], style.inset)
    row_tops, y = [], 0
    for row, height in enumerate(row_heights):
        row_tops.append(y)
        y += height
        if row < row_count - 1:
            y += stubs[row] + TRACK * channels[row].track_count + ARROW
    # With flow to the right, a header can be wider than the content.
    spare = max(min_length - y, 0)
    if ports and spare and row_count > 1:  # centred between the ports
        row_tops = [row_tops[0], *(p + spare // 2 for p in row_tops[1:-1]), row_tops[-1] + spare]
    return _InnerPlan(
        padded_plans, grid_items, grid, channels, row_tops, row_heights, stubs, y + spare
    )


def _create_port(inputs: tuple[str, ...], outputs: tuple[str, ...], right_extent: int) -> GridItem:
    tops, bottoms = dict.fromkeys(inputs, 0), dict.fromkeys(outputs, 0)
    return GridItem(inputs, outputs, 8, right_extent, 0, tops, bottoms, is_last=bool(inputs))


def _draw_box(
    drawing: Drawing, plan: _BoxPlan, parent: int, at: Point, style: DrawingStyle
) -> None:
    """Draw a box with its input position at a point."""
    (x, y), item, index = at, plan.item, len(drawing.frames)
    size = (item.left_extent + item.right_extent, item.height)
    drawing.frames.append(
        style.create_frame(plan.box, parent, (x - item.left_extent, y), size, plan.header)
    )
    if plan.inner:
        _draw_inner(drawing, plan.inner, index, (x, y + plan.inner_offset), style)


def _draw_inner(
    drawing: Drawing, inner: _InnerPlan, parent: int, at: Point, style: DrawingStyle
) -> None:
    ys = [_compute_top(inner, index) + at[1] for index in range(len(inner.grid_items))]
    leaving_values = _find_leaving_values(inner)
    for index, plan in enumerate(inner.plans):
        if plan is None:
            continue
        x = at[0] + inner.grid.lane_of[index].x
        _draw_box(drawing, plan, parent, (x, ys[index]), style)
        bottom = ys[index] + plan.item.height
        for value, dx in plan.item.bottoms.items():
            if value not in leaving_values:
                drawing.shapes.append(style.create_shape_text(value, (x + dx, bottom)))
    drawing.wires.extend(_iterate_wires(inner, ys, parent, at, style))


def _find_leaving_values(inner: _InnerPlan) -> set[str]:
    """Return the values that only leave the block; their shapes are shown outside."""
    routes = inner.grid.routes
    inner_values = {route.value for route in routes if inner.plans[route.target] is not None}
    return {route.value for route in routes} - inner_values


def _compute_top(inner: _InnerPlan, index: int) -> int:
    """Return an item's top: items are centred in their row."""
    row = inner.grid.rows[index]
    return inner.row_tops[row] + (inner.row_heights[row] - inner.grid_items[index].height) // 2


def _iterate_wires(
    inner: _InnerPlan, ys: Sequence[int], parent: int, at: Point, style: DrawingStyle
) -> Iterator[Wire]:
    grid, grid_items = inner.grid, inner.grid_items

    def compute_jog_points(row: int, jog: WireJog) -> list[Point]:
        if jog.start == jog.end:
            return []
        below = at[1] + inner.row_tops[row] + inner.row_heights[row] + inner.stubs[row]
        y = below + TRACK * inner.channels[row].tracks[jog]
        return [(at[0] + jog.start, y), (at[0] + jog.end, y)]

    for route in grid.routes:
        first_row, last_row = grid.rows[route.source], grid.rows[route.target] - 1
        jogs = _compute_jogs(grid, grid_items, route)
        x, y = at[0] + jogs[0].start, ys[route.source] + grid_items[route.source].height
        middle = [
            p
            for row, jog in zip((first_row, last_row), jogs, strict=False)
            for p in compute_jog_points(row, jog)
        ]
        end = (at[0] + jogs[-1].end, ys[route.target])
        points = tuple(map(style.to_point, ((x, y), *middle, end)))
        yield Wire(parent, points, arrow=inner.plans[route.target] is not None)
