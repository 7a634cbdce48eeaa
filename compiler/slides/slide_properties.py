"""What a slide's file says of itself, before any of its pixels is looked at."""

import math
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from tcc.compiler.support.diagnostics import fail, whole_file

MAX_TILE = 1 << 26
"""Most pixels of a tile, which is decoded whole for each part of it that is read."""
FINEST, COARSEST = 0.01, 100.0
"""Micrometres of a pixel, beyond which no microscope sees."""
SQUARE = 0.02
"""How much of their length the sides of a pixel may differ by."""


def check_depth(path: Path) -> None:
    """Refuse samples of more than 8 bits, of which OpenSlide keeps some without a word (E1303)."""
    library: Any = import_module("tifffile")
    depth: Any = 8
    with suppress(Exception), library.TiffFile(path) as file:  # most formats are no TIFF
        depth = file.pages[0].bitspersample
    if depth != 8:
        message = f"the slide's samples have {depth} bits, and networks see 8"
        help = "convert it to 8 bits, choosing which values are black and white"
        raise fail("E1303", message, whole_file(str(path)), help=help)


def check_tiles(path: Path, properties: Mapping[str, str], levels: int) -> None:
    """Refuse tiles that memory has to be found for before their contents are known (E1304)."""
    for level in range(levels):
        names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
        pixels = math.prod(int(properties[name]) for name in names if name in properties)
        if pixels > MAX_TILE:
            message = f"a tile of this slide has {pixels:,} pixels, at most {MAX_TILE:,} are read"
            help = "write it anew with tiles of, say, 512 x 512 pixels"
            raise fail("E1304", message, whole_file(str(path)), help=help)


def mpp(properties: Mapping[str, str]) -> float | None:
    """Return what a file says of its resolution; None where it is nothing that can be meant."""
    found = []
    for name in ("openslide.mpp-x", "openslide.mpp-y"):
        with suppress(KeyError, ValueError):
            found.append(float(properties[name]))
    if len(found) < 2 or not all(map(math.isfinite, found)):
        return None
    if min(found) < FINEST or max(found) > COARSEST or max(found) > min(found) * (1 + SQUARE):
        return None
    return sum(found) / 2
