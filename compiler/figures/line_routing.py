"""The spaces between rows: where each line turns sideways, so that none runs in another.

This is the channel routing of circuit boards (Hashimoto and Stevens, 1971): lines share a track
where their spans do not overlap, and one that comes down where another goes down turns above it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from tcc.compiler.figures.box_placement import Grid, GridItem, GridRoute

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


def jogs(grid: Grid, items: Sequence[GridItem]) -> list[list[SideStep]]:
    """Return, for the space below each row, the lines that start or end there, each once."""
    found: list[dict[SideStep, None]] = [{} for _ in range(max(grid.rows, default=0))]
    for route in grid.routes:
        first, last = grid.rows[route.source], grid.rows[route.target] - 1
        for row, jog in zip((first, last), turns(grid, items, route), strict=False):
            found[row][jog] = None
    return [list(lines) for lines in found]


def turns(grid: Grid, items: Sequence[GridItem], route: GridRoute) -> tuple[SideStep, ...]:
    """Return how a value's way goes through the first space and the last, if that is another."""
    start = source_x(grid, items, route.value, route.source)
    end = target_x(grid, items, route.value, route.target)
    if route.lane is None:
        return (SideStep(route.value, start, end, route.target),)
    lane = route.lane.x
    return SideStep(route.value, start, lane, None), SideStep(route.value, lane, end, route.target)


def source_x(grid: Grid, items: Sequence[GridItem], value: str, index: int) -> int:
    """Return where a value leaves its item."""
    return grid.lane_of[index].x + items[index].bottoms[value]


def target_x(grid: Grid, items: Sequence[GridItem], value: str, index: int) -> int:
    """Return where a value enters an item."""
    return grid.lane_of[index].x + items[index].tops[value]


def channel(lines: Sequence[SideStep]) -> Channel:
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
