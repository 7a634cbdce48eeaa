"""Counts the work of kernels that can compute the same layer, and chooses the cheapest."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import assert_never

from tcc.backends.arm.kernels.base import LANES, Kernel, KernelCall, choose_tile_width
from tcc.backends.arm.kernels.conv import FLOATS, DirectConv, GatherMode
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroQuantizedWinograd, MicroWinograd
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import AMOUNTS, get_kind
from tcc.backends.arm.micro.records import PIXELS, QUAD
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.support.diagnostics import UnhandledError


@dataclass(frozen=True, slots=True)
class GatherRun:
    """Pixels of a tile in one row of the output: `gather_run` of `c/gather.h`.

    `y` and `x` are the position of the first pixel's window in the map.
    """

    tile: int
    count: int
    y: int
    x: int
    is_inside: bool


def iterate_gather_runs(window: MicroWindow, first_pixel: int, pixels: int) -> Iterator[GatherRun]:
    """Yield the runs of all tiles, from a pixel on."""
    outputs, columns, (down, across) = prod(window.out), window.out[1], window.stride
    (pad_top, pad_left), extent = window.start, (window.kernel[1] - 1) * window.dilation[1]
    rows = range((first_pixel // columns + 1) * columns, outputs, columns)
    starts = sorted({*range(first_pixel, outputs, pixels), *rows})
    for start, end in pairwise([*starts, outputs]):
        y, x = start // columns * down - pad_top, start % columns * across - pad_left
        inside = x >= 0 and x + (end - start - 1) * across + extent < window.size[1]
        yield GatherRun((start - first_pixel) // pixels, end - start, y, x, inside)


def count_quantized_gathers(window: MicroWindow, pixels: int, groups: int) -> dict[str, float]:
    """Return the work of gathering rows of 8-bit values: `c/matrix_gather.h`."""
    (height, width), across = window.kernel, window.stride[1]
    runs = list(_iterate_quantized_runs(window, pixels))
    rows = groups * window.channels * height
    return {
        "rows": rows * len(runs),
        "borders": rows * sum(not run.is_inside for run in runs),
        "near" if across == 1 else "dealt": rows * width * len(runs),
    }


def count_channel_gathers(window: MicroWindow, pixels: int, groups: int) -> dict[str, float]:
    """Return the work of interleaving channels and copying their taps: `c/matrix_channels.h`."""
    fours, (height, width) = groups * window.channels // QUAD, window.size
    runs = list(_iterate_quantized_runs(window, pixels))
    pieces = fours * prod(window.kernel) * sum(-(-run.count // COPY_WIDTH) for run in runs)
    return {
        "levels": 0 if window.is_flat else fours * height * -(-width // COPY_WIDTH),
        "near" if window.stride[1] == 1 else "dealt": pieces,
    }


COPY_WIDTH = 16
"""Number of values of a channel that are interleaved at once, and of quads copied at once."""


def _iterate_quantized_runs(window: MicroWindow, pixels: int) -> Iterator[GatherRun]:
    """Yield the runs of gathered tiles; full tiles of 1x1 windows are not gathered."""
    full_pixels = prod(window.out) // pixels * pixels
    return iterate_gather_runs(window, full_pixels if window.is_flat else 0, pixels)


def count_float_gathers(
    window: MicroWindow, first_pixel: int, pixels: int, repeats: int
) -> dict[str, float]:
    """Return the work of gathering floats, for tiles from a pixel on: `c/float_gather.h`."""
    pieces = list(_iterate_copy_lengths(window, first_pixel, pixels))
    vectors = [n for n in pieces if n >= QUAD and window.stride[1] <= 2]
    channels = repeats * window.channels
    return {
        "pieces": repeats * len(pieces),
        "copies": channels * len(pieces),
        "near" if window.stride[1] == 1 else "dealt": channels
        * sum(-(-n // QUAD) for n in vectors),
        "singles": channels * (sum(pieces) - sum(vectors)),
        "borders": channels
        * prod(window.kernel)
        * _count_zero_filled_tiles(window, first_pixel, pixels),
    }


def _iterate_copy_lengths(window: MicroWindow, first_pixel: int, pixels: int) -> Iterator[int]:
    """Yield the lengths of copies, for each row of the window inside the map.

    With stride 2, two adjacent taps are read together.
    """
    (_, across), (row_dilation, column_dilation) = window.stride, window.dilation
    height, width = window.size
    for run in iterate_gather_runs(window, first_pixel, pixels):
        rows = sum(0 <= run.y + i * row_dilation < height for i in range(window.kernel[0]))
        columns = [run.x + j * column_dilation for j in range(window.kernel[1])]
        if run.is_inside:
            lengths = [run.count] * len(
                columns[:: 2 if across == 2 and column_dilation == 1 else 1]
            )
        else:
            stops = (min(run.count, -(-(width - x) // across)) for x in columns)
            lengths = [end - max(0, -(x // across)) for end, x in zip(stops, columns, strict=True)]
        yield from (n for n in lengths if n > 0 for _ in range(rows))


def _count_zero_filled_tiles(window: MicroWindow, first_pixel: int, pixels: int) -> int:
    """Return the number of tiles filled with zeros first: partial ones, or outside of the map."""
    extent, height = (window.kernel[0] - 1) * window.dilation[0], window.size[0]
    full_tiles, remainder = divmod(prod(window.out) - first_pixel, pixels)
    return len(
        {full_tiles for _ in range(remainder > 0)}
        | {
            run.tile
            for run in iterate_gather_runs(window, first_pixel, pixels)
            if not (run.is_inside and run.y >= 0 and run.y + extent < height)
        }
    )


Amounts = dict[str, float]
MAX_RUN_TILES = 16
"""Most tiles of a row that the Winograd kernels read at once: `RUN` of `c/winograd_tiles.h`."""


def count_amounts(kernel: Kernel) -> tuple[str, Amounts]:
    """Return the name of a kernel's costs, and its amounts other than zero."""
    match kernel:
        case MicroWinograd() | MicroQuantizedWinograd():
            name, amounts = kernel.name, _count_winograd(kernel)
        case MicroFloatMatrix():
            name, amounts = kernel.name, _count_float_matrix(kernel)
        case MicroFloatDepthwise():
            name, amounts = "float_depthwise", _count_float_depthwise(kernel)
        case MicroMatrix():
            name, amounts = (
                f"{'channel_' * kernel.uses_channel_quads}{kernel.name}",
                _count_matrix(kernel),
            )
        case MicroVector():
            name, amounts = kernel.name, _count_vector(kernel)
        case MicroDepthwise():
            name, amounts = kernel.name, _count_depthwise(kernel)
        case DirectConv():
            rows, pixels = kernel.tile
            prefix = "" if kernel.numbers == FLOATS else "level_"
            name, amounts = f"{prefix}loops_{rows}x{pixels}", _count_loops(kernel)
        case _:
            raise UnhandledError("kernel with costs", kernel.name)
    assert amounts.keys() <= set(AMOUNTS[get_kind(name)]), name
    return name, amounts


def _count_winograd(kernel: MicroWinograd | MicroQuantizedWinograd) -> Amounts:
    record, window = kernel.record, kernel.window
    summed, points = record.count_summed_channels(window), record.count_points(window)
    bands = -(-kernel.tile_count // kernel.band_tiles)
    # Tiles are multiplied four at a time.
    tiles = bands * -(-kernel.band_tiles // QUAD) * QUAD
    runs = list(_iterate_tile_runs(kernel))
    filled_tiles = sum(-(-run // record.lanes) * record.lanes for run in runs)
    return {
        "products": tiles * summed * kernel.padded_filters * points,
        "runs": record.count_phases(window) * len(runs),
        "pixels": record.count_phases(window) * filled_tiles * points,
        "sums": kernel.tile_count * kernel.filters * points,
        "outputs": kernel.tile_count * kernel.filters * record.get_tile_side(window) ** 2,
        "weights": bands
        * record.count_phases(window)
        * kernel.padded_filters
        * record.count_weighted_points(window),
        "bands": bands * (record.count_calls(window) + kernel.padded_filters // record.filters),
    }


def _iterate_tile_runs(kernel: MicroWinograd | MicroQuantizedWinograd) -> Iterator[int]:
    """Yield how many tiles of a row are read at once: `tile_run` of `c/winograd_tiles.h`."""
    across = -(-kernel.window.out[1] // kernel.record.get_tile_side(kernel.window))
    for band_start in range(0, kernel.tile_count, kernel.band_tiles):
        at, band_stop = band_start, min(band_start + kernel.band_tiles, kernel.tile_count)
        while at < band_stop:
            yield (count := min(band_stop - at, across - at % across, MAX_RUN_TILES))
            at += count


def _count_filled_pixels(pixels: int, tile_pixels: int) -> int:
    """Return the number of pixels multiplied in tiles; the last tile is padded to quads."""
    return pixels // tile_pixels * tile_pixels + -(-(pixels % tile_pixels) // QUAD) * QUAD


def _count_float_matrix(kernel: MicroFloatMatrix) -> Amounts:
    record, groups, window = kernel.record, kernel.groups, kernel.window
    parts = -(-window.channels // kernel.chunk_channels)
    blocks, repeats = -(-kernel.group_filters // record.filters), groups * kernel.share_count
    start = kernel.pixels // record.pixels * record.pixels if kernel.reads_rows else 0
    products_per_tap = _count_filled_pixels(
        kernel.pixels, record.pixels
    ) * record.count_multiplied_filters(kernel.group_filters)
    return {
        "products": groups * products_per_tap * window.taps,
        "taps": groups * kernel.tiles * blocks * window.taps,
        "blocks": groups * kernel.tiles * blocks * parts,
        "tiles": groups * kernel.tiles * parts,
        "rests": groups * parts * _count_partial_filters(kernel),
        **count_float_gathers(window, start, record.pixels, repeats),
    }


def _count_float_depthwise(kernel: MicroFloatDepthwise) -> Amounts:
    window = kernel.window
    (height, width), (side, _), (stride, _) = window.out, window.kernel, window.stride
    filled_columns = -(-width // QUAD) * QUAD
    amounts = {
        "products": kernel.filters * height * filled_columns * window.taps,
        "rows": kernel.filters * height,
        "planes": kernel.filters,
    }
    return {f"{unit}_{side}x{side}_s{stride}": n for unit, n in amounts.items()}


def _count_matrix(kernel: MicroMatrix) -> Amounts:
    record, groups, taps = kernel.record, kernel.groups, kernel.quads * QUAD
    tiles, blocks = -(-kernel.pixels // record.pixels), kernel.padded_filters // record.filters
    count_gathers = count_channel_gathers if kernel.uses_channel_quads else count_quantized_gathers
    return {
        "products": groups * tiles * record.pixels * kernel.padded_filters * taps,
        "taps": groups * tiles * taps,
        "tiles": groups * tiles,
        "blocks": groups * tiles * blocks,
        "rests": groups * _count_partial_filters(kernel),
        **count_gathers(kernel.window, record.pixels, groups),
    }


def _count_partial_filters(kernel: MicroFloatMatrix | MicroMatrix) -> int:
    """Return the number of filters that partial blocks or tiles write, over all tiles."""
    full_tiles, remainder = divmod(kernel.pixels, kernel.record.pixels)
    return full_tiles * (kernel.group_filters % kernel.record.filters) + (
        kernel.group_filters if remainder else 0
    )


def _count_vector(kernel: MicroVector) -> Amounts:
    padded = -(-kernel.filters // kernel.record.filters) * kernel.record.filters
    return {"products": padded * kernel.row_bytes, "outputs": kernel.filters}


def _count_depthwise(kernel: MicroDepthwise) -> Amounts:
    window = kernel.window
    height, width = window.out
    method = _classify_planes(kernel)
    amounts = {"outputs": kernel.filters * height * width, "planes": kernel.filters}
    if method == "windows":
        bands = -(-height // window.band)
        products = bands * window.band * -(-width // 8) * 8 * window.taps
        amounts["products"] = kernel.filters * products
        read_unit = "read" if window.stride[1] == 1 else "dealt"
        amounts[read_unit] = kernel.filters * bands * window.band_elements
        amounts["rows"] = kernel.filters * bands * window.band_rows * window.stride[1]
    return {f"{method}_{unit}": n for unit, n in amounts.items()}


def _classify_planes(kernel: MicroDepthwise) -> str:
    """Return the method of `c/depthwise.c`: "points" and "halves" in place, "windows" in a band."""
    window = kernel.window
    (height, width), (rows, columns) = window.size, window.out
    if (window.kernel, window.stride, window.out) == ((1, 1), (1, 1), window.size):
        return "points"
    halves = (
        window.kernel == window.stride == (2, 2)
        and window.start == (0, 0)
        and kernel.has_uniform_weights
    )
    inside = 2 * rows <= height and 2 * columns <= width
    return "halves" if halves and inside and columns >= PIXELS else "windows"


def _count_loops(kernel: DirectConv) -> Amounts:
    height, width = kernel.plane
    count, lanes = choose_tile_width(width, kernel.tile[1], kernel.numbers.lanes)
    # The last tile of a row overlaps the one before it.
    tiles = height * -(-width // count)
    if kernel.uses_channel_vectors:
        vectors = -(-(kernel.filters + kernel.padding) // LANES) * height * width
    else:
        vectors = kernel.filters * tiles * (count // lanes)
    blocks = (kernel.blocks.count + bool(kernel.blocks.remainder)) * tiles
    amounts = {
        "products": vectors * kernel.taps,
        "steps": blocks * kernel.taps,
        "outputs": vectors,
    }
    method = _classify_loops(kernel)
    is_contiguous = kernel.window.stride[1] == 1 or kernel.numbers == FLOATS or method == "across"
    amounts["read" if is_contiguous else "dealt"] = _count_gathered(kernel, tiles * count)
    return {f"{method}_{unit}": n for unit, n in amounts.items()}


def _count_gathered(kernel: DirectConv, pixels: int) -> int:
    """Return the number of elements that are gathered, or copied with a border."""
    match kernel.gather_mode:
        case GatherMode.TILE | GatherMode.MAP:
            return kernel.taps * kernel.groups * pixels
        case GatherMode.NONE if kernel.window.needs_staging:
            window = kernel.window
            return window.create_staging(
                window.out[0], window.source[0], 0.0, "int8"
            ).space.elements
        case GatherMode.NONE:
            return 0
        case _:
            assert_never(kernel.gather_mode)


def _classify_loops(kernel: DirectConv) -> str:
    if kernel.uses_channel_vectors:
        return "across"
    if kernel.depth == 1:
        return "depthwise"
    match kernel.gather_mode:
        case GatherMode.NONE if kernel.numbers == FLOATS:
            return "in_place"
        case GatherMode.MAP:
            return "whole"
        case GatherMode.NONE | GatherMode.TILE:
            return "gathered"
        case _:
            assert_never(kernel.gather_mode)


MIN_SAVED_SHARE = 0.1
"""Share of the cost that Winograd's method must save, because it rounds more often."""


@dataclass(frozen=True, slots=True)
class KernelCandidate:
    """A kernel that can compute a layer, and a function that makes its call with packed weights.

    Only the weights of the chosen kernel are packed.
    """

    kernel: Kernel
    call: Callable[[], KernelCall]


def compute_cost(kernel: Kernel, machine: Machine) -> float:
    """Return the cost of a kernel on a machine's core, in the unit of the core's costs.

    Raises:
        MachineError: The kernel has no costs on this core (E0604).
    """
    name, amounts = count_amounts(kernel)
    unit_costs = machine.costs.kernels.get(name)
    if unit_costs is None:
        raise core_costs.create_missing_error(
            f"kernel {name!r} of core {machine.core!r}", machine.target.name
        )
    return sum(unit_costs[unit] * amount for unit, amount in amounts.items())


def choose_cheapest(candidates: Iterable[KernelCandidate], machine: Machine) -> KernelCandidate:
    """Return the cheapest candidate; of equal ones the first."""

    def compute_weighted_cost(candidate: KernelCandidate) -> float:
        kernel_cost = compute_cost(candidate.kernel, machine)
        return (
            kernel_cost / (1 - MIN_SAVED_SHARE)
            if isinstance(candidate.kernel, MicroWinograd)
            else kernel_cost
        )

    return min(candidates, key=compute_weighted_cost)
