"""Inspect a TFLite file before it is run, and compare its constants with another file."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.backends.tflite.writer import OPTIONS, TYPES
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison
from tcc.compiler.ir.number_types import FloatTracer, NumberTypes, OperatorRole

MAX_TENSORS = 1 << 20
"""Maximum number of tensors or operators: about fifty per node of the largest network."""
MOVE_OPERATORS = frozenset({"RESHAPE", "TRANSPOSE"})
"""Operators that only move floats, as in the flattening of a map."""
QUANTIZED_TYPES, FLOAT_TYPES = frozenset({"int8", "uint8"}), frozenset({"float32"})
ROUND_OPERATORS = frozenset({"DIV", "QUANTIZE"})
"""Operators that quantize floats; DIV is the first operator of an exact rounding."""


@dataclass(frozen=True, slots=True)
class FileOperator:
    """An operator: its code in the schema, and the indices of its tensors."""

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileGraph:
    """A file's graph: type and name of each tensor, indices of constants and inputs, and steps.

    `outputs` maps the output names of its signature to tensor indices.
    """

    types: Sequence[str]
    names: Sequence[str]
    constant: frozenset[int]
    inputs: tuple[int, ...]
    steps: Sequence[FileOperator]
    outputs: Mapping[str, int]


def read_graph(content: bytes) -> FileGraph:
    """Return the graph of a file.

    Raises:
        ValueError: It is not a TFLite file, or not one that tcc writes: it has more than one graph,
            or an unknown operator. WHILE is one, because nothing would end an endless loop.
    """
    try:
        return _parse_graph(content)
    except (struct.error, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError("not a TFLite file, or damaged") from error


def read_numbers(content: bytes) -> NumberTypes:
    """Return the number types that a file computes with.

    Raises:
        ValueError: As for `read_graph`.
    """
    graph = read_graph(content)
    quantized = {
        i for i, kind in enumerate(graph.types) if kind in QUANTIZED_TYPES
    } - graph.constant
    codes = {step.code for step in graph.steps}
    trace, in_float = _trace_floats(graph, quantized)
    return NumberTypes(
        integers=bool(quantized),
        products=bool(quantized)
        and bool(codes & {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
        floats=bool(trace.computed),
        constant_types=frozenset(graph.types[i] for i in graph.constant),
        outputs={name: trace.get_influence(index) for name, index in graph.outputs.items()},
        float_operators=frozenset(graph.names[i] for i in in_float),
    )


def _parse_graph(content: bytes) -> FileGraph:
    from ai_edge_litert import schema_py_generated as schema

    # Identifier of the schema (`file_identifier "TFL3"` in TensorFlow's schema.fbs), after the
    # offset of the root.
    if content[4:8] != b"TFL3":
        raise ValueError("not a TFLite file")
    model = schema.Model.GetRootAs(content)
    if model.SubgraphsLength() != 1:
        raise ValueError(f"it has {model.SubgraphsLength()} graphs; files that tcc builds have 1")
    graph = model.Subgraphs(0)
    # Lengths come from the file: check them before any list is built.
    if (
        max(graph.TensorsLength(), graph.OperatorsLength(), model.OperatorCodesLength())
        > MAX_TENSORS
    ):
        raise ValueError("it has more than {MAX_TENSORS} operators or tensors")
    codes = list(_read_operator_names(model, schema))
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    dtype_by_code = {getattr(schema.TensorType, name): dtype for dtype, name in TYPES.items()}
    types = [dtype_by_code.get(tensor.Type(), "another type") for tensor in tensors]
    tensor_names = [(tensor.Name() or b"").decode("utf-8", "replace") for tensor in tensors]
    constants = {
        i for i, tensor in enumerate(tensors) if not model.Buffers(tensor.Buffer()).DataIsNone()
    }
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    steps = [
        FileOperator(
            codes[o.OpcodeIndex()],
            _read_indices(o, "Inputs", len(types)),
            _read_indices(o, "Outputs", len(types)),
        )
        for o in operators
    ]
    inputs = _read_indices(graph, "Inputs", len(types))
    outputs = dict(_iterate_outputs(model))
    return FileGraph(types, tensor_names, frozenset(constants), inputs, steps, outputs)


def _read_indices(table: Any, field_name: str, tensors: int) -> tuple[int, ...]:
    count = getattr(table, f"{field_name}Length")()
    if count > tensors:
        raise ValueError("an operator has more tensors than the file")
    indices = tuple(getattr(table, field_name)(i) for i in range(count))
    if not all(-1 <= i < tensors for i in indices):  # -1: an omitted optional input
        raise ValueError("an operator refers to a tensor that does not exist")
    return indices


def _iterate_outputs(model: Any) -> Iterator[tuple[str, int]]:
    if model.SignatureDefsLength() != 1:
        raise ValueError("it has no signature, or several; files that tcc builds have 1")
    signature = model.SignatureDefs(0)
    for i in range(signature.OutputsLength()):
        output = signature.Outputs(i)
        yield output.Name().decode("utf-8", "replace"), output.TensorIndex()


def _read_operator_names(model: Any, schema: Any) -> Iterator[str]:
    """Yield the operators' names; each operator has two code fields, and readers use the larger."""
    names = {
        getattr(schema.BuiltinOperator, operator_name): operator_name for operator_name in OPTIONS
    }
    name_by_code = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        # Codes above 127 are in the newer field, smaller ones in both (schema.fbs, OperatorCode).
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number not in names:
            operator_name = name_by_code.get(number, f"operator {number}")
            raise ValueError(f"it has the operator `{operator_name}`, which tcc does not write")
        yield names[number]


def _trace_floats(graph: FileGraph, quantized: set[int]) -> tuple[FloatTracer, set[int]]:
    """Trace floats from inputs or DEQUANTIZE; also return the tensors that float layers compute.

    Floats that end in QUANTIZE are part of a function of quantized values, not a float layer.
    """
    functions = _find_functions(graph)
    trace = FloatTracer({i for i in graph.inputs if graph.types[i] == "float32"})
    in_float: set[int] = set()
    for index, step in enumerate(graph.steps):
        role = OperatorRole.COMPUTE
        # Only for computed values: DEQUANTIZE of a constant is the storage form of float16 weights.
        if step.code == "DEQUANTIZE" and quantized.intersection(step.inputs):
            role = OperatorRole.REAL
        elif index in functions:
            role = OperatorRole.FUNCTION
        elif step.code in ROUND_OPERATORS:
            role = OperatorRole.ROUND
        elif step.code in MOVE_OPERATORS:
            role = OperatorRole.MOVE
        if trace.step(role, step.inputs, step.outputs):
            in_float.update(step.outputs)
    return trace, in_float


def _find_functions(graph: FileGraph) -> set[int]:
    """Return the indices of the steps with floats that end in QUANTIZE."""
    rounded_floats: set[int] = set()
    step_indices = set()
    # In reverse from each QUANTIZE: floats that end in one belong to a quantized function.
    for index, step in reversed(list(enumerate(graph.steps))):
        if step.code == "QUANTIZE" or not rounded_floats.isdisjoint(step.outputs):
            rounded_floats.update(i for i in step.inputs if graph.types[i] == "float32")
            step_indices.add(index)
    return step_indices


def compare_files(file: str, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
    """Compare a file with the file that the network gives.

    Tensors have the same indices in both; constants of small integers have no names.

    Args:
        file: Name of the file in reports.
        expected: The file that the network gives.
        actual: The artifact's file.
        same_tools: Whether the same tool versions wrote both.
    """
    try:
        read_graph(actual)
        actual_model = _unpack(actual)
        return _compare_contents(file, (expected, actual), actual_model, same_tools=same_tools)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError, struct.error):
        return ConstantCheck(file, problem="not a TFLite file, or damaged")


def _compare_contents(
    file: str, contents: tuple[bytes, bytes], actual_model: Any, *, same_tools: bool
) -> ConstantCheck:
    comparison, expected_model = ConstantComparison(file), _unpack(contents[0])
    graph, actual_graph = expected_model.subgraphs[0], actual_model.subgraphs[0]
    if len(graph.tensors) != len(actual_graph.tensors):
        counts = f"{len(actual_graph.tensors):,} tensors, expected {len(graph.tensors):,}"
        comparison.fail(f"it has {counts}")
    layers = _find_readers(graph)
    pairs = enumerate(zip(graph.tensors, actual_graph.tensors, strict=False))
    for index, (tensor, actual) in pairs:
        layer, name = layers.get(index, _get_name(tensor)), _get_name(tensor) or f"tensor {index}"
        _compare_values(
            comparison,
            layer,
            name,
            (_read_values(expected_model, tensor), _read_values(actual_model, actual)),
        )
        for field_name in ("scale", "zeroPoint"):
            numbers = [_read_quantization(params, field_name) for params in (tensor, actual)]
            if numbers[0].size or numbers[1].size:
                comparison.compare(layer, f"{name}: {field_name}", numbers[0], numbers[1])
    for operator, actual_operator in zip(graph.operators, actual_graph.operators, strict=False):
        if _describe_operator(operator) != _describe_operator(actual_operator):
            layer = _get_name(graph.tensors[operator.outputs[0]])
            comparison.fail(f"the operator of layer `{layer}` differs from the expected one")
    return comparison.finish(*contents, same_tools=same_tools)


def _compare_values(
    comparison: ConstantComparison, layer: str, name: str, arrays: tuple[Any, Any]
) -> None:
    expected, actual = arrays
    if expected is not None and actual is not None:
        comparison.compare(layer, name, expected, actual)
    elif expected is not None or actual is not None:
        comparison.fail(
            f"tensor `{name}` of layer `{layer}` is a constant in only one of the two files"
        )


def _unpack(content: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(content, 0)


def _find_readers(graph: Any) -> Mapping[int, str]:
    """Return the layer that first reads each tensor; computed tensors map to themselves."""
    layers: dict[int, str] = {}
    computed = {int(index) for operator in graph.operators for index in operator.outputs}
    # In reverse: an operator that dequantizes a constant belongs to the layer that reads it.
    for operator in reversed(graph.operators):
        (output, *_) = map(int, operator.outputs)
        inputs = [int(index) for index in operator.inputs]
        is_constant = computed.isdisjoint(inputs) and not _has_graph_input(graph, inputs)
        layer = layers.get(output, "") if is_constant else ""
        layers.update({index: layer or _get_name(graph.tensors[output]) for index in inputs})
        if not is_constant:
            layers[output] = _get_name(graph.tensors[output])
    return layers


def _has_graph_input(graph: Any, indices: list[int]) -> bool:
    """Whether any of some tensors is an input of the network."""
    return not set(map(int, graph.inputs)).isdisjoint(indices)


def _get_name(tensor: Any) -> str:
    name = tensor.name or b""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _read_values(model: Any, tensor: Any) -> Any:
    """Return a constant's values in its shape; None for computed tensors."""
    content = model.buffers[tensor.buffer].data
    if content is None:
        return None
    from ai_edge_litert import schema_py_generated as schema

    type_names = {getattr(schema.TensorType, name): type_name for type_name, name in TYPES.items()}
    shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
    raw = np.asarray(content, np.uint8).tobytes()
    return np.frombuffer(raw, np.dtype(type_names[tensor.type]).newbyteorder("<")).reshape(shape)


def _read_quantization(tensor: Any, field_name: str) -> Any:
    numbers = getattr(tensor.quantization, field_name, None) if tensor.quantization else None
    kind = np.float32 if field_name == "scale" else np.int64
    return np.asarray([] if numbers is None else numbers, kind)


def _describe_operator(operator: Any) -> tuple[Any, ...]:
    options = operator.builtinOptions
    return (
        operator.opcodeIndex,
        tuple(map(int, operator.inputs)),
        tuple(map(int, operator.outputs)),
        {} if options is None else {key: str(params) for key, params in vars(options).items()},
    )
