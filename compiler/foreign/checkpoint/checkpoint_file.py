"""Reading checkpoints of other projects: PyTorch files and safetensors, neither of them trusted.

Nothing in them is run, and PyTorch is not needed: a pickle yields names, shapes and places alone
(see `pickle_reader`), so that a tensor is read only once it is known which layer it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import safetensors_file
from tcc.compiler.foreign.checkpoint import state_dicts, torch_archive
from tcc.compiler.foreign.checkpoint.lazy_tensors import SAVE, LazyTensor, TensorReader, bad, shown
from tcc.compiler.foreign.checkpoint.pickle_reader import GlobalName, PickleError
from tcc.compiler.foreign.checkpoint.state_dicts import StateDict
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError

RUNNING = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "sys", "pty", "runpy", "socket", "shutil", "ctypes"),
        *("importlib", "webbrowser", "code", "multiprocessing"),
    )
)
"""Modules whose functions have no business in a checkpoint: one that calls them is an attack."""
RUNNING_BUILTINS = frozenset(("eval", "exec", "compile", "open", "__import__", "input"))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors; `ordered` tells whether their order is the one in which modules were registered.

    `notes` say what else was there, and which of several entries was taken.
    """

    path: Path
    tensors: tuple[LazyTensor, ...]
    ordered: bool
    notes: tuple[str, ...] = ()


def read(path: Path, entry: str | None = None) -> Checkpoint:
    """Return the tensors of a checkpoint: safetensors, or any of PyTorch's formats.

    `entry` names which part of the checkpoint to take where there are several.

    Raises:
        UserError: It cannot be read, is damaged, or holds no state dict (E0510); it has several
            entries, or none of that name (E0515).
    """
    safe = _is_safetensors(path)
    taken, notes = _safetensors(path, entry) if safe else _pytorch(path, entry)
    tensors = taken.tensors
    # safetensors sorts what it writes by type and name.
    ordered = not (safe or _by_name([tensor.name for tensor in tensors]))
    if not ordered:
        tensors = tuple(sorted(tensors, key=lambda tensor: natural(tensor.name)))
    return Checkpoint(path, tensors, ordered, notes)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts names as people count: `net.2` before `net.10`.

    Every second part of it is a number.
    """
    # Numbers are compared as text, by their digits' count first: int() refuses very long ones.
    parts = re.split(r"(\d+)", name)
    return tuple((len(p.lstrip("0")) if i % 2 else 0, p) for i, p in enumerate(parts))


def _by_name(names: list[str]) -> bool:
    """Whether someone sorted the names: a module registers its weight before its bias."""
    known = set(names)
    biased = any(n.endswith(".bias") and f"{n[:-4]}weight" in known for n in names)
    return biased and names == sorted(names)


def _is_safetensors(path: Path) -> bool:
    try:
        with regular_files.opened(path) as file:
            start = file.read(9)
    except OSError as error:
        raise bad(path, "cannot read the checkpoint", error.strerror or str(error)) from None
    return start[8:] == b"{" and not start.startswith(b"PK")


def _safetensors(path: Path, wanted: str | None) -> tuple[StateDict, tuple[str, ...]]:
    try:
        file = safetensors_file.read(path)
    except UserError as error:
        why = error.diagnostics[0]
        raise bad(path, why.message, why.label) from None
    tensors = tuple(
        LazyTensor(name, part.shape, part.dtype, part.dtype in safetensors_file.FLOATS, name, read)
        for name, part in file.parts.items()
        if (read := partial(_values, file, name))
    )
    return _taken(path, [StateDict((), tensors)] if tensors else [], wanted)


def _values(file: safetensors_file.TensorFile, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity is found later on
        return file.values(name).astype(np.float32)


def _pytorch(path: Path, wanted: str | None) -> tuple[StateDict, tuple[str, ...]]:
    try:
        found = torch_archive.read(path)
        _refuse_attack(path, found.named)
        each = state_dicts.find(found.root, TensorReader(found))
    except PickleError as error:
        raise bad(path, "not a whole PyTorch checkpoint", shown(str(error)), SAVE) from None
    except OSError as error:
        raise bad(path, "cannot read the checkpoint", error.strerror or str(error)) from None
    if not each:
        raise state_dicts.none(path, found.root)
    taken, notes = _taken(path, each, wanted)
    if beside := state_dicts.others(found.root, taken):
        notes = (*notes, f"not read: {', '.join(beside)}")
    return taken, notes


def _taken(
    path: Path, each: Sequence[StateDict], wanted: str | None
) -> tuple[StateDict, tuple[str, ...]]:
    if not each:
        raise bad(path, "the checkpoint holds no tensors")
    return state_dicts.choose(path, each, wanted)


def _refuse_attack(path: Path, named: frozenset[GlobalName]) -> None:
    # In one order, as sets have none, so that the same file is refused in the same words.
    for one in sorted(named, key=str):
        builtin = one.module == "builtins" and one.name in RUNNING_BUILTINS
        if builtin or one.module.partition(".")[0] in RUNNING:
            message = "the checkpoint would run a program wherever PyTorch loads it"
            label = f"it calls {shown(str(one))}, which was not run here"
            raise bad(path, message, label, "do not load it elsewhere; ask for the weights alone")
