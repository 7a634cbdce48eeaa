"""Polygons as QuPath reads and writes them: GeoJSON in pixels of level 0.

QuPath's form: a feature has an `objectType`, a `classification` of a name and a colour, and
`measurements` by name (qupath.readthedocs.io, "Exporting annotations").

Files are parsed in one pass that keeps vertices in arrays and drops what is not used: `json.loads`
takes 50 times the size of a file of points. The grammar is that of RFC 8259, with bounds on depth,
on the number of values and on a number's digits.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.slides.contours import Ring
from tcc.compiler.slides.drawn_areas import (
    MAX_BYTES,
    AreaCollector,
    DrawnAreas,
    TooMuchError,
    check_count,
    check_size,
    refuse_size,
)
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    import numpy as np

DEEPEST = 64
"""Most lists and objects within each other."""
MOST_VALUES = 1 << 21
"""Most values of a file: lists, objects, texts and numbers that are not a vertex's."""
KEPT = frozenset(
    ("type", "features", "geometry", "coordinates", "properties", "classification", "name")
)
"""Keys whose values are kept; all others are checked and dropped."""
RUN = 4096
"""Vertices that are converted at a time."""

_SPACE = rb"[ \t\n\r]*+"
_DIGITS = 40
_NUMBER = (
    rb"-?+(?:0|[1-9][0-9]{0,%d}+)(?:\.[0-9]{1,%d}+)?+(?:[eE][-+]?+[0-9]{1,4}+)?+(?![0-9.eE+\-])"
    % (_DIGITS, _DIGITS)
)
_VERTEX = rb"\[%b(?:%b)%b,%b(?:%b)(?:%b,%b(?:%b)){0,2}+%b\]" % (
    _SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER, _SPACE,
)  # fmt: skip
_VERTICES = re.compile(rb"%b(?:%b,%b%b){0,%d}+" % (_VERTEX, _SPACE, _SPACE, _VERTEX, RUN - 1))
_PAIR = re.compile(rb"\[%b(%b)%b,%b(%b)" % (_SPACE, _NUMBER, _SPACE, _SPACE, _NUMBER))
_BLANK = re.compile(_SPACE)
_TOKEN = re.compile(
    rb'(?P<mark>[{}\[\],:])|(?P<text>"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+")'
    rb"|(?P<number>%b)|(?P<word>true|false|null)" % _NUMBER
)
_WORDS = {b"true": True, b"false": False, b"null": None}


class GeoJsonParser:
    """Parses the text of a file; hands over each feature of it as soon as it is whole.

    Args:
        text: The file, in UTF-8.
        take: Gets each feature: objects with the keys of `KEPT` alone, lists, and arrays (n, 2) in
            place of lists of vertices.
    """

    def __init__(self, text: bytes, take: Callable[[Any], None]) -> None:
        self._text, self._take = text, take
        self._at = self._values = self._vertices = 0

    def parse(self) -> None:
        """Parse the file to its end.

        Raises:
            ValueError: It is no JSON, or `take` refuses a feature; says at which byte.
            TooMuchError: There is too much of it.
        """
        try:
            self._parse_root()
        except ValueError as error:
            raise type(error)(f"byte {self._at:,}: {error}") from None

    def _parse_root(self) -> None:
        self._skip_space()
        if self._text.startswith(b"[", self._at):  # as QuPath writes it without a collection
            self._at += 1
            self._parse_list(1, self._take)
        else:
            root = self._parse_value(0, self._take)
            if not (isinstance(root, dict) and root.get("features") is _HANDED_OVER):
                self._take(root)
        self._skip_space()
        if self._at < len(self._text):
            raise ValueError("something follows the end of the JSON")

    def _parse_value(self, depth: int, take: Callable[[Any], None] | None = None) -> Any:
        """Parse a value; of an object, `take` gets the elements of its list `features`."""
        self._values += 1
        if self._values > MOST_VALUES:
            raise TooMuchError(f"there are more than {MOST_VALUES:,} values")
        token = self._read_token()
        match token.lastgroup:
            case "text":
                return _decode_text(token[0])
            case "number":
                return float(token[0])
            case "word":
                return _WORDS[token[0]]
        if depth >= DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists or objects are within each other")
        if token[0] == b"[":
            return self._parse_list(depth + 1)
        if token[0] == b"{":
            return self._parse_object(depth + 1, take)
        raise ValueError("a value is missing")

    def _parse_object(self, depth: int, take: Callable[[Any], None] | None) -> dict[str, Any]:
        members: dict[str, Any] = {}
        if self._skip_mark(b"}"):
            return members
        while True:
            key = self._read_key()
            if key in members:
                raise ValueError(f"the key `{key}` is there twice")
            if key == "features" and take and self._skip_mark(b"["):
                self._parse_list(depth + 1, take)
                members[key] = _HANDED_OVER
            else:
                member = self._parse_value(depth)
                if key in KEPT:
                    members[key] = member
            if not self._skip_mark(b","):
                break
        self._end(b"}")
        return members

    def _parse_list(self, depth: int, take: Callable[[Any], None] | None = None) -> Any:
        """Parse what follows the bracket; return a list of vertices alone as an array."""
        elements: list[Any] = []
        runs: list[NDArray[np.float64]] = []
        if self._skip_mark(b"]"):
            return elements
        while True:
            self._skip_space()
            run = None if take else _VERTICES.match(self._text, self._at)
            if run:
                self._at = run.end()
                runs.append(self._convert(run[0]))
            elif take:
                take(self._parse_value(depth))
            else:
                elements.append(self._parse_value(depth))
            if not self._skip_mark(b","):
                break
        self._end(b"]")
        # Of a list that mixes vertices with other values none is a ring.
        return np.concatenate(runs) if runs and not elements else elements

    def _convert(self, run: bytes) -> NDArray[np.float64]:
        numbers = [(float(x), float(y)) for x, y in _PAIR.findall(run)]
        self._vertices += len(numbers)
        check_count(self._vertices)
        return np.array(numbers, np.float64)

    def _read_key(self) -> str:
        token = self._read_token()
        if token.lastgroup != "text" or not self._skip_mark(b":"):
            raise ValueError('an object is of members "key": value')
        return _decode_text(token[0])

    def _end(self, mark: bytes) -> None:
        if not self._skip_mark(mark):
            raise ValueError(f"a `,` or `{mark.decode()}` is missing")

    def _read_token(self) -> re.Match[bytes]:
        self._skip_space()
        token = _TOKEN.match(self._text, self._at)
        if token is None:
            raise ValueError("this is no JSON" if self._at < len(self._text) else "it is cut short")
        self._at = token.end()
        return token

    def _skip_mark(self, mark: bytes) -> bool:
        self._skip_space()
        is_there = self._text.startswith(mark, self._at)
        self._at += is_there
        return is_there

    def _skip_space(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at


_HANDED_OVER = object()
"""Stands for the features of a collection, which are not kept."""


def _decode_text(token: bytes) -> str:
    text: str = json.loads(token)
    return text.encode(errors="replace").decode()  # half of a pair of surrogates is no text


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


def _check_ring(ring: Any) -> NDArray[np.float64]:
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
