"""Detect what a file is by its first bytes, and name the command that reads it."""

import re
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

HEAD_BYTES = 512
"""Bytes that are read for it."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: its name, its suffixes, and a hint which command reads it."""

    name: str
    suffixes: frozenset[str]
    help: str


_WEIGHTS = (
    "use `tcc import FILE --spec SPEC` to read its weights for a spec; to import the network"
    " itself, export it with `torch.onnx.export` and use `tcc import`"
)
ONNX = FileKind(
    "an ONNX model",
    frozenset({".onnx"}),
    "use `tcc import FILE` to make a spec and weights from it",
)
PYTORCH = FileKind("a PyTorch checkpoint", frozenset({".pth", ".pt", ".ckpt", ".pkl"}), _WEIGHTS)
SAFETENSORS = FileKind("a safetensors file", frozenset({".safetensors"}), _WEIGHTS)
ARRAYS = FileKind(
    "a file of NumPy arrays",
    frozenset({".npz", ".npy"}),
    "`tcc calibrate` and `tcc eval` read images and tensors from an .npz file with --data; for"
    " weights use a PyTorch checkpoint or a safetensors file",
)
KERAS = FileKind(
    "a Keras file",
    frozenset({".h5", ".hdf5", ".keras"}),
    "export the network as ONNX, for example with tf2onnx, and run `tcc import` on the result",
)
TFLITE = FileKind(
    "a TFLite model",
    frozenset({".tflite"}),
    "export the original network as ONNX, and run `tcc import` on the result",
)
IMAGE = FileKind(
    "an image",
    frozenset({".png", ".jpg", ".jpeg"}),
    "build a network, then use `tcc run BUNDLE IMAGE`",
)
SPEC = FileKind(
    "a spec",
    frozenset({".yaml", ".yml"}),
    "use `tcc check` or `tcc build` with it",
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
    """Return a file's kind by its first bytes, or else by its name; None if unknown."""
    if head.startswith(b"PK\x03\x04"):
        return _detect_archive(head) or _match_suffix(path)
    # safetensors: eight bytes with a length, then the header, which is JSON.
    if head[8:9] == b"{" and not head.startswith(b"{"):
        return SAFETENSORS
    for signature, file_kind in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            return file_kind
    return _match_suffix(path)


def has_checksums(path: Path) -> bool:
    """Whether a checkpoint is a zip archive, which has checksums; other forms have none.

    Raises:
        OSError: The file cannot be read.
    """
    with regular_files.open_file(path) as file:
        return file.read(4) == b"PK\x03\x04"


def refuse(path: Path, code: str, expected: str, *kinds: FileKind) -> None:
    """Refuse a file that is clearly of one of the given kinds.

    Args:
        path: The file.
        code: The error code.
        expected: What the caller reads; completes "this is an image, not ...".
        kinds: The kinds to detect and refuse.

    Raises:
        UserError: The file is of such a kind; the help names the command that reads it.
    """
    try:
        with regular_files.open_file(path) as file:
            detected = detect_kind(path, file.read(HEAD_BYTES))
    except OSError:
        return  # the code that reads the file reports it
    if detected in kinds:
        message = f"this is {detected.name}, not {expected}"
        raise fail(code, message, make_file_span(str(path)), help=detected.help)


def _detect_archive(head: bytes) -> FileKind | None:
    """Return a zip archive's kind by the name of its first file."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy"):
        return ARRAYS
    if re.fullmatch(rb"[^/]+/(data\.pkl|\.?format_version|byteorder|version)", name):
        return PYTORCH
    return KERAS if name in (b"metadata.json", b"config.json") else None


def _match_suffix(path: Path) -> FileKind | None:
    return next((kind for kind in KINDS if path.suffix.lower() in kind.suffixes), None)
