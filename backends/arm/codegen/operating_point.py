"""Operating points in the bytes of a library: float64 records after a unique mark.

First comes the number of records, then one record per output: checksum of the output's name,
capacity for thresholds, temperature, positive class, number of thresholds, thresholds.
`runtime/decision.h` reads them. Every program that uses the library therefore decides as `tcc`.

Bundles of older versions have no such records: their programs read a text file, and their
libraries have no operating points.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen.c_header import format_floats, rename_model, to_string_literal
from tcc.backends.arm.codegen.network import locate_outputs
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Output
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_HEADER = 1 << 20
MAX_BINARY = 1 << 31
_CREATE = re.compile(r"^#define (\w+)_create (\w+)$", re.MULTILINE)
_RECORD_HEADER_NUMBERS = 5
"""Number of values in a record before its thresholds."""


def build_mark(create: str) -> str:
    """Return the 32 characters before a library's records.

    Args:
        create: The symbol of its function that creates instances, which ends with its digest.
    """
    return f"tcc operating point {create[-12:]}"


def build_unfitted_records(program: Program) -> tuple[float, ...]:
    """Return the records of a network without fitted values."""
    numbers = [float(len(program.graph.outputs))]
    for output, shape, _ in locate_outputs(program):
        threshold_count = _count_thresholds(output, shape)
        numbers += [
            float(_compute_checksum(output.name)),
            float(threshold_count),
            *[0.0] * (_RECORD_HEADER_NUMBERS - 2 + threshold_count),
        ]
    return tuple(numbers)


def _count_thresholds(output: Output, shape: tuple[int, ...]) -> int:
    """Return the largest number of thresholds of an output."""
    if len(shape) > 1 or output.meaning == "regression":
        return 0
    return shape[0] if output.meaning == "decisions" else 1


def _compute_checksum(name: str) -> int:
    return zlib.crc32(name.encode())


def encode_files(folder: Path, points: Sequence[OperatingPoint]) -> Mapping[str, bytes]:
    """Return the files of an artifact that contain operating points, by name, with new ones.

    Args:
        folder: The artifact.
        points: The operating points of its outputs.

    Raises:
        UserError: No header in `folder` declares the network, or a library is damaged (E0652).
    """
    name, create = read_network(folder)
    return {**_encode_thresholds(folder, name, create, points), **_render_sets(name, points)}


def _render_sets(name: str, points: Sequence[OperatingPoint]) -> Mapping[str, bytes]:
    """Return the header with prediction sets and abstention, if any are fitted.

    A header and no record of the library: so libraries without sets, also those that are already
    built, keep their bytes and have no code for them.
    """
    with_sets = next((point for point in points if point.sets), None)
    with_margin = next((point for point in points if point.abstention), None)
    if with_sets is None and with_margin is None:
        return {}
    sets_output = with_sets.output if with_sets else ""
    answer_output = with_margin.output if with_margin else ""
    sets = with_sets.sets if with_sets else None
    abstention = with_margin.abstention if with_margin else None
    gaps = [-1.0 if gap is None else gap for gap in sets.gaps] if sets else [0.0]
    margin = abstention.margin if abstention else 0.0
    numbers = (
        f"#define MODEL_SETS_OUTPUT {to_string_literal(sets_output)}",
        f"#define MODEL_SET_GAPS {len(gaps)} /* 1: one gap for all classes */",
        "static const float model_set_gaps[MODEL_SET_GAPS] = {",
        f"    {format_floats(gaps, len(gaps))},",
        "};",
        f"#define MODEL_ANSWER_OUTPUT {to_string_literal(answer_output)}",
        f"#define MODEL_ANSWER_MARGIN {format_floats([margin], 1)}",
    )
    text = (files("tcc.backends.arm") / "runtime" / "sets.h").read_text("utf-8")
    text = rename_model(text.replace("/* numbers */", "\n".join(numbers)), name)
    return {f"{name}_sets.h": text.encode()}


def _encode_thresholds(
    folder: Path, name: str, create: str, points: Sequence[OperatingPoint]
) -> Mapping[str, bytes]:
    """Return the files with temperatures and thresholds."""
    needle = build_mark(create).encode()
    binaries = {path.name: _read_content(path) for path in find_binaries(folder, name)}
    marked = {file: content for file, content in binaries.items() if needle in content}
    if not marked:
        return {f"{name}-operating-point.txt": _write_text(create, points)}
    return {
        file: _write_records(content, needle, points, folder / file)
        for file, content in marked.items()
    }


def has_library_records(folder: Path) -> bool:
    """Whether the library of an artifact has records; older programs read a text file."""
    _, create = read_network(folder)
    return any(
        build_mark(create).encode() in _read_content(path) for path in sorted(folder.glob("*.a"))
    )


def read_network(folder: Path) -> tuple[str, str]:
    """Return the network's name in C, and its function that creates instances.

    Raises:
        UserError: No header in `folder` declares the network (E0652).
    """
    for header in sorted(folder.glob("*.h")):
        with regular_files.open_file(header) as stream:
            text = stream.read(MAX_HEADER).decode("utf-8", "replace")
        if match := _CREATE.search(text):
            name, create = match.groups()
            return name, create
    message, help = "no C header in this folder declares the network", "build the bundle again"
    raise fail("E0652", message, make_file_span(str(folder)), help=help)


def find_binaries(folder: Path, name: str) -> Iterator[Path]:
    """Yield the libraries and the program of an artifact whose network has this name in C."""
    for file in (f"lib{name}.a", f"lib{name}.so", f"{name}-run"):
        if (folder / file).is_file():
            yield folder / file


def _read_content(path: Path) -> bytes:
    with regular_files.open_file(path) as stream:
        return stream.read(MAX_BINARY)


def _write_records(
    content: bytes, needle: bytes, points: Sequence[OperatingPoint], path: Path
) -> bytes:
    """Return the bytes of a library or program with new records."""
    if content.count(needle) != 1:
        raise _refuse(path)
    changed, at = bytearray(content), content.index(needle) + len(needle)
    by_name = {_compute_checksum(point.output): point for point in points}
    try:
        (count,) = struct.unpack_from("<d", content, at)
        at += 8
        for _ in range(int(count)):
            name, threshold_count = map(int, struct.unpack_from("<2d", content, at))
            numbers = _build_record(by_name.pop(name, None), threshold_count, path)
            struct.pack_into(f"<{len(numbers)}d", changed, at + 16, *numbers)
            at += 8 * (_RECORD_HEADER_NUMBERS + threshold_count)
    except (struct.error, ValueError, OverflowError):
        raise _refuse(path) from None
    if by_name:
        raise _refuse(path)
    return bytes(changed)


def _build_record(
    point: OperatingPoint | None, threshold_count: int, path: Path
) -> tuple[float, ...]:
    """Return a record's values after name and capacity: zeros if nothing is fitted."""
    if point is None:
        return (0.0,) * (3 + threshold_count)
    if len(point.thresholds) > threshold_count or threshold_count < 0:
        raise _refuse(path)
    positive = -1 if point.positive is None else point.positive
    padding = (0.0,) * (threshold_count - len(point.thresholds))
    return (point.temperature, positive, len(point.thresholds), *point.thresholds, *padding)


def _refuse(path: Path) -> UserError:
    message = "the operating point records in this file are damaged"
    return fail("E0652", message, make_file_span(str(path)), help="build the bundle again")


def _write_text(network: str, points: Sequence[OperatingPoint]) -> bytes:
    """Return the text file for programs of older versions; its last line is a checksum."""
    body = "".join(_list_lines(network, points)).encode()
    return body + f"seal {zlib.crc32(body):08x}\n".encode()


def _list_lines(network: str, points: Sequence[OperatingPoint]) -> Iterator[str]:
    yield f"tcc operating point 1\nnetwork {network}\n"
    for point in points:
        positive = -1 if point.positive is None else point.positive
        yield f"output {point.output}\ntemperature {point.temperature!r}\npositive {positive}\n"
        yield f"thresholds {len(point.thresholds)}\n"
        yield from (f"{threshold!r}\n" for threshold in point.thresholds)
