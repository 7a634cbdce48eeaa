"""Areas that somebody drew on a slide: GeoJSON as QuPath writes it, XML as ASAP does (CAMELYON)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

import numpy as np

from tcc.compiler.slides import geojson, mask_files
from tcc.compiler.slides.geojson import MAX_BYTES, MOST_VERTICES
from tcc.compiler.slides.slide_file import SlideExtent
from tcc.compiler.slides.tumour_classes import WORDS
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Area = tuple[str, list[NDArray[np.float64]]]

ENDINGS = (".geojson", ".xml")
TUMOUR = WORDS | {"_0", "_1", "metastases"}
"""Classes of tumour; `_0` and `_1` are groups of CAMELYON16, `metastases` one of CAMELYON17."""
OTHER = frozenset({"_2", "exclusion", "normal", "tissue"})
"""Classes that are none; `_2` are the parts of CAMELYON16 that are cut out of its tumours."""
CUT = OTHER - {"tissue"}
"""Those that are cut out of the tumours around them."""
OVERSHOT = 0.01
"""Share of a slide's side by which a hand may draw beyond its edge."""
AREAS = ("Polygon", "Rectangle", "Spline")
"""ASAP's kinds of annotations that have an area."""


@dataclass(frozen=True, slots=True)
class AreaClasses:
    """The classes, in small letters, that are tumour, and those that are not."""

    tumour: frozenset[str]
    other: frozenset[str]


def classes(tumour: Sequence[str], other: Sequence[str]) -> AreaClasses:
    """Return what classes mean: what is named here, and for the rest what they are known for."""
    named = frozenset(name.casefold() for name in tumour)
    more = frozenset(name.casefold() for name in other)
    return AreaClasses((TUMOUR - more) | named, (OTHER - named) | (more - named))


def beside(slide: Path, folder: Path | None) -> Path | None:
    """Return the annotations of a slide, in a folder or beside it; None where there are none."""
    places = [(folder or slide.parent) / f"{slide.stem}{ending}" for ending in ENDINGS]
    return next((path for path in places if path.is_file()), None)


def tumour(path: Path, slide: SlideExtent, side: int, known: AreaClasses) -> "NDArray[np.bool_]":
    """Return the squares of a slide, `side` pixels of level 0 wide, that lie in a tumour.

    Raises:
        UserError: The file cannot be read (E1306, E1314), has a class that is not known (E1315), or
            areas that reach beyond the slide (E1320).
    """
    areas = _read_xml(path) if path.suffix.lower() == ".xml" else geojson.read(path)
    for number, (name, rings) in enumerate(areas, 1):
        _check_place(path, number, rings, slide)
        if name.casefold() not in known.tumour | known.other:
            message = f"is class `{name[:80]}` of these annotations tumour?"
            help = "say so with --tumour, or with --other that it is not"
            raise fail("E1315", message, whole_file(str(path)), help=help)
    wanted = [rings for name, rings in areas if name.casefold() in known.tumour]
    cut = [rings for name, rings in areas if name.casefold() in (known.other & CUT)]
    inside = mask_files.within(wanted, path, slide, side)
    return inside & ~mask_files.within(cut, path, slide, side)


def _check_place(
    path: Path, number: int, rings: "list[NDArray[np.float64]]", slide: SlideExtent
) -> None:
    """Refuse an area that reaches beyond the slide, as those of another slide do (E1320)."""
    size = np.array((slide.width, slide.height))
    for ring in rings:
        beyond = (ring < -size * OVERSHOT) | (ring > size * (1 + OVERSHOT))
        if beyond.any():
            x, y = ring[beyond.any(axis=1)][0].tolist()
            message = f"area {number} of these annotations reaches column {x:g}, row {y:g}"
            label = f"the slide is {slide.width} x {slide.height}"
            help = "give the annotations of this slide, in pixels of its level 0"
            raise fail("E1320", message, whole_file(str(path)), label=label, help=help)


class _AsapReader:
    """Collects areas while a file is parsed."""

    def __init__(self) -> None:
        self.areas: list[Area] = []
        self._name: str | None = None
        self._points: list[tuple[int, float, float]] = []
        self._count = 0

    def start(self, element: str, given: Mapping[str, str]) -> None:
        if element == "Annotation":
            if given.get("Type", "Polygon") not in AREAS:
                raise ValueError(f"an annotation of type {given['Type'][:40]} has no area")
            self._name, self._points = given.get("PartOfGroup", ""), []
        elif element == "Coordinate" and self._name is not None:
            self._count += 1
            x, y = (float(given[axis].replace(",", ".")) for axis in "XY")
            if not (abs(x) < 1e9 and abs(y) < 1e9) or self._count > MOST_VERTICES:
                raise ValueError("a coordinate is out of its range, or there are too many")
            self._points.append((int(given.get("Order", self._count)), x, y))

    def end(self, element: str) -> None:
        if element == "Annotation" and self._name is not None:
            if len(self._points) < 3:
                raise ValueError("an annotation has fewer than three corners")
            points = sorted(self._points, key=lambda point: point[0])
            ring = np.array([point[1:] for point in points], np.float64)
            self.areas.append((self._name, [ring]))
            self._name = None

    def refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type, which annotations have no need of")


def _read_xml(path: Path) -> "list[Area]":
    reader, parser = _AsapReader(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    # Entities, and so bombs of them, can be declared in a document type alone.
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        with regular_files.opened(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _wrong(path, f"it is larger than {MAX_BYTES >> 20} MiB")
        parser.Parse(data, True)
    except (OSError, ValueError, KeyError, OverflowError, expat.ExpatError) as error:
        raise _wrong(path, f"line {parser.CurrentLineNumber}: {str(error)[:200]}") from None
    return reader.areas


def _wrong(path: Path, label: str) -> UserError:
    message = "these annotations cannot be read"
    help = "give XML as ASAP writes it, or GeoJSON as QuPath does"
    return fail("E1314", message, whole_file(str(path)), label=label, help=help)
