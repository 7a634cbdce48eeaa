"""How much of what a core's costs are of there is in a kernel: see `micro/core_costs.py`."""

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import assert_never

from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.kernels.conv import FLOATS, LANES, DirectConv, Gathered
from tcc.backends.arm.kernels.loops.tir import tile_width
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroLevelWinograd, MicroWinograd
from tcc.backends.arm.micro.core_costs import AMOUNTS, kind
from tcc.backends.arm.micro.records import PIXELS, QUAD
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.support.unhandled import UnhandledError

Amounts = dict[str, float]


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
            name, amounts = kernel.word, _matrix(kernel)
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
    return {
        "products": tiles * summed * kernel.padded * points,
        "pixels": kernel.tiles * record.phases(window) * points,
        "outputs": kernel.tiles * kernel.filters * points,
        "weights": bands * record.phases(window) * kernel.padded * record.weighted(window),
        "bands": bands * (record.calls(window) + kernel.padded // record.filters),
    }


def _gathered(window: MicroWindow, first: int, pixels: int, times: int) -> Amounts:
    """Return what gathering takes, as `c/float_gather.h` and `c/float_x86.c` do it."""
    pieces = list(_pieces(window, first, pixels))
    vectors = [n for n in pieces if n >= QUAD and window.stride[1] <= 2]
    copied = times * window.channels
    return {
        "pieces": times * len(pieces),
        "copies": copied * len(pieces),
        "fours" if window.stride[1] == 1 else "dealt": copied * sum(-(-n // QUAD) for n in vectors),
        "singles": copied * (sum(pieces) - sum(vectors)),
        "borders": copied * prod(window.kernel) * _crossing(window, first, pixels),
    }


def _pieces(window: MicroWindow, first: int, pixels: int) -> Iterator[int]:
    """Yield the lengths of what taps read at once for neighbours, of taps in steps of two two."""
    (down, across), (below, beside), (top, left) = window.stride, window.dilation, window.start
    height, width = window.size
    both = across == 2 and beside == 1
    for start, count in runs_of(window, first, pixels):
        y, x = start // window.out[1] * down - top, start % window.out[1] * across - left
        rows = sum(0 <= y + i * below < height for i in range(window.kernel[0]))
        columns = range(x, x + window.kernel[1] * beside, beside)
        if x >= 0 and columns[-1] + (count - 1) * across < width:
            found = [count] * len(columns[:: 2 if both else 1])
        else:
            ends = (min(count, -(-max(width - at, 0) // across)) for at in columns)
            found = [
                end - max(0, -(at // across)) for at, end in zip(columns, ends, strict=True)
            ]
        yield from (n for n in found if n > 0 for _ in range(rows))


def runs_of(window: MicroWindow, first: int, pixels: int) -> list[tuple[int, int]]:
    """Return the runs of neighbours in tiles from a pixel on: where each begins, and its length."""
    outputs, columns = prod(window.out), window.out[1]
    rows = range(first // columns * columns + columns, outputs, columns)
    starts = sorted({*range(first, outputs, pixels), *rows})
    return [(start, end - start) for start, end in pairwise([*starts, outputs])]


def _crossing(window: MicroWindow, first: int, pixels: int) -> int:
    """Return in how many tiles a window leaves the map, or that are cut off."""
    (height, width), (down, across), (top, left) = window.out, window.stride, window.start
    tall, wide = ((k - 1) * d for k, d in zip(window.kernel, window.dilation, strict=True))
    found = set()
    for start, count in runs_of(window, first, pixels):
        y, x = start // width * down - top, start % width * across - left
        inside = x >= 0 and x + (count - 1) * across + wide < window.size[1]
        if not (inside and y >= 0 and y + tall < window.size[0]):
            found.add((start - first) // pixels)
    if (height * width - first) % pixels:
        found.add((height * width - first) // pixels)
    return len(found)


def _filled(pixels: int, each: int) -> int:
    """Return how many pixels are multiplied in tiles: the last one's by fours."""
    return pixels // each * each + -(-(pixels % each) // QUAD) * QUAD


def _float_matrix(kernel: MicroFloatMatrix) -> Amounts:
    record, groups, window = kernel.record, kernel.groups, kernel.window
    parts = -(-window.channels // kernel.channels)
    blocks, cut = -(-kernel.own // record.filters), kernel.own % record.filters > 0
    whole, rest = divmod(kernel.pixels, record.pixels)
    start = whole * record.pixels if kernel.in_rows else 0
    multiplied = _filled(kernel.pixels, record.pixels) * record.multiplied(kernel.own)
    times = groups * kernel.shares
    return {
        "products": groups * multiplied * window.taps,
        "taps": groups * kernel.tiles * blocks * window.taps,
        "blocks": groups * kernel.tiles * blocks * parts,
        "tiles": groups * kernel.tiles * parts,
        "rests": groups * parts * (whole * (kernel.own % record.filters) + (kernel.own if rest else 0)),
        **_gathered(window, start, record.pixels, times),
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
    whole, rest = divmod(kernel.pixels, record.pixels)
    tiles, blocks = whole + (rest > 0), kernel.padded // record.filters
    cut = kernel.own % record.filters > 0
    return {
        "products": groups * tiles * record.pixels * kernel.padded * taps,
        "taps": groups * tiles * taps,
        "tiles": groups * tiles,
        "blocks": groups * tiles * blocks,
        "rests": groups * (kernel.own if rest else 0) + groups * whole * (kernel.own % record.filters),
        **_rows(kernel.window, record.pixels, groups),
    }


def _rows(window: MicroWindow, pixels: int, groups: int) -> Amounts:
    """Return what gathering windows takes row by row, as `c/matrix_gather.h` does it."""
    outputs, (height, width), across = prod(window.out), window.kernel, window.stride[1]
    # Whole tiles of 1x1 windows lie in rows already.
    single = window.kernel == window.stride == (1, 1) and window.size == window.out == (1, outputs)
    each = runs_of(window, outputs // pixels * pixels if single else 0, pixels)
    reach = (width - 1) * window.dilation[1]
    firsts = ((s % window.out[1] * across - window.start[1], n) for s, n in each)
    outside = sum(x < 0 or x + (n - 1) * across + reach >= window.size[1] for x, n in firsts)
    rows = groups * window.channels * height
    return {
        "rows": rows * len(each),
        "borders": rows * outside,
        "windows" if across == 1 else "strides": rows * width * len(each),
    }


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
        "read": _read(kernel, tiles * count),
    }
    return {f"{_way(kernel)}_{what}": n for what, n in amounts.items()}


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
