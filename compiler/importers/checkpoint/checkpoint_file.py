"""Reads third-party checkpoints, PyTorch files and safetensors, without trusting them.

No code in them runs, and PyTorch is not needed. A pickle yields only names, shapes and file
offsets (see `pickle_reader`). A tensor's values are read once its layer is known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import safetensors_file
from tcc.compiler.importers.checkpoint import state_dicts, torch_archive
from tcc.compiler.importers.checkpoint.lazy_tensors import (
    SAVE_HELP,
    LazyTensor,
    TensorReader,
    escape_text,
    make_read_error,
)
from tcc.compiler.importers.checkpoint.pickle_reader import GlobalName, PickleError
from tcc.compiler.importers.checkpoint.state_dicts import StateDict
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError

EXECUTING_MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "sys", "pty", "runpy", "socket", "shutil", "ctypes"),
        *("importlib", "webbrowser", "code", "multiprocessing"),
    )
)
"""Modules that no checkpoint needs. A checkpoint that calls their functions is an attack."""
EXECUTING_BUILTINS = frozenset(("eval", "exec", "compile", "open", "__import__", "input"))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors of a checkpoint.

    `ordered`: whether they are in the order in which modules were registered. `notes` name the
    chosen entry, the other entries and the keys that were not read.
    """

    path: Path
    tensors: tuple[LazyTensor, ...]
    ordered: bool
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, entry_name: str | None = None) -> Checkpoint:
    """Return the tensors of a checkpoint: safetensors, or any of PyTorch's formats.

    `entry_name` selects an entry of the checkpoint if it has several.

    Raises:
        UserError: It cannot be read, is damaged, or has no state dict (E0510); it has several
            entries, or none with that name (E0515).
    """
    is_safetensors = _is_safetensors(path)
    state_dict, notes = (
        _read_safetensors(path, entry_name) if is_safetensors else _read_pytorch(path, entry_name)
    )
    tensors = state_dict.tensors
    # safetensors sorts its tensors by type and name.
    ordered = not (is_safetensors or _is_sorted_by_name([tensor.name for tensor in tensors]))
    if not ordered:
        tensors = tuple(sorted(tensors, key=lambda tensor: make_natural_key(tensor.name)))
    return Checkpoint(path, tensors, ordered, notes)


def make_natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts numbers in names by value: `net.2` before `net.10`.

    Every second element is a number.
    """
    # int() rejects very long numbers, so they are compared as text: by digit count, then digits.
    parts = re.split(r"(\d+)", name)
    return tuple((len(p.lstrip("0")) if i % 2 else 0, p) for i, p in enumerate(parts))


def _is_sorted_by_name(names: list[str]) -> bool:
    """Whether the names were sorted: a module registers its weight before its bias."""
    name_set = set(names)
    has_biases = any(n.endswith(".bias") and f"{n[:-4]}weight" in name_set for n in names)
    return has_biases and names == sorted(names)


def _is_safetensors(path: Path) -> bool:
    try:
        with regular_files.open_file(path) as file:
            start = file.read(9)
    except OSError as error:
        raise make_read_error(
            path, "cannot read the checkpoint", error.strerror or str(error)
        ) from None
    return start[8:] == b"{" and not start.startswith(b"PK")


def _read_safetensors(path: Path, entry_name: str | None) -> tuple[StateDict, tuple[str, ...]]:
    try:
        file = safetensors_file.open_safetensors(path)
    except UserError as error:
        diagnostic = error.diagnostics[0]
        raise make_read_error(path, diagnostic.message, diagnostic.label) from None
    tensors = tuple(
        LazyTensor(
            name, part.shape, part.dtype, part.dtype in safetensors_file.FLOATS, name, read_tensor
        )
        for name, part in file.parts.items()
        if (read_tensor := partial(_read_values, file, name))
    )
    return _choose_state_dict(path, [StateDict((), tensors)] if tensors else [], entry_name)


def _read_values(file: safetensors_file.TensorFile, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity is detected later
        return file.read_tensor(name).astype(np.float32)


def _read_pytorch(path: Path, entry_name: str | None) -> tuple[StateDict, tuple[str, ...]]:
    try:
        archive = torch_archive.read_archive(path)
        _refuse_attack(path, archive.global_names)
        candidates = state_dicts.find_state_dicts(archive.root, TensorReader(archive))
    except PickleError as error:
        raise make_read_error(
            path, "not a valid PyTorch checkpoint", escape_text(str(error)), SAVE_HELP
        ) from None
    except OSError as error:
        raise make_read_error(
            path, "cannot read the checkpoint", error.strerror or str(error)
        ) from None
    if not candidates:
        raise state_dicts.make_empty_error(path, archive.root)
    state_dict, notes = _choose_state_dict(path, candidates, entry_name)
    if unread_keys := state_dicts.list_others(archive.root, state_dict):
        notes = (*notes, f"not imported: {', '.join(unread_keys)}")
    return state_dict, notes


def _choose_state_dict(
    path: Path, candidates: Sequence[StateDict], entry_name: str | None
) -> tuple[StateDict, tuple[str, ...]]:
    if not candidates:
        raise make_read_error(path, "the checkpoint contains no tensors")
    return state_dicts.choose_state_dict(path, candidates, entry_name)


def _refuse_attack(path: Path, global_names: frozenset[GlobalName]) -> None:
    # Sets have no order. Sorting them makes the message the same on each run.
    for global_name in sorted(global_names, key=str):
        is_executing_builtin = (
            global_name.module == "builtins" and global_name.name in EXECUTING_BUILTINS
        )
        if is_executing_builtin or global_name.module.partition(".")[0] in EXECUTING_MODULES:
            message = "the checkpoint runs code when PyTorch loads it"
            label = f"it calls {escape_text(str(global_name))}; tcc did not run it"
            raise make_read_error(
                path,
                message,
                label,
                "do not load it with PyTorch; ask its author for a file with weights only",
            )
