"""What a slide's file says of itself, before any of its pixels is looked at."""

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tcc.compiler.slides import libraries
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import fail, whole_file

MAX_TILE = 1 << 26
"""Most pixels of a tile, which is decoded whole for each part of it that is read."""
FINEST, COARSEST = 0.01, 100.0
"""Micrometres of a pixel, beyond which no microscope sees."""
FORMS = {
    (mark, version): form
    for mark in (b"II", b"MM")
    for version, form in ((42, (4, 2, 12, 4)), (43, (8, 8, 20, 8)))
}
"""By the first bytes of TIFF and BigTIFF: where the first page's place is, and the bytes of a
page's number of fields, of a field, and of the place of the next page."""
MOST_PAGES = 1 << 16
"""Most pages that are looked for."""
SQUARE = 0.02
"""How much of their length the sides of a pixel may differ by."""


def check_depth(path: Path, what: str) -> None:
    """Refuse samples of more than 8 bits, of which OpenSlide keeps some without a word (E1303)."""
    library: Any = libraries.load("tifffile")
    depth: Any = 8
    with suppress(Exception), library.TiffFile(path) as file:  # most formats are no TIFF
        depth = file.pages[0].bitspersample
    if depth != 8:
        bits = "1 bit" if depth == 1 else f"{depth} bits"
        message = f"this {what}'s samples have {bits}, and 8 are read"
        help = "convert it to 8 bits, choosing which values are black and white"
        raise fail("E1303", message, whole_file(str(path)), help=help)


def check_whole(path: Path, what: str) -> None:
    """Refuse a TIFF file that ends before the last of its pages begins (E1300)."""
    with regular_files.opened(path) as file:
        size = file.seek(0, 2)
        beyond = _page_beyond(file, size)
    if beyond is not None:
        message = f"this {what}'s file was cut short"
        label = f"it has {size:,} bytes, and goes on at byte {beyond:,}"
        where = whole_file(str(path))
        raise fail("E1300", message, where, label=label, help="copy or export it again")


def _page_beyond(file: BinaryIO, size: int) -> int | None:
    """Return where a TIFF or BigTIFF file says that a page is, and has none."""
    file.seek(0)
    head = file.read(16).ljust(16, b"\0")
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    form = FORMS.get((head[:2], int.from_bytes(head[2:4], order)))
    if form is None:
        return None
    first, count, entry, link = form
    place, seen = int.from_bytes(head[first : first + link], order), set[int]()
    while place and place not in seen and len(seen) < MOST_PAGES:
        seen.add(place)
        end = place + count
        if end <= size:
            file.seek(place)
            end += int.from_bytes(file.read(count), order) * entry + link
        if end > size:
            return place
        file.seek(end - link)
        place = int.from_bytes(file.read(link), order)
    return None


def check_tiles(path: Path, properties: Mapping[str, str], levels: int) -> None:
    """Refuse tiles that memory has to be found for before their contents are known (E1304)."""
    for level in range(levels):
        names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
        pixels = math.prod(parse_int(properties[name]) for name in names if name in properties)
        if pixels > MAX_TILE:
            message = f"a tile of this slide has {pixels:,} pixels, at most {MAX_TILE:,} are read"
            help = "write it anew with tiles of, say, 512 x 512 pixels"
            raise fail("E1304", message, whole_file(str(path)), help=help)


def mpp(properties: Mapping[str, str]) -> float | None:
    """Return what a file says of its resolution; None where it is nothing that can be meant."""
    found = []
    for name in ("openslide.mpp-x", "openslide.mpp-y"):
        with suppress(KeyError, ValueError):
            found.append(parse_float(properties[name]))
    if len(found) < 2:
        return None
    if min(found) < FINEST or max(found) > COARSEST or max(found) > min(found) * (1 + SQUARE):
        return None
    return sum(found) / 2
