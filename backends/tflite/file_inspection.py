"""What a file holds, read before anything runs it; and its constants beside those of another."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tcc.backends.tflite.writer import OPTIONS, TYPES
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantComparison
from tcc.compiler.ir.number_types import FloatTrace, Numbers, OperatorRole

MOST = 1 << 20
"""Most tensors and operators that are looked at: some fifty of each node of the largest network."""
MOVED = frozenset({"RESHAPE", "TRANSPOSE"})
"""What a flattened map of floats goes through, none of which is computed with."""
LEVELS, FLOATS = frozenset({"int8", "uint8"}), frozenset({"float32"})
ENDS = frozenset({"DIV", "QUANTIZE"})
"""What makes levels of floats; DIV begins a rounding that is exact."""


@dataclass(frozen=True, slots=True)
class FileOperator:
    """An operator: its code by the schema's name, and the tensors' places."""

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileGraph:
    """A file's one graph: each tensor's type and name, which are constants, its inputs, its steps.

    `outputs` are the places of its outputs' tensors by the names of its signature.
    """

    types: Sequence[str]
    names: Sequence[str]
    constant: frozenset[int]
    inputs: tuple[int, ...]
    steps: Sequence[FileOperator]
    outputs: Mapping[str, int]


def read(data: bytes) -> FileGraph:
    """Return what a file holds.

    Raises:
        ValueError: It is no TFLite file, or has what no model of tcc has: more than one graph, or
            an operator that tcc does not write, such as WHILE, whose loop nothing would end.
    """
    try:
        return _contents(data)
    except (struct.error, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError("it is no TFLite file, or a damaged one") from error


def numbers(data: bytes) -> Numbers:
    """Return what a file computes with.

    Raises:
        ValueError: As for `read`.
    """
    found = read(data)
    moving = {i for i, kind in enumerate(found.types) if kind in LEVELS} - found.constant
    codes = {step.code for step in found.steps}
    trace, in_float = _traced(found, moving)
    return Numbers(
        integers=bool(moving),
        products=bool(moving) and bool(codes & {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
        floats=bool(trace.computed),
        stored=frozenset(found.types[i] for i in found.constant),
        outputs={name: trace.reach(place) for name, place in found.outputs.items()},
        in_float=frozenset(found.names[i] for i in in_float),
    )


def _contents(data: bytes) -> FileGraph:
    from ai_edge_litert import schema_py_generated as schema

    # The identifier of the schema (`file_identifier "TFL3"` in TensorFlow's schema.fbs), behind the
    # root's offset.
    if data[4:8] != b"TFL3":
        raise ValueError("it is no TFLite file")
    model = schema.Model.GetRootAs(data)
    if model.SubgraphsLength() != 1:
        raise ValueError(f"it has {model.SubgraphsLength()} graphs: a model of tcc has one")
    graph = model.Subgraphs(0)
    # Lengths come from the file: lists are made only after they are bounded.
    if max(graph.TensorsLength(), graph.OperatorsLength(), model.OperatorCodesLength()) > MOST:
        raise ValueError("it has more operators or tensors than a model of tcc")
    codes = list(_codes(model, schema))
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    words = {getattr(schema.TensorType, name): word for word, name in TYPES.items()}
    types = [words.get(tensor.Type(), "another type") for tensor in tensors]
    named = [(tensor.Name() or b"").decode("utf-8", "replace") for tensor in tensors]
    filled = {
        i for i, tensor in enumerate(tensors) if not model.Buffers(tensor.Buffer()).DataIsNone()
    }
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    steps = [
        FileOperator(
            codes[o.OpcodeIndex()],
            _places(o, "Inputs", len(types)),
            _places(o, "Outputs", len(types)),
        )
        for o in operators
    ]
    inputs = _places(graph, "Inputs", len(types))
    outputs = dict(_named_outputs(model))
    return FileGraph(types, named, frozenset(filled), inputs, steps, outputs)


def _places(table: Any, what: str, tensors: int) -> tuple[int, ...]:
    count = getattr(table, f"{what}Length")()
    if count > tensors:
        raise ValueError("an operator has more values than there are")
    found = tuple(getattr(table, what)(i) for i in range(count))
    if not all(-1 <= i < tensors for i in found):  # -1: an optional input left out
        raise ValueError("an operator has a value that there is not")
    return found


def _named_outputs(model: Any) -> Iterator[tuple[str, int]]:
    if model.SignatureDefsLength() != 1:
        raise ValueError("a model of tcc has one signature, which names its outputs")
    signature = model.SignatureDefs(0)
    for i in range(signature.OutputsLength()):
        output = signature.Outputs(i)
        yield output.Name().decode("utf-8", "replace"), output.TensorIndex()


def _codes(model: Any, schema: Any) -> Iterator[str]:
    """Yield the operators' names; of two numbers of one, readers take the larger."""
    names = {getattr(schema.BuiltinOperator, word): word for word in OPTIONS}
    known = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        # Codes above 127 stand in the newer field, smaller ones in both (schema.fbs, OperatorCode).
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number not in names:
            word = known.get(number, f"operator {number}")
            raise ValueError(f"it has `{word}`, which no model of tcc has")
        yield names[number]


def _traced(found: FileGraph, moving: set[int]) -> tuple[FloatTrace, set[int]]:
    """Follow floats of an input, or of levels by DEQUANTIZE; return as well what layers make them.

    What QUANTIZE makes levels of again is a function of levels, not a layer in float.
    """
    functions = _functions(found)
    trace = FloatTrace({i for i in found.inputs if found.types[i] == "float32"})
    in_float: set[int] = set()
    for place, step in enumerate(found.steps):
        role = OperatorRole.COMPUTE
        # Only of values: DEQUANTIZE of a constant is how float16 weights are stored.
        if step.code == "DEQUANTIZE" and moving.intersection(step.inputs):
            role = OperatorRole.REAL
        elif place in functions:
            role = OperatorRole.FUNCTION
        elif step.code in ENDS:
            role = OperatorRole.ROUND
        elif step.code in MOVED:
            role = OperatorRole.MOVE
        if trace.step(role, step.inputs, step.outputs):
            in_float.update(step.outputs)
    return trace, in_float


def _functions(found: FileGraph) -> set[int]:
    """Return the places of the steps whose floats end in QUANTIZE."""
    ends: set[int] = set()
    places = set()
    # Backwards from each QUANTIZE: all floats that end in one are inside a function of levels.
    for place, step in reversed(list(enumerate(found.steps))):
        if step.code == "QUANTIZE" or not ends.isdisjoint(step.outputs):
            ends.update(i for i in step.inputs if found.types[i] == "float32")
            places.add(place)
    return places


def compare_files(file: str, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
    """Return how a file compares with the one that the network gives.

    Tensors have the same places in both: those of small integers have no names.

    Args:
        file: What the file is called in what is reported.
        expected: The file that the network gives.
        actual: The artifact's file.
        same_tools: Whether the same releases wrote both.
    """
    try:
        read(actual)
        actual_model = _unpack(actual)
        return _compare_contents(file, (expected, actual), actual_model, same_tools=same_tools)
    except (ValueError, IndexError, TypeError, OverflowError, AttributeError, struct.error):
        return ConstantCheck(file, problem="it is no TFLite file, or a damaged one")


def _compare_contents(
    file: str, contents: tuple[bytes, bytes], actual_model: Any, *, same_tools: bool
) -> ConstantCheck:
    comparison, expected_model = ConstantComparison(file), _unpack(contents[0])
    graph, actual_graph = expected_model.subgraphs[0], actual_model.subgraphs[0]
    if len(graph.tensors) != len(actual_graph.tensors):
        counts = f"{len(actual_graph.tensors):,} tensors, not {len(graph.tensors):,}"
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
            comparison.fail(f"the operator of layer `{layer}` is another one")
    return comparison.finish(*contents, same_tools=same_tools)


def _compare_values(
    comparison: ConstantComparison, layer: str, name: str, values: tuple[Any, Any]
) -> None:
    expected, actual = values
    if expected is not None and actual is not None:
        comparison.compare(layer, name, expected, actual)
    elif expected is not None or actual is not None:
        comparison.fail(f"tensor `{name}` of layer `{layer}` has no values, or has some")


def _unpack(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def _find_readers(graph: Any) -> Mapping[int, str]:
    """Return the layer that first reads each tensor; a tensor that is computed is its own."""
    layers: dict[int, str] = {}
    computed = {int(index) for operator in graph.operators for index in operator.outputs}
    # Backwards: what only makes floats of a constant is part of the layer that reads these.
    for operator in reversed(graph.operators):
        (result, *_) = map(int, operator.outputs)
        inputs = [int(index) for index in operator.inputs]
        is_constant = computed.isdisjoint(inputs) and not _has_graph_input(graph, inputs)
        layer = layers.get(result, "") if is_constant else ""
        layers.update({index: layer or _get_name(graph.tensors[result]) for index in inputs})
        if not is_constant:
            layers[result] = _get_name(graph.tensors[result])
    return layers


def _has_graph_input(graph: Any, indices: list[int]) -> bool:
    """Whether one of some tensors is an input of the network."""
    return not set(map(int, graph.inputs)).isdisjoint(indices)


def _get_name(tensor: Any) -> str:
    name = tensor.name or b""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _read_values(model: Any, tensor: Any) -> Any:
    """Return a constant's values in its shape; None where it is computed."""
    data = model.buffers[tensor.buffer].data
    if data is None:
        return None
    from ai_edge_litert import schema_py_generated as schema

    type_names = {getattr(schema.TensorType, name): type_name for type_name, name in TYPES.items()}
    shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
    raw = np.asarray(data, np.uint8).tobytes()
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
