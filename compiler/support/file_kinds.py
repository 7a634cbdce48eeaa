"""What a file is by its first bytes, and which command takes it: what users mistake for another."""

import re
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

HEAD_BYTES = 512
"""Bytes that are looked at."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: what it is called, the endings of its names, and what takes it."""

    name: str
    suffixes: frozenset[str]
    help: str


_WEIGHTS = (
    "`tcc import FILE --spec SPEC` takes its weights for a spec; `tcc import` takes the"
    " network itself, once it is exported with `torch.onnx.export`"
)
ONNX = FileKind(
    "an ONNX model",
    frozenset({".onnx"}),
    "`tcc import FILE` makes a spec and weights of it",
)
PYTORCH = FileKind("a PyTorch checkpoint", frozenset({".pth", ".pt", ".ckpt", ".pkl"}), _WEIGHTS)
SAFETENSORS = FileKind("a safetensors file", frozenset({".safetensors"}), _WEIGHTS)
ARRAYS = FileKind(
    "a file of NumPy arrays",
    frozenset({".npz", ".npy"}),
    "`tcc calibrate` and `tcc eval` take images and tensors from an .npz file, with --data; weights"
    " come from a PyTorch checkpoint or a safetensors file",
)
KERAS = FileKind(
    "a Keras file",
    frozenset({".h5", ".hdf5", ".keras"}),
    "export the network as ONNX, with tf2onnx say, and give that to `tcc import`",
)
TFLITE = FileKind(
    "a TFLite model",
    frozenset({".tflite"}),
    "export the network that it was made of as ONNX, and give that to `tcc import`",
)
IMAGE = FileKind(
    "an image",
    frozenset({".png", ".jpg", ".jpeg"}),
    "`tcc run BUNDLE IMAGE` takes it, once a network is built",
)
SPEC = FileKind(
    "a spec",
    frozenset({".yaml", ".yml"}),
    "`tcc check` and `tcc build` take it as it is",
)
KINDS = (ONNX, PYTORCH, SAFETENSORS, ARRAYS, KERAS, TFLITE, IMAGE, SPEC)

_SIGNATURES = (
    # The opcode PROTO and its version.
    (rb"\x80[\x02-\x05]", PYTORCH),
    (rb"\x93NUMPY", ARRAYS),
    (rb"\x89HDF", KERAS),
    (rb".{4}TFL3", TFLITE),
    (rb"\x89PNG|\xff\xd8\xff", IMAGE),
    (rb"(?:#[^\n]*\n|\s)*tcc\s*:", SPEC),
    (rb"\s*\{\s*\"tcc\"\s*:", SPEC),
    # onnx.proto: field 1, the version of the IR, and then 2, 7 or 8: producer, graph, opsets.
    (rb"\x08[\x01-\x1f][\x12\x3a\x42]", ONNX),
)


def detect_kind(path: Path, head: bytes) -> FileKind | None:
    """Return what a file is by its first bytes, or else by its name; None if neither tells."""
    if head.startswith(b"PK\x03\x04"):
        return _detect_archive(head) or _match_suffix(path)
    # Eight bytes of a length, and then the header, which is JSON.
    if head[8:9] == b"{" and not head.startswith(b"{"):
        return SAFETENSORS
    for signature, file_kind in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            return file_kind
    return _match_suffix(path)


def has_checksums(path: Path) -> bool:
    """Whether a checkpoint is an archive, which has a checksum of each entry: others have none.

    Raises:
        OSError: It cannot be read.
    """
    with regular_files.open_file(path) as file:
        return file.read(4) == b"PK\x03\x04"


def refuse(path: Path, code: str, expected: str, *kinds: FileKind) -> None:
    """Refuse a file that is plainly of one of these kinds.

    `expected` completes "this is an image, not ...".

    Args:
        path: The file.
        code: The error's.
        expected: What is read here.
        kinds: Those that are told apart and refused.

    Raises:
        UserError: It is, with the given code and the command that takes it.
    """
    try:
        with regular_files.open_file(path) as file:
            detected = detect_kind(path, file.read(HEAD_BYTES))
    except OSError:
        return  # whoever reads it says so
    if detected in kinds:
        message = f"this is {detected.name}, not {expected}"
        raise fail(code, message, make_file_span(str(path)), help=detected.help)


def _detect_archive(head: bytes) -> FileKind | None:
    """Return what a zip archive is by the name of its first file."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy"):
        return ARRAYS
    if re.fullmatch(rb"[^/]+/(data\.pkl|\.?format_version|byteorder|version)", name):
        return PYTORCH
    return KERAS if name in (b"metadata.json", b"config.json") else None


def _match_suffix(path: Path) -> FileKind | None:
    return next((kind for kind in KINDS if path.suffix.lower() in kind.suffixes), None)
