"""Placement of boxes: rows by longest path, and lanes around a straight main line.

A layered drawing (Sugiyama, Tagawa, Toda: "Methods for visual understanding of hierarchical system
structures", 1981). Its first step, breaking cycles, is not needed, because the graph is acyclic.
Rows by longest path put a box directly below the last box that it reads, so that equal branches
have equal rows. Instead of sorting rows to minimize crossings, boxes in a chain share an axis: a
network is one long chain with short branches, and the chain should be straight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

GAP = 22
"""Pixels between neighbours in a row."""
LINE = 8
"""Free pixels on either side of a line."""
OUTERMOST = 10_000
"""Sort key of a lane that joins no other: outermost."""

Key = tuple[int, ...]


@dataclass(frozen=True)
class GridItem:
    """A box or a port: its inputs and outputs, and its extent around its axis, in pixels.

    `tops` and `bottoms` are the offsets from the axis at which values enter and leave. The main
    line follows the largest `weight`. An `is_last` item is in the last row.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    left_extent: int
    right_extent: int
    height: int
    tops: Mapping[str, int]
    bottoms: Mapping[str, int]
    weight: int = 1
    is_last: bool = False


@dataclass
class GridLane:
    """A chain of items on one axis, or a single line past other items.

    It occupies the rows `start` to `end`. `ends_at` is the item that it joins, through `value`.
    """

    members: list[int]
    start: int
    end: int
    ends_at: int | None = None
    value: str = ""
    x: int = 0


@dataclass(frozen=True)
class GridRoute:
    """Route of a value to one item: direct, or through a lane."""

    value: str
    source: int
    target: int
    lane: GridLane | None


@dataclass(frozen=True)
class Grid:
    """Items in rows and lanes, with the extents left and right of the main line."""

    rows: Sequence[int]
    lane_of: Sequence[GridLane]
    routes: Sequence[GridRoute]
    left_extent: int
    right_extent: int


def place_items(items: Sequence[GridItem]) -> Grid:
    """Place all items in a grid. The first lane is the main line, at x = 0."""
    return _GridBuilder(items).build_grid()


@dataclass
class _GridBuilder:
    items: Sequence[GridItem]
    lanes: list[GridLane] = field(default_factory=list)
    routes: list[GridRoute] = field(default_factory=list)

    def build_grid(self) -> Grid:
        self.producers = {v: i for i, item in enumerate(self.items) for v in item.outputs}
        self.readers: dict[str, list[int]] = {value: [] for value in self.producers}
        for index, item in enumerate(self.items):
            for value in item.inputs:
                self.readers[value].append(index)
        self.graph = self._build_graph()
        self.rows = self._compute_rows()
        self.lane_of = self._build_chains()
        for index in range(len(self.items)):
            self._add_routes(index)
        left_extent, right_extent = self._place_lanes()
        return Grid(self.rows, self.lane_of, self.routes, left_extent, right_extent)

    def _build_graph(self) -> "nx.DiGraph[int]":
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self.items)))
        for value, producer in self.producers.items():
            graph.add_edges_from((producer, reader) for reader in self.readers[value])
        return graph

    def _compute_rows(self) -> list[int]:
        rows = [0] * len(self.items)
        for row, generation in enumerate(nx.topological_generations(self.graph)):
            for index in generation:
                rows[index] = row
        bottom = max((r for r, i in zip(rows, self.items, strict=True) if not i.is_last), default=0)
        return [bottom + 1 if i.is_last else r for r, i in zip(rows, self.items, strict=True)]

    def _build_chains(self) -> list[GridLane]:
        heights = [0] * len(self.items)
        for index in reversed(list(nx.topological_sort(self.graph))):
            below = max((heights[n] for n in self.graph[index]), default=0)
            heights[index] = self.items[index].weight + below
        lane_of: dict[int, GridLane] = {}
        # The heaviest path first: it becomes the straight main line, and shortcuts bend around it.
        order = sorted(range(len(self.items)), key=lambda i: (self.rows[i], -heights[i], i))
        for start in order:
            if start in lane_of:
                continue
            lane = GridLane([], self.rows[start], self.rows[start])
            self.lanes.append(lane)
            current: int | None = start
            while current is not None:
                lane.members.append(current)
                lane_of[current] = lane
                lane.end = self.rows[current]
                free = [n for n in self.graph[current] if n not in lane_of]
                max_height = max((heights[n] for n in free), default=0)
                equals = sorted(n for n in free if heights[n] == max_height)
                # Of equal branches, the middle one stays on the axis; the others go to both sides.
                current = equals[(len(equals) - 1) // 2] if equals else None
        return [lane_of[index] for index in range(len(self.items))]

    def _add_routes(self, index: int) -> None:
        """Add the routes of an item's values, in its lane as far as that is free."""
        item, lane, row = self.items[index], self.lane_of[index], self.rows[index]
        position = lane.members.index(index)
        next_index = lane.members[position + 1] if position + 1 < len(lane.members) else None
        main_value = next(
            (v for v in item.outputs if next_index in self.readers[v]), "".join(item.outputs[:1])
        )
        for value in item.outputs:
            targets = self.readers[value]
            last_row = max((self.rows[t] for t in targets), default=row)
            bypass = GridLane([], row + 1, last_row - 1, value=value)
            is_free = value == main_value and (
                next_index is None or last_row <= self.rows[next_index]
            )
            for target in targets:
                is_adjacent = self.rows[target] == row + 1
                route_lane = (
                    lane if is_free or (value == main_value and target == next_index) else bypass
                )
                self.routes.append(
                    GridRoute(value, index, target, None if is_adjacent else route_lane)
                )
            if targets and next_index is None and value == main_value:
                lane.end = max(lane.end, last_row - 1)
                lane.ends_at, lane.value = max(targets, key=self.rows.__getitem__), value
            is_used = (
                any(r.lane is bypass for r in self.routes[-len(targets) :]) if targets else False
            )
            if is_used:
                bypass.ends_at = max(targets, key=self.rows.__getitem__)
                self.lanes.append(bypass)

    def _place_lanes(self) -> tuple[int, int]:
        main, *other_lanes = self.lanes
        edges = {side: self._compute_edge(main, side) for side in (-1, 1)}
        for lane, side in self._sort_outwards(main, other_lanes):
            edge = edges[side]
            extents = {self.rows[i]: self._get_extents(i, side) for i in lane.members}
            span = range(lane.start, lane.end + 1)
            free = {r: extents.get(r, (LINE, LINE)) for r in span}
            x = max(edge[r] + GAP * (r in extents) + inner for r, (inner, _) in free.items())
            lane.x = side * x
            edge |= {r: x + outer for r, (_, outer) in free.items()}
        return max(edges[-1].values(), default=0), max(edges[1].values(), default=0)

    def _compute_edge(self, main: GridLane, side: int) -> dict[int, int]:
        edge = dict.fromkeys(range(max(self.rows, default=0) + 1), LINE)
        return edge | {self.rows[i]: self._get_extents(i, side)[1] for i in main.members}

    def _get_extents(self, index: int, side: int) -> tuple[int, int]:
        """Return an item's extents towards the main line and away from it."""
        item = self.items[index]
        return (
            (item.left_extent, item.right_extent)
            if side > 0
            else (item.right_extent, item.left_extent)
        )

    def _sort_outwards(
        self, main: GridLane, lanes: Sequence[GridLane]
    ) -> list[tuple[GridLane, int]]:
        """Return lanes with their sides, in order of placement from the main line outwards.

        Lanes that join the main line at one item stay together, in the order of the item's inputs.
        Groups that span fewer rows come first, so that they are inside the others.
        """
        keys = [self._compute_key(lane, main) for lane in lanes]
        spans: dict[int, int] = {}
        for lane, (_, root) in zip(lanes, keys, strict=True):
            spans[root] = max(spans.get(root, 0), lane.end - lane.start)
        max_length = max((len(key) for key, _ in keys), default=0)
        padded = [(key + (0,) * (max_length - len(key)), root) for key, root in keys]
        order = sorted(
            range(len(lanes)),
            key=lambda n: (spans[padded[n][1]], padded[n][1], _sort_inner_first(padded[n][0]), n),
        )
        return [(lanes[n], _get_side(padded[n][0])) for n in order]

    def _compute_key(self, lane: GridLane, main: GridLane) -> tuple[Key, int]:
        """Return a lane's sort key (its position among the inputs it joins), and the last join."""
        key: Key = ()
        target = None
        while lane is not main:
            if lane.ends_at is None:
                return (OUTERMOST, *key), -1
            target = lane.ends_at
            joined = self.lane_of[target]
            key = (self._compute_offset(lane, joined, target), *key)
            lane = joined
        return key, -1 if target is None else target

    def _compute_offset(self, lane: GridLane, joined: GridLane, target: int) -> int:
        inputs = self.items[target].inputs
        position = joined.members.index(target)
        outputs = self.items[joined.members[position - 1]].outputs if position else ()
        reference = next((inputs.index(v) for v in outputs if v in inputs), 0)
        return inputs.index(lane.value) - reference or 1


def _get_side(key: Key) -> int:
    return 1 if key > (0,) * len(key) else -1


def _sort_inner_first(key: Key) -> Key:
    return tuple(part * _get_side(key) for part in key)
