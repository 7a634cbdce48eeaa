"""How much gathering there is in a kernel that multiplies panels, as `micro/c` does it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from tcc.backends.arm.micro.records import QUAD
from tcc.backends.arm.micro.window import MicroWindow


@dataclass(frozen=True, slots=True)
class GatherRun:
    """Neighbours of a tile in a row of the output: `gather_run` of `c/gather.h`.

    `y` and `x` are where the first one's window begins in the map.
    """

    tile: int
    count: int
    y: int
    x: int
    inside: bool


def gather_runs(window: MicroWindow, first: int, pixels: int) -> Iterator[GatherRun]:
    """Yield the runs of tiles of pixels, from a pixel on."""
    outputs, columns, (down, across) = prod(window.out), window.out[1], window.stride
    (top, left), reach = window.start, (window.kernel[1] - 1) * window.dilation[1]
    rows = range((first // columns + 1) * columns, outputs, columns)
    starts = sorted({*range(first, outputs, pixels), *rows})
    for start, end in pairwise([*starts, outputs]):
        y, x = start // columns * down - top, start % columns * across - left
        inside = x >= 0 and x + (end - start - 1) * across + reach < window.size[1]
        yield GatherRun((start - first) // pixels, end - start, y, x, inside)


def of_levels(window: MicroWindow, pixels: int, groups: int) -> dict[str, float]:
    """Return what gathering rows of levels takes: `c/matrix_gather.h`."""
    (height, width), across = window.kernel, window.stride[1]
    runs = list(_runs_of_levels(window, pixels))
    rows = groups * window.channels * height
    return {
        "rows": rows * len(runs),
        "borders": rows * sum(not run.inside for run in runs),
        "near" if across == 1 else "dealt": rows * width * len(runs),
    }


def of_channels(window: MicroWindow, pixels: int, groups: int) -> dict[str, float]:
    """Return what interleaving channels, and copying taps of them takes: `c/matrix_channels.h`."""
    fours, (height, width) = groups * window.channels // QUAD, window.size
    runs = list(_runs_of_levels(window, pixels))
    pieces = fours * prod(window.kernel) * sum(-(-run.count // SIXTEEN) for run in runs)
    return {
        "levels": 0 if window.flat else fours * height * -(-width // SIXTEEN),
        "near" if window.stride[1] == 1 else "dealt": pieces,
    }


SIXTEEN = 16
"""Levels of a channel that are interleaved at once, and quads that are copied."""


def _runs_of_levels(window: MicroWindow, pixels: int) -> Iterator[GatherRun]:
    """Yield the runs of tiles that are gathered: whole ones of 1x1 windows lie in rows already."""
    whole = prod(window.out) // pixels * pixels
    return gather_runs(window, whole if window.flat else 0, pixels)


def of_floats(window: MicroWindow, first: int, pixels: int, times: int) -> dict[str, float]:
    """Return what gathering numbers takes, of tiles from a pixel on: `c/float_gather.h`."""
    pieces = list(_pieces(window, first, pixels))
    vectors = [n for n in pieces if n >= QUAD and window.stride[1] <= 2]
    channels = times * window.channels
    return {
        "pieces": times * len(pieces),
        "copies": channels * len(pieces),
        "near" if window.stride[1] == 1 else "dealt": channels
        * sum(-(-n // QUAD) for n in vectors),
        "singles": channels * (sum(pieces) - sum(vectors)),
        "borders": channels * prod(window.kernel) * _crossing(window, first, pixels),
    }


def _pieces(window: MicroWindow, first: int, pixels: int) -> Iterator[int]:
    """Yield how many numbers are copied at once, for each row of the window that lies in the map.

    With steps of two, two taps beside each other are read together.
    """
    (_, across), (below, beside) = window.stride, window.dilation
    height, width = window.size
    for run in gather_runs(window, first, pixels):
        rows = sum(0 <= run.y + i * below < height for i in range(window.kernel[0]))
        columns = [run.x + j * beside for j in range(window.kernel[1])]
        if run.inside:
            found = [run.count] * len(columns[:: 2 if across == 2 and beside == 1 else 1])
        else:
            ends = (min(run.count, -(-(width - x) // across)) for x in columns)
            found = [end - max(0, -(x // across)) for end, x in zip(ends, columns, strict=True)]
        yield from (n for n in found if n > 0 for _ in range(rows))


def _crossing(window: MicroWindow, first: int, pixels: int) -> int:
    """Return how many tiles are filled with zeros first: those cut off, or that leave the map."""
    reach, height = (window.kernel[0] - 1) * window.dilation[0], window.size[0]
    last, rest = divmod(prod(window.out) - first, pixels)
    return len(
        {last for _ in range(rest > 0)}
        | {
            run.tile
            for run in gather_runs(window, first, pixels)
            if not (run.inside and run.y >= 0 and run.y + reach < height)
        }
    )
