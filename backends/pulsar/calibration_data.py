"""The inputs that AXERA's tools calibrate with, as files of one archive."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Input

MOST = 256
"""Inputs in an archive, as many as the makers' own examples take."""


def takes_levels(source: Input) -> bool:
    """Whether a network's input is made of grey levels by a mean and a deviation, as tools do it.

    What is divided by its own maximum, or is no image, comes in as numbers that are ready.
    """
    return source.preprocess is not None and source.preprocess.scale == "255"


def png(levels: NDArray[np.uint8]) -> bytes:
    """Return grey levels (height, width, 1 or 3) as PNG, of which every reader gets these back.

    The file says nothing of colours beyond grey or RGB, which some readers would apply.
    """
    height, width, channels = levels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def image(source: Input, tensor: NDArray[np.float32]) -> bytes:
    """Return grey levels (channels, height, width) of a network's colours as PNG.

    PNG has no order of colours but RGB, which those who want BGR swap when they read it.
    """
    levels = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8)
    swapped = source.preprocess is not None and source.preprocess.color == "bgr"
    return png(np.ascontiguousarray(levels[:, :, ::-1]) if swapped else levels)


def binary(tensor: NDArray[np.float32]) -> bytes:
    """Return numbers as they lie in memory, little-endian float32."""
    raw: bytes = np.ascontiguousarray(tensor, "<f4").tobytes()
    return raw


def numpy_file(tensor: NDArray[np.float32]) -> bytes:
    """Return numbers (1, *shape) as a file of numpy."""
    data = io.BytesIO()
    np.lib.format.write_array(data, np.ascontiguousarray(tensor[None], "<f4"), (1, 0), False)
    return data.getvalue()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without times and owners, in the order of the names."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            tar.addfile(about, io.BytesIO(content))
    return data.getvalue()


def numbered(files: Iterable[bytes], suffix: str) -> dict[str, bytes]:
    """Return files under numbers, so that no name of the user's goes out."""
    return {f"{number:04d}{suffix}": data for number, data in enumerate(files, 1)}
