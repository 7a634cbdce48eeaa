"""The calibration inputs for AXERA's tools, as files of one archive."""

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
"""Largest number of inputs in an archive; the vendor's own examples use as many."""
MAX_ARCHIVE_BYTES = 1 << 28
"""Size in bytes above which an archive gets no more inputs."""
Tensor = NDArray[np.float32]


def has_pixel_input(network_input: Input) -> bool:
    """Whether the tools can compute the network's input from 8-bit pixels by mean and deviation.

    An input that is divided by its own maximum, or is not an image, is stored preprocessed.
    """
    return network_input.preprocess is not None and network_input.preprocess.scale == "255"


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return 8-bit pixel values (height, width, 1 or 3) as PNG; every reader returns the same.

    The file has no colour information beyond grey or RGB, because some readers would apply it.
    """
    height, width, channels = pixels.shape
    # Not with Pillow: it may add colour chunks, and its bytes depend on the build of zlib.
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


def encode_image(network_input: Input, tensor: Tensor) -> bytes:
    """Return 8-bit pixel values (channels, height, width) in the network's colour order as PNG.

    PNG stores RGB only. Readers that want BGR swap the channels.
    """
    pixels = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8)
    swapped = network_input.preprocess is not None and network_input.preprocess.color == "bgr"
    return encode_png(np.ascontiguousarray(pixels[:, :, ::-1]) if swapped else pixels)


def encode_sample(network_input: Input, tensor: Tensor, toolchain: Toolchain) -> tuple[bytes, str]:
    """Return an input in the toolchain's format, and the suffix of its file."""
    if has_pixel_input(network_input):
        return encode_image(network_input, tensor), ".png"
    match toolchain:
        case Toolchain.PULSAR:
            return _encode_floats(tensor), ".bin"
        case Toolchain.PULSAR2:
            stream = io.BytesIO()
            # Always version 1.0 of the format, without pickles: `np.save` may choose another.
            array = np.ascontiguousarray(tensor[None], "<f4")
            np.lib.format.write_array(stream, array, (1, 0), False)
            return stream.getvalue(), ".npy"
        case _:
            assert_never(toolchain)


def _encode_floats(tensor: Tensor) -> bytes:
    """Return the values in memory order, as little-endian float32."""
    raw: bytes = np.ascontiguousarray(tensor, "<f4").tobytes()
    return raw


def encode_board_input(network_input: Input, tensor: Tensor) -> bytes:
    """Return an input's bytes on the board: pixel values, channels last, or float32 values."""
    if not has_pixel_input(network_input):
        return _encode_floats(tensor)
    pixels: bytes = np.ascontiguousarray(tensor.transpose(1, 2, 0)).astype(np.uint8).tobytes()
    return pixels


def pack_samples(
    network_input: Input, samples: Iterable[Tensor], toolchain: Toolchain
) -> tuple[bytes, int]:
    """Return an archive of the first samples, and their count; file names are numbers only."""
    files: dict[str, bytes] = {}
    size = 0
    for number, tensor in enumerate(islice(samples, MAX_SAMPLES), 1):
        content, suffix = encode_sample(network_input, tensor, toolchain)
        size += len(content)
        # Take at least one, however large: calibration needs an input.
        if size > MAX_ARCHIVE_BYTES and files:
            break
        files[f"{number:04d}{suffix}"] = content
    return build_archive(files), len(files)


def build_archive(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive without times and owners, in the order of the names."""
    stream = io.BytesIO()
    # USTAR: other formats add headers for some names and numbers.
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
