"""Fuzz slide annotations and stored results, valid and changed: `slide patches`, `view`, `eval`."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from case import Case, Front, Outcome

SIDE, SPAN = 64, 8
"""Pixels per side of a slide and of a patch."""
NUMBERS = (
    "0", "1", "63", "-1", "1e9", "1e999", "-0.0", "1_0", " 1", "nan", "NaN", "Infinity", "0x10",
    "\u0663", "1,5", "", "1" * 5000, "1e-400", "[]", "null", "true", "1.", ".5", "+1",
)  # fmt: skip
"""Replacements for numbers in a changed file."""
CLASSES = ("Tumor", "normal", "_2", "Exclusion", "", "Necrosis", "\ud800", "x" * 300, "\x1b[31m")
JSON_TOKENS = ("null", "[]", "{}", "3", '"x"', "-1", "1e400", "true", "NaN", "[[[[[[]]]]]]", "0.5")
MANY = 200_000
"""The number of repetitions of a part in a large file."""


@cache
def _make_slide() -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    image = Image.new("RGB", (SIDE, SIDE), (243, 243, 244))
    image.paste((110, 60, 140), (8, 8, 56, 56))
    image.save(file, "PNG")
    return file.getvalue()


def _make_vertices(numbers: Random, is_damaged: bool) -> list[tuple[str, str]]:
    def make_number() -> str:
        if is_damaged and numbers.random() < 0.1:
            return numbers.choice(NUMBERS)
        return str(numbers.choice((numbers.randint(0, SIDE), round(numbers.uniform(0, SIDE), 2))))

    return [(make_number(), make_number()) for _ in range(numbers.choice((1, 2, 3, 4, 5, 40)))]


def _write_geojson(numbers: Random, is_damaged: bool) -> str:
    features = []
    for _ in range(numbers.randint(0, 4)):
        ring = ",".join(f"[{x},{y}]" for x, y in _make_vertices(numbers, is_damaged))
        name = json.dumps(numbers.choice(CLASSES if is_damaged else CLASSES[:3]))
        kind = numbers.choice(("Polygon", "MultiPolygon", "Point") if is_damaged else ("Polygon",))
        parts = f"[[{ring}]]" if kind == "Polygon" else f"[[[{ring}]]]"
        properties = f'{{"classification": {{"name": {name}}}}}'
        geometry = f'{{"type": "{kind}", "coordinates": {parts}}}'
        features.append(
            f'{{"type": "Feature", "geometry": {geometry}, "properties": {properties}}}'
        )
    feature_list = f"[{','.join(features)}]"
    if numbers.random() < 0.5:
        return feature_list
    return f'{{"type": "FeatureCollection", "features": {feature_list}}}'


def _write_xml(numbers: Random, is_damaged: bool) -> str:
    areas = []
    for _ in range(numbers.randint(0, 4)):
        corners = "".join(
            f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>'
            for order, (x, y) in enumerate(_make_vertices(numbers, is_damaged))
        )
        name = numbers.choice(("Tumor", "_0", "_2", "None") if is_damaged else ("Tumor", "_2"))
        kind = numbers.choice(("Polygon", "Spline", "Dot") if is_damaged else ("Polygon",))
        areas.append(
            f'<Annotation PartOfGroup="{name}" Type="{kind}"><Coordinates>{corners}'
            "</Coordinates></Annotation>"
        )
    return f"<ASAP_Annotations><Annotations>{''.join(areas)}</Annotations></ASAP_Annotations>"


def _apply_change(numbers: Random, text: str) -> bytes:
    """Return a text that is cut, edited or enlarged at a random place."""
    content = text.encode(errors="surrogatepass")
    at = numbers.randrange(len(content) + 1)
    end = min(len(content), at + numbers.choice((0, 1, 3, 30)))
    match numbers.choice(("cut", "bytes", "part", "many", "deep", "bomb")):
        case "cut":
            return content[:at]
        case "bytes":
            return content[:at] + numbers.randbytes(numbers.randint(1, 4)) + content[end:]
        case "part":
            start = numbers.randrange(len(content) + 1)
            return content[:at] + content[start : start + 40] + content[end:]
        case "many":
            part = numbers.choice(
                (b"[1,2],", b"<a/>", b"[],", b'{"a":1},', content[at:end] or b" ")
            )
            return content[:at] + part * numbers.choice((9, MANY)) + content[at:]
        case "deep":
            return content[:at] + numbers.choice((b"[", b"<a>", b'{"a":')) * MANY + content[at:]
        case _:
            bomb = b'<!DOCTYPE a [<!ENTITY b "b"><!ENTITY c "&b;&b;">]>'
            return bomb + content


def _make_annotation_case(numbers: Random) -> Case:
    is_damaged = numbers.random() < 0.7
    name, write = numbers.choice((("s.geojson", _write_geojson), ("s.xml", _write_xml)))
    content = write(numbers, is_damaged).encode(errors="surrogatepass")
    if is_damaged and numbers.random() < 0.5:
        content = _apply_change(numbers, write(numbers, is_damaged))
    arguments = ("slide", "patches", "s.png", "--mpp", "0.5", "--at", "0.5", "--patch", str(SPAN))
    return Case(
        (*arguments, "--rule", "wide", "-q"),
        {"s.png": _make_slide(), name: content},
        check=_make_name_check(name),
    )


def _make_name_check(name: str) -> Callable[[Outcome, Path], str]:
    def check(outcome: Outcome, _: Path) -> str:
        return (
            "" if outcome.code != 2 or name in outcome.err else "the message does not name the file"
        )

    return check


@cache
def _make_slide_result() -> dict[str, bytes]:
    """Return a result of `slide run`; it is generated once."""
    import subprocess
    import sys

    folder = Path(tempfile.mkdtemp(prefix="tcc-fuzz-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "s.png").write_bytes(_make_slide())
    (folder / "net.yaml").write_text(
        "tcc: 1\nname: net\ninput: {image: {shape: [3, 8, 8], preprocess: {}}}\n"
        "graph: [global_avg_pool, flatten, linear: {units: 2}]\n"
        "output: {o: {activation: softmax, labels: [normal, tumour]}}\n"
    )
    program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
    grid = ("--mpp", "0.5", "--at", "0.5", "--patch", str(SPAN))
    for arguments in (
        ("build", "net.yaml", "--target", "onnxruntime", "-q"),
        ("slide", "run", "build/net-onnxruntime-fp32", "s.png", *grid, "-q"),
    ):
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (folder / "slides/s").iterdir()}


def _make_result_case(numbers: Random) -> Case:
    files = dict(_make_slide_result())
    name = numbers.choice(("summary.json", "summary.json", "patches.csv"))
    text = files[name].decode()
    if name == "summary.json" and numbers.random() < 0.7:
        lines = text.splitlines()
        at = numbers.randrange(1, len(lines) - 1)
        key, colon, value_text = lines[at].partition(": ")
        lines[at] = numbers.choice((
            f"{key}{colon}{numbers.choice(JSON_TOKENS)}{',' if value_text.endswith(',') else ''}",
            "", lines[at] * 2, lines[at].replace('"', '"x', 1),
        ))  # fmt: skip
        files[name] = "\n".join(lines).encode()
    elif numbers.random() < 0.6:
        lines = text.splitlines(keepends=True)
        at = numbers.randrange(len(lines))
        cells = lines[at].rstrip().split(",")
        cells[numbers.randrange(len(cells))] = numbers.choice(NUMBERS)
        lines[at] = numbers.choice((lines[at] * 2, "", ",".join(cells) + "\n"))
        files[name] = "".join(lines).encode(errors="surrogatepass")
    else:
        files[name] = _apply_change(numbers, text)
    changed = files[name] != _make_slide_result()[name]
    placed = {f"r/s/{name}": content for name, content in files.items()} | {"s.png": _make_slide()}
    truth = {"truth/s.geojson": b"[]"}
    arguments = numbers.choice((("view", "r/s", "s.png"), ("eval", "r/s", "--truth", "truth")))
    return Case(("slide", *arguments), placed | truth, check=_check_table if changed else None)


def _check_table(outcome: Outcome, folder: Path) -> str:
    """Return a failure if a table with a duplicate or missing line is accepted."""
    table = (folder / "r/s/patches.csv").read_bytes().splitlines()
    original_table = _make_slide_result()["patches.csv"].splitlines()
    accepted = outcome.code in (0, 3)
    return "a changed table is accepted" if accepted and len(table) != len(original_table) else ""


def _make_case(numbers: Random) -> Case:
    return numbers.choice((_make_annotation_case, _make_result_case))(numbers)


def _prepare() -> None:
    import tcc.compiler.cli
    import tcc.compiler.slides.slide_evaluation
    import tcc.compiler.slides.slide_viewer  # noqa: F401

    _make_slide_result()


ANNOTATIONS = Front("annotations", 4000, _make_case, _prepare)
