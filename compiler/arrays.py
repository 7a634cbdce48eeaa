"""Arrays of images or tensors from `.npz` files: bounded, never pickled."""

import zipfile
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tcc.compiler.source import UserError, fail, whole_file

MAX_BYTES = 1 << 32
"""Most bytes that the images or tensors of a file may take in memory."""
MAX_LABELS = 1 << 26
"""Most bytes of all labels."""
IMAGES, TENSORS, LABELS = "images", "tensors", "labels"

Array = NDArray[np.uint8] | NDArray[np.float32]


def read(path: Path) -> tuple[Array, tuple[str, ...] | None]:
    """Return the images, uint8 (N, height, width, 3), or tensors, float32, and labels if any.

    Raises:
        UserError: The file is not such a one (E0712).
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise _unfit(path, reason) from None
    except Exception as error:  # a decompressor meets damaged data with errors of its own
        raise _unfit(path, f"damaged: {type(error).__name__}") from None


def _read(file: zipfile.ZipFile) -> tuple[Array, tuple[str, ...] | None]:
    names = {name.removesuffix(".npy") for name in file.namelist()}
    if len(names & {IMAGES, TENSORS}) != 1:
        raise ValueError(f"it holds {', '.join(sorted(names))[:80] or 'nothing'}")
    kind = IMAGES if IMAGES in names else TENSORS
    array = _checked(_member(file, kind, MAX_BYTES), kind)
    labels = _member(file, LABELS, MAX_LABELS) if LABELS in names else None
    return array, None if labels is None else _labels(labels, len(array))


def _member(file: zipfile.ZipFile, name: str, most: int) -> NDArray[np.generic]:
    """Return an array of the file, whose header is looked at before any memory is taken."""
    with file.open(f"{name}.npy") as stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError(f"`{name}` holds Python objects, not numbers")
        if prod(shape) * dtype.itemsize > most:
            raise ValueError(f"`{name}` takes more than {most >> 20} MiB")
    with file.open(f"{name}.npy") as stream:
        found: NDArray[np.generic] = npy.read_array(stream, allow_pickle=False)
        return found


def _checked(array: NDArray[np.generic], kind: str) -> Array:
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"`{kind}` holds none")
    if kind == IMAGES:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
            raise ValueError(f"`images` is {_kind(array)}, not uint8 (N, height, width, 3)")
        return np.ascontiguousarray(array, np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"`tensors` is {_kind(array)}, not floats")
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("`tensors` holds NaN or infinity")
    return floats


def _labels(labels: NDArray[np.generic], count: int) -> tuple[str, ...]:
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise ValueError(f"`labels` is {_kind(labels)}, not {count} class indices or names")
    return tuple(str(label) for label in labels.tolist())


def _kind(array: NDArray[np.generic]) -> str:
    return f"{array.dtype.name} ({', '.join(map(str, array.shape))})"


def _unfit(path: Path, reason: str) -> UserError:
    return fail(
        "E0712",
        "not an .npz file of images",
        whole_file(str(path)),
        label=reason,
        help="it needs `images`, uint8 (N, height, width, 3), or `tensors`, float (N, *shape)",
    )
