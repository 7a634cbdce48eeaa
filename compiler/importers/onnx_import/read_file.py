"""Read an untrusted ONNX file with size limits; nothing outside its folder is opened."""

import os
import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from tcc.compiler.support import file_kinds, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_BYTES = (1 << 31) - (1 << 20)
"""Maximum bytes of a file and of all its weights: the limit of a protobuf message."""
# Opset 7 is the first in which Add and Mul broadcast as in numpy, and batch norm and dropout
# default to inference.
MIN_OPSET, MAX_OPSET = 7, onnx.defs.onnx_opset_version()
"""Range of supported opsets."""
MAX_NODES = 6_000
"""More than any classifier has; this many can be written as a spec and compared within 20 s."""
NO_MODEL_MESSAGE = "this is not an ONNX model"
MAX_DEPTH = 50
"""Maximum nesting of graphs in graphs."""

_BYTES_BY_TYPE: dict[int, int] = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
    TensorProto.INT64: 8, TensorProto.INT32: 4, TensorProto.INT16: 2, TensorProto.INT8: 1,
    TensorProto.UINT64: 8, TensorProto.UINT32: 4, TensorProto.UINT16: 2, TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}  # fmt: skip


def read_model(path: Path) -> ModelProto:
    """Return the model of an ONNX file, including tensors in external files.

    Raises:
        UserError: It cannot be read or is too large (E0901), is not an ONNX model (E0902), has
            external tensors that are missing or outside its folder (E0903), or has an unsupported
            opset (E0904).
    """
    content = _read_bytes(path)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's own error type, which onnx does not export
        raise _make_no_model_error(path, content) from None
    # Protobuf parses many other files as messages without any known field.
    if not model.graph.node or not model.opset_import:
        raise _make_no_model_error(path, content)
    if not all(isinstance(name, str) for name in _iterate_names(model.graph)):
        raise _make_no_model_error(
            path, content
        )  # protobuf returns bytes for a name that is not UTF-8
    # The cost of the next steps grows with the file: cheap checks come first.
    _check_opset(path, model)
    if len(model.graph.node) > MAX_NODES:
        label = f"it has {len(model.graph.node):,} nodes; the limit is {MAX_NODES:,}"
        raise fail("E0901", "the graph is too large", make_file_span(str(path)), label=label)
    _load_external(path, model)
    _check_tensors(path, model)
    return model


def _read_bytes(path: Path) -> bytes:
    span = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                label = "ONNX files are limited to 2 GB"
                raise fail("E0901", "the file is too large", span, label=label)
            return file.read(size)
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
        raise fail("E0901", f"cannot read the model: {reason}", span) from None


def _make_no_model_error(path: Path, content: bytes) -> UserError:
    file_kind = file_kinds.detect_kind(path, content[: file_kinds.HEAD_BYTES])
    is_known_kind = file_kind not in (None, file_kinds.ONNX)
    message = (
        f"this is {file_kind.name}, not an ONNX model"
        if file_kind and is_known_kind
        else NO_MODEL_MESSAGE
    )
    help = file_kind.help if file_kind and is_known_kind else ""
    return fail("E0902", message, make_file_span(str(path)), help=help)


def _check_opset(path: Path, model: ModelProto) -> None:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if not versions or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        opset_text = versions[0] if versions else "missing"
        raise fail(
            "E0904",
            "the file's opset is not supported",
            make_file_span(str(path)),
            label=f"the opset is {opset_text}; supported: {MIN_OPSET} to {MAX_OPSET}",
            help="export the network again, for example with opset 17",
        )


def _load_external(path: Path, model: ModelProto) -> None:
    """Read external tensors into the model."""
    # The total is limited, not each tensor: many tensors may refer to one large file.
    remaining_bytes = MAX_BYTES - model.ByteSize()
    for tensor in _iterate_tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            content = _read_external(path, tensor, remaining_bytes)
            remaining_bytes -= len(content)
            tensor.raw_data = content
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _check_tensors(path: Path, model: ModelProto) -> None:
    """Refuse weights with more or fewer bytes than their shape and type need.

    Raises:
        UserError: There are such weights (E0902).
    """
    at = make_file_span(str(path))
    # The shape of sparse weights is independent of their bytes: a short file could expand to any
    # size.
    for sparse in model.graph.sparse_initializer[:1]:
        label, help = f"`{sparse.values.name[:80]}`", "export the network with dense weights"
        message = "sparse weights are not supported"
        raise fail("E0902", message, at, label=label, help=help)
    for tensor in _iterate_tensors(model.graph):
        damage = _find_damage(tensor)
        if damage:
            dims = "x".join(map(str, tensor.dims[:8])) or "()"
            label = f"`{tensor.name[:80]}` of shape {dims}: {damage}"
            message = "weights of the model are damaged"
            raise fail("E0902", message, at, label=label, help="export the network again")


def _find_damage(tensor: TensorProto) -> str:
    if any(size < 0 for size in tensor.dims):
        return "a size is negative"
    try:
        # Only a conversion checks data against shape in all of TensorProto's data fields.
        numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises any exception for damaged tensors
        return " ".join(str(error).split())[:160] or type(error).__name__
    return ""


def _iterate_names(graph: GraphProto) -> Iterator[object]:
    """Yield the names in a graph."""
    for value_info in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        yield value_info.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _iterate_tensors(graph: GraphProto, depth: int = 0) -> Iterator[TensorProto]:
    """Yield every tensor of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    # Branches and loops contain graphs with nodes: a forged file can nest them without limit.
    for node in graph.node if depth < MAX_DEPTH else ():
        for attribute in node.attribute:
            yield from _iterate_attribute_tensors(attribute, depth)


def _iterate_attribute_tensors(attribute: AttributeProto, depth: int) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("g"):
        yield from _iterate_tensors(attribute.g, depth + 1)
    for graph in attribute.graphs:
        yield from _iterate_tensors(graph, depth + 1)


def _read_external(path: Path, tensor: TensorProto, max_bytes: int) -> bytes:
    """Return the bytes of a tensor in an external file."""
    fields = {e.key: e.value for e in tensor.external_data}
    # An unlisted type counts as zero bytes, which no `length` equals.
    size = prod(tensor.dims) * _BYTES_BY_TYPE.get(tensor.data_type, 0)
    start, length = (
        _parse_number(fields.get("offset", "0")),
        _parse_number(fields.get("length", str(size))),
    )
    if start is None or length != size or any(d < 0 for d in tensor.dims):
        raise _make_external_error(path, tensor, "its offset or length in that file is invalid")
    if size > max_bytes:
        raise fail(
            "E0901",
            "the weights are too large",
            make_file_span(str(path)),
            label="they have more than 2 GB",
            help="export a smaller network",
        )
    source = _find_external_file(path, tensor, fields.get("location", ""))
    try:
        with source.open("rb") as file:
            file.seek(start)
            content = file.read(size)
    except OSError as error:
        raise _make_external_error(path, tensor, error.strerror or "it cannot be read") from None
    if len(content) < size:
        raise _make_external_error(path, tensor, f"`{source.name}` is too short for it")
    return content


def _find_external_file(path: Path, tensor: TensorProto, location: str) -> Path:
    """Return the file of a location, which must be in the model's folder or below it."""
    folder = path.resolve().parent
    try:
        source = (folder / location).resolve()
        is_regular_file = location and stat.S_ISREG(source.stat().st_mode)
    except (OSError, ValueError):
        raise _make_external_error(
            path, tensor, f"there is no file `{location[:80]}` in the model's folder"
        ) from None
    # Resolved first, because a link may lead out of the folder.
    if not source.is_relative_to(folder):
        raise _make_external_error(path, tensor, f"`{location[:80]}` is outside the model's folder")
    if not is_regular_file:
        raise _make_external_error(path, tensor, f"`{location[:80]}` is not a file")
    return source


def _parse_number(text: str) -> int | None:
    # int() raises an error of its own for numbers with thousands of digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _make_external_error(path: Path, tensor: TensorProto, reason: str) -> UserError:
    return fail(
        "E0903",
        f"the external file of the weights `{tensor.name[:80]}` cannot be used",
        make_file_span(str(path)),
        label=reason,
        help="keep all files of the export in one folder, under their original names",
    )
