"""The inputs that AXERA's tools calibrate with, as files of one archive."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import Toolchain
from tcc.compiler.ir.graph import Input

MOST = 256
"""Inputs in an archive, as many as the makers' own examples take."""
LARGEST = 1 << 28
"""Bytes of an archive, above which it gets no more inputs."""
Tensor = NDArray[np.float32]


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
    # Written here: Pillow may add chunks of colour, and its bytes change with zlib's build.
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def image(source: Input, tensor: Tensor) -> bytes:
    """Return grey levels (channels, height, width) of a network's colours as PNG.

    PNG has no order of colours but RGB, which those who want BGR swap when they read it.
    """
    levels = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8)
    swapped = source.preprocess is not None and source.preprocess.color == "bgr"
    return png(np.ascontiguousarray(levels[:, :, ::-1]) if swapped else levels)


def sample(source: Input, tensor: Tensor, toolchain: Toolchain) -> tuple[bytes, str]:
    """Return an input as a toolchain reads it, and the suffix of its file."""
    if takes_levels(source):
        return image(source, tensor), ".png"
    match toolchain:
        case Toolchain.PULSAR:
            return _floats(tensor), ".bin"
        case Toolchain.PULSAR2:
            data = io.BytesIO()
            # Version 1.0 of the format, without pickles: `np.save` may choose another.
            array = np.ascontiguousarray(tensor[None], "<f4")
            np.lib.format.write_array(data, array, (1, 0), False)
            return data.getvalue(), ".npy"
        case _:
            assert_never(toolchain)


def _floats(tensor: Tensor) -> bytes:
    """Return numbers as they lie in memory, little-endian float32."""
    raw: bytes = np.ascontiguousarray(tensor, "<f4").tobytes()
    return raw


def arriving(source: Input, tensor: Tensor) -> bytes:
    """Return an input's bytes on the board: levels, channels last, or float32 as the network's."""
    if not takes_levels(source):
        return _floats(tensor)
    levels: bytes = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8).tobytes()
    return levels


def packed(source: Input, samples: Iterable[Tensor], toolchain: Toolchain) -> tuple[bytes, int]:
    """Return an archive of the first samples, and how many it has; names are numbers alone."""
    files: dict[str, bytes] = {}
    size = 0
    for number, tensor in enumerate(islice(samples, MOST), 1):
        data, suffix = sample(source, tensor, toolchain)
        size += len(data)
        # One at least, however large: an archive without inputs calibrates nothing.
        if size > LARGEST and files:
            break
        files[f"{number:04d}{suffix}"] = data
    return archive(files), len(files)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without times and owners, in the order of the names."""
    data = io.BytesIO()
    # USTAR: the other forms add headers of their own where a name or a number asks for one.
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            tar.addfile(about, io.BytesIO(content))
    return data.getvalue()
