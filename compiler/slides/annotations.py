"""Read annotated areas of a slide: GeoJSON from QuPath, and XML from ASAP (CAMELYON)."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides import geojson, mask_files
from tcc.compiler.slides.annotated_areas import (
    AreaCollector,
    DrawnAreas,
    TooMuchError,
    build_size_error,
    check_count,
    check_size,
)
from tcc.compiler.slides.slide_file import SlideExtent
from tcc.compiler.slides.tumour_classes import TUMOUR_LABELS
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

if TYPE_CHECKING:
    from typing import BinaryIO

AREA_TYPES = ("Polygon", "Rectangle", "Spline")
"""ASAP's annotation types that have an area."""
MAX_ELEMENTS = 1 << 20
"""Maximum number of elements in a file, not counting the corners of annotations."""
MAX_DEPTH = 64
"""Maximum nesting depth of elements."""
CHUNK_BYTES = 1 << 16
"""Bytes that are parsed at a time; the parser buffers a tag that spans several chunks."""
MAX_TAG_BYTES = 1 << 18
"""Maximum length of a tag or comment in bytes."""


def read_asap(path: Path) -> DrawnAreas:
    """Return the areas of an ASAP file; their class names are the groups.

    Raises:
        UserError: The file cannot be read (E1314), or exceeds a limit (E1323).
    """
    reader, parser = _AsapReader(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.handle_start, reader.handle_end
    # Only a document type can declare entities, and so entity bombs.
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        with regular_files.open_file(path) as file:
            _parse_file(parser, file)
        return reader.collector.build_areas()
    except TooMuchError as error:
        raise build_size_error(path, error) from None
    except (OSError, ValueError, expat.ExpatError) as error:
        raise _build_error(path, f"line {parser.CurrentLineNumber}: {str(error)[:200]}") from None


def _parse_file(parser: Any, file: "BinaryIO") -> None:
    """Parse a file in chunks; limit incomplete tags, because each chunk parses them again."""
    byte_count = 0
    while chunk := file.read(CHUNK_BYTES):
        byte_count += len(chunk)
        check_size(byte_count)
        parser.Parse(chunk, False)
        if byte_count - parser.CurrentByteIndex > MAX_TAG_BYTES:
            raise TooMuchError(f"a tag or comment is longer than {MAX_TAG_BYTES >> 10} KiB")
    parser.Parse(b"", True)


class _AsapReader:
    """Collects the areas while a file is parsed."""

    def __init__(self) -> None:
        self.collector = AreaCollector()
        self._class_name: str | None = None
        self._order, self._vertices = array("q"), array("d")
        self._elements = self._depth = self._count = 0

    def handle_start(self, element: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_DEPTH} levels deep")
        if element == "Coordinate" and self._class_name is not None:
            self._add_vertex(attributes)
            return
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise TooMuchError(f"there are more than {MAX_ELEMENTS:,} elements, without corners")
        if element == "Annotation":
            self._begin_annotation(attributes)

    def handle_end(self, element: str) -> None:
        self._depth -= 1
        if element == "Annotation" and self._class_name is not None:
            if len(self._order) < 3:
                raise ValueError("an annotation has fewer than three corners")
            order = np.argsort(np.array(self._order, np.int64), kind="stable")
            self.collector.add(self._class_name, [np.array(self._vertices).reshape(-1, 2)[order]])
            self._class_name = None

    def refuse(self, *_: object) -> None:
        raise ValueError("document type declarations are not supported; remove the DOCTYPE")

    def _begin_annotation(self, attributes: Mapping[str, str]) -> None:
        if self._class_name is not None:
            raise ValueError("an annotation is nested in another")
        kind = attributes.get("Type", "Polygon")
        if kind not in AREA_TYPES:
            raise ValueError(f"an annotation of type {kind[:40]} has no area")
        self._class_name = attributes.get("PartOfGroup", "")
        self._order, self._vertices = array("q"), array("d")

    def _add_vertex(self, attributes: Mapping[str, str]) -> None:
        self._count += 1
        check_count(self._count)
        self._vertices.extend(parse_float(_get_coordinate(attributes, axis)) for axis in "XY")
        order = attributes.get("Order")
        self._order.append(self._count if order is None else _check_order(parse_int(order)))


def _get_coordinate(attributes: Mapping[str, str], axis: str) -> str:
    if axis not in attributes:
        raise ValueError(f"a coordinate has no {axis}")
    return attributes[axis].replace(",", ".", 1)  # ASAP writes decimal commas in some locales


def _check_order(number: int) -> int:
    if abs(number) >= 1 << 62:
        raise ValueError("the attribute Order of a coordinate is out of range")
    return number


def _build_error(path: Path, label: str) -> UserError:
    message = "these annotations cannot be read"
    help = "give an XML file from ASAP, or a GeoJSON file from QuPath"
    return fail("E1314", message, make_file_span(str(path)), label=label, help=help)


SUFFIXES = (".geojson", ".xml")
TUMOUR_CLASSES = TUMOUR_LABELS | {"_0", "_1", "metastases"}
"""Classes of tumour; `_0` and `_1` are groups of CAMELYON16, `metastases` is one of CAMELYON17."""
NON_TUMOUR_CLASSES = frozenset({"_2", "exclusion", "normal", "tissue"})
"""Classes that are not tumour; `_2` are the areas of CAMELYON16 that are cut out of its tumours."""
CUT_OUT_CLASSES = NON_TUMOUR_CLASSES - {"tissue"}
"""Classes that are cut out of the surrounding tumours."""
MAX_OVERSHOOT = 0.01
"""Share of a slide's side by which annotations may extend beyond its edge."""


@dataclass(frozen=True, slots=True)
class AreaClasses:
    """Case-folded names of the classes that are tumour, and of those that are not."""

    tumour: frozenset[str]
    non_tumour: frozenset[str]


def build_area_classes(tumour: Sequence[str], non_tumour: Sequence[str]) -> AreaClasses:
    """Return the known classes, overridden by the given names of tumour and other classes."""
    tumour_names = frozenset(name.casefold() for name in tumour)
    non_tumour_names = frozenset(name.casefold() for name in non_tumour)
    return AreaClasses(
        (TUMOUR_CLASSES - non_tumour_names) | tumour_names,
        (NON_TUMOUR_CLASSES - tumour_names) | (non_tumour_names - tumour_names),
    )


def find_annotations_file(slide: Path, folder: Path | None) -> Path | None:
    """Return the annotations file of a slide, or None; `folder` defaults to the slide's folder."""
    paths = [(folder or slide.parent) / f"{slide.stem}{ending}" for ending in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def rasterize_tumour(
    path: Path, slide: SlideExtent, side: int, area_classes: AreaClasses
) -> NDArray[np.bool_]:
    """Return the squares of a slide, `side` pixels of level 0 wide, that are in a tumour.

    Raises:
        UserError: The file cannot be read (E1306, E1314), is too large (E1323, E1324), has an
            unknown class (E1315), or has areas outside the slide (E1320).
    """
    areas = read_asap(path) if path.suffix.lower() == ".xml" else geojson.read_areas(path)
    _check_extent(path, areas, slide)
    for name in dict.fromkeys(areas.names):
        if name.casefold() not in area_classes.tumour | area_classes.non_tumour:
            message = f"it is unknown whether class `{name[:80]}` of these annotations is tumour"
            help = "name it with --tumour if it is tumour, or with --other if it is not"
            raise fail("E1315", message, make_file_span(str(path)), help=help)
    inside = mask_files.rasterize_areas(areas.select(area_classes.tumour), path, slide, side)
    return inside & ~mask_files.rasterize_areas(
        areas.select(area_classes.non_tumour & CUT_OUT_CLASSES), path, slide, side
    )


def _check_extent(path: Path, areas: DrawnAreas, slide: SlideExtent) -> None:
    """Reject areas outside the slide, such as those of another slide (E1320)."""
    size = np.array((slide.width, slide.height))
    is_outside = (areas.vertices < -size * MAX_OVERSHOOT) | (
        areas.vertices > size * (1 + MAX_OVERSHOOT)
    )
    if is_outside.any():
        vertex = int(is_outside.any(axis=1).argmax())
        x, y = areas.vertices[vertex].tolist()
        number = areas.locate(vertex) + 1
        message = f"area {number} of these annotations has a corner at column {x:g}, row {y:g}"
        label = f"the slide has {slide.width} x {slide.height} pixels"
        help = "give the annotations of this slide, in pixels of its level 0"
        raise fail("E1320", message, make_file_span(str(path)), label=label, help=help)
