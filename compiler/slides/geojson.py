"""Read and write QuPath's polygons: GeoJSON in pixels of level 0.

In QuPath's format, a feature has an `objectType`, a `classification` with a name and a colour, and
`measurements` by name (qupath.readthedocs.io, "Exporting annotations").

The parser works in one pass, keeps vertices in arrays and drops unused values, because `json.loads`
needs 50 times the size of a file of points. The grammar is that of RFC 8259, with limits on the
depth, the number of values and the digits of a number.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides.annotated_areas import (
    MAX_BYTES,
    AreaCollector,
    DrawnAreas,
    TooMuchError,
    build_size_error,
    check_count,
    check_size,
)
from tcc.compiler.slides.contours import Ring
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

if TYPE_CHECKING:
    import numpy as np

MAX_DEPTH = 64
"""Maximum nesting depth of lists and objects."""
MAX_VALUES = 1 << 21
"""Maximum number of values: lists, objects, strings, and numbers outside vertices."""
KEPT_KEYS = frozenset(
    ("type", "features", "geometry", "coordinates", "properties", "classification", "name")
)
"""Keys with values that are kept; the values of other keys are validated and dropped."""
RUN = 4096
"""Number of vertices that are converted at a time."""

_SPACE = rb"[ \t\n\r]*+"
_MAX_DIGITS = 40
# In Python 3.11.0 to 3.11.4, a possessive quantifier of a group is wrong if something in the group
# can backtrack (cpython issue 106052); an atomic group is right.
_NUMBER = (
    rb"-?+(?:0|[1-9][0-9]{0,%d}+)(?>(?:\.[0-9]{1,%d}+)?)(?>(?:[eE][-+]?+[0-9]{1,4}+)?)(?![0-9.eE+\-])"
    % (_MAX_DIGITS, _MAX_DIGITS)
)
_VERTEX = rb"\[%b(?:%b)%b,%b(?:%b)(?>(?:%b,%b(?:%b)){0,2})%b\]" % (
    _SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER, _SPACE,
)  # fmt: skip
_VERTICES = re.compile(rb"%b(?>(?:%b,%b%b){0,%d})" % (_VERTEX, _SPACE, _SPACE, _VERTEX, RUN - 1))
_PAIR = re.compile(rb"\[%b(%b)%b,%b(%b)" % (_SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER))
_BLANK = re.compile(_SPACE)
_TOKEN = re.compile(
    rb'(?P<mark>[{}\[\],:])|(?P<text>"[^"\\\x00-\x1f]*+(?:\\[^\x00-\x1f][^"\\\x00-\x1f]*+)*+")'
    rb"|(?P<number>%b)|(?P<word>true|false|null)" % _NUMBER
)
_LITERALS = {b"true": True, b"false": False, b"null": None}


class GeoJsonParser:
    """Parses a file and passes each feature to a callback as soon as it is complete.

    Args:
        text: The file, in UTF-8.
        handle_feature: Receives each feature, as objects with only the keys of `KEPT_KEYS`, lists,
            and arrays (n, 2) in place of lists of vertices.
    """

    def __init__(self, text: bytes, handle_feature: Callable[[Any], None]) -> None:
        self._text, self._handle_feature = text, handle_feature
        self._offset = self._values = self._vertices = 0

    def parse(self) -> None:
        """Parse the file to its end.

        Raises:
            ValueError: The file is not JSON, or `handle_feature` rejects a feature; the message has
                the byte offset.
            TooMuchError: The file exceeds a limit.
        """
        try:
            self._parse_root()
        except ValueError as error:
            raise type(error)(f"byte {self._offset:,}: {error}") from None

    def _parse_root(self) -> None:
        self._skip_space()
        if self._text.startswith(b"[", self._offset):  # QuPath's export without a FeatureCollection
            self._offset += 1
            self._parse_list(1, self._handle_feature)
        else:
            root = self._parse_value(0, self._handle_feature)
            if not (isinstance(root, dict) and root.get("features") is _HANDED_OVER):
                self._handle_feature(root)
        self._skip_space()
        if self._offset < len(self._text):
            raise ValueError("there is extra data after the end of the JSON")

    def _parse_value(self, depth: int, handle_feature: Callable[[Any], None] | None = None) -> Any:
        """Parse a value; pass each element of an object's list `features` to `handle_feature`."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise TooMuchError(f"there are more than {MAX_VALUES:,} values")
        token = self._read_token()
        match token.lastgroup:
            case "text":
                return _decode_text(token[0])
            case "number":
                return float(token[0])
            case "word":
                return _LITERALS[token[0]]
        if depth >= MAX_DEPTH:
            raise ValueError(f"lists or objects are nested more than {MAX_DEPTH} levels deep")
        if token[0] == b"[":
            return self._parse_list(depth + 1)
        if token[0] == b"{":
            return self._parse_object(depth + 1, handle_feature)
        raise ValueError("a value is missing")

    def _parse_object(
        self, depth: int, handle_feature: Callable[[Any], None] | None
    ) -> dict[str, Any]:
        members: dict[str, Any] = {}
        if self._skip_mark(b"}"):
            return members
        while True:
            key = self._read_key()
            if key in members:
                raise ValueError(f"the key `{key}` appears twice")
            if key == "features" and handle_feature and self._skip_mark(b"["):
                self._parse_list(depth + 1, handle_feature)
                members[key] = _HANDED_OVER
            else:
                member = self._parse_value(depth)
                if key in KEPT_KEYS:
                    members[key] = member
            if not self._skip_mark(b","):
                break
        self._require_mark(b"}")
        return members

    def _parse_list(self, depth: int, handle_feature: Callable[[Any], None] | None = None) -> Any:
        """Parse a list after its bracket; return a list of only vertices as an array."""
        elements: list[Any] = []
        runs: list[NDArray[np.float64]] = []
        if self._skip_mark(b"]"):
            return elements
        while True:
            self._skip_space()
            run = None if handle_feature else _VERTICES.match(self._text, self._offset)
            if run:
                self._offset = run.end()
                runs.append(self._convert(run[0]))
            elif handle_feature:
                handle_feature(self._parse_value(depth))
            else:
                elements.append(self._parse_value(depth))
            if not self._skip_mark(b","):
                break
        self._require_mark(b"]")
        # A list that mixes vertices with other values is not a ring.
        return np.concatenate(runs) if runs and not elements else elements

    def _convert(self, run: bytes) -> NDArray[np.float64]:
        numbers = [(float(x), float(y)) for x, y in _PAIR.findall(run)]
        self._vertices += len(numbers)
        check_count(self._vertices)
        return np.array(numbers, np.float64)

    def _read_key(self) -> str:
        token = self._read_token()
        if token.lastgroup != "text" or not self._skip_mark(b":"):
            raise ValueError('an object must have members of the form "key": value')
        return _decode_text(token[0])

    def _require_mark(self, mark: bytes) -> None:
        if not self._skip_mark(mark):
            raise ValueError(f"a `,` or `{mark.decode()}` is missing")

    def _read_token(self) -> re.Match[bytes]:
        self._skip_space()
        token = _TOKEN.match(self._text, self._offset)
        if token is None:
            raise ValueError(
                "this is not valid JSON"
                if self._offset < len(self._text)
                else "the file ends too early"
            )
        self._offset = token.end()
        return token

    def _skip_mark(self, mark: bytes) -> bool:
        self._skip_space()
        is_there = self._text.startswith(mark, self._offset)
        self._offset += is_there
        return is_there

    def _skip_space(self) -> None:
        blank = _BLANK.match(self._text, self._offset)
        self._offset = blank.end() if blank else self._offset


_HANDED_OVER = object()
"""Placeholder for the features of a collection, which are not kept."""


def _decode_text(token: bytes) -> str:
    try:
        text: str = json.loads(token)
    except ValueError:  # an escape that JSON does not have
        raise ValueError("this is not valid JSON") from None
    return text.encode(errors="replace").decode()  # replace unpaired surrogates


def build_feature(
    polygons: Sequence[Sequence[Ring]],
    object_type: str,
    name: str,
    colour: tuple[int, int, int],
    measurements: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return a feature with one or more polygons.

    Args:
        polygons: The outer ring and the rings of holes of each polygon.
        object_type: QuPath's object type, `annotation` or `tile`.
        name: The class.
        colour: The colour of the class.
        measurements: Measurements by name.
    """
    is_single = len(polygons) == 1
    rings = [[ring.tolist() for ring in polygon] for polygon in polygons]
    geometry = {
        "type": "Polygon" if is_single else "MultiPolygon",
        "coordinates": rings[0] if is_single else rings,
    }
    properties = {
        "objectType": object_type,
        "classification": {"name": name, "color": list(colour)},
    }
    extra_properties = {"measurements": dict(measurements)} if measurements else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties | extra_properties}


def encode_features(features: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a GeoJSON file of features, one per line."""
    buffer, encoder = BytesIO(), json.JSONEncoder(allow_nan=False)
    buffer.write(b'{"type": "FeatureCollection", "features": [\n')
    for number, feature in enumerate(features):
        buffer.write(b",\n" if number else b"")
        buffer.write(encoder.encode(feature).encode())
    buffer.write(b"\n]}\n")
    return buffer.getvalue()


def read_areas(path: Path) -> DrawnAreas:
    """Return the polygons of a file with their classes.

    Raises:
        UserError: The file cannot be read or contains other geometries than polygons (E1306), or
            exceeds a limit (E1323).
    """
    collector, count = AreaCollector(), 0

    def add_feature(feature: Any) -> None:
        nonlocal count
        count += 1
        _add_feature(collector, feature, count)

    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
        check_size(len(content))
        encoding = json.detect_encoding(content)
        if encoding != "utf-8":
            content = content.decode(encoding).encode()
        GeoJsonParser(content, add_feature).parse()
        return collector.build_areas()
    except TooMuchError as error:
        raise build_size_error(path, error) from None
    except (OSError, ValueError) as error:
        raise _build_error(path, str(error)[:200] or type(error).__name__) from None


def _add_feature(collector: AreaCollector, feature: Any, number: int) -> None:
    """Add the polygons of a feature, or of a geometry without a feature."""
    geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(coordinates, list):
        reason = f"its type is `{str(kind)[:40]}`" if kind else "it has no geometry"
        raise ValueError(f"feature {number} is not a polygon: {reason}")
    for polygon in [coordinates] if kind == "Polygon" else coordinates:
        if not isinstance(polygon, list) or not polygon:
            raise ValueError(f"feature {number} has a polygon without rings")
        try:
            collector.add(_read_class(feature), [_check_ring(ring) for ring in polygon])
        except ValueError as error:
            raise type(error)(f"feature {number}: {error}") from None


def _check_ring(ring: Any) -> NDArray[np.float64]:
    import numpy as np

    if not isinstance(ring, np.ndarray):
        raise ValueError("a ring must be a list of at least three [x, y]")  # noqa: TRY004 - a file
    return ring


def _read_class(feature: Any) -> str:
    """Return a feature's class name in QuPath's format; empty if it has none."""
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name") if isinstance(classification, dict) else None
    return name if isinstance(name, str) else ""


def _build_error(path: Path, label: str) -> UserError:
    help = "give polygons in pixels of level 0, in the form that `tcc slide mask` and QuPath write"
    message = "this is not a GeoJSON file of polygons"
    return fail("E1306", message, make_file_span(str(path)), label=label, help=help)
