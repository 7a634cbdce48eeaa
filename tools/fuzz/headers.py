"""Safetensors whose headers are right, damaged, or lie."""

import json
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from states import OURS, values

HOWS = ("whole", "lies", "flips", "cut", "text", "many", "length", "twice", "nested")
EXACT = frozenset(("whole", "cut", "length", "twice", "nested", "many"))
"""The kinds that give the weights that were written, if they are accepted."""


def _header(numbers: Random, names: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], bytes]:
    """Return the header and the bytes of a whole safetensors file of those names."""
    import numpy as np

    header: dict[str, Any] = {}
    data = b""
    for name, shape in names.items():
        ours = next((o for o, there, _ in OURS if name in (o, there)), "")
        array = values().get(ours, np.ones(shape, np.float32))
        kind, form = numbers.choice(
            (("F32", "<f4"), ("F32", "<f4"), ("F64", "<f8"), ("F16", "<f2"))
        )
        content = array.astype(form).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    return header, data


def _lies(header: dict[str, Any], numbers: Random) -> None:
    """Change one thing of a header, which the file then does not bear out."""
    name = numbers.choice(list(header))
    entry = header[name]
    first, last = entry["data_offsets"]
    change = numbers.choice(
        (
            {"data_offsets": [first + 4, last + 4]},
            {"data_offsets": [last, first]},
            {"data_offsets": [0, last - first]},
            {"data_offsets": [1 << 63, 1 << 64]},
            {"data_offsets": [-4, last]},
            {"data_offsets": [first]},
            {"dtype": "F16"},
            {"dtype": "I32"},
            {"dtype": "F7"},
            {"dtype": 3},
            {"shape": [1 << 62, 4]},
            {"shape": [-1]},
            {"shape": [0]},
            {"shape": [1.5]},
            {"shape": "3"},
            {"shape": [True] * 70},
        )
    )
    header[name] = numbers.choice(({**entry, **change}, {**entry, **change}, None, [], 7))


def _text(header: dict[str, Any], how: str, numbers: Random) -> bytes:
    text = json.dumps(header).encode()
    match how:
        case "lies":
            _lies(header, numbers)
            return json.dumps(header).encode()
        case "text":
            return bytes(numbers.choice(text) for _ in text)
        case "many":
            one = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
            count = numbers.choice((60_000, 300_000))
            return ("{" + ",".join(f'"{i}":{one}' for i in range(count)) + "}").encode()
        case "twice":
            return b"{" + text[1:-1] + b"," + text[1:]
        case "nested":
            return b'{"a":' * numbers.choice((10, 1000, 100_000)) + b"1"
        case _:
            return text


def safetensors(numbers: Random, ours: bool) -> tuple[bytes, bool]:
    """Return a file, under our names or others, and whether its weights are right if it is read."""
    names = {(o if ours else there): shape for o, there, shape in OURS}
    header, data = _header(numbers, names)
    how = numbers.choice(HOWS)
    text = _text(header, how, numbers)
    length = len(text)
    if how == "length":
        length = numbers.choice((0, 1, 1 << 40, (1 << 64) - 1, len(text) - 1))
    whole = bytearray(struct.pack("<Q", length) + text + data)
    if how == "flips":
        for _ in range(numbers.randint(1, 4)):
            whole[numbers.randrange(len(text) + 8)] ^= 1 << numbers.randrange(8)
    if how == "cut":
        whole = whole[: numbers.randrange(len(whole))]
    return bytes(whole), how in EXACT
