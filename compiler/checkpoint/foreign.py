"""Reading checkpoints of other projects: PyTorch files and safetensors, neither of them trusted."""

import re
import warnings
import zipfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import tensor_file
from tcc.compiler.source import UserError, fail, whole_file
from tcc.compiler.tools import MissingTool, Tool
from tcc.compiler.types import Shape

if TYPE_CHECKING:
    import torch

MAX_TENSORS = 50_000
"""Most tensors of a checkpoint."""
NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs save a state dict among other things, the likeliest first."""
WRAPPERS = ("module.", "_orig_mod.")
"""What PyTorch's wrappers for parallel and compiled modules put before every name."""
PYTORCH = Tool(
    "torch", "read PyTorch checkpoints", None, "pip install 'tcc-compiler[train]'", builds=False
)
SAVE = "save it anew: `torch.save(model.state_dict(), path)`"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that is not read yet; `storage` is equal for names of one and the same memory."""

    name: str
    shape: Shape
    floating: bool
    storage: Hashable
    values: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors; `ordered` tells whether their order is the one in which modules were registered."""

    path: Path
    tensors: tuple[Tensor, ...]
    ordered: bool


def read(path: Path) -> Checkpoint:
    """Return the tensors of a checkpoint: safetensors, or any of PyTorch's formats.

    Raises:
        UserError: It cannot be read, is damaged, or holds no state dict (E0510).
        MissingTool: It needs PyTorch, which is not installed.
    """
    safe = _is_safetensors(path)
    tensors = _safetensors(path) if safe else _pytorch(path)
    if not tensors:
        raise _bad(path, "the checkpoint holds no tensors")
    if len(tensors) > MAX_TENSORS:
        raise _bad(path, f"the checkpoint holds {len(tensors)} tensors, more than {MAX_TENSORS}")
    names = [tensor.name for tensor in tensors]
    ordered = not (safe or _by_name(names))
    if not ordered:
        tensors = sorted(tensors, key=lambda tensor: natural(tensor.name))
    return Checkpoint(path, tuple(_unwrapped(tensors)), ordered)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts names as people count: `net.2` before `net.10`.

    Every second part of it is a number.
    """
    parts = re.split(r"(\d+)", name)
    return tuple((len(p.lstrip("0")) if i % 2 else 0, p) for i, p in enumerate(parts))


def shown(text: str) -> str:
    """Return text of a checkpoint as a message may show it: short, and safe for a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:160])


def _by_name(names: list[str]) -> bool:
    """Whether someone sorted the names: a module registers its weight before its bias."""
    known = set(names)
    biased = any(n.endswith(".bias") and f"{n[:-4]}weight" in known for n in names)
    return biased and names == sorted(names)


def _unwrapped(tensors: list[Tensor]) -> list[Tensor]:
    for wrapper in WRAPPERS:
        if all(tensor.name.startswith(wrapper) for tensor in tensors):
            bare = [replace(t, name=t.name.removeprefix(wrapper)) for t in tensors]
            return _unwrapped(bare)
    return tensors


def _is_safetensors(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise _bad(path, "cannot read the checkpoint", error.strerror or "") from None
    return start[8:] == b"{" and not start.startswith(b"PK")


def _safetensors(path: Path) -> list[Tensor]:
    file = tensor_file.read(path)
    return [
        Tensor(name, part.shape, part.dtype in tensor_file.FLOATS, name, partial(_read, file, name))
        for name, part in file.parts.items()
    ]


def _read(file: tensor_file.TensorFile, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinity is found later on
        return file.values(name).astype(np.float32)


def _pytorch(path: Path) -> list[Tensor]:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path)
    found = _state_dict(path, _load(path, zipped))
    return [_tensor(path, name, value) for name, value in found]


def _check_archive(path: Path) -> None:
    """Refuse an archive that is damaged or would unpack to more than it is.

    PyTorch itself checks neither sums nor sizes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = sum(entry.file_size for entry in archive.infolist())
            if packed > path.stat().st_size:
                raise _bad(path, "the checkpoint is a compressed archive", help=SAVE)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError) as error:
        raise _bad(path, "the checkpoint is damaged", shown(str(error))) from None
    if damaged:
        raise _bad(path, "the checkpoint is damaged", f"the checksum of {shown(damaged)} is wrong")


def _load(path: Path, zipped: bool) -> object:
    try:
        import torch
    except ImportError:
        raise MissingTool(PYTORCH) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except MemoryError:
            raise
        except Exception as error:  # torch meets a damaged file with any exception at all
            raise _bad(path, "not a PyTorch state dict", _reason(error), SAVE) from None


def _reason(error: Exception) -> str:
    """Return the one line of torch's long message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return shown((telling or lines or [type(error).__name__])[0])


def _state_dict(path: Path, loaded: object) -> "list[tuple[str, torch.Tensor]]":
    """Return the tensors of the state dict, which may lie nested in what was loaded."""
    keys: list[str] = []
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        tensors = [(str(k), v) for k, v in loaded.items() if hasattr(v, "untyped_storage")]
        if tensors:
            return tensors
        keys = [str(key) for key in loaded]
        loaded = next((loaded[key] for key in NESTED if key in loaded), None)
    label = f"its keys are {shown(', '.join(keys[:8]))}" if keys else ""
    raise _bad(path, "the checkpoint holds no state dict", label, SAVE)


def _tensor(path: Path, name: str, tensor: "torch.Tensor") -> Tensor:
    import torch

    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    floating = plain and tensor.is_floating_point()
    shape = tuple(tensor.shape)
    if not floating:
        return Tensor(name, shape, False, name, lambda: np.zeros(0, np.float32))
    storage = tensor.untyped_storage()
    if tensor.numel() * tensor.element_size() > storage.nbytes():
        raise _bad(path, "the checkpoint is damaged", f"{shown(name)} claims more than there is")
    place = (storage.data_ptr(), tensor.storage_offset(), shape, tensor.stride())
    return Tensor(name, shape, True, place if tensor.numel() else name, partial(_values, tensor))


def _values(tensor: "torch.Tensor") -> NDArray[np.float32]:
    import torch

    # A copy, since the memory may be that of the mapped file.
    return np.array(tensor.detach().to(torch.float32).numpy())


def _bad(path: Path, message: str, label: str = "", help: str = "") -> UserError:
    return fail("E0510", message, whole_file(str(path)), label=label, help=help)
