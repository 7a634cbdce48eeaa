"""What is done to a bundle: to its manifest, to its files, and to its artifact."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 1 << 31, 1 << 63, 10**30, 0.5, -0.0, 1e-300, 1e9, 1e308,
    "", "x", "..", "../x", "/etc/passwd", "a/../../b", "model", "float32", "int8", "a" * 5000, "\0",
    "\ud800", "\n", [], {}, [[]], [0], [3], [1] * 3000, {"x": 1}, "fp32", "onnxruntime", "host",
)  # fmt: skip
TEXTS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "[" * 5000,
    "{",
    "]",
    "nul",
    '"',
    "\0",
)
PROGRAMS = (
    "print('hello')",
    "print('[]')",
    "print('{}')",
    'print(\'{"outputs": [{"name": "logits", "shape": [3]}]}\')',
    'print(\'{"outputs": [{"name": "logits", "shape": [-3]}]}\')',
    'print(\'{"outputs": [{"name": "logits", "shape": [99999999999]}]}\')',
    'print(\'{"outputs": [{"name": "logits", "shape": []}, {"name": "logits"}]}\')',
    "import sys; sys.stdout.buffer.write(bytes(range(256)) * 99)",
    "while True: print('x' * 65536)",
    "print('[' * 100000)",
    "import sys; sys.exit(2)",
    "import sys; sys.stderr.write('no' * 9999); sys.exit(1)",
    "import os; os.kill(os.getpid(), 9)",
    "import os; os.abort()",
    DESCRIBED := "import os, sys\n"
    'print(\'{"outputs": [{"name": "logits", "shape": [3]}]}\')\n'
    "raw = sys.argv[sys.argv.index('--raw') + 1] if '--raw' in sys.argv else os.devnull\n",
    DESCRIBED + "open(raw, 'wb').write(bytes(12))",
    DESCRIBED + "open(raw, 'wb').write(b'\\xff' * 24)",
    DESCRIBED + "open(raw, 'wb').truncate(1 << 40)",
    DESCRIBED + "os.mkfifo(raw)",
    DESCRIBED + "os.symlink('/dev/zero', raw)",
    DESCRIBED + "os.mkdir(raw)",
    DESCRIBED + "os.fork() or __import__('time').sleep(30)",
)
RARE = ("import time; time.sleep(300)",)
"""Each of these takes its time to be found out."""


@dataclass
class Bundle:
    """An edited bundle: its folder, where others are, and its manifest as plain data, if it is."""

    folder: Path
    others: Path
    about: Any = None
    text: Callable[[str], str] | None = None
    kept: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the manifest, and which files there are."""
        self.about = json.loads((self.folder / "manifest.json").read_bytes())
        self.kept = [file["path"] for file in self.about["files"]]

    def path(self, numbers: Random) -> Path:
        """Return the place of one of the files."""
        return self.folder / numbers.choice(self.kept)

    def finish(self, numbers: Random) -> None:
        """Write the manifest: mostly as a forger would, with hashes and the seal made anew."""
        if numbers.random() < 0.85:
            with suppress(Exception):
                self._hash()
            if isinstance(self.about, dict):
                body = json.dumps(self.about | {"seal": ""}, sort_keys=True)
                self.about["seal"] = hashlib.sha256(body.encode()).hexdigest()
        text = json.dumps(self.about, indent=2)
        if self.text:
            text = self.text(text)
        place = self.folder / "manifest.json"
        if place.is_file() and not place.is_symlink():
            place.write_text(text)

    def _hash(self) -> None:
        for file in self.about["files"]:
            path = self.folder / str(file["path"])
            if path.is_file() and path.stat().st_size < 1 << 24:
                data = path.read_bytes()
                file["bytes"], file["sha256"] = len(data), hashlib.sha256(data).hexdigest()


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys or indices."""
    keys: Any = ()
    if isinstance(data, dict):
        keys = list(data)
    elif isinstance(data, list):
        keys = range(len(data))
    for key in keys:
        yield data, key
        yield from _places(data[key])


def _spot(bundle: Bundle, numbers: Random) -> tuple[Any, Any]:
    """Return one place of the manifest, each key as likely at the top as deep down."""
    places = list(_places(bundle.about)) or [({"x": 1}, "x")]
    keys = sorted({str(key) for _, key in places})
    wanted = numbers.choice(keys)
    return numbers.choice([place for place in places if str(place[1]) == wanted])


def _retype(bundle: Bundle, numbers: Random) -> None:
    home, key = _spot(bundle, numbers)
    home[key] = numbers.choice(VALUES)


def _drop_key(bundle: Bundle, numbers: Random) -> None:
    home, key = _spot(bundle, numbers)
    del home[key]


def _double(bundle: Bundle, numbers: Random) -> None:
    home, key = _spot(bundle, numbers)
    if isinstance(home, list):
        home.append(home[key])
    else:
        home[f"{key}_"] = home[key]


def _exchange(bundle: Bundle, numbers: Random) -> None:
    (a, i), (b, j) = _spot(bundle, numbers), _spot(bundle, numbers)
    with suppress(KeyError, IndexError):
        a[i], b[j] = json.loads(json.dumps((b[j], a[i])))


def _number(bundle: Bundle, numbers: Random) -> None:
    """Scale a number: shapes, sizes, tolerances."""
    places = [(home, key) for home, key in _places(bundle.about) if type(home[key]) in (int, float)]
    home, key = numbers.choice(places) if places else ({"x": 1}, "x")
    by = numbers.choice((-1, 0, 0.5, 2, 10, 1e6, 1e12))
    home[key] = type(home[key])(home[key] * by)


def _tolerance(bundle: Bundle, numbers: Random) -> None:
    with suppress(KeyError, TypeError):
        wanted = numbers.choice((1e9, 1, 0.2, 0.1, 1.1e-4, 0, -1, 1e-300, "0", None))
        bundle.about["goldens"]["tolerance"]["relative"] = wanted


def _thin(bundle: Bundle, numbers: Random) -> None:
    with suppress(KeyError, TypeError):
        cases = bundle.about["goldens"]["cases"]
        thinned: tuple[Any, ...] = (
            [],
            cases[:1],
            cases[1:],
            cases[:1] * 2,
            [*cases, *cases],
            cases[::-1],
        )
        bundle.about["goldens"]["cases"] = numbers.choice(thinned)


def _of_text(bundle: Bundle, numbers: Random) -> None:
    at, piece = numbers.random(), numbers.choice(TEXTS)
    how = numbers.choice(("cut", "insert", "value"))

    def change(text: str) -> str:
        place = int(at * len(text))
        if how == "cut":
            return text[:place]
        if how == "insert":
            return text[:place] + piece + text[place:]
        head, colon, rest = text[place:].partition(": ")
        return text[:place] + head + colon + piece + rest[rest.find("\n") :]

    bundle.text = change


def _bytes(bundle: Bundle, numbers: Random) -> None:
    path = bundle.path(numbers)
    if not path.is_file():
        return
    data = path.read_bytes()
    at = numbers.randrange(len(data) + 1)
    path.write_bytes(
        numbers.choice(
            (
                data[:at],
                data + numbers.randbytes(numbers.choice((1, 4, 4096))),
                data[:at] + bytes([data[at] ^ 1 << numbers.randrange(8)]) + data[at + 1 :]
                if at < len(data)
                else b"",
                b"",
                numbers.randbytes(len(data)),
                bytes([numbers.randrange(256)]) * len(data),
            )
        )
    )


def _swap_files(bundle: Bundle, numbers: Random) -> None:
    a, b = bundle.path(numbers), bundle.path(numbers)
    if a.is_file() and b.is_file():
        first, second = a.read_bytes(), b.read_bytes()
        a.write_bytes(second)
        b.write_bytes(first)


def _no_file(bundle: Bundle, numbers: Random) -> None:
    path = numbers.choice([bundle.path(numbers), bundle.folder / "manifest.json"])
    with suppress(OSError):
        path.unlink()
    kinds = ("gone", "pipe", "zeros", "folder", "circle", "beside", "outside", "sparse")
    with suppress(OSError):
        match numbers.choice(kinds):
            case "pipe":
                os.mkfifo(path)
            case "zeros":
                path.symlink_to("/dev/zero")
            case "folder":
                path.mkdir()
            case "circle":
                path.symlink_to(path.name)
            case "beside":
                path.symlink_to(bundle.path(numbers))
            case "outside":
                path.symlink_to(bundle.others / "tiny.yaml")
            case "sparse":
                with path.open("wb") as file:
                    file.truncate(1 << 40)


def _more_files(bundle: Bundle, numbers: Random) -> None:
    name = numbers.choice(("model/x-run", "model/model.onnx.data", "x", "goldens/3/x", "graph/a"))
    place = bundle.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(numbers.randbytes(9))
    if numbers.random() < 0.3:
        with suppress(KeyError, TypeError, AttributeError):
            bundle.about["files"].append(dict(bundle.about["files"][0], path=name))


def _artifact(bundle: Bundle, numbers: Random) -> None:
    """Put another model in the place of the bundle's, or damage it."""
    own = [path for path in bundle.kept if path.startswith("model/")]
    path = bundle.folder / numbers.choice(own)
    if not path.is_file():
        return
    theirs = sorted(bundle.others.glob("*/model/*"))
    data = bytearray(path.read_bytes())
    match numbers.choice(("theirs", "flip", "flip", "flips", "cut")):
        case "theirs":
            data[:] = numbers.choice([p for p in theirs if p.is_file()]).read_bytes()
        case "cut":
            del data[numbers.randrange(len(data) + 1) :]
        case how:
            for _ in range(1 if how == "flip" else 12):
                if data:
                    data[numbers.randrange(len(data))] = numbers.choice((0, 1, 127, 128, 255))
    path.write_bytes(data)


def _program(bundle: Bundle, numbers: Random) -> None:
    for path in bundle.kept:
        if path.endswith("-run"):
            text = numbers.choice(RARE if numbers.random() < 0.02 else PROGRAMS)
            python = shutil.which("python3") or "/usr/bin/python3"
            (bundle.folder / path).write_text(f"#!{python}\n{text}\n")
            return
    _artifact(bundle, numbers)


CHANGES: tuple[tuple[Callable[[Bundle, Random], None], int], ...] = (
    (_retype, 6), (_drop_key, 4), (_double, 2), (_exchange, 3), (_number, 4), (_tolerance, 2),
    (_thin, 2), (_of_text, 2), (_bytes, 4), (_swap_files, 2), (_no_file, 3), (_more_files, 2),
    (_artifact, 5), (_program, 5),
)  # fmt: skip
