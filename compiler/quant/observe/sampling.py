"""Which parts of which values are kept of which images: decided before the first image is read.

Hashes of an image's contents and a value's name choose, so that neither the order of the images
nor how many are looked at at once has a say.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, TensorType
from tcc.compiler.ops import Concat, Conv
from tcc.compiler.quant.scale_groups import kept_values

POSITIONS = 2048
"""Positions of a value, or outputs of a convolution, that are looked at closely."""
FEWEST = 64
"""Positions that are looked at however large the network is."""
RUN = 8
"""Neighbouring columns of a sample, and the least side of a window, in outputs."""
AMONG = 128
"""Images that anything is kept of: more are run for their extremes alone, in half the time."""
BUDGET = 1 << 25
"""Most numbers that all samples hold together, and all windows: 128 MiB of float32 each."""


@dataclass(frozen=True, slots=True)
class SampledPart:
    """What is taken of one value: every `step`-th row of `size` (rows, columns), of some images.

    `images` are their places in the set, in order; `corner` are the largest first row and column.
    A window may begin before a map and end after it, where `before` rows and columns are padding.
    """

    value: str
    images: tuple[int, ...]
    size: Pair
    step: Pair
    corner: Pair
    stride: Pair = (1, 1)
    before: Pair = (0, 0)

    def first(self, digest: str) -> Pair:
        """Return the first row and column of an image's part, by its contents."""
        row, column = _pair(f"{digest} {self.value}")
        down, right = self.stride
        return (
            row % (self.corner[0] + 1) * down - self.before[0],
            column % (self.corner[1] + 1) * right - self.before[1],
        )


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Samples by value and windows by convolution; `within` finds other values in a sample.

    `within[value]` is the value whose sample holds it, and its first channel there.
    """

    samples: Mapping[str, SampledPart]
    windows: Mapping[str, SampledPart]
    within: Mapping[str, tuple[str, int]]

    def of(self, images: Sequence[int]) -> "SamplingPlan":
        """Return what is kept of some images, by their places, which become 0 and so on."""
        return self._placed({image: place for place, image in enumerate(images)})

    def within_more(self, places: Sequence[int]) -> "SamplingPlan":
        """Return the same of more images, among which these lie at `places`."""
        return self._placed(dict(enumerate(places)))

    def _placed(self, places: Mapping[int, int]) -> "SamplingPlan":
        samples, windows = (
            {
                name: replace(one, images=tuple(places[i] for i in one.images if i in places))
                for name, one in every.items()
            }
            for every in (self.samples, self.windows)
        )
        return SamplingPlan(samples, windows, self.within)

    @property
    def images(self) -> frozenset[int]:
        """The places of images that anything is kept of."""
        every = (*self.samples.values(), *self.windows.values())
        return frozenset(image for one in every for image in one.images)


def sampling_plan(graph: Graph, digests: Sequence[str], positions: int = POSITIONS) -> SamplingPlan:
    """Return what to keep of the images of those digests.

    Args:
        graph: A ready model's.
        digests: The SHA-256 of each image, in order.
        positions: About how many positions of each value are kept, of all images together; with 0,
            nothing is.
    """
    among = _least("", digests, AMONG)
    return _plan(graph, [digests[place] for place in among], positions).within_more(among)


def _plan(graph: Graph, digests: Sequence[str], positions: int) -> SamplingPlan:
    """Return what to keep of images, each of which may be chosen."""
    inside = places_in_concats(graph)
    if not positions:
        return SamplingPlan({}, {}, inside)
    values = [name for name in kept_values(graph) if name not in inside]
    convolutions = [n for n in graph.nodes if isinstance(n.op, Conv) and n.op.kernel != (1, 1)]
    channels = sum(graph.types[name].shape[0] for name in values)
    each = min(positions, max(FEWEST, BUDGET // channels))
    samples = {name: _sample(name, graph.types[name], digests, each) for name in values}
    found = {n.name: _window(n, digests, positions) for n in convolutions}
    # What windows take depends on strides and borders: counted first, then cut in proportion.
    taken = sum(_numbers(graph, choice) for choice in found.values())
    if taken > BUDGET:
        few = positions * BUDGET // taken
        found = {n.name: _window(n, digests, max(FEWEST, few)) for n in convolutions}
    return SamplingPlan(samples, found, inside)


def places_in_concats(graph: Graph) -> Mapping[str, tuple[str, int]]:
    """Return the values that a concat holds: the outermost concat, and where they begin there."""
    # Backwards: a concat within a concat is placed in the outermost one before its inputs are met.
    found: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.nodes):
        if isinstance(node.op, Concat):
            outer, at = found.get(node.name, (node.name, 0))
            for value in node.inputs:
                found.setdefault(value, (outer, at))
                at += graph.types[value].shape[0]
    return found


def _sample(value: str, kind: TensorType, digests: Sequence[str], positions: int) -> SampledPart:
    """Return runs of columns in rows that lie evenly over the whole height."""
    height, width = kind.shape[1:] if len(kind.shape) == 3 else (1, 1)
    # Of so many images that each gives four runs or more.
    count = min(len(digests), max(1, positions // (4 * RUN)))
    each = max(1, positions // count)
    columns = min(width, max(RUN, isqrt(each)))
    rows = min(height, max(1, each // columns))
    step = height // rows
    corner = (height - (rows - 1) * step - 1, width - columns)
    return SampledPart(value, _least(value, digests, count), (rows, columns), (step, 1), corner)


def _window(node: Node, digests: Sequence[str], positions: int) -> SampledPart:
    """Return what neighbouring outputs of a convolution read, padding included."""
    op = node.op
    assert isinstance(op, Conv)
    _, *out = node.type.shape
    # Of so many images that each gives a square of `RUN` or more.
    count = min(len(digests), max(1, positions // RUN**2))
    side = max(RUN, isqrt(positions // count))
    rows, columns = (min(side, n) for n in out)
    (down, right), (tall, wide), (top, left, *_) = op.stride, op.window, op.pads
    size = ((rows - 1) * down + tall, (columns - 1) * right + wide)
    corner = (out[0] - rows, out[1] - columns)
    images = _least(node.name, digests, count)
    return SampledPart(node.inputs[0], images, size, (1, 1), corner, op.stride, (top, left))


def _numbers(graph: Graph, choice: SampledPart) -> int:
    rows, columns = choice.size
    return len(choice.images) * rows * columns * graph.types[choice.value].shape[0]


def _least(key: str, digests: Sequence[str], count: int) -> tuple[int, ...]:
    """Return the places of the images whose hashes with a key are the smallest, in order."""
    if count >= len(digests):
        return tuple(range(len(digests)))
    # Equal images have equal hashes: any of them would do, but the place decides for certain.
    order = sorted(range(len(digests)), key=lambda i: (_pair(f"{digests[i]} {key}"), i))
    return tuple(sorted(order[:count]))


def _pair(text: str) -> Pair:
    # 48 bits a number: no place of a map is likelier than another by as much as 1 in 2**30.
    data = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(data[:6], "little"), int.from_bytes(data[6:12], "little")
