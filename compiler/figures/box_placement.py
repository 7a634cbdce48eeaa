"""Where boxes stand: rows by longest path, and lanes beside one straight main line.

A layered drawing (Sugiyama, Tagawa, Toda: "Methods for visual understanding of hierarchical system
structures", 1981). Its first step, the breaking of cycles, has nothing to do in a graph of values.
Rows by longest path put a box right below the last that it reads, so that equal branches have
equal rows. In place of sorting each row until few lines cross, boxes in a chain share an axis:
networks are one long line with short sides, and that line is to be straight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

GAP = 22
"""Pixels between neighbours in a row."""
LINE = 8
"""Pixels that a line keeps free on either side."""
LONE = 10_000
"""Where a lane stands that nothing joins: outermost."""

Key = tuple[int, ...]


@dataclass(frozen=True)
class GridItem:
    """A box or a port: what it reads and gives, and its extent about its axis, in pixels.

    `tops` and `bottoms` say how far from the axis each value enters and leaves. The main line
    follows the greatest `weight`. A `last` item stands in the last row.
    """

    reads: tuple[str, ...]
    gives: tuple[str, ...]
    left: int
    right: int
    height: int
    tops: Mapping[str, int]
    bottoms: Mapping[str, int]
    weight: int = 1
    last: bool = False


@dataclass
class GridLane:
    """Items on one axis, each of which reads the one before; or a lone line past other items.

    It fills the rows `start` to `end`. `ends_at` is the item that it joins, by which of its
    values.
    """

    items: list[int]
    start: int
    end: int
    ends_at: int | None = None
    value: str = ""
    x: int = 0


@dataclass(frozen=True)
class GridRoute:
    """A value's way to one item: at once, or down a lane first."""

    value: str
    source: int
    target: int
    lane: GridLane | None


@dataclass(frozen=True)
class Grid:
    """Items in rows and lanes. `left` and `right` are the extent about the main line."""

    rows: Sequence[int]
    lane_of: Sequence[GridLane]
    routes: Sequence[GridRoute]
    left: int
    right: int


def arrange(items: Sequence[GridItem]) -> Grid:
    """Return a place for each item; the first lane is the main line, at x = 0."""
    return _Arrangement(items).grid()


@dataclass
class _Arrangement:
    items: Sequence[GridItem]
    lanes: list[GridLane] = field(default_factory=list)
    routes: list[GridRoute] = field(default_factory=list)

    def grid(self) -> Grid:
        self.makers = {v: i for i, item in enumerate(self.items) for v in item.gives}
        self.readers: dict[str, list[int]] = {value: [] for value in self.makers}
        for index, item in enumerate(self.items):
            for value in item.reads:
                self.readers[value].append(index)
        self.graph = self._graph()
        self.rows = self._rows()
        self.lane_of = self._chains()
        for index in range(len(self.items)):
            self._route(index)
        left, right = self._columns()
        return Grid(self.rows, self.lane_of, self.routes, left, right)

    def _graph(self) -> "nx.DiGraph[int]":
        graph: nx.DiGraph[int] = nx.DiGraph()
        graph.add_nodes_from(range(len(self.items)))
        for value, maker in self.makers.items():
            graph.add_edges_from((maker, reader) for reader in self.readers[value])
        return graph

    def _rows(self) -> list[int]:
        rows = [0] * len(self.items)
        for row, generation in enumerate(nx.topological_generations(self.graph)):
            for index in generation:
                rows[index] = row
        bottom = max((r for r, i in zip(rows, self.items, strict=True) if not i.last), default=0)
        return [bottom + 1 if i.last else r for r, i in zip(rows, self.items, strict=True)]

    def _chains(self) -> list[GridLane]:
        heights = [0] * len(self.items)
        for index in reversed(list(nx.topological_sort(self.graph))):
            below = max((heights[n] for n in self.graph[index]), default=0)
            heights[index] = self.items[index].weight + below
        lane_of: dict[int, GridLane] = {}
        # The heaviest way through the network first: it becomes the straight line, and shortcuts
        # bend around it.
        order = sorted(range(len(self.items)), key=lambda i: (self.rows[i], -heights[i], i))
        for start in order:
            if start in lane_of:
                continue
            lane = GridLane([], self.rows[start], self.rows[start])
            self.lanes.append(lane)
            at: int | None = start
            while at is not None:
                lane.items.append(at)
                lane_of[at] = lane
                lane.end = self.rows[at]
                free = [n for n in self.graph[at] if n not in lane_of]
                most = max((heights[n] for n in free), default=0)
                equals = sorted(n for n in free if heights[n] == most)
                # Of equal branches the middle one goes straight on, so that the others stand on
                # both sides.
                at = equals[(len(equals) - 1) // 2] if equals else None
        return [lane_of[index] for index in range(len(self.items))]

    def _route(self, index: int) -> None:
        """Find the ways of an item's values: down its own lane as far as that is free."""
        item, lane, row = self.items[index], self.lane_of[index], self.rows[index]
        place = lane.items.index(index)
        after = lane.items[place + 1] if place + 1 < len(lane.items) else None
        own = next((v for v in item.gives if after in self.readers[v]), "".join(item.gives[:1]))
        for value in item.gives:
            targets = self.readers[value]
            far = max((self.rows[t] for t in targets), default=row)
            bypass = GridLane([], row + 1, far - 1, value=value)
            free = value == own and (after is None or far <= self.rows[after])
            for target in targets:
                near = self.rows[target] == row + 1
                way = lane if free or (value == own and target == after) else bypass
                self.routes.append(GridRoute(value, index, target, None if near else way))
            if targets and after is None and value == own:
                lane.end = max(lane.end, far - 1)
                lane.ends_at, lane.value = max(targets, key=self.rows.__getitem__), value
            used = any(r.lane is bypass for r in self.routes[-len(targets) :]) if targets else False
            if used:
                bypass.ends_at = max(targets, key=self.rows.__getitem__)
                self.lanes.append(bypass)

    def _columns(self) -> tuple[int, int]:
        main, *others = self.lanes
        edges = {side: self._edge(main, side) for side in (-1, 1)}
        for lane, side in self._outwards(main, others):
            edge = edges[side]
            extents = {self.rows[i]: self._extents(i, side) for i in lane.items}
            span = range(lane.start, lane.end + 1)
            free = {r: extents.get(r, (LINE, LINE)) for r in span}
            x = max(edge[r] + GAP * (r in extents) + inner for r, (inner, _) in free.items())
            lane.x = side * x
            edge |= {r: x + outer for r, (_, outer) in free.items()}
        return max(edges[-1].values(), default=0), max(edges[1].values(), default=0)

    def _edge(self, main: GridLane, side: int) -> dict[int, int]:
        edge = dict.fromkeys(range(max(self.rows, default=0) + 1), LINE)
        return edge | {self.rows[i]: self._extents(i, side)[1] for i in main.items}

    def _extents(self, index: int, side: int) -> tuple[int, int]:
        """Return an item's extent towards the main line and away from it."""
        item = self.items[index]
        return (item.left, item.right) if side > 0 else (item.right, item.left)

    def _outwards(self, main: GridLane, lanes: Sequence[GridLane]) -> list[tuple[GridLane, int]]:
        """Return lanes with their sides, in the order in which they are put beside the main line.

        Lanes that join the main line at one item stay together, in the order in which they are
        read there; those that span fewer rows come first, so that they stand inside the others.
        """
        keys = [self._key(lane, main) for lane in lanes]
        spans: dict[int, int] = {}
        for lane, (_, root) in zip(lanes, keys, strict=True):
            spans[root] = max(spans.get(root, 0), lane.end - lane.start)
        most = max((len(key) for key, _ in keys), default=0)
        padded = [(key + (0,) * (most - len(key)), root) for key, root in keys]
        order = sorted(
            range(len(lanes)),
            key=lambda n: (spans[padded[n][1]], padded[n][1], _inner_first(padded[n][0]), n),
        )
        return [(lanes[n], _side(padded[n][0])) for n in order]

    def _key(self, lane: GridLane, main: GridLane) -> tuple[Key, int]:
        """Return where a lane is read, relative to the lane that it joins, and the last join."""
        key: Key = ()
        target = None
        while lane is not main:
            if lane.ends_at is None:
                return (LONE, *key), -1
            target = lane.ends_at
            joined = self.lane_of[target]
            key = (self._offset(lane, joined, target), *key)
            lane = joined
        return key, -1 if target is None else target

    def _offset(self, lane: GridLane, joined: GridLane, target: int) -> int:
        reads = self.items[target].reads
        place = joined.items.index(target)
        gives = self.items[joined.items[place - 1]].gives if place else ()
        other = next((reads.index(v) for v in gives if v in reads), 0)
        return reads.index(lane.value) - other or 1


def _side(key: Key) -> int:
    return 1 if key > (0,) * len(key) else -1


def _inner_first(key: Key) -> Key:
    return tuple(part * _side(key) for part in key)
