"""What a file holds, read before anything runs it: operators that tcc writes, and which numbers."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tcc.backends.tflite.writer import OPTIONS, TYPES
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
