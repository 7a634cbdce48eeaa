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

MAX_SAMPLES = 256
"""Inputs in an archive, as many as the makers' own examples take."""
MAX_ARCHIVE_BYTES = 1 << 28
"""Bytes of an archive, above which it gets no more inputs."""
Tensor = NDArray[np.float32]


def has_pixel_input(source: Input) -> bool:
    """Whether a network's input is made of grey levels by a mean and a deviation, as tools do it.

    What is divided by its own maximum, or is no image, comes in as numbers that are ready.
    """
    return source.preprocess is not None and source.preprocess.scale == "255"


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return grey levels (height, width, 1 or 3) as PNG, of which every reader gets these back.

    The file says nothing of colours beyond grey or RGB, which some readers would apply.
    """
    height, width, channels = pixels.shape
    # Written here: Pillow may add chunks of colour, and its bytes change with zlib's build.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_encode_chunk(*chunk) for chunk in chunks)


def _encode_chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def encode_image(source: Input, tensor: Tensor) -> bytes:
    """Return grey levels (channels, height, width) of a network's colours as PNG.

    PNG has no order of colours but RGB, which those who want BGR swap when they read it.
    """
    pixels = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8)
    swapped = source.preprocess is not None and source.preprocess.color == "bgr"
    return encode_png(np.ascontiguousarray(pixels[:, :, ::-1]) if swapped else pixels)


def encode_sample(source: Input, tensor: Tensor, toolchain: Toolchain) -> tuple[bytes, str]:
    """Return an input as a toolchain reads it, and the suffix of its file."""
    if has_pixel_input(source):
        return encode_image(source, tensor), ".png"
    match toolchain:
        case Toolchain.PULSAR:
            return _encode_floats(tensor), ".bin"
        case Toolchain.PULSAR2:
            stream = io.BytesIO()
            # Version 1.0 of the format, without pickles: `np.save` may choose another.
            array = np.ascontiguousarray(tensor[None], "<f4")
            np.lib.format.write_array(stream, array, (1, 0), False)
            return stream.getvalue(), ".npy"
        case _:
            assert_never(toolchain)


def _encode_floats(tensor: Tensor) -> bytes:
    """Return numbers as they lie in memory, little-endian float32."""
    raw: bytes = np.ascontiguousarray(tensor, "<f4").tobytes()
    return raw


def encode_board_input(source: Input, tensor: Tensor) -> bytes:
    """Return an input's bytes on the board: levels, channels last, or float32 as the network's."""
    if not has_pixel_input(source):
        return _encode_floats(tensor)
    pixels: bytes = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8).tobytes()
    return pixels


def pack_samples(
    source: Input, samples: Iterable[Tensor], toolchain: Toolchain
) -> tuple[bytes, int]:
    """Return an archive of the first samples, and how many it has; names are numbers alone."""
    files: dict[str, bytes] = {}
    size = 0
    for number, tensor in enumerate(islice(samples, MAX_SAMPLES), 1):
        content, suffix = encode_sample(source, tensor, toolchain)
        size += len(content)
        # One at least, however large: an archive without inputs calibrates nothing.
        if size > MAX_ARCHIVE_BYTES and files:
            break
        files[f"{number:04d}{suffix}"] = content
    return build_archive(files), len(files)


def build_archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without times and owners, in the order of the names."""
    stream = io.BytesIO()
    # USTAR: the other forms add headers of their own where a name or a number asks for one.
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
