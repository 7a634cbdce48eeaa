"""Change a bundle: its manifest, its files and its artifact."""

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

ODD_VALUES: tuple[Any, ...] = (
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
"""Rare programs, because the test waits for each to time out."""


@dataclass
class EditedBundle:
    """An edited bundle: its folder, that of other bundles, and its manifest if it is valid JSON."""

    folder: Path
    other_bundles: Path
    manifest: Any = None
    edit_text: Callable[[str], str] | None = None
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the manifest and list the files."""
        self.manifest = json.loads((self.folder / "manifest.json").read_bytes())
        self.paths = [file["path"] for file in self.manifest["files"]]

    def choose_path(self, numbers: Random) -> Path:
        """Return the path of a random file."""
        return self.folder / numbers.choice(self.paths)

    def finish(self, numbers: Random) -> None:
        """Write the manifest, usually with new hashes and a new seal, as a forger would."""
        if numbers.random() < 0.85:
            with suppress(Exception):
                self._hash()
            if isinstance(self.manifest, dict):
                body = json.dumps(self.manifest | {"seal": ""}, sort_keys=True)
                self.manifest["seal"] = hashlib.sha256(body.encode()).hexdigest()
        text = json.dumps(self.manifest, indent=2)
        if self.edit_text:
            text = self.edit_text(text)
        manifest_path = self.folder / "manifest.json"
        if manifest_path.is_file() and not manifest_path.is_symlink():
            manifest_path.write_text(text)

    def _hash(self) -> None:
        for file in self.manifest["files"]:
            path = self.folder / str(file["path"])
            if path.is_file() and path.stat().st_size < 1 << 24:
                content = path.read_bytes()
                file["bytes"], file["sha256"] = len(content), hashlib.sha256(content).hexdigest()


def _walk_keys(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys or indices."""
    keys: Any = ()
    if isinstance(node, dict):
        keys = list(node)
    elif isinstance(node, list):
        keys = range(len(node))
    for key in keys:
        yield node, key
        yield from _walk_keys(node[key])


def _choose_key(bundle: EditedBundle, numbers: Random) -> tuple[Any, Any]:
    """Return a random place of the manifest; top-level keys are as likely as nested ones."""
    locations = list(_walk_keys(bundle.manifest)) or [({"x": 1}, "x")]
    keys = sorted({str(key) for _, key in locations})
    key_text = numbers.choice(keys)
    return numbers.choice([location for location in locations if str(location[1]) == key_text])


def _replace_type(bundle: EditedBundle, numbers: Random) -> None:
    container, key = _choose_key(bundle, numbers)
    container[key] = numbers.choice(ODD_VALUES)


def _remove_key(bundle: EditedBundle, numbers: Random) -> None:
    container, key = _choose_key(bundle, numbers)
    del container[key]


def _copy_key(bundle: EditedBundle, numbers: Random) -> None:
    container, key = _choose_key(bundle, numbers)
    if isinstance(container, list):
        container.append(container[key])
    else:
        container[f"{key}_"] = container[key]


def _swap_values(bundle: EditedBundle, numbers: Random) -> None:
    (a, i), (b, j) = _choose_key(bundle, numbers), _choose_key(bundle, numbers)
    with suppress(KeyError, IndexError):
        a[i], b[j] = json.loads(json.dumps((b[j], a[i])))


def _scale_number(bundle: EditedBundle, numbers: Random) -> None:
    """Scale a number: a shape, a size or a tolerance."""
    locations = [
        (container, key)
        for container, key in _walk_keys(bundle.manifest)
        if type(container[key]) in (int, float)
    ]
    container, key = numbers.choice(locations) if locations else ({"x": 1}, "x")
    factor = numbers.choice((-1, 0, 0.5, 2, 10, 1e6, 1e12))
    container[key] = type(container[key])(container[key] * factor)


def _replace_tolerance(bundle: EditedBundle, numbers: Random) -> None:
    with suppress(KeyError, TypeError):
        tolerance = numbers.choice((1e9, 1, 0.2, 0.1, 1.1e-4, 0, -1, 1e-300, "0", None))
        bundle.manifest["goldens"]["tolerance"]["relative"] = tolerance


def _replace_goldens(bundle: EditedBundle, numbers: Random) -> None:
    with suppress(KeyError, TypeError):
        cases = bundle.manifest["goldens"]["cases"]
        thinned: tuple[Any, ...] = (
            [],
            cases[:1],
            cases[1:],
            cases[:1] * 2,
            [*cases, *cases],
            cases[::-1],
        )
        bundle.manifest["goldens"]["cases"] = numbers.choice(thinned)


def _replace_text(bundle: EditedBundle, numbers: Random) -> None:
    at, piece = numbers.random(), numbers.choice(TEXTS)
    kind = numbers.choice(("cut", "insert", "value"))

    def apply_change(text: str) -> str:
        position = int(at * len(text))
        if kind == "cut":
            return text[:position]
        if kind == "insert":
            return text[:position] + piece + text[position:]
        head, colon, text_behind = text[position:].partition(": ")
        return text[:position] + head + colon + piece + text_behind[text_behind.find("\n") :]

    bundle.edit_text = apply_change


def _replace_bytes(bundle: EditedBundle, numbers: Random) -> None:
    path = bundle.choose_path(numbers)
    if not path.is_file():
        return
    content = path.read_bytes()
    at = numbers.randrange(len(content) + 1)
    path.write_bytes(
        numbers.choice(
            (
                content[:at],
                content + numbers.randbytes(numbers.choice((1, 4, 4096))),
                content[:at] + bytes([content[at] ^ 1 << numbers.randrange(8)]) + content[at + 1 :]
                if at < len(content)
                else b"",
                b"",
                numbers.randbytes(len(content)),
                bytes([numbers.randrange(256)]) * len(content),
            )
        )
    )


def _swap_files(bundle: EditedBundle, numbers: Random) -> None:
    a, b = bundle.choose_path(numbers), bundle.choose_path(numbers)
    if a.is_file() and b.is_file():
        first_content, second_content = a.read_bytes(), b.read_bytes()
        a.write_bytes(second_content)
        b.write_bytes(first_content)


def _remove_file(bundle: EditedBundle, numbers: Random) -> None:
    path = numbers.choice([bundle.choose_path(numbers), bundle.folder / "manifest.json"])
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
                path.symlink_to(bundle.choose_path(numbers))
            case "outside":
                path.symlink_to(bundle.other_bundles / "tiny.yaml")
            case "sparse":
                with path.open("wb") as file:
                    file.truncate(1 << 40)


def _add_file(bundle: EditedBundle, numbers: Random) -> None:
    name = numbers.choice(("model/x-run", "model/model.onnx.data", "x", "goldens/3/x", "graph/a"))
    added_path = bundle.folder / name
    added_path.parent.mkdir(parents=True, exist_ok=True)
    added_path.write_bytes(numbers.randbytes(9))
    if numbers.random() < 0.3:
        with suppress(KeyError, TypeError, AttributeError):
            bundle.manifest["files"].append(dict(bundle.manifest["files"][0], path=name))


def _replace_artifact(bundle: EditedBundle, numbers: Random) -> None:
    """Replace the bundle's artifact with another model, or damage it."""
    model_paths = [path for path in bundle.paths if path.startswith("model/")]
    path = bundle.folder / numbers.choice(model_paths)
    if not path.is_file():
        return
    other_models = sorted(bundle.other_bundles.glob("*/model/*"))
    content = bytearray(path.read_bytes())
    match numbers.choice(("theirs", "flip", "flip", "flips", "cut")):
        case "theirs":
            content[:] = numbers.choice([p for p in other_models if p.is_file()]).read_bytes()
        case "cut":
            del content[numbers.randrange(len(content) + 1) :]
        case kind:
            for _ in range(1 if kind == "flip" else 12):
                if content:
                    content[numbers.randrange(len(content))] = numbers.choice((0, 1, 127, 128, 255))
    path.write_bytes(content)


def _replace_program(bundle: EditedBundle, numbers: Random) -> None:
    for path in bundle.paths:
        if path.endswith("-run"):
            text = numbers.choice(RARE if numbers.random() < 0.02 else PROGRAMS)
            python = shutil.which("python3") or "/usr/bin/python3"
            (bundle.folder / path).write_text(f"#!{python}\n{text}\n")
            return
    _replace_artifact(bundle, numbers)


CHANGES: tuple[tuple[Callable[[EditedBundle, Random], None], int], ...] = (
    (_replace_type, 6),
    (_remove_key, 4),
    (_copy_key, 2),
    (_swap_values, 3),
    (_scale_number, 4),
    (_replace_tolerance, 2),
    (_replace_goldens, 2),
    (_replace_text, 2),
    (_replace_bytes, 4),
    (_swap_files, 2),
    (_remove_file, 3),
    (_add_file, 2),
    (_replace_artifact, 5),
    (_replace_program, 5),
)
