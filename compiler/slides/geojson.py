"""Polygons as QuPath reads and writes them: GeoJSON in pixels of level 0.

QuPath's form: a feature has an `objectType`, a `classification` of a name and a colour, and
`measurements` by name (qupath.readthedocs.io, "Exporting annotations").
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tcc.compiler.slides.contours import Ring
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES = 1 << 26
"""Largest file that is read."""
MOST_VERTICES = 1 << 21
"""Most vertices of a file that is read."""


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
    geometry = {
        "type": "Polygon" if one else "MultiPolygon",
        "coordinates": polygons[0] if one else polygons,
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


def read(path: Path) -> "list[tuple[str, list[NDArray[np.float64]]]]":
    """Return the class of each polygon of a file and its rings: vertices (n, 2) of x and y.

    Raises:
        UserError: It cannot be read, or holds something else than polygons (E1306).
    """
    import numpy as np

    try:
        with regular_files.opened(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise _wrong(path, f"the file is larger than {MAX_BYTES >> 20} MiB")
        found = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(path, str(error)[:200] or type(error).__name__) from None
    made, count = [], 0
    for number, (name, rings) in enumerate(_polygons(path, found), 1):
        own = []
        for ring in rings:
            vertices = _vertices(ring)
            if vertices is None:
                raise _wrong(path, f"polygon {number}: a ring is a list of three [x, y] or more")
            own.append(np.array(vertices, np.float64))
            count += len(vertices)
        if count > MOST_VERTICES:
            raise _wrong(path, f"there are more than {MOST_VERTICES:,} vertices")
        made.append((name, own))
    return made


def _polygons(path: Path, found: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the class and the coordinates of each polygon."""
    for number, one in enumerate(_features(found), 1):
        geometry = one.get("geometry", one) if isinstance(one, dict) else None
        parts = geometry.get("coordinates") if isinstance(geometry, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon") or not isinstance(parts, list):
            reason = f"it is of type `{str(kind)[:40]}`" if kind else "it has no geometry"
            raise _wrong(path, f"feature {number} is no polygon: {reason}")
        for polygon in [parts] if kind == "Polygon" else parts:
            if not isinstance(polygon, list) or not polygon:
                raise _wrong(path, f"feature {number} has a polygon without rings")
            yield _class(one), polygon


def _class(feature: Any) -> str:
    """Return the name of a feature's class as QuPath has it; nothing where it has none."""
    properties = feature.get("properties")
    about = properties.get("classification") if isinstance(properties, dict) else None
    return str(about.get("name") or "") if isinstance(about, dict) else ""


def _features(found: Any) -> list[Any]:
    if isinstance(found, list):  # as QuPath writes it where no collection is asked for
        return found
    features = found.get("features") if isinstance(found, dict) else None
    return features if isinstance(features, list) else [found]


def _vertices(ring: Any) -> list[tuple[float, float]] | None:
    if not isinstance(ring, list) or len(ring) < 3:
        return None
    made = []
    for vertex in ring:
        if not isinstance(vertex, list) or len(vertex) < 2:
            return None
        x, y = vertex[:2]
        if not all(type(n) in (int, float) and abs(n) < 1e9 for n in (x, y)):
            return None
        made.append((float(x), float(y)))
    return made


def _wrong(path: Path, label: str) -> UserError:
    help = "give polygons in pixels of level 0, as `tcc slide mask` and QuPath write them"
    message = "this is no GeoJSON of polygons"
    return fail("E1306", message, whole_file(str(path)), label=label, help=help)
