"""Read images or tensors from `.npz` files, with bounded memory and without pickle."""

import zipfile
from collections.abc import Iterator
from io import BufferedReader, FileIO
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_BYTES = 1 << 32
"""Maximum size of the images or tensors in memory, in bytes."""
MAX_COUNT = 1 << 20
"""Maximum number of images or tensors in a file."""
FREE_BYTES, MAX_RATIO = 1 << 26, 100
"""Arrays of more bytes than the first may not exceed their compressed size by more than the ratio.

This keeps small files from taking much memory. Images compress to about a third.
"""
MAX_DIRECTORY, MAX_HEADER = 1 << 20, 10_000
"""Maximum bytes of the zip directory, and of one array's header (NumPy's limit)."""
PART = 1 << 22
"""Elements that are checked at a time."""
MAX_LABELS = 1 << 26
"""Maximum size of all labels in bytes."""
IMAGES, TENSORS, LABELS = "images", "tensors", "labels"

Array = NDArray[np.uint8] | NDArray[np.float32]


def read_npz(path: Path) -> tuple[Array, tuple[str, ...] | None]:
    """Return the images, uint8 (N, height, width, 3), or tensors, float32, and the labels if any.

    Raises:
        UserError: The file is not an `.npz` file of images or tensors (E0712).
    """
    try:
        with (
            _Directory(FileIO(regular_files.open_descriptor(path))) as file,
            zipfile.ZipFile(file) as opened,
        ):
            return _read_arrays(opened)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise _make_error(path, reason) from None
    except Exception as error:  # decompressors raise their own exceptions for damaged data
        raise _make_error(path, f"damaged: {type(error).__name__}") from None


class _Directory(BufferedReader):
    """A file that limits the size of each read, such as the zip directory's."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes."""
        # `zipfile` reads the directory in one call, with the size that the file states.
        if size is not None and size > MAX_DIRECTORY:
            raise ValueError("the file contains too many arrays")
        return super().read(size)


def _read_arrays(file: zipfile.ZipFile) -> tuple[Array, tuple[str, ...] | None]:
    names = {name.removesuffix(".npy") for name in file.namelist()}
    if len(names & {IMAGES, TENSORS}) != 1:
        raise ValueError(f"the file contains {', '.join(sorted(names))[:80] or 'no arrays'}")
    kind = IMAGES if IMAGES in names else TENSORS
    array = _check_array(_read_array(file, kind, MAX_BYTES), kind)
    labels = _read_array(file, LABELS, MAX_LABELS) if LABELS in names else None
    return array, None if labels is None else _convert_labels(labels, len(array))


def _read_array(file: zipfile.ZipFile, name: str, max_bytes: int) -> NDArray[np.generic]:
    """Return an array of the file; its header is checked before memory is allocated."""
    member = file.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"`{name}` uses a compression method that NumPy does not write")
    if member.header_offset + member.compress_size > file.start_dir:
        raise ValueError(f"`{name}` extends past the end of the file")
    with file.open(member) as stream:
        shape, byte_count = _read_header(stream, name)
        if shape and shape[0] > MAX_COUNT:
            raise ValueError(f"`{name}` has {shape[0]:,} items, the limit is {MAX_COUNT:,}")
        if byte_count > max_bytes:
            raise ValueError(f"`{name}` takes more than {max_bytes >> 20} MiB of memory")
        if byte_count > max(FREE_BYTES, member.compress_size * MAX_RATIO):
            packed = f"{member.compress_size >> 10} KiB expand to {byte_count >> 20} MiB"
            raise ValueError(f"`{name}`: {packed}, more than {MAX_RATIO} times as much")
        stream.seek(0)
        array: NDArray[np.generic] = npy.read_array(stream, allow_pickle=False)
        return array


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], int]:
    """Return the shape and the size in bytes of an array, from its header."""
    version = npy.read_magic(stream)
    is_version_1 = version == (1, 0)
    if int.from_bytes(stream.read(2 if is_version_1 else 4), "little") > MAX_HEADER:
        raise ValueError(f"the header of `{name}` is larger than {MAX_HEADER} bytes")
    stream.seek(npy.MAGIC_LEN)
    shape, _, dtype = (npy.read_array_header_1_0 if is_version_1 else npy.read_array_header_2_0)(
        stream
    )
    if dtype.hasobject:
        raise ValueError(f"`{name}` contains Python objects, not numbers")
    return shape, prod(shape) * max(dtype.itemsize, 1)


def _check_array(array: NDArray[np.generic], kind: str) -> Array:
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"`{kind}` is empty")
    if kind == IMAGES:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
            raise ValueError(
                f"`images` is {_describe_array(array)}, not uint8 (N, height, width, 3)"
            )
        return np.ascontiguousarray(array, np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"`tensors` is {_describe_array(array)}, not floats")
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, np.float32)
    if not all(np.isfinite(part).all() for part in _split_parts(floats)):
        raise ValueError("`tensors` contains NaN or infinity")
    return floats


def _split_parts(array: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield all elements in parts."""
    flat = array.reshape(-1)
    return (flat[start : start + PART] for start in range(0, flat.size, PART))


def _convert_labels(labels: NDArray[np.generic], count: int) -> tuple[str, ...]:
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"`labels` is {_describe_array(labels)}, not {count} class indices or names"
        )
    return tuple(str(label) for label in labels.tolist())


def _describe_array(array: NDArray[np.generic]) -> str:
    return f"{array.dtype.name} ({', '.join(map(str, array.shape))})"


def _make_error(path: Path, reason: str) -> UserError:
    return fail(
        "E0712",
        "not an .npz file of images",
        make_file_span(str(path)),
        label=reason,
        help="it needs `images`, uint8 (N, height, width, 3), or `tensors`, float (N, *shape)",
    )
