"""Generate safetensors files with correct, damaged or false headers."""

import json
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from states import WEIGHT_NAMES, make_values

KINDS = ("whole", "lies", "flips", "cut", "text", "many", "length", "twice", "nested")
EXACT = frozenset(("whole", "cut", "length", "twice", "nested", "many"))
"""The kinds that must give the written weights if they are accepted."""


def _make_header(
    numbers: Random, names: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of a valid safetensors file with these names."""
    import numpy as np

    header: dict[str, Any] = {}
    tensor_bytes = b""
    for name, shape in names.items():
        our_name = next((o for o, other_name, _ in WEIGHT_NAMES if name in (o, other_name)), "")
        array = make_values().get(our_name, np.ones(shape, np.float32))
        kind, form = numbers.choice(
            (("F32", "<f4"), ("F32", "<f4"), ("F64", "<f8"), ("F16", "<f2"))
        )
        content = array.astype(form).tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(shape),
            "data_offsets": [len(tensor_bytes), len(tensor_bytes) + len(content)],
        }
        tensor_bytes += content
    return header, tensor_bytes


def _replace_field(header: dict[str, Any], numbers: Random) -> None:
    """Change one field of a header, so that it contradicts the file."""
    name = numbers.choice(list(header))
    tensor_header = header[name]
    start, end = tensor_header["data_offsets"]
    change = numbers.choice(
        (
            {"data_offsets": [start + 4, end + 4]},
            {"data_offsets": [end, start]},
            {"data_offsets": [0, end - start]},
            {"data_offsets": [1 << 63, 1 << 64]},
            {"data_offsets": [-4, end]},
            {"data_offsets": [start]},
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
    header[name] = numbers.choice(
        ({**tensor_header, **change}, {**tensor_header, **change}, None, [], 7)
    )


def _format_header(header: dict[str, Any], kind: str, numbers: Random) -> bytes:
    text = json.dumps(header).encode()
    match kind:
        case "lies":
            _replace_field(header, numbers)
            return json.dumps(header).encode()
        case "text":
            return bytes(numbers.choice(text) for _ in text)
        case "many":
            empty_tensor = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
            count = numbers.choice((60_000, 300_000))
            return ("{" + ",".join(f'"{i}":{empty_tensor}' for i in range(count)) + "}").encode()
        case "twice":
            return b"{" + text[1:-1] + b"," + text[1:]
        case "nested":
            return b'{"a":' * numbers.choice((10, 1000, 100_000)) + b"1"
        case _:
            return text


def make_safetensors(numbers: Random, has_our_names: bool) -> tuple[bytes, bool]:
    """Return a file, and whether its weights must be correct if it is accepted."""
    names = {(o if has_our_names else other_name): shape for o, other_name, shape in WEIGHT_NAMES}
    header, tensor_bytes = _make_header(numbers, names)
    kind = numbers.choice(KINDS)
    text = _format_header(header, kind, numbers)
    length = len(text)
    if kind == "length":
        length = numbers.choice((0, 1, 1 << 40, (1 << 64) - 1, len(text) - 1))
    file_bytes = bytearray(struct.pack("<Q", length) + text + tensor_bytes)
    if kind == "flips":
        for _ in range(numbers.randint(1, 4)):
            file_bytes[numbers.randrange(len(text) + 8)] ^= 1 << numbers.randrange(8)
    if kind == "cut":
        file_bytes = file_bytes[: numbers.randrange(len(file_bytes))]
    return bytes(file_bytes), kind in EXACT
