"""The integer program in a bundle, on request: what each layer must give, for any input.

`probes/program.json` has the graph, `probes/weights.bin` the constants end to end, in the graph's
order: int8, uint8, int32 and float32, little-endian. Nothing of it is taken on trust: it must be
well formed, print as `graph/int8.txt` does, and give the bundle's goldens.
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
from tcc.compiler.ops.integer import INTEGERS
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

GRAPH, WEIGHTS = "probes/program.json", "probes/weights.bin"
VERSION = 1
MAX_BYTES = 1 << 26
"""Largest `program.json` that is read: twenty thousand nodes take some 10 MB."""
MAX_VALUES = 1 << 31
"""Most elements of all values together that the reference executor is asked for."""
WORDS: Mapping[str, type[Op]] = {op.word: op for op in (*OPS, *INTERNAL, *INTEGERS)}


class _Wrong(Exception):  # noqa: N818 - it is what was found
    """What is wrong with a program, in words."""


def files(program: Model) -> Mapping[str, bytes]:
    """Return the files of an integer program, by path."""
    graph = program.graph
    plain = {
        "tcc_program": VERSION,
        "name": graph.name,
        "inputs": [{"name": one.name, **_type(one.type)} for one in graph.inputs],
        "nodes": [
            {"name": n.name, "op": _op(n.op), "inputs": list(n.inputs), "params": list(n.params)}
            for n in graph.nodes
        ],
        "outputs": [{"name": one.name, "value": one.value} for one in graph.outputs],
    }
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    raw = b"".join(
        np.ascontiguousarray(program.weights[name], _kind(param.dtype)).tobytes()
        for name, param in graph.params.items()
    )
    return {GRAPH: text.encode(), WEIGHTS: raw}


def read(bundle: Bundle) -> Model | None:
    """Return the integer program of a bundle; None where it was built without.

    Raises:
        UserError: It is damaged, or not the program that the bundle says it is (E0665).
    """
    listed = {file.path for file in bundle.manifest.files}
    if GRAPH not in listed:
        return None
    try:
        with regular_files.opened(bundle.folder / GRAPH) as file:
            text = file.read(MAX_BYTES + 1)
        with regular_files.opened(bundle.folder / WEIGHTS) as file:
            raw = file.read()
        return _checked(bundle, _decoded(text, raw, bundle.manifest))
    except (ValueError, TypeError, KeyError, RecursionError, OSError, OpError) as error:
        raise _damaged(bundle, f"it cannot be read: {type(error).__name__}") from error
    except GraphError as error:
        raise _damaged(bundle, str(error)[:120]) from error
    except _Wrong as error:
        raise _damaged(bundle, str(error)) from error


def _checked(bundle: Bundle, found: Model) -> Model:
    """Return the program if it is the one that the bundle prints, with its input and outputs."""
    graph, about = found.graph, bundle.manifest
    try:
        with regular_files.opened(bundle.folder / artifact_runs.PROGRAM) as file:
            printed = file.read(MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        raise _Wrong(f"there is no {artifact_runs.PROGRAM} to hold it against") from None
    given = _bare(Graph(graph.name, graph.inputs, graph.nodes, graph.outputs))
    if given != _without_outputs(printed):
        raise _Wrong(f"it is not the program of {artifact_runs.PROGRAM}")
    (source,) = graph.inputs
    wanted = (about.input.name, about.input.shape, about.input.dtype)
    if (source.name, source.type.shape, source.type.dtype.value) != wanted:
        raise _Wrong("its input is not the manifest's")
    outputs = [(one.name, graph.types[one.value].shape) for one in graph.outputs]
    if outputs != [(one.name, one.shape) for one in about.outputs]:
        raise _Wrong("its outputs are not the manifest's")
    if sum(kind.elements for kind in graph.types.values()) > MAX_VALUES:
        raise _Wrong("its values are too many")
    return found


def _bare(graph: Graph) -> str:
    return _without_outputs(printer.show(graph))


def _without_outputs(text: str) -> str:
    """Return a printed graph without what is said of outputs, which the manifest holds."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("  output "))


def _decoded(text: bytes, raw: bytes, about: manifest.Manifest) -> Model:
    if len(text) > MAX_BYTES:
        raise _Wrong("it is too large")
    plain = json.loads(text.decode())
    if plain["tcc_program"] != VERSION:
        raise _Wrong(f"its version is not {VERSION}")
    (source,) = plain["inputs"]
    inputs = (Input(source["name"], _read_type(source), about.input.preprocess),)
    nodes = tuple(_nodes(plain["nodes"], {inputs[0].name: inputs[0].type}))
    known = {one.name: one for one in about.outputs}
    outputs = tuple(_read_output(output, known[output["name"]]) for output in plain["outputs"])
    graph = verify(Graph(plain["name"], inputs, nodes, outputs))
    return Model(graph, _tensors(graph, raw))


def _read_output(document: Mapping[str, Any], contract: manifest.OutputContract) -> Output:
    """Return an output, of which the manifest has all but its value."""
    return Output(
        contract.name,
        document["value"],
        contract.activation,
        labels=contract.labels,
        kind=contract.kind,
    )


def _nodes(listed: Iterable[Mapping[str, Any]], types: dict[str, TensorType]) -> Iterable[Node]:
    for one in listed:
        op, inputs = _read_op(one["op"]), tuple(map(str, one["inputs"]))
        # Types are worked out anew, and are bounded before anything is computed.
        kind = op.infer(*(types[value] for value in inputs))
        if not 0 < kind.elements <= MAX_VALUES:
            raise _Wrong(f"`{str(one['name'])[:40]}` is too large")
        types[one["name"]] = kind
        yield Node(one["name"], op, inputs, tuple(map(str, one["params"])), kind)


def _tensors(graph: Graph, raw: bytes) -> dict[str, NDArray[Any]]:
    found, at = {}, 0
    for name, param in graph.params.items():
        kind, count = _kind(param.dtype), prod(param.shape)
        if at + count * kind.itemsize > len(raw):
            raise _Wrong(f"{WEIGHTS} ends before `{name[:40]}`")
        found[name] = np.frombuffer(raw, kind, count, at).reshape(param.shape)
        at += count * kind.itemsize
    if at != len(raw):
        raise _Wrong(f"{WEIGHTS} has {len(raw) - at:,} bytes too many")
    return found


def _op(op: Op) -> dict[str, Any]:
    """Return an operation as plain data; operations within it likewise."""
    plain = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    return {
        "word": op.word,
        **{name: _op(value) if isinstance(value, Op) else value for name, value in plain.items()},
    }


def _read_op(plain: Mapping[str, Any]) -> Op:
    given = dict(plain)
    kind = WORDS[given.pop("word")]
    return kind(**{name: _value(value) for name, value in given.items()})


def _value(plain: Any) -> Any:
    match plain:
        case dict():
            return _read_op(plain)
        case list():
            return tuple(map(_value, plain))
        case str() | bool() | int() | float() | None:
            return plain
        case _:
            raise _Wrong("an operation has a value of no known kind")


def _type(kind: TensorType) -> dict[str, Any]:
    return {"shape": list(kind.shape), "dtype": kind.dtype.value, "scale": kind.scale}


def _read_type(plain: Mapping[str, Any]) -> TensorType:
    return TensorType(tuple(map(int, plain["shape"])), DType(plain["dtype"]), plain["scale"])


def _kind(kind: DType) -> "np.dtype[Any]":
    return np.dtype(kind.value).newbyteorder("<")


def _damaged(bundle: Bundle, label: str) -> UserError:
    help = "build the bundle again with --probes"
    where = whole_file(str(bundle.folder / GRAPH))
    message = "the bundle's integer program is damaged"
    return fail("E0665", message, where, label=label, help=help)
