"""Annotations in XML as ASAP writes it (CAMELYON), parsed a part of the file at a time."""

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

import numpy as np

from tcc.compiler.slides.drawn_areas import (
    AreaCollector,
    DrawnAreas,
    TooMuchError,
    check_count,
    check_size,
    refuse_size,
)
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float, parse_int
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from typing import BinaryIO

AREAS = ("Polygon", "Rectangle", "Spline")
"""ASAP's kinds of annotations that have an area."""
MOST_ELEMENTS = 1 << 20
"""Most elements of a file beside the corners of its annotations."""
DEEPEST = 64
"""Most elements within each other."""
LONGEST = 1 << 16
"""Bytes of a part that is parsed at a time; the parser holds a tag of several parts as a whole."""
LONGEST_TAG = 1 << 18
"""Most bytes of a tag or comment."""


def read(path: Path) -> DrawnAreas:
    """Return the areas of a file with the groups that they are part of.

    Raises:
        UserError: It cannot be read (E1314), or has more than is read (E1323).
    """
    reader, parser = _AsapReader(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    # Entities, and so bombs of them, can be declared in a document type alone.
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        with regular_files.opened(path) as file:
            _feed(parser, file)
        return reader.collector.close()
    except TooMuchError as error:
        raise refuse_size(path, error) from None
    except (OSError, ValueError, expat.ExpatError) as error:
        raise _refuse(path, f"line {parser.CurrentLineNumber}: {str(error)[:200]}") from None


def _feed(parser: Any, file: "BinaryIO") -> None:
    """Parse a file part by part; what a part does not end is bounded, since it is parsed again."""
    count = 0
    while part := file.read(LONGEST):
        count += len(part)
        check_size(count)
        parser.Parse(part, False)
        if count - parser.CurrentByteIndex > LONGEST_TAG:
            raise TooMuchError(f"a tag or comment is longer than {LONGEST_TAG >> 10} KiB")
    parser.Parse(b"", True)


class _AsapReader:
    """Collects areas while a file is parsed."""

    def __init__(self) -> None:
        self.collector = AreaCollector()
        self._name: str | None = None
        self._order, self._vertices = array("q"), array("d")
        self._elements = self._depth = self._count = 0

    def start(self, element: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} elements are within each other")
        if element == "Coordinate" and self._name is not None:
            self._add_vertex(attributes)
            return
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise TooMuchError(f"there are more than {MOST_ELEMENTS:,} elements beside corners")
        if element == "Annotation":
            self._begin(attributes)

    def end(self, element: str) -> None:
        self._depth -= 1
        if element == "Annotation" and self._name is not None:
            if len(self._order) < 3:
                raise ValueError("an annotation has fewer than three corners")
            order = np.argsort(np.array(self._order, np.int64), kind="stable")
            self.collector.add(self._name, [np.array(self._vertices).reshape(-1, 2)[order]])
            self._name = None

    def refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type, which annotations have no need of")

    def _begin(self, attributes: Mapping[str, str]) -> None:
        if self._name is not None:
            raise ValueError("an annotation is within another")
        kind = attributes.get("Type", "Polygon")
        if kind not in AREAS:
            raise ValueError(f"an annotation of type {kind[:40]} has no area")
        self._name = attributes.get("PartOfGroup", "")
        self._order, self._vertices = array("q"), array("d")

    def _add_vertex(self, attributes: Mapping[str, str]) -> None:
        self._count += 1
        check_count(self._count)
        self._vertices.extend(parse_float(_get(attributes, axis)) for axis in "XY")
        place = attributes.get("Order")
        self._order.append(self._count if place is None else _check_order(parse_int(place)))


def _get(attributes: Mapping[str, str], axis: str) -> str:
    if axis not in attributes:
        raise ValueError(f"a coordinate has no {axis}")
    return attributes[axis].replace(",", ".", 1)  # ASAP writes the comma of some languages


def _check_order(number: int) -> int:
    if abs(number) >= 1 << 62:
        raise ValueError("an Order is out of its range")
    return number


def _refuse(path: Path, label: str) -> UserError:
    message = "these annotations cannot be read"
    help = "give XML as ASAP writes it, or GeoJSON as QuPath does"
    return fail("E1314", message, whole_file(str(path)), label=label, help=help)
