"""Polygons as QuPath reads and writes them: GeoJSON in pixels of level 0.

QuPath's form: a feature has an `objectType`, a `classification` of a name and a colour, and
`measurements` by name (qupath.readthedocs.io, "Exporting annotations").
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.slides.contours import Ring
from tcc.compiler.slides.drawn_areas import (
    MAX_BYTES,
    AreaCollector,
    DrawnAreas,
    TooMuchError,
    check_size,
    refuse_size,
)
from tcc.compiler.slides.geojson_parser import GeoJsonParser
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def feature(
    polygons: Sequence[Sequence[Ring]],
    kind: str,
    name: str,
    colour: tuple[int, int, int],
    measurements: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return a feature of one or more polygons.

    Args:
        polygons: Each its outer ring and those of its holes.
        kind: What it is for QuPath: an `annotation` or a `tile`.
        name: Its class.
        colour: The colour of the class.
        measurements: Numbers of it by name.
    """
    one = len(polygons) == 1
    rings = [[ring.tolist() for ring in polygon] for polygon in polygons]
    geometry = {
        "type": "Polygon" if one else "MultiPolygon",
        "coordinates": rings[0] if one else rings,
    }
    found = {"objectType": kind, "classification": {"name": name, "color": list(colour)}}
    more = {"measurements": dict(measurements)} if measurements else {}
    return {"type": "Feature", "geometry": geometry, "properties": found | more}


def text(features: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a file of features, one a line."""
    out, encoder = BytesIO(), json.JSONEncoder(allow_nan=False)
    out.write(b'{"type": "FeatureCollection", "features": [\n')
    for number, each in enumerate(features):
        out.write(b",\n" if number else b"")
        out.write(encoder.encode(each).encode())
    out.write(b"\n]}\n")
    return out.getvalue()


def read(path: Path) -> DrawnAreas:
    """Return the polygons of a file with their classes.

    Raises:
        UserError: It cannot be read, or holds something else than polygons (E1306), or more than is
            read (E1323).
    """
    collector, count = AreaCollector(), 0

    def add_feature(feature: Any) -> None:
        nonlocal count
        count += 1
        _add_feature(collector, feature, count)

    try:
        with regular_files.opened(path) as file:
            text = file.read(MAX_BYTES + 1)
        check_size(len(text))
        encoding = json.detect_encoding(text)
        if encoding != "utf-8":
            text = text.decode(encoding).encode()
        GeoJsonParser(text, add_feature).parse()
        return collector.close()
    except TooMuchError as error:
        raise refuse_size(path, error) from None
    except (OSError, ValueError) as error:
        raise _refuse(path, str(error)[:200] or type(error).__name__) from None


def _add_feature(collector: AreaCollector, feature: Any, number: int) -> None:
    """Add the polygons of a feature; of a geometry without a feature, its own."""
    geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
    parts = geometry.get("coordinates") if isinstance(geometry, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(parts, list):
        reason = f"it is of type `{str(kind)[:40]}`" if kind else "it has no geometry"
        raise ValueError(f"feature {number} is no polygon: {reason}")
    for polygon in [parts] if kind == "Polygon" else parts:
        if not isinstance(polygon, list) or not polygon:
            raise ValueError(f"feature {number} has a polygon without rings")
        try:
            collector.add(_read_class(feature), [_check_ring(ring) for ring in polygon])
        except ValueError as error:
            raise type(error)(f"feature {number}: {error}") from None


def _check_ring(ring: Any) -> "NDArray[np.float64]":
    import numpy as np

    if not isinstance(ring, np.ndarray):
        raise ValueError("a ring is a list of three [x, y] or more")  # noqa: TRY004 - of a file
    return ring


def _read_class(feature: Any) -> str:
    """Return the name of a feature's class as QuPath has it; nothing where it has none."""
    properties = feature.get("properties")
    about = properties.get("classification") if isinstance(properties, dict) else None
    name = about.get("name") if isinstance(about, dict) else None
    return name if isinstance(name, str) else ""


def _refuse(path: Path, label: str) -> UserError:
    help = "give polygons in pixels of level 0, as `tcc slide mask` and QuPath write them"
    message = "this is no GeoJSON of polygons"
    return fail("E1306", message, whole_file(str(path)), label=label, help=help)
