"""Boxes in boxes become frames, lines and texts at whole pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tcc.compiler.draw.boxes import Box
from tcc.compiler.draw.lanes import Grid, Item, arrange
from tcc.compiler.draw.tracks import Channel, Jog, channel, jogs, turns
from tcc.compiler.draw.words import DETAIL, SHAPE, TITLE, Font, clip, counted, rounded

PAD = 12
"""Pixels between a block's border and what it holds, or a box's and its text."""
LINE = 16
"""Height of a line of text."""
STUB, TRACK, ARROW = 18, 8, 12
"""Height of the space below a row: for shapes, for each track, and for arrow heads."""
NARROW = 36
"""Half the width of the narrowest box."""

Point = tuple[int, int]
Shapes = Mapping[str, str]
"""What is said of each value on its edges."""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; `x` is its middle if `centred`, else its left end, `y` its base line."""

    x: int
    y: int
    text: str
    font: Font
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A box's rectangle and its texts; `inside` is the index of the frame that holds it."""

    box: Box
    inside: int
    x: int
    y: int
    width: int
    height: int
    texts: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A line through points in the frame `inside`; an `arrow` has a head at its end."""

    inside: int
    points: tuple[Point, ...]
    arrow: bool = True


@dataclass
class Drawing:
    """Everything that is drawn, frames before those that they hold."""

    width: int = 0
    height: int = 0
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    shapes: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """A box laid out about its axis: extents, where values enter and leave, what it holds."""

    box: Box
    item: Item
    header: tuple[str, ...] = ()
    inner: "_Inner | None" = None


@dataclass(frozen=True)
class _Inner:
    """What an open box holds: its items in a grid, with the tops of rows relative to its own."""

    plans: Sequence[_Plan | None]
    items: Sequence[Item]
    grid: Grid
    channels: Sequence[Channel]
    tops: Sequence[int]
    heights: Sequence[int]
    stubs: Sequence[int]
    height: int


def lay_out(root: Box, shapes: Shapes) -> Drawing:
    """Return a drawing of a graph's box, its top left corner at 0, 0."""
    inner = _inner(root, shapes, ports=False)
    drawing = Drawing(inner.grid.left + inner.grid.right, inner.height)
    _draw_inner(drawing, inner, -1, (inner.grid.left, 0), shapes)
    return drawing


def _plan(box: Box, shapes: Shapes) -> _Plan:
    return _open(box, shapes) if box.children else _closed(box, shapes)


def _closed(box: Box, shapes: Shapes) -> _Plan:
    """Plan a box that shows only text: values enter at its middle and leave side by side."""
    header = tuple(_header(box))
    widest = max(font.width(text) for text, font in _fonts(header))
    labels = [_label(shapes[value]) for value in box.gives]
    offset = sum(labels) // 2 if len(labels) > 1 else 0
    places = {v: sum(labels[:n]) - offset for n, v in enumerate(box.gives)}
    half = max((widest + 1) // 2 + PAD, sum(labels) - offset, NARROW)
    height = LINE * len(header) + 8
    tops = dict.fromkeys(box.reads, 0)
    return _Plan(
        box, Item(box.reads, box.gives, half, half, height, tops, places, _weight(box)), header
    )


def _label(shape: str) -> int:
    """Return the space that a shape takes beside its line."""
    return SHAPE.width(shape) + 8


def _open(box: Box, shapes: Shapes) -> _Plan:
    """Plan a box that shows what it holds: values enter and leave where they do so inside."""
    inner = _inner(box, shapes, ports=True)
    header = tuple(_header(box))
    widest = max(font.width(text) for text, font in _fonts(header)) + 2 * PAD
    left, right = inner.grid.left + PAD, inner.grid.right + PAD
    spare = max(0, widest - left - right)
    left, right = left + spare // 2, right + spare - spare // 2
    tops = {v: inner.grid.lane_of[n].x for n, v in enumerate(box.reads)}
    bottoms = {
        v: inner.grid.lane_of[len(inner.items) - len(box.gives) + n].x
        for n, v in enumerate(box.gives)
    }
    height = LINE * len(header) + 8 + inner.height
    return _Plan(
        box,
        Item(box.reads, box.gives, left, right, height, tops, bottoms, _weight(box)),
        header,
        inner,
    )


def _header(box: Box) -> Iterator[str]:
    turns = f" \u00d7 {box.turns}" if box.turns > 1 else ""
    yield clip(box.name, 48) + turns
    yield from (clip(text) for text in box.details)
    if box.is_block:
        cost = [counted(box.params, "params")] * bool(box.params)
        cost += [rounded(box.macs, "MACs")] * bool(box.macs)
        if cost:
            yield ", ".join(cost) + (" in all" if box.turns > 1 else "")
        if box.turns > 1 and box.children:
            yield "the last one is drawn"


def _fonts(header: Sequence[str]) -> list[tuple[str, Font]]:
    return [(text, DETAIL if index else TITLE) for index, text in enumerate(header)]


def _weight(box: Box) -> int:
    return max(1, len(box.nodes)) * box.turns


def _inner(box: Box, shapes: Shapes, ports: bool) -> _Inner:
    """Lay out what a box holds, between ports for what it reads and gives."""
    plans = [_plan(child, shapes) for child in box.children]
    tops = [_port((), (v,), 8) for v in box.reads] if ports else []
    bottoms = [_port((v,), (), _label(shapes[v])) for v in box.gives] if ports else []
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
            stubs[grid.rows[route.source]] = STUB
    places, y = [], 0
    for row, height in enumerate(heights):
        places.append(y)
        y += height
        if row < count - 1:
            y += stubs[row] + TRACK * channels[row].count + ARROW
    return _Inner(padded, items, grid, channels, places, heights, stubs, y)


def _port(reads: tuple[str, ...], gives: tuple[str, ...], right: int) -> Item:
    tops, bottoms = dict.fromkeys(reads, 0), dict.fromkeys(gives, 0)
    return Item(reads, gives, 8, right, 0, tops, bottoms, last=bool(reads))


def _draw(drawing: Drawing, plan: _Plan, inside: int, at: Point, shapes: Shapes) -> None:
    """Draw a box whose axis meets its upper edge at a point."""
    x, y = at
    item = plan.item
    left, width = x - item.left, item.left + item.right
    middle = left + width // 2
    texts = tuple(
        Text(middle, y + LINE * n + 16, text, font, centred=True)
        if plan.inner is None
        else Text(left + PAD, y + LINE * n + 16, text, font)
        for n, (text, font) in enumerate(_fonts(plan.header))
    )
    index = len(drawing.frames)
    drawing.frames.append(Frame(plan.box, inside, left, y, width, item.height, texts))
    if plan.inner:
        _draw_inner(drawing, plan.inner, index, (x, y + LINE * len(plan.header) + 8), shapes)


def _draw_inner(drawing: Drawing, inner: _Inner, inside: int, at: Point, shapes: Shapes) -> None:
    ys = [_row_y(inner, index) + at[1] for index in range(len(inner.items))]
    leaving = _leaving(inner)
    for index, plan in enumerate(inner.plans):
        if plan is None:
            continue
        x = at[0] + inner.grid.lane_of[index].x
        _draw(drawing, plan, inside, (x, ys[index]), shapes)
        bottom = ys[index] + plan.item.height
        for value, dx in plan.item.bottoms.items():
            if value in leaving:
                continue
            drawing.shapes.append(Text(x + dx + 5, bottom + 12, shapes[value], SHAPE))
    drawing.wires.extend(_wires(inner, ys, inside, at))


def _leaving(inner: _Inner) -> set[str]:
    """Return values that go nowhere but out of the block, where their shapes stand once more."""
    routes = inner.grid.routes
    within = {route.value for route in routes if inner.plans[route.target] is not None}
    return {route.value for route in routes} - within


def _row_y(inner: _Inner, index: int) -> int:
    """Return an item's top: it stands in the middle of its row."""
    row = inner.grid.rows[index]
    return inner.tops[row] + (inner.heights[row] - inner.items[index].height) // 2


def _wires(inner: _Inner, ys: Sequence[int], inside: int, at: Point) -> Iterator[Wire]:
    grid, items = inner.grid, inner.items

    def turn(row: int, jog: Jog) -> list[Point]:
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
        yield Wire(inside, ((x, y), *middle, end), arrow=inner.plans[route.target] is not None)
