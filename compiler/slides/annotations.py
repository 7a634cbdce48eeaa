"""Areas that somebody drew on a slide: GeoJSON as QuPath writes it, XML as ASAP does (CAMELYON)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.slides import asap_xml, geojson, mask_files
from tcc.compiler.slides.drawn_areas import DrawnAreas
from tcc.compiler.slides.slide_file import SlideExtent
from tcc.compiler.slides.tumour_classes import WORDS
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDINGS = (".geojson", ".xml")
TUMOUR = WORDS | {"_0", "_1", "metastases"}
"""Classes of tumour; `_0` and `_1` are groups of CAMELYON16, `metastases` one of CAMELYON17."""
OTHER = frozenset({"_2", "exclusion", "normal", "tissue"})
"""Classes that are none; `_2` are the parts of CAMELYON16 that are cut out of its tumours."""
CUT = OTHER - {"tissue"}
"""Those that are cut out of the tumours around them."""
OVERSHOT = 0.01
"""Share of a slide's side by which a hand may draw beyond its edge."""


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
        UserError: The file cannot be read (E1306, E1314), is too large (E1323, E1324), has a class
            that is not known (E1315), or areas that reach beyond the slide (E1320).
    """
    areas = asap_xml.read(path) if path.suffix.lower() == ".xml" else geojson.read(path)
    _check_places(path, areas, slide)
    for name in dict.fromkeys(areas.names):
        if name.casefold() not in known.tumour | known.other:
            message = f"is class `{name[:80]}` of these annotations tumour?"
            help = "say so with --tumour, or with --other that it is not"
            raise fail("E1315", message, whole_file(str(path)), help=help)
    inside = mask_files.within(areas.select(known.tumour), path, slide, side)
    return inside & ~mask_files.within(areas.select(known.other & CUT), path, slide, side)


def _check_places(path: Path, areas: DrawnAreas, slide: SlideExtent) -> None:
    """Refuse an area that reaches beyond the slide, as those of another slide do (E1320)."""
    size = np.array((slide.width, slide.height))
    beyond = (areas.vertices < -size * OVERSHOT) | (areas.vertices > size * (1 + OVERSHOT))
    if beyond.any():
        vertex = int(beyond.any(axis=1).argmax())
        x, y = areas.vertices[vertex].tolist()
        number = areas.locate(vertex) + 1
        message = f"area {number} of these annotations reaches column {x:g}, row {y:g}"
        label = f"the slide is {slide.width} x {slide.height}"
        help = "give the annotations of this slide, in pixels of its level 0"
        raise fail("E1320", message, whole_file(str(path)), label=label, help=help)
