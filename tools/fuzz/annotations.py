"""Annotations and stored results of slides, whole and changed: `slide patches`, `view`, `eval`."""

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
"""Pixels of a slide's side, and of a patch's."""
NUMBERS = (
    "0", "1", "63", "-1", "1e9", "1e999", "-0.0", "1_0", " 1", "nan", "NaN", "Infinity", "0x10",
    "\u0663", "1,5", "", "1" * 5000, "1e-400", "[]", "null", "true", "1.", ".5", "+1",
)  # fmt: skip
"""What stands for a number in a changed file."""
CLASSES = ("Tumor", "normal", "_2", "Exclusion", "", "Necrosis", "\ud800", "x" * 300, "\x1b[31m")
WORDS = ("null", "[]", "{}", "3", '"x"', "-1", "1e400", "true", "NaN", "[[[[[[]]]]]]", "0.5")
MANY = 200_000
"""How often a part is repeated in a file that is large."""


@cache
def _slide() -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    image = Image.new("RGB", (SIDE, SIDE), (243, 243, 244))
    image.paste((110, 60, 140), (8, 8, 56, 56))
    image.save(file, "PNG")
    return file.getvalue()


def _vertices(numbers: Random, strange: bool) -> list[tuple[str, str]]:
    def number() -> str:
        if strange and numbers.random() < 0.1:
            return numbers.choice(NUMBERS)
        return str(numbers.choice((numbers.randint(0, SIDE), round(numbers.uniform(0, SIDE), 2))))

    return [(number(), number()) for _ in range(numbers.choice((1, 2, 3, 4, 5, 40)))]


def _geojson(numbers: Random, strange: bool) -> str:
    features = []
    for _ in range(numbers.randint(0, 4)):
        ring = ",".join(f"[{x},{y}]" for x, y in _vertices(numbers, strange))
        name = json.dumps(numbers.choice(CLASSES if strange else CLASSES[:3]))
        kind = numbers.choice(("Polygon", "MultiPolygon", "Point") if strange else ("Polygon",))
        parts = f"[[{ring}]]" if kind == "Polygon" else f"[[[{ring}]]]"
        properties = f'{{"classification": {{"name": {name}}}}}'
        geometry = f'{{"type": "{kind}", "coordinates": {parts}}}'
        features.append(
            f'{{"type": "Feature", "geometry": {geometry}, "properties": {properties}}}'
        )
    listed = f"[{','.join(features)}]"
    if numbers.random() < 0.5:
        return listed
    return f'{{"type": "FeatureCollection", "features": {listed}}}'


def _xml(numbers: Random, strange: bool) -> str:
    areas = []
    for _ in range(numbers.randint(0, 4)):
        corners = "".join(
            f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>'
            for order, (x, y) in enumerate(_vertices(numbers, strange))
        )
        name = numbers.choice(("Tumor", "_0", "_2", "None") if strange else ("Tumor", "_2"))
        kind = numbers.choice(("Polygon", "Spline", "Dot") if strange else ("Polygon",))
        areas.append(
            f'<Annotation PartOfGroup="{name}" Type="{kind}"><Coordinates>{corners}'
            "</Coordinates></Annotation>"
        )
    return f"<ASAP_Annotations><Annotations>{''.join(areas)}</Annotations></ASAP_Annotations>"


def _change(numbers: Random, text: str) -> bytes:
    """Return a text that is cut, edited, or blown up somewhere."""
    data = text.encode(errors="surrogatepass")
    at = numbers.randrange(len(data) + 1)
    end = min(len(data), at + numbers.choice((0, 1, 3, 30)))
    match numbers.choice(("cut", "bytes", "part", "many", "deep", "bomb")):
        case "cut":
            return data[:at]
        case "bytes":
            return data[:at] + numbers.randbytes(numbers.randint(1, 4)) + data[end:]
        case "part":
            start = numbers.randrange(len(data) + 1)
            return data[:at] + data[start : start + 40] + data[end:]
        case "many":
            part = numbers.choice((b"[1,2],", b"<a/>", b"[],", b'{"a":1},', data[at:end] or b" "))
            return data[:at] + part * numbers.choice((9, MANY)) + data[at:]
        case "deep":
            return data[:at] + numbers.choice((b"[", b"<a>", b'{"a":')) * MANY + data[at:]
        case _:
            bomb = b'<!DOCTYPE a [<!ENTITY b "b"><!ENTITY c "&b;&b;">]>'
            return bomb + data


def _annotations(numbers: Random) -> Case:
    strange = numbers.random() < 0.7
    name, write = numbers.choice((("s.geojson", _geojson), ("s.xml", _xml)))
    data = write(numbers, strange).encode(errors="surrogatepass")
    if strange and numbers.random() < 0.5:
        data = _change(numbers, write(numbers, strange))
    words = ("slide", "patches", "s.png", "--mpp", "0.5", "--at", "0.5", "--patch", str(SPAN))
    return Case(
        (*words, "--rule", "wide", "-q"), {"s.png": _slide(), name: data}, check=_named(name)
    )


def _named(name: str) -> Callable[[Outcome, Path], str]:
    def check(outcome: Outcome, _: Path) -> str:
        return "" if outcome.code != 2 or name in outcome.err else "the message names no file"

    return check


@cache
def _result() -> dict[str, bytes]:
    """Return a result that `slide run` writes, once."""
    import subprocess
    import sys

    folder = Path(tempfile.mkdtemp(prefix="tcc-fuzz-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "s.png").write_bytes(_slide())
    (folder / "net.yaml").write_text(
        "tcc: 1\nname: net\ninput: {image: {shape: [3, 8, 8], preprocess: {}}}\n"
        "graph: [global_avg_pool, flatten, linear: {units: 2}]\n"
        "output: {o: {activation: softmax, labels: [normal, tumour]}}\n"
    )
    program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
    grid = ("--mpp", "0.5", "--at", "0.5", "--patch", str(SPAN))
    for words in (
        ("build", "net.yaml", "--target", "onnxruntime", "-q"),
        ("slide", "run", "build/net-onnxruntime-fp32", "s.png", *grid, "-q"),
    ):
        command = [sys.executable, "-c", program, *words]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (folder / "slides/s").iterdir()}


def _stored(numbers: Random) -> Case:
    files = dict(_result())
    name = numbers.choice(("summary.json", "summary.json", "patches.csv"))
    text = files[name].decode()
    if name == "summary.json" and numbers.random() < 0.7:
        lines = text.splitlines()
        at = numbers.randrange(1, len(lines) - 1)
        key, colon, rest = lines[at].partition(": ")
        lines[at] = numbers.choice((
            f"{key}{colon}{numbers.choice(WORDS)}{',' if rest.endswith(',') else ''}",
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
        files[name] = _change(numbers, text)
    changed = files[name] != _result()[name]
    placed = {f"r/s/{name}": data for name, data in files.items()} | {"s.png": _slide()}
    truth = {"truth/s.geojson": b"[]"}
    words = numbers.choice((("view", "r/s", "s.png"), ("eval", "r/s", "--truth", "truth")))
    return Case(("slide", *words), placed | truth, check=_refused if changed else None)


def _refused(outcome: Outcome, folder: Path) -> str:
    """Say what is wrong where a line of a table that is there twice, or none, is accepted."""
    table = (folder / "r/s/patches.csv").read_bytes().splitlines()
    whole = _result()["patches.csv"].splitlines()
    accepted = outcome.code in (0, 3)
    return "a changed table is accepted" if accepted and len(table) != len(whole) else ""


def _any(numbers: Random) -> Case:
    return numbers.choice((_annotations, _stored))(numbers)


def _warm() -> None:
    import tcc.compiler.cli
    import tcc.compiler.slides.slide_evaluation
    import tcc.compiler.slides.slide_viewer  # noqa: F401

    _result()


ANNOTATIONS = Front("annotations", 4000, _any, _warm)
