"""A TFLite file: a small description, and its bytes.

Tensors are named and operators refer to them by name. Equal descriptions give equal bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.version import __version__

ALIGNMENT = 16
"""Of each buffer's first byte in the file: what delegates need to use it in place."""
SIGNATURE = "serving_default"
NONE = ""
"""The name that stands for an optional input left out."""

Nothing: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Quantization:
    """level l means scale * (l - zero); one scale for all, or one for each index of `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class FileTensor:
    """A value of a type (numpy's word for it); with `data`, little-endian, a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator by the schema's name, such as CONV_2D, with options by the schema's names.

    Options of enumerated types are given by word: `padding="SAME"`.
    """

    code: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: Nothing)
    version: int = 1


@dataclass(frozen=True, slots=True)
class File:
    """A model of one subgraph. `inputs` and `outputs`: signature names to tensor names."""

    name: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[Operator, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    metadata: Mapping[str, bytes] = field(default_factory=lambda: Nothing)


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
"""The operators that are written, in the order of the files' operator codes: the options' type."""

WORDS: Mapping[str, str] = {
    "padding": "Padding",
    "fusedActivationFunction": "ActivationFunctionType",
    "weightsFormat": "FullyConnectedOptionsWeightsFormat",
}
TYPES: Mapping[str, str] = {
    "float32": "FLOAT32", "float16": "FLOAT16", "int8": "INT8", "uint8": "UINT8",
    "int32": "INT32", "int64": "INT64", "bool": "BOOL",
}  # fmt: skip
NAMELESS = frozenset({"int32", "int64", "float16"})
"""Constants of these types need no name in the file: axes, sizes, and stored forms of others."""
LARGEST = (1 << 31) - (1 << 24)
"""Most bytes of constants: a file stays below 2 GiB, and the rest needs room as well."""


def pack(file: File) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: The constants exceed 2 GB (E0450).
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    _check(file)
    buffers = _Buffers(schema)
    codes = _codes(file.operators)
    index = {tensor.name: i for i, tensor in enumerate(file.tensors)} | {NONE: -1}
    graph = schema.SubGraphT()
    graph.name = file.name
    graph.tensors = [_tensor(schema, tensor, buffers) for tensor in file.tensors]
    graph.inputs = [index[value] for value in file.inputs.values()]
    graph.outputs = [index[value] for value in file.outputs.values()]
    graph.operators = [_operator(schema, op, codes, index) for op in file.operators]
    model = schema.ModelT()
    model.version = 3
    model.description = f"tcc {__version__}"
    model.operatorCodes = [_code(schema, *code) for code in codes]
    model.subgraphs = [graph]
    model.signatureDefs = [_signature(schema, file, index)]
    model.metadata = [_metadata(schema, *item, buffers) for item in file.metadata.items()]
    model.buffers = buffers.made
    builder = _sharing(flatbuffers.Builder)(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _check(file: File) -> None:
    size = sum(len(tensor.data) for tensor in file.tensors if tensor.data is not None)
    if size > LARGEST:
        message = f"{file.name} is too large for a TFLite file"
        label = f"{size} bytes of weights, of at most {LARGEST}"
        raise fail("E0450", message, whole_file(file.name), label=label)


class _Buffers:
    """The buffers of a file; the first is empty, as the format wants it. Equal ones are one."""

    def __init__(self, schema: Any) -> None:
        self.type = _aligned(schema)
        self.made: list[Any] = [self.type()]
        self.known: dict[bytes, int] = {}

    def place(self, data: bytes | None) -> int:
        if data is None:
            return 0
        if data not in self.known:
            self.known[data] = len(self.made)
            buffer = self.type()
            buffer.data = data
            self.made.append(buffer)
        return self.known[data]


def _aligned(schema: Any) -> Any:
    """Return the type of a buffer that aligns its bytes, where the generated one does not."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802
            vector = None
            if self.data is not None:
                size = len(self.data)
                # The generated code aligns to 4 bytes alone.
                builder.StartVector(1, size, ALIGNMENT)
                builder.head -= size
                builder.Bytes[builder.head : builder.head + size] = self.data
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if vector is not None:
                schema.BufferAddData(builder, vector)
            return int(schema.BufferEnd(builder))

    return Aligned


def _sharing(kind: Any) -> Any:
    """Return a builder that writes equal vectors of numbers once: shapes, and zeros above all.

    The format lets one vector be of several tables.
    """

    class Sharing(kind):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> int:  # noqa: N802
            self.known = getattr(self, "known", {})
            self.started = None if alignment == ALIGNMENT else (self.Offset(), size * count)
            self.kind = (size, alignment)
            return int(super().StartVector(size, count, alignment))

        def PrependUOffsetTRelative(self, offset: int) -> None:  # noqa: N802
            self.started = None  # it points elsewhere from where it is
            super().PrependUOffsetTRelative(offset)

        def EndVector(self) -> int:  # noqa: N802
            place = int(super().EndVector())
            started, self.started = getattr(self, "started", None), None
            if started is None:
                return place
            before, length = started
            head = self.Head()
            key = (self.kind, bytes(self.Bytes[head : head + 4 + length]))
            found = int(self.known.setdefault(key, place))
            if found != place:
                self.head = len(self.Bytes) - before  # as if it had not been written
            return found

    return Sharing


def _codes(operators: Iterable[Operator]) -> Mapping[tuple[str, int], int]:
    """Return the index of each operator and version, in the order of `OPTIONS`."""
    order = list(OPTIONS)
    used = sorted({(order.index(op.code), op.version) for op in operators})
    return {(order[i], version): n for n, (i, version) in enumerate(used)}


def _code(schema: Any, name: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, for old readers
    code.version = version
    return code


def _tensor(schema: Any, tensor: FileTensor, buffers: _Buffers) -> Any:
    made = schema.TensorT()
    made.name = None if tensor.data is not None and tensor.dtype in NAMELESS else tensor.name
    made.shape = list(tensor.shape)
    made.type = getattr(schema.TensorType, TYPES[tensor.dtype])
    made.buffer = buffers.place(tensor.data)
    if tensor.quantization is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = list(tensor.quantization.scales)
        made.quantization.zeroPoint = list(tensor.quantization.zeros)
        made.quantization.quantizedDimension = tensor.quantization.axis
    return made


def _operator(
    schema: Any, op: Operator, codes: Mapping[tuple[str, int], int], index: Mapping[str, int]
) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = codes[op.code, op.version]
    made.inputs = [index[value] for value in op.inputs]
    made.outputs = [index[value] for value in op.outputs]
    kind = OPTIONS[op.code]
    assert kind or not op.options, op.code
    if kind:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{kind}Options")
        made.builtinOptions = getattr(schema, f"{kind}OptionsT")()
        for name, value in op.options.items():
            assert hasattr(made.builtinOptions, name), (op.code, name)
            number = getattr(getattr(schema, WORDS[name]), value) if name in WORDS else value
            setattr(made.builtinOptions, name, number)
    return made


def _signature(schema: Any, file: File, index: Mapping[str, int]) -> Any:
    def maps(names: Mapping[str, str]) -> list[Any]:
        made = []
        for name, value in names.items():
            one = schema.TensorMapT()
            one.name, one.tensorIndex = name, index[value]
            made.append(one)
        return made

    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs, signature.outputs = maps(file.inputs), maps(file.outputs)
    return signature


def _metadata(schema: Any, name: str, data: bytes, buffers: _Buffers) -> Any:
    made = schema.MetadataT()
    made.name, made.buffer = name, buffers.place(data)
    return made
