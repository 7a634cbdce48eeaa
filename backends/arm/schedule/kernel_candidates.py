"""Kernels that can compute the same, how much there is to do in each, and which costs least."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import assert_never

from tcc.backends.arm.kernels.base import LANES, Kernel, KernelCall, tile_width
from tcc.backends.arm.kernels.conv import FLOATS, DirectConv, Gathered
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroLevelWinograd, MicroWinograd
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import AMOUNTS, kind
from tcc.backends.arm.micro.records import PIXELS, QUAD
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.support.diagnostics import UnhandledError


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


Amounts = dict[str, float]
RUN = 16
"""Most tiles of a row that Winograd's method reads at once: `RUN` of `c/winograd_tiles.h`."""


def of(kernel: Kernel) -> tuple[str, Amounts]:
    """Return a kernel's name among costs, and each amount of it that is not zero."""
    match kernel:
        case MicroWinograd() | MicroLevelWinograd():
            name, amounts = kernel.word, _winograd(kernel)
        case MicroFloatMatrix():
            name, amounts = kernel.word, _float_matrix(kernel)
        case MicroFloatDepthwise():
            name, amounts = "float_depthwise", _float_depthwise(kernel)
        case MicroMatrix():
            name, amounts = f"{'channel_' * kernel.joins}{kernel.word}", _matrix(kernel)
        case MicroVector():
            name, amounts = kernel.word, _vector(kernel)
        case MicroDepthwise():
            name, amounts = kernel.word, _depthwise(kernel)
        case DirectConv():
            rows, pixels = kernel.tile
            levels = "" if kernel.numbers == FLOATS else "level_"
            name, amounts = f"{levels}loops_{rows}x{pixels}", _loops(kernel)
        case _:
            raise UnhandledError("kernel that is chosen", kernel.word)
    assert amounts.keys() <= set(AMOUNTS[kind(name)]), name
    return name, amounts


def _winograd(kernel: MicroWinograd | MicroLevelWinograd) -> Amounts:
    record, window = kernel.record, kernel.window
    summed, points = record.summed(window), record.points(window)
    bands = -(-kernel.tiles // kernel.band)
    # Tiles are multiplied by fours.
    tiles = bands * -(-kernel.band // QUAD) * QUAD
    runs = list(_runs_of_tiles(kernel))
    filled = sum(-(-run // record.lanes) * record.lanes for run in runs)
    return {
        "products": tiles * summed * kernel.padded * points,
        "runs": record.phases(window) * len(runs),
        "pixels": record.phases(window) * filled * points,
        "sums": kernel.tiles * kernel.filters * points,
        "outputs": kernel.tiles * kernel.filters * record.side(window) ** 2,
        "weights": bands * record.phases(window) * kernel.padded * record.weighted(window),
        "bands": bands * (record.calls(window) + kernel.padded // record.filters),
    }


def _runs_of_tiles(kernel: MicroWinograd | MicroLevelWinograd) -> Iterator[int]:
    """Yield how many tiles of a row are read at once: `tile_run` of `c/winograd_tiles.h`."""
    across = -(-kernel.window.out[1] // kernel.record.side(kernel.window))
    for first in range(0, kernel.tiles, kernel.band):
        at, last = first, min(first + kernel.band, kernel.tiles)
        while at < last:
            yield (count := min(last - at, across - at % across, RUN))
            at += count


def _filled(pixels: int, each: int) -> int:
    """Return how many pixels are multiplied in tiles: the last one's by fours."""
    return pixels // each * each + -(-(pixels % each) // QUAD) * QUAD


def _float_matrix(kernel: MicroFloatMatrix) -> Amounts:
    record, groups, window = kernel.record, kernel.groups, kernel.window
    parts = -(-window.channels // kernel.channels)
    blocks, times = -(-kernel.own // record.filters), groups * kernel.shares
    start = kernel.pixels // record.pixels * record.pixels if kernel.in_rows else 0
    multiplied = _filled(kernel.pixels, record.pixels) * record.multiplied(kernel.own)
    return {
        "products": groups * multiplied * window.taps,
        "taps": groups * kernel.tiles * blocks * window.taps,
        "blocks": groups * kernel.tiles * blocks * parts,
        "tiles": groups * kernel.tiles * parts,
        "rests": groups * parts * _cut_off(kernel),
        **of_floats(window, start, record.pixels, times),
    }


def _float_depthwise(kernel: MicroFloatDepthwise) -> Amounts:
    window = kernel.window
    (height, width), (side, _), (stride, _) = window.out, window.kernel, window.stride
    filled = -(-width // QUAD) * QUAD
    amounts = {
        "products": kernel.filters * height * filled * window.taps,
        "rows": kernel.filters * height,
        "planes": kernel.filters,
    }
    return {f"{what}_{side}x{side}_s{stride}": n for what, n in amounts.items()}


def _matrix(kernel: MicroMatrix) -> Amounts:
    record, groups, taps = kernel.record, kernel.groups, kernel.quads * QUAD
    tiles, blocks = -(-kernel.pixels // record.pixels), kernel.padded // record.filters
    gathered = of_channels if kernel.joins else of_levels
    return {
        "products": groups * tiles * record.pixels * kernel.padded * taps,
        "taps": groups * tiles * taps,
        "tiles": groups * tiles,
        "blocks": groups * tiles * blocks,
        "rests": groups * _cut_off(kernel),
        **gathered(kernel.window, record.pixels, groups),
    }


def _cut_off(kernel: MicroFloatMatrix | MicroMatrix) -> int:
    """Return for how many filters a block that is cut off is written, over all tiles."""
    whole, rest = divmod(kernel.pixels, kernel.record.pixels)
    return whole * (kernel.own % kernel.record.filters) + (kernel.own if rest else 0)


def _vector(kernel: MicroVector) -> Amounts:
    padded = -(-kernel.filters // kernel.record.filters) * kernel.record.filters
    return {"products": padded * kernel.row, "outputs": kernel.filters}


def _depthwise(kernel: MicroDepthwise) -> Amounts:
    window = kernel.window
    height, width = window.out
    way = _way_of_planes(kernel)
    amounts = {"outputs": kernel.filters * height * width, "planes": kernel.filters}
    if way == "windows":
        bands = -(-height // window.band)
        products = bands * window.band * -(-width // 8) * 8 * window.taps
        amounts["products"] = kernel.filters * products
        read = "read" if window.stride[1] == 1 else "dealt"
        amounts[read] = kernel.filters * bands * window.band_elements
        amounts["rows"] = kernel.filters * bands * window.band_rows * window.stride[1]
    return {f"{way}_{what}": n for what, n in amounts.items()}


def _way_of_planes(kernel: MicroDepthwise) -> str:
    """Return what is read in place, as `c/depthwise.c` has it, or that windows read a band."""
    window = kernel.window
    (height, width), (rows, columns) = window.size, window.out
    if (window.kernel, window.stride, window.out) == ((1, 1), (1, 1), window.size):
        return "points"
    halves = window.kernel == window.stride == (2, 2) and window.start == (0, 0) and kernel.means
    inside = 2 * rows <= height and 2 * columns <= width
    return "halves" if halves and inside and columns >= PIXELS else "windows"


def _loops(kernel: DirectConv) -> Amounts:
    height, width = kernel.plane
    count, lanes = tile_width(width, kernel.tile[1], kernel.numbers.lanes)
    # The last tile of a row overlaps the one before it.
    tiles = height * -(-width // count)
    if kernel.across:
        vectors = -(-(kernel.filters + kernel.padding) // LANES) * height * width
    else:
        vectors = kernel.filters * tiles * (count // lanes)
    blocks = (kernel.blocks.count + bool(kernel.blocks.rest)) * tiles
    amounts = {
        "products": vectors * kernel.taps,
        "steps": blocks * kernel.taps,
        "outputs": vectors,
    }
    way = _way(kernel)
    near = kernel.window.stride[1] == 1 or kernel.numbers == FLOATS or way == "across"
    amounts["read" if near else "dealt"] = _read(kernel, tiles * count)
    return {f"{way}_{what}": n for what, n in amounts.items()}


def _read(kernel: DirectConv, pixels: int) -> int:
    """Return how many numbers are gathered, or copied with a border."""
    match kernel.gathered:
        case Gathered.TILE | Gathered.MAP:
            return kernel.taps * kernel.groups * pixels
        case Gathered.NONE if kernel.window.staged:
            window = kernel.window
            return window.staging(window.out[0], window.source[0], 0.0, "int8").space.elements
        case Gathered.NONE:
            return 0
        case _:
            assert_never(kernel.gathered)


def _way(kernel: DirectConv) -> str:
    if kernel.across:
        return "across"
    if kernel.depth == 1:
        return "depthwise"
    match kernel.gathered:
        case Gathered.NONE if kernel.numbers == FLOATS:
            return "in_place"
        case Gathered.MAP:
            return "whole"
        case Gathered.NONE | Gathered.TILE:
            return "gathered"
        case _:
            assert_never(kernel.gathered)


LEAST_SAVED = 0.1
"""Share of the costs for which results may be rounded in more steps, by Winograd's method."""


@dataclass(frozen=True, slots=True)
class KernelCandidate:
    """A kernel that can compute something, and what makes its call, with weights as it reads them.

    Weights are brought into the order of the kernel that is called, and of no other.
    """

    kernel: Kernel
    call: Callable[[], KernelCall]


def cost(kernel: Kernel, machine: Machine) -> float:
    """Return what a kernel costs on a machine's core, in what its costs are counted in.

    Raises:
        MachineError: Its costs on this core are not known (E0604).
    """
    name, amounts = of(kernel)
    unit_costs = machine.costs.kernels.get(name)
    if unit_costs is None:
        raise core_costs.missing(f"kernel {name!r} of core {machine.core!r}", machine.target.name)
    return sum(unit_costs[unit] * amount for unit, amount in amounts.items())


def cheapest(candidates: Iterable[KernelCandidate], machine: Machine) -> KernelCandidate:
    """Return the candidate that costs least, of those that cost the same the first."""

    def weighed(candidate: KernelCandidate) -> float:
        found = cost(candidate.kernel, machine)
        return found / (1 - LEAST_SAVED) if isinstance(candidate.kernel, MicroWinograd) else found

    return min(candidates, key=weighed)
