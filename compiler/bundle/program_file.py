"""The integer program in a bundle (`--probes`): the expected values of every layer.

`probes/program.json` has the graph. `probes/weights.bin` has the constants without gaps, in the
graph's order: int8, uint8, int32 and float32, little-endian. The reader trusts neither: the program
must be well formed, print as `graph/int8.txt` does, and give the bundle's goldens.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs, manifest
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir import printer
from tcc.compiler.ir.graph import Graph, GraphError, Input, Model, Node, Output, verify
from tcc.compiler.ir.op import Op, OpError
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import INTERNAL, OPS
from tcc.compiler.ops.integer import INTEGER_OPS
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

GRAPH, WEIGHTS = "probes/program.json", "probes/weights.bin"
VERSION = 1
MAX_BYTES = 1 << 26
"""Largest `program.json` that is read: twenty thousand nodes take about 10 MB."""
MAX_VALUES = 1 << 31
"""Most elements of all values together that the reference executor computes."""
OPS_BY_NAME: Mapping[str, type[Op]] = {op.keyword: op for op in (*OPS, *INTERNAL, *INTEGER_OPS)}


class _ProgramError(Exception):
    """The problem of a program, as a sentence."""


def encode_program(program: Model) -> Mapping[str, bytes]:
    """Return the files of an integer program, by path."""
    graph = program.graph
    document = {
        "tcc_program": VERSION,
        "name": graph.name,
        "inputs": [{"name": port.name, **_encode_type(port.type)} for port in graph.inputs],
        "nodes": [
            {
                "name": n.name,
                "op": _encode_op(n.op),
                "inputs": list(n.inputs),
                "params": list(n.params),
            }
            for n in graph.nodes
        ],
        "outputs": [{"name": port.name, "value": port.value} for port in graph.outputs],
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    weight_bytes = b"".join(
        np.ascontiguousarray(program.weights[name], _get_dtype(param.dtype)).tobytes()
        for name, param in graph.params.items()
    )
    return {GRAPH: text.encode(), WEIGHTS: weight_bytes}


def read_program(bundle: Bundle) -> Model | None:
    """Return the integer program of a bundle; None if it was built without.

    Raises:
        UserError: It is damaged, or is not the bundle's program (E0665).
    """
    listed_paths = {file.path for file in bundle.manifest.files}
    if GRAPH not in listed_paths:
        return None
    try:
        with regular_files.open_file(bundle.folder / GRAPH) as file:
            text = file.read(MAX_BYTES + 1)
        with regular_files.open_file(bundle.folder / WEIGHTS) as file:
            weight_bytes = file.read()
        return _check_program(bundle, _decode_program(text, weight_bytes, bundle.manifest))
    except (ValueError, TypeError, KeyError, RecursionError, OSError, OpError) as error:
        raise _build_damage_error(bundle, f"it cannot be read: {type(error).__name__}") from error
    except GraphError as error:
        raise _build_damage_error(bundle, str(error)[:120]) from error
    except _ProgramError as error:
        raise _build_damage_error(bundle, str(error)) from error


def _check_program(bundle: Bundle, program: Model) -> Model:
    """Return the program if it matches the bundle's printed program, input and outputs."""
    graph, bundle_manifest = program.graph, bundle.manifest
    try:
        with regular_files.open_file(bundle.folder / artifact_runs.PROGRAM_FILE) as file:
            printed = file.read(MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        raise _ProgramError(
            f"{artifact_runs.PROGRAM_FILE}, which it must match, cannot be read"
        ) from None
    program_text = _render_graph(Graph(graph.name, graph.inputs, graph.nodes, graph.outputs))
    if program_text != _remove_outputs(printed):
        raise _ProgramError(f"it does not match {artifact_runs.PROGRAM_FILE}")
    (network_input,) = graph.inputs
    contract = (
        bundle_manifest.input.name,
        bundle_manifest.input.shape,
        bundle_manifest.input.dtype,
    )
    if (network_input.name, network_input.type.shape, network_input.type.dtype.value) != contract:
        raise _ProgramError("its input does not match the manifest")
    outputs = [(output.name, graph.types[output.value].shape) for output in graph.outputs]
    if outputs != [(output.name, output.shape) for output in bundle_manifest.outputs]:
        raise _ProgramError("its outputs do not match the manifest")
    if sum(kind.elements for kind in graph.types.values()) > MAX_VALUES:
        raise _ProgramError(f"its values have more than {MAX_VALUES:,} elements")
    return program


def _render_graph(graph: Graph) -> str:
    return _remove_outputs(printer.print_graph(graph))


def _remove_outputs(text: str) -> str:
    """Return a printed graph without its output lines; the manifest has the outputs."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("  output "))


def _decode_program(text: bytes, weight_bytes: bytes, bundle_manifest: manifest.Manifest) -> Model:
    if len(text) > MAX_BYTES:
        raise _ProgramError(f"it is larger than {MAX_BYTES >> 20} MiB")
    document = json.loads(text.decode())
    if document["tcc_program"] != VERSION:
        raise _ProgramError(f"its version is not {VERSION}")
    (source,) = document["inputs"]
    inputs = (Input(source["name"], _read_type(source), bundle_manifest.input.preprocess),)
    nodes = tuple(_read_nodes(document["nodes"], {inputs[0].name: inputs[0].type}))
    contract_by_name = {contract.name: contract for contract in bundle_manifest.outputs}
    outputs = tuple(
        _read_output(output, contract_by_name[output["name"]]) for output in document["outputs"]
    )
    graph = verify(Graph(document["name"], inputs, nodes, outputs))
    return Model(graph, _read_tensors(graph, weight_bytes))


def _read_output(document: Mapping[str, Any], contract: manifest.OutputContract) -> Output:
    """Return an output; all but its value comes from the manifest."""
    return Output(
        contract.name,
        document["value"],
        contract.activation,
        labels=contract.labels,
        kind=contract.kind,
    )


def _read_nodes(
    documents: Iterable[Mapping[str, Any]], types: dict[str, TensorType]
) -> Iterable[Node]:
    for document in documents:
        op, inputs = _read_op(document["op"]), tuple(map(str, document["inputs"]))
        # Types are inferred again and their sizes bounded before anything is computed.
        tensor_type = op.infer(*(types[input_name] for input_name in inputs))
        if not 0 < tensor_type.elements <= MAX_VALUES:
            raise _ProgramError(f"`{str(document['name'])[:40]}` is too large")
        types[document["name"]] = tensor_type
        yield Node(document["name"], op, inputs, tuple(map(str, document["params"])), tensor_type)


def _read_tensors(graph: Graph, weight_bytes: bytes) -> dict[str, NDArray[Any]]:
    tensors, offset = {}, 0
    for name, param in graph.params.items():
        dtype, count = _get_dtype(param.dtype), prod(param.shape)
        if offset + count * dtype.itemsize > len(weight_bytes):
            raise _ProgramError(f"{WEIGHTS} ends before `{name[:40]}`")
        tensors[name] = np.frombuffer(weight_bytes, dtype, count, offset).reshape(param.shape)
        offset += count * dtype.itemsize
    if offset != len(weight_bytes):
        raise _ProgramError(f"{WEIGHTS} is {len(weight_bytes) - offset:,} bytes too long")
    return tensors


def _encode_op(op: Op) -> dict[str, Any]:
    """Return an operation, with nested operations, as plain data."""
    attributes = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    # Most operations have none, and their files stay as they were before there were any.
    if not attributes.get("zero_point"):
        attributes.pop("zero_point", None)
    return {
        "word": op.keyword,
        **{
            name: _encode_op(attribute) if isinstance(attribute, Op) else attribute
            for name, attribute in attributes.items()
        },
    }


def _read_op(document: Mapping[str, Any]) -> Op:
    attributes = dict(document)
    op_class = OPS_BY_NAME[attributes.pop("word")]
    return op_class(**{name: _read_attribute(attribute) for name, attribute in attributes.items()})


def _read_attribute(document: Any) -> Any:
    match document:
        case dict():
            return _read_op(document)
        case list():
            return tuple(map(_read_attribute, document))
        case str() | bool() | int() | float() | None:
            return document
        case _:
            raise _ProgramError("an attribute of an operation has an unknown type")


def _encode_type(tensor_type: TensorType) -> dict[str, Any]:
    return {
        "shape": list(tensor_type.shape),
        "dtype": tensor_type.dtype.value,
        "scale": tensor_type.scale,
        **({"zero_point": tensor_type.zero_point} if tensor_type.zero_point else {}),
    }


def _read_type(document: Mapping[str, Any]) -> TensorType:
    return TensorType(
        tuple(map(int, document["shape"])),
        DType(document["dtype"]),
        document["scale"],
        int(document.get("zero_point", 0)),
    )


def _get_dtype(kind: DType) -> "np.dtype[Any]":
    return np.dtype(kind.value).newbyteorder("<")


def _build_damage_error(bundle: Bundle, label: str) -> UserError:
    help = "build the bundle again with --probes"
    source = make_file_span(str(bundle.folder / GRAPH))
    message = "the bundle's integer program is damaged"
    return fail("E0665", message, source, label=label, help=help)
