"""Fuzz damaged and forged checkpoints: PyTorch's two formats and safetensors.

If a checkpoint is accepted, the imported weights must be those that were written.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from case import Case, Front, Outcome
from headers import make_safetensors
from pickled import make_archive, make_pickle
from states import SPEC, WEIGHT_NAMES, State, make_state_dict, make_values, save_state, wrap_state


def _check_weights(outcome: Outcome, folder: Path) -> str:
    """Return a failure if a command in the file ran, or the weights differ from those written."""
    import numpy as np

    from tcc.compiler.data import safetensors_file

    if (folder / "ran").exists():
        return "a command in the checkpoint ran"
    if outcome.code or not (folder / "w.safetensors").exists():
        return "" if outcome.code else "the import wrote no weights"
    file = safetensors_file.open_safetensors(folder / "w.safetensors")
    for name, expected in make_values().items():
        if not np.array_equal(file.read_tensor(name), expected):
            return f"the values of {name} differ"
    return ""


def _check_unharmed(_: Outcome, folder: Path) -> str:
    return "a command in the checkpoint ran" if (folder / "ran").exists() else ""


IMPORT = ("import", "net.pth", "--spec", "net.yaml", "-o", "w.safetensors", "-q")
BUILD = ("build", "net.yaml", "--target", "onnxruntime", "--weights", "net.safetensors", "-q")


def _make_import_case(content: bytes, exact: bool = True, **options: Any) -> Case:
    files = {"net.yaml": SPEC, "net.pth": content}
    return Case(IMPORT, files, check=_check_weights if exact else _check_unharmed, **options)


def _make_flipped(numbers: Random) -> Case:
    """Flip bits; the old format has no checksums, so its values may change."""
    content = bytearray(save_state(wrap_state(make_state_dict(), numbers), numbers))
    exact = content[:2] == b"PK"
    for _ in range(numbers.randint(1, 6)):
        content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
    return _make_import_case(bytes(content), exact=exact)


def _make_cut(numbers: Random) -> Case:
    content = save_state(wrap_state(make_state_dict(), numbers), numbers)
    at, inserted = (
        numbers.randrange(len(content)),
        numbers.randbytes(numbers.choice((0, 0, 9, 4096))),
    )
    return _make_import_case(
        content[:at] + inserted + (content[at:] if numbers.random() < 0.3 else b""), exact=False
    )


def _make_valid(numbers: Random) -> Case:
    """Return a valid checkpoint, which must be imported exactly."""
    content = save_state(wrap_state(make_state_dict(), numbers), numbers)

    def check(outcome: Outcome, folder: Path) -> str:
        return f"refused: {outcome.err[-200:]}" if outcome.code else _check_weights(outcome, folder)

    return Case(IMPORT, {"net.yaml": SPEC, "net.pth": content}, check=check)


def _make_odd(numbers: Random) -> Case:
    """Return a checkpoint with entries that are not tensors, or wrong shapes, types or values."""
    import torch

    state = make_state_dict()
    name = numbers.choice([other_name for _, other_name, _ in WEIGHT_NAMES])
    tensor = state[name]
    state[name] = numbers.choice(
        (
            lambda: tensor.to(torch.complex64),
            tensor.to_sparse,
            lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            lambda: torch.empty(tensor.shape, device="meta"),
            lambda: torch.empty(0),
            lambda: tensor.new_full(tensor.shape, float("nan")),
            lambda: tensor.new_full(tensor.shape, float("inf")),
            lambda: tensor.double() * 1e300,
            lambda: tensor[:1].expand(1 << numbers.randrange(40), *tensor.shape[1:]),
            tensor.ravel,
            tensor.int,
            lambda: tensor.unsqueeze(0),
            lambda: None,
            lambda: [tensor],
            tensor.numpy,
        )
    )()
    odd: Any = numbers.choice((3, None, ("a", 1), b"net.0.weight", 1.5))
    if numbers.random() < 0.4:
        state = {**state, **dict.fromkeys((odd,), torch.ones(numbers.randint(0, 5)))}
    return _make_import_case(save_state(_wrap_plainly(state, numbers), numbers), exact=False)


def _wrap_plainly(state: State, numbers: Random) -> object:
    return numbers.choice((state, {"state_dict": state}, [state], {3: state}, {"a": {"b": state}}))


def _make_sparse(numbers: Random) -> Case:
    """Return a large sparse file, a pipe, a device or a folder."""
    arguments = numbers.choice((IMPORT, BUILD))
    name = "net.pth" if arguments is IMPORT else "net.safetensors"
    size = numbers.choice((1 << 30, 10 << 30, 1 << 40))
    large = {"net.0.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    text = json.dumps(large).encode()
    start = numbers.choice((struct.pack("<Q", len(text)) + text, b"PK\x03\x04", b"\x80\x02", b""))

    def write_hollow(folder: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, len(start) + size)

    prepare: Callable[[Path], None] = numbers.choice(
        (
            write_hollow,
            write_hollow,
            lambda folder: os.mkfifo(folder / name),
            lambda folder: (folder / name).symlink_to("/dev/zero"),
            lambda folder: (folder / name).mkdir(),
            lambda _: None,
        )
    )
    return Case(arguments, {"net.yaml": SPEC}, prepare)


def _make_pickled(numbers: Random) -> Case:
    return _make_import_case(make_pickle(numbers), exact=False)


def _make_zipped(numbers: Random) -> Case:
    return _make_import_case(make_archive(numbers), exact=False)


def _make_safetensors(numbers: Random) -> Case:
    has_our_names = numbers.random() < 0.6
    content, exact = make_safetensors(numbers, has_our_names)
    if has_our_names and numbers.random() < 0.3:
        return Case(BUILD, {"net.yaml": SPEC, "net.safetensors": content})
    return _make_import_case(content, exact=exact)


MAKERS = (
    *(
        _make_flipped,
        _make_flipped,
        _make_cut,
        _make_valid,
        _make_odd,
        _make_odd,
        _make_pickled,
        _make_pickled,
        _make_pickled,
        _make_pickled,
    ),
    *(_make_zipped, _make_safetensors, _make_safetensors, _make_sparse),
)


def _make_case(numbers: Random) -> Case:
    return numbers.choice(MAKERS)(numbers)


def _prepare() -> None:
    import torch  # noqa: F401 - which makes the cases

    make_values()


CHECKPOINTS = Front("checkpoints", 2000, _make_case, _prepare)
