"""The file beside a runner program that tells it how outputs are read."""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, whole_file

MAX_HEADER = 1 << 20
_CREATE = re.compile(r"^#define (\w+)_create (\w+)$", re.MULTILINE)


def files(folder: Path, points: Sequence[OperatingPoint]) -> Mapping[str, bytes]:
    """Return the file by name; its last line is a checksum of the others.

    Raises:
        UserError: The header in `folder` does not name the network (E0652).
    """
    name, network = find_network(folder)
    body = "".join(_lines(network, points)).encode()
    seal = f"seal {zlib.crc32(body):08x}\n".encode()
    return {file_name(name): body + seal}


def file_name(name: str) -> str:
    """Return what the file is called beside the program of a model."""
    return f"{name}-operating-point.txt"


def find_network(folder: Path) -> tuple[str, str]:
    """Return what an artifact's files are called after, and the symbol that tells it from others.

    Raises:
        UserError: The header in `folder` does not name the network (E0652).
    """
    for header in sorted(folder.glob("*.h")):
        with regular_files.opened(header) as stream:
            text = stream.read(MAX_HEADER).decode("utf-8", "replace")
        if matched := _CREATE.search(text):
            return matched[1], matched[2]
    raise fail("E0652", "the header does not name the network", whole_file(str(folder)))


def _lines(network: str, points: Sequence[OperatingPoint]) -> Iterator[str]:
    yield f"tcc operating point 1\nnetwork {network}\n"
    for point in points:
        positive = -1 if point.positive is None else point.positive
        yield f"output {point.output}\ntemperature {point.temperature!r}\npositive {positive}\n"
        yield f"thresholds {len(point.thresholds)}\n"
        yield from (f"{each!r}\n" for each in point.thresholds)
