"""Checkpoints that were damaged, or written to lie: PyTorch's two formats and safetensors.

What is accepted must be right: the weights that come out are those that were written.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from case import Case, Front, Outcome
from headers import safetensors
from pickled import pickled, zipped
from states import OURS, SPEC, State, saved, state_dict, values, wrapped


def _right(outcome: Outcome, folder: Path) -> str:
    """Say what is wrong: a command of the file ran, or weights are not those written."""
    import numpy as np

    from tcc.compiler.data import safetensors_file

    if (folder / "ran").exists():
        return "the checkpoint's command ran"
    if outcome.code or not (folder / "w.safetensors").exists():
        return "" if outcome.code else "no weights were written"
    file = safetensors_file.open_safetensors(folder / "w.safetensors")
    for name, expected in values().items():
        if not np.array_equal(file.read_tensor(name), expected):
            return f"other values in {name}"
    return ""


def _unharmed(_: Outcome, folder: Path) -> str:
    return "the checkpoint's command ran" if (folder / "ran").exists() else ""


IMPORT = ("import", "net.pth", "--spec", "net.yaml", "-o", "w.safetensors", "-q")
BUILD = ("build", "net.yaml", "--target", "onnxruntime", "--weights", "net.safetensors", "-q")


def _import(data: bytes, exact: bool = True, **how: Any) -> Case:
    files = {"net.yaml": SPEC, "net.pth": data}
    return Case(IMPORT, files, check=_right if exact else _unharmed, **how)


def _flipped(numbers: Random) -> Case:
    """Flip bits; the old format has no checksums, so that its values may change."""
    data = bytearray(saved(wrapped(state_dict(), numbers), numbers))
    exact = data[:2] == b"PK"
    for _ in range(numbers.randint(1, 6)):
        data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
    return _import(bytes(data), exact=exact)


def _cut(numbers: Random) -> Case:
    data = saved(wrapped(state_dict(), numbers), numbers)
    at, more = numbers.randrange(len(data)), numbers.randbytes(numbers.choice((0, 0, 9, 4096)))
    return _import(data[:at] + more + (data[at:] if numbers.random() < 0.3 else b""), exact=False)


def _whole(numbers: Random) -> Case:
    """What must be accepted, and exactly."""
    data = saved(wrapped(state_dict(), numbers), numbers)

    def check(outcome: Outcome, folder: Path) -> str:
        return f"refused: {outcome.err[-200:]}" if outcome.code else _right(outcome, folder)

    return Case(IMPORT, {"net.yaml": SPEC, "net.pth": data}, check=check)


def _odd(numbers: Random) -> Case:
    """Tensors that are none, or have other shapes, types or values than weights."""
    import torch

    state = state_dict()
    name = numbers.choice([there for _, there, _ in OURS])
    value = state[name]
    state[name] = numbers.choice(
        (
            lambda: value.to(torch.complex64),
            value.to_sparse,
            lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
            lambda: torch.empty(value.shape, device="meta"),
            lambda: torch.empty(0),
            lambda: value.new_full(value.shape, float("nan")),
            lambda: value.new_full(value.shape, float("inf")),
            lambda: value.double() * 1e300,
            lambda: value[:1].expand(1 << numbers.randrange(40), *value.shape[1:]),
            value.ravel,
            value.int,
            lambda: value.unsqueeze(0),
            lambda: None,
            lambda: [value],
            value.numpy,
        )
    )()
    odd: Any = numbers.choice((3, None, ("a", 1), b"net.0.weight", 1.5))
    if numbers.random() < 0.4:
        state = {**state, **dict.fromkeys((odd,), torch.ones(numbers.randint(0, 5)))}
    return _import(saved(_wrapped_plain(state, numbers), numbers), exact=False)


def _wrapped_plain(state: State, numbers: Random) -> object:
    return numbers.choice((state, {"state_dict": state}, [state], {3: state}, {"a": {"b": state}}))


def _sparse(numbers: Random) -> Case:
    """Files that are large and hold nothing, pipes, devices and folders."""
    words = numbers.choice((IMPORT, BUILD))
    name = "net.pth" if words is IMPORT else "net.safetensors"
    size = numbers.choice((1 << 30, 10 << 30, 1 << 40))
    large = {"net.0.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(large).encode()
    start = numbers.choice((struct.pack("<Q", len(text)) + text, b"PK\x03\x04", b"\x80\x02", b""))

    def hollow(folder: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, len(start) + size)

    prepare: Callable[[Path], None] = numbers.choice(
        (
            hollow,
            hollow,
            lambda folder: os.mkfifo(folder / name),
            lambda folder: (folder / name).symlink_to("/dev/zero"),
            lambda folder: (folder / name).mkdir(),
            lambda _: None,
        )
    )
    return Case(words, {"net.yaml": SPEC}, prepare)


def _pickled(numbers: Random) -> Case:
    return _import(pickled(numbers), exact=False)


def _zipped(numbers: Random) -> Case:
    return _import(zipped(numbers), exact=False)


def _safetensors(numbers: Random) -> Case:
    ours = numbers.random() < 0.6
    data, exact = safetensors(numbers, ours)
    if ours and numbers.random() < 0.3:
        return Case(BUILD, {"net.yaml": SPEC, "net.safetensors": data})
    return _import(data, exact=exact)


MAKERS = (
    *(_flipped, _flipped, _cut, _whole, _odd, _odd, _pickled, _pickled, _pickled, _pickled),
    *(_zipped, _safetensors, _safetensors, _sparse),
)


def _make(numbers: Random) -> Case:
    return numbers.choice(MAKERS)(numbers)


def _warm() -> None:
    import torch  # noqa: F401 - which makes the cases

    values()


CHECKPOINTS = Front("checkpoints", 2000, _make, _warm)
