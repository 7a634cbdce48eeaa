"""Description of a TFLite file, and its conversion to bytes.

Operators refer to tensors by name. Equal descriptions give equal bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.version import __version__

ALIGNMENT = 16
"""Alignment of each buffer in the file; delegates need it to use the buffer in place."""
SIGNATURE = "serving_default"
NO_TENSOR = ""
"""Name that represents an omitted optional input."""

EMPTY_MAPPING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Quantization:
    """Stored value q means scale * (q - zero), with one scale, or one per index of `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A value of a numpy type; a constant if it has `data`, in little-endian order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator by its name in the schema, such as CONV_2D; options have the schema's names too.

    Enumerated options are given by keyword: `padding="SAME"`.
    """

    code: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY_MAPPING)
    version: int = 1


@dataclass(frozen=True, slots=True)
class File:
    """A model with one subgraph. `inputs` and `outputs`: signature names to tensor names."""

    name: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[Operator, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    metadata: Mapping[str, bytes] = field(default_factory=lambda: EMPTY_MAPPING)


OPTIONS: Mapping[str, str] = {
    "ADD": "Add", "AVERAGE_POOL_2D": "Pool2D", "CONCATENATION": "Concatenation",
    "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "DEQUANTIZE": "Dequantize",
    "FULLY_CONNECTED": "FullyConnected", "GELU": "Gelu", "HARD_SWISH": "HardSwish",
    "LEAKY_RELU": "LeakyRelu", "LOGISTIC": "", "MAX_POOL_2D": "Pool2D", "MEAN": "Reducer",
    "MUL": "Mul", "PAD": "Pad", "PADV2": "PadV2", "QUANTIZE": "Quantize", "REDUCE_MAX": "Reducer",
    "RELU": "", "RELU6": "", "RESHAPE": "Reshape", "RESIZE_BILINEAR": "ResizeBilinear",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor", "RSQRT": "", "SOFTMAX": "Softmax",
    "GATHER": "Gather", "MAXIMUM": "MaximumMinimum", "MINIMUM": "MaximumMinimum",
    "SQUARED_DIFFERENCE": "SquaredDifference", "STRIDED_SLICE": "StridedSlice", "SUB": "Sub",
    "SUM": "Reducer", "TANH": "", "TRANSPOSE": "Transpose", "TRANSPOSE_CONV": "TransposeConv",
    "CAST": "Cast", "DIV": "Div", "RIGHT_SHIFT": "RightShift",
}  # fmt: skip
"""Operators that tcc writes, in the order of operator codes, with their options' schema type."""

ENUM_TYPES: Mapping[str, str] = {
    "padding": "Padding",
    "fusedActivationFunction": "ActivationFunctionType",
    "weightsFormat": "FullyConnectedOptionsWeightsFormat",
}
TYPES: Mapping[str, str] = {
    "float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8", "uint8": "UINT8",
    "int32": "INT32", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip
NAMELESS = frozenset({"int32", "int64", "float16"})
"""Constants of these types need no name in the file: axes, sizes and stored forms of others."""
MAX_CONSTANT_BYTES = (1 << 31) - (1 << 24)
"""Maximum number of bytes of constants: a file is limited to 2 GiB, and the rest needs space."""


def pack(file: File) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: The constants exceed the size limit of about 2 GB (E0450).
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    _check(file)
    buffers = _Buffers(schema)
    codes = _index_operators(file.operators)
    tensor_index = {tensor.name: i for i, tensor in enumerate(file.tensors)} | {NO_TENSOR: -1}
    graph = schema.SubGraphT()
    graph.name = file.name
    graph.tensors = [_build_tensor(schema, tensor, buffers) for tensor in file.tensors]
    graph.inputs = [tensor_index[tensor_name] for tensor_name in file.inputs.values()]
    graph.outputs = [tensor_index[tensor_name] for tensor_name in file.outputs.values()]
    graph.operators = [_build_operator(schema, op, codes, tensor_index) for op in file.operators]
    model = schema.ModelT()
    model.version = 3
    model.description = f"tcc {__version__}"
    model.operatorCodes = [_build_operator_code(schema, *code) for code in codes]
    model.subgraphs = [graph]
    model.signatureDefs = [_build_signature(schema, file, tensor_index)]
    model.metadata = [
        _build_metadata(schema, *metadata_entry, buffers)
        for metadata_entry in file.metadata.items()
    ]
    model.buffers = buffers.buffers
    builder = _create_sharing_builder(flatbuffers.Builder)(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _check(file: File) -> None:
    size = sum(len(tensor.data) for tensor in file.tensors if tensor.data is not None)
    if size > MAX_CONSTANT_BYTES:
        message = f"the weights of {file.name} are too large for a TFLite file"
        label = f"they have {size:,} bytes; the limit is {MAX_CONSTANT_BYTES:,}"
        help = "build a smaller network, or use a precision that takes fewer bytes"
        raise fail("E0450", message, make_file_span(file.name), label=label, help=help)


class _Buffers:
    """Buffers of a file. The first is empty, as the format requires; equal ones are shared."""

    def __init__(self, schema: Any) -> None:
        self.type = _create_aligned_type(schema)
        self.buffers: list[Any] = [self.type()]
        self.index_by_content: dict[bytes, int] = {}

    def add_buffer(self, content: bytes | None) -> int:
        if content is None:
            return 0
        if content not in self.index_by_content:
            self.index_by_content[content] = len(self.buffers)
            buffer = self.type()
            buffer.data = content
            self.buffers.append(buffer)
        return self.index_by_content[content]


def _create_aligned_type(schema: Any) -> Any:
    """Return a buffer type that aligns its bytes, unlike the generated one."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802
            vector = None
            if self.data is not None:
                size = len(self.data)
                # The generated code aligns only to 4 bytes.
                builder.StartVector(1, size, ALIGNMENT)
                builder.head -= size
                builder.Bytes[builder.head : builder.head + size] = self.data
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return int(schema.BufferEnd(builder))

    return Aligned


def _create_sharing_builder(kind: Any) -> Any:
    """Return a builder that writes equal vectors of numbers once, mostly shapes and zeros.

    The format allows several tables to share a vector.
    """

    class Sharing(kind):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> int:  # noqa: N802
            self.shared_offsets = getattr(self, "shared_offsets", {})
            self.started = None if alignment == ALIGNMENT else (self.Offset(), size * count)
            self.kind = (size, alignment)
            return int(super().StartVector(size, count, alignment))

        def PrependUOffsetTRelative(self, offset: int) -> None:  # noqa: N802
            self.started = None  # it has relative offsets
            super().PrependUOffsetTRelative(offset)

        def EndVector(self) -> int:  # noqa: N802
            offset = int(super().EndVector())
            started, self.started = getattr(self, "started", None), None
            if started is None:
                return offset
            start_offset, length = started
            head = self.Head()
            key = (self.kind, bytes(self.Bytes[head : head + 4 + length]))
            shared_offset = int(self.shared_offsets.setdefault(key, offset))
            if shared_offset != offset:
                self.head = len(self.Bytes) - start_offset  # undo the write
            return shared_offset

    return Sharing


def _index_operators(operators: Iterable[Operator]) -> Mapping[tuple[str, int], int]:
    """Return the index of each operator and version, in the order of `OPTIONS`."""
    order = list(OPTIONS)
    used = sorted({(order.index(op.code), op.version) for op in operators})
    return {(order[i], version): n for n, (i, version) in enumerate(used)}


def _build_operator_code(schema: Any, name: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, for old readers
    code.version = version
    return code


def _build_tensor(schema: Any, tensor: FileTensor, buffers: _Buffers) -> Any:
    tensor_record = schema.TensorT()
    tensor_record.name = (
        None if tensor.data is not None and tensor.dtype in NAMELESS else tensor.name
    )
    tensor_record.shape = list(tensor.shape)
    tensor_record.type = getattr(schema.TensorType, TYPES[tensor.dtype])
    tensor_record.buffer = buffers.add_buffer(tensor.data)
    if tensor.quantization is not None:
        tensor_record.quantization = schema.QuantizationParametersT()
        tensor_record.quantization.scale = list(tensor.quantization.scales)
        tensor_record.quantization.zeroPoint = list(tensor.quantization.zeros)
        tensor_record.quantization.quantizedDimension = tensor.quantization.axis
    return tensor_record


def _build_operator(
    schema: Any, op: Operator, codes: Mapping[tuple[str, int], int], index: Mapping[str, int]
) -> Any:
    operator_record = schema.OperatorT()
    operator_record.opcodeIndex = codes[op.code, op.version]
    operator_record.inputs = [index[tensor_name] for tensor_name in op.inputs]
    operator_record.outputs = [index[tensor_name] for tensor_name in op.outputs]
    kind = OPTIONS[op.code]
    assert kind or not op.options, op.code
    if kind:
        operator_record.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        operator_record.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        for name, tensor_name in op.options.items():
            assert hasattr(operator_record.builtinOptions, name), (op.code, name)
            number = (
                getattr(getattr(schema, ENUM_TYPES[name]), tensor_name)
                if name in ENUM_TYPES
                else tensor_name
            )
            setattr(operator_record.builtinOptions, name, number)
    return operator_record


def _build_signature(schema: Any, file: File, index: Mapping[str, int]) -> Any:
    def build_tensor_maps(names: Mapping[str, str]) -> list[Any]:
        tensor_maps = []
        for name, tensor_name in names.items():
            tensor_map = schema.TensorMapT()
            tensor_map.name, tensor_map.tensorIndex = name, index[tensor_name]
            tensor_maps.append(tensor_map)
        return tensor_maps

    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs, signature.outputs = (
        build_tensor_maps(file.inputs),
        build_tensor_maps(file.outputs),
    )
    return signature


def _build_metadata(schema: Any, name: str, content: bytes, buffers: _Buffers) -> Any:
    metadata_record = schema.MetadataT()
    metadata_record.name, metadata_record.buffer = name, buffers.add_buffer(content)
    return metadata_record
