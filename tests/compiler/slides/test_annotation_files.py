"""Annotation files: polygons are read exactly, and oversized files are refused early."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.slides import annotations, geojson
from tcc.compiler.support.diagnostics import UserError

MIB = 1 << 20


def read_diagnostic(path):
    read_file = annotations.read_asap if path.suffix == ".xml" else geojson.read_areas
    with pytest.raises(UserError) as raised:
        read_file(path)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.at.file == str(path)
    return diagnostic


NUMBERS = st.one_of(
    st.integers(-(10**8), 10**8), st.floats(-1e8, 1e8, allow_nan=False, allow_infinity=False)
)
RINGS = st.lists(st.lists(NUMBERS, min_size=2, max_size=4), min_size=3, max_size=9)
OTHER_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)


@st.composite
def draw_features(draw):
    polygon = st.lists(RINGS, min_size=1, max_size=3)
    kind = draw(st.sampled_from(("Polygon", "MultiPolygon")))
    parts = draw(polygon if kind == "Polygon" else st.lists(polygon, min_size=1, max_size=2))
    classification = {"name": draw(st.text(max_size=9)), "color": [200, 0, 0]}
    members = [
        ("geometry", {"coordinates": parts, "type": kind}),
        ("properties", {"classification": classification, "measurements": draw(OTHER_JSON)}),
        ("id", draw(OTHER_JSON)),
    ]
    return dict(draw(st.permutations(members)))


def list_expected(features):
    for feature in features:
        geometry = feature["geometry"]
        parts = geometry["coordinates"]
        name = feature["properties"]["classification"]["name"]
        for polygon in [parts] if geometry["type"] == "Polygon" else parts:
            yield name, [[vertex[:2] for vertex in ring] for ring in polygon]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(draw_features(), max_size=4),
    st.booleans(),
    st.sampled_from((None, 1, "\t")),
    st.data(),
)
def test_geojson_reader_matches_the_json_module(
    tmp_path_factory, features, is_collection, indent, data
):
    document = {"type": "FeatureCollection", "features": features} if is_collection else features
    text = json.dumps(document, indent=indent, ensure_ascii=data.draw(st.booleans()))
    path = tmp_path_factory.mktemp("drawn") / "x.geojson"
    path.write_text(text, data.draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geojson, "RUN", 3)
        areas = geojson.read_areas(path)
    expected_areas = list(list_expected(features))
    assert list(areas.names) == [name for name, _ in expected_areas]
    rings = [ring for _, polygon in expected_areas for ring in polygon]
    starts = np.r_[0, areas.ring_ends[:-1]] if rings else []
    actual = [areas.vertices[a:b].tolist() for a, b in zip(starts, areas.ring_ends, strict=True)]
    assert actual == [[[float(x), float(y)] for x, y in ring] for ring in rings]
    assert areas.ring_polygons.tolist() == [
        n for n, (_, polygon) in enumerate(expected_areas) for _ in polygon
    ]


POLYGON = '{"type": "Polygon", "coordinates": %s}'


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (POLYGON % "[[[0, 0], [1_0, 0], [9, 9]]]", "`,` or `]`"),
        (POLYGON % "[[[0, 0], [NaN, 0], [9, 9]]]", "not valid JSON"),
        (POLYGON % "[[[0, 0], [1e999, 0], [9, 9]]]", "coordinates must be between"),
        (POLYGON % "[[[0, 0], [01, 0], [9, 9]]]", "not valid JSON"),
        (POLYGON % "[[[0, 0], [+1, 0], [9, 9]]]", "not valid JSON"),
        (POLYGON % "[[[0, 0], [0x1, 0], [9, 9]]]", ""),
        (POLYGON % "[[[0, 0], [\u0663, 0], [9, 9]]]", "not valid JSON"),
        (POLYGON % f"[[[0, 0], [{'1' * 4301}, 0], [9, 9]]]", "not valid JSON"),
        (
            POLYGON % "[[[0, 0], [1, 0], [9, 9], 3]]",
            "a ring must be a list of at least three [x, y]",
        ),
        (POLYGON % "[[[0, 0], [1, 0], [9]]]", "a ring must be a list of at least three [x, y]"),
        (POLYGON % "[[[0, 0], [1, 0], [9, 9],]]", "a value is missing"),
        (POLYGON % "[[[0, 0], [1, 0], [9, 9]", "a `,` or `]` is missing"),
        (POLYGON % "[[[0, 0], [1, 0], [9, 9]]]" + "{}", "extra data after the end"),
        ('{"type": "Polygon", "type": "Polygon"}', "the key `type` appears twice"),
        ('{"features": 3}', "it has no geometry"),
        (
            '{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [9, 9]]]',
            "a `,` or `}` is missing",
        ),
        ('{"type" "Polygon"}', "members"),
        ('{"a": "\x01"}', "not valid JSON"),
        ('{"a": "\\x"}', "not valid JSON"),
    ],
    ids=range(19),
)
def test_invalid_geojson_is_refused(tmp_path, text, label):
    path = tmp_path / "x.geojson"
    path.write_text(text)
    diagnostic = read_diagnostic(path)
    assert diagnostic.code == "E1306"
    assert label in diagnostic.label


XML = (
    '<ASAP_Annotations><Annotations><Annotation PartOfGroup="Tumor" Type="Polygon"><Coordinates>%s'
)
END = "</Coordinates></Annotation></Annotations></ASAP_Annotations>"


def build_corners(*texts):
    return XML % "".join(f'<Coordinate Order="{n}" {text}/>' for n, text in enumerate(texts)) + END


@pytest.mark.parametrize(
    ("number", "label"),
    [
        ("1_0", "`1_0` is not a decimal number"),
        (" 1", "` 1` is not a decimal number"),
        ("nan", "`nan` is not"),
        ("Infinity", "`Infinity` is not"),
        ("1e999", "`1e999` is not"),
        ("0x10", "`0x10` is not"),
        ("\u0663", "`\u0663` is not"),
        ("1,000,5", "`1.000,5` is not"),
        ("1" * 65, "..."),
        ("1e300", "coordinates must be between"),
        ("", "`` is not"),
    ],
)
def test_invalid_asap_numbers_are_refused(tmp_path, number, label):
    path = tmp_path / "x.xml"
    path.write_text(build_corners('X="0" Y="0"', f'X="{number}" Y="0"', 'X="9" Y="9"'))
    diagnostic = read_diagnostic(path)
    assert diagnostic.code == "E1314"
    assert label in diagnostic.label


def test_asap_vertices_follow_their_order(tmp_path):
    path = tmp_path / "x.xml"
    coordinates = ("2", "9.5", "1,5"), ("0", "0", "-3"), ("1", "1e1", ".5")
    points = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, x, y in coordinates)
    path.write_text(XML % points + END)
    areas = annotations.read_asap(path)
    assert areas.names == ("Tumor",)
    assert areas.vertices.tolist() == [[0, -3], [10, 0.5], [9.5, 1.5]]


def test_asap_vertex_without_a_coordinate_is_refused(tmp_path):
    path = tmp_path / "x.xml"
    path.write_text(build_corners('X="0"', 'X="1" Y="0"', 'X="9" Y="9"'))
    assert "a coordinate has no Y" in read_diagnostic(path).label


HOSTILE = {  # functions, because the files are large
    "points.geojson": lambda: POLYGON.encode() % (b"[[" + b"[1,2]," * (10 * MIB) + b"[3,4]]]"),
    "features.geojson": lambda: b"[" + b"{}," * (21 * MIB) + b"{}]",
    "empty.geojson": lambda: b'{"type": [' + b"[]," * (20 * MIB) + b"[]]}",
    "numbers.geojson": lambda: b'{"a": [' + b"1," * (31 * MIB) + b"1]}",
    "texts.geojson": lambda: b'{"type": [' + b'"",' * (21 * MIB) + b'""]}',
    "deep.geojson": lambda: b"[" * (60 * MIB),
    "digits.geojson": lambda: b"[" + b"1" * (60 * MIB) + b"]",
    "text.geojson": lambda: b'{"type": "' + b"x" * (60 * MIB) + b'"}',
    "large.geojson": lambda: b" " * (64 * MIB + 1),
    "small-polygons.geojson": lambda: (
        b"[" + b",".join([(POLYGON % "[[[0,0],[1,0],[0,1]]]").encode()] * 1_000_000) + b"]"
    ),
    "elements.xml": lambda: b"<a>" + b"<b/>" * (15 * MIB) + b"</a>",
    "deep.xml": lambda: b"<a>" * (20 * MIB),
    "attributes.xml": lambda: (
        b"<a " + b" ".join(b'b%x=""' % n for n in range(5_000_000)) + b"/>"
    ),
    "names.xml": lambda: b"<a>" + b"".join(b"<b%x/>" % n for n in range(6_000_000)) + b"</a>",
    "comment.xml": lambda: b"<a><!--" + b"x" * (60 * MIB) + b"--></a>",
    "text.xml": lambda: b"<a>" + b"x" * (60 * MIB) + b"</b>",
    "corners.xml": lambda: XML.encode() % (b'<Coordinate X="1" Y="2"/>' * 2_500_000),
    "large.xml": lambda: b"<a>" + b" " * (64 * MIB) + b"</a>",
}  # fmt: skip


PROGRAM = """
import re, sys, time
from pathlib import Path
from tcc.compiler.slides import annotations, geojson
from tcc.compiler.support.diagnostics import UserError
path = Path(sys.argv[1])
try:
    (annotations.read_asap if path.suffix == ".xml" else geojson.read_areas)(path)
except UserError as error:
    (diagnostic,) = error.diagnostics
    status = Path("/proc/self/status").read_text()  # ru_maxrss is at least what forked this
    mib = int(re.search("VmHWM:\\s*([0-9]+)", status)[1]) >> 10
    print(mib, round(time.process_time()), diagnostic.code, diagnostic.label)
"""
QUICK = ("points.geojson", "elements.xml", "deep.xml")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in HOSTILE],
)
def test_oversized_files_are_refused_early(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name]())
    command = [sys.executable, "-c", PROGRAM, path]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    mib, seconds, code, label = completed.stdout.strip().split(" ", 3)
    assert int(mib) < 500
    assert int(seconds) < 20
    assert code in ("E1306", "E1314", "E1323")
    if code == "E1323":
        assert re.search("(more|larger|longer) than [0-9]", label)  # the message has the limit
