"""The guard of a bundle in C: its forms as constants, its tables after a mark.

`tcc field` writes other tables into a library, which `runtime/guard.h` reads at each image.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tcc.backends.arm.codegen import operating_point
from tcc.backends.arm.codegen.network import GUARD_RING, GUARD_SUMS, Network
from tcc.compiler.guard.guard_document import Guard, ScoreTable
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_THRESHOLDS = 8
"""Room for thresholds of a score; unused ones are never exceeded."""
UNUSED_THRESHOLD = (1 << 31) - 1
MARK = "tcc tables of guard "
PIXEL_SUMS = 17
RING_ROWS = 17
FUNCTIONS = ("guard", "guard_case", "guard_sums", "guard_feature")
"""Functions of a library with a guard."""


def build_mark(create: str) -> str:
    """Return the 32 characters before a library's tables; as for operating points."""
    return f"{MARK}{create[-12:]}"


def list_table_numbers(guard: Guard) -> tuple[int, ...]:
    """Return the tables of a guard: picture, layer, steps of drift, thresholds of each change."""
    empty = ScoreTable((UNUSED_THRESHOLD,), (0, 0), UNUSED_THRESHOLD)
    numbers: list[int] = []
    for table in (guard.picture_table, guard.layer_table or empty):
        numbers += [*_pad_thresholds(table.thresholds), *_pad_steps(table.steps), table.unusual]
    numbers += _pad_steps(guard.drift.steps)
    for change in guard.drift.changes:
        numbers += _pad_thresholds(change.thresholds)
    return tuple(numbers)


def _pad_thresholds(thresholds: tuple[int, ...]) -> tuple[int, ...]:
    return (*thresholds, *(UNUSED_THRESHOLD,) * (MAX_THRESHOLDS - len(thresholds)))


def _pad_steps(steps: tuple[int, ...]) -> tuple[int, ...]:
    return (*steps, *(0,) * (MAX_THRESHOLDS + 1 - len(steps)))


def generate_guard(network: Network) -> Iterator[str]:
    """Yield the constants that `runtime/guard.h` reads."""
    guard = network.guard
    assert guard is not None
    channels, height, width = guard.shape
    plane = height * width if channels == 3 else 0
    yield ""
    yield "/* The guard: see guard.h. */"
    yield f"enum {{ GUARD_HEIGHT = {height}, GUARD_WIDTH = {width}, GUARD_PLANE = {plane} }};"
    yield f"enum {{ GUARD_ROW_STEP = {guard.row_step}, GUARD_THRESHOLDS = {MAX_THRESHOLDS} }};"
    yield f"enum {{ GUARD_SUMS_AT = {network.arena.offsets[GUARD_SUMS]} }};"
    yield f"enum {{ GUARD_RING_AT = {network.arena.offsets[GUARD_RING]} }};"
    yield _make_array("int16_t", "guard_center", guard.picture.center)
    yield _make_array("int16_t", "guard_rows", guard.picture.rows)
    yield _make_array("uint8_t", "guard_shifts", guard.picture.shifts)
    yield from _generate_layer(network, guard)
    changes = guard.drift.changes
    rows = ", ".join(f"{{{', '.join(map(str, change.direction))}}}" for change in changes)
    yield f"enum {{ GUARD_CHANGES = {len(changes)} }};"
    columns = len(guard.picture.center)
    yield f"static const int16_t guard_changes[GUARD_CHANGES][{columns}] = {{{rows}}};"
    yield "/* Tables: `tcc field` writes them here, in the libraries and the program."
    yield " * volatile: no compiler may use the initial values as constants. */"
    score = "int32_t thresholds[GUARD_THRESHOLDS], steps[GUARD_THRESHOLDS + 1], unusual;"
    yield f"typedef struct {{ {score} }} guard_score_table;"
    yield "typedef struct {"
    yield "    guard_score_table picture, layer;"
    yield "    int32_t drift_steps[GUARD_THRESHOLDS + 1];"
    yield "    int32_t drift_thresholds[GUARD_CHANGES][GUARD_THRESHOLDS];"
    yield "} guard_tables;"
    yield "static const volatile struct { char mark[32]; guard_tables tables; } guard_fitted = {"
    yield f"    /* guard mark */, {_format_tables(guard)},"
    yield "};"


def _format_tables(guard: Guard) -> str:
    empty = ScoreTable((UNUSED_THRESHOLD,), (0, 0), UNUSED_THRESHOLD)
    scores = ", ".join(
        f"{{{_format(_pad_thresholds(t.thresholds))}, {_format(_pad_steps(t.steps))}, {t.unusual}}}"
        for t in (guard.picture_table, guard.layer_table or empty)
    )
    changes = ", ".join(_format(_pad_thresholds(c.thresholds)) for c in guard.drift.changes)
    return f"{{{scores}, {_format(_pad_steps(guard.drift.steps))}, {{{changes}}}}}"


def _format(numbers: Iterable[int]) -> str:
    return f"{{{', '.join(map(str, numbers))}}}"


def _generate_layer(network: Network, guard: Guard) -> Iterator[str]:
    layer = guard.layer
    if layer is None:
        yield "#define GUARD_CHANNELS 0"
        return
    steps = [step.output for step in network.program.steps]
    yield f"#define GUARD_CHANNELS {len(layer.center)}"
    yield f"enum {{ GUARD_ZERO_POINT = {layer.zero_point} }};"
    yield f"enum {{ GUARD_TAP = {steps.index(layer.tap)}, GUARD_PIXELS = {layer.pixels} }};"
    yield f"enum {{ GUARD_STRIDE = {layer.stride}, GUARD_FACTOR_SHIFT = {layer.factor_shift} }};"
    yield f"enum {{ GUARD_DIRECTIONS = {len(layer.weights) - 1} }};"
    yield _make_array("int32_t", "guard_layer_center", layer.center)
    yield _make_array("uint16_t", "guard_layer_factors", layer.factors)
    yield _make_array("int16_t", "guard_directions", layer.directions)
    yield _make_array("int16_t", "guard_weights", layer.weights)
    yield _make_array("uint8_t", "guard_weight_shifts", layer.weight_shifts)


def _make_array(kind: str, name: str, numbers: Iterable[int]) -> str:
    return f"static const {kind} {name}[] = {_format(numbers)};"


def has_tap(network: Network) -> bool:
    """Whether a step of the program computes the layer of its guard, and nothing merges it."""
    guard = network.guard
    outputs = {step.output for step in network.program.steps}
    return guard is None or guard.layer is None or guard.layer.tap in outputs


def count_sum_bytes(guard: Guard) -> int:
    """Return the bytes of the sums of an image and of a layer's channels."""
    return 8 * (PIXEL_SUMS + (len(guard.layer.center) if guard.layer else 0))


def count_ring_bytes(guard: Guard) -> int:
    """Return the bytes of the rows of luminance."""
    return 2 * RING_ROWS * guard.shape[2]


def encode_files(folder: Path, guard: Guard) -> Mapping[str, bytes]:
    """Return the files of an artifact that contain tables, by name, with other tables.

    Raises:
        UserError: No header declares the network, or a library is damaged (E0652).
    """
    name, create = operating_point.read_network(folder)
    needle = build_mark(create).encode()
    numbers = list_table_numbers(guard)
    table_bytes = struct.pack(f"<{len(numbers)}i", *numbers)
    contents = {
        path.name: regular_files.read_file(path, "read this", operating_point.MAX_BINARY)
        for path in operating_point.find_binaries(folder, name)
    }
    return {
        file: _write_tables(content, needle, table_bytes, folder / file)
        for file, content in contents.items()
    }


def _write_tables(content: bytes, needle: bytes, table_bytes: bytes, path: Path) -> bytes:
    start = content.find(needle) + len(needle)
    if content.count(needle) != 1 or start + len(table_bytes) > len(content):
        raise _refuse(path)
    return content[:start] + table_bytes + content[start + len(table_bytes) :]


def _refuse(path: Path) -> UserError:
    message = "the guard tables in this file are damaged"
    return fail("E0652", message, make_file_span(str(path)), help="build the bundle again")
