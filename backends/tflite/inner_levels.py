"""What a file computes between its layers: the same file with those tensors among its outputs.

With outputs of a graph XNNPACK writes them, as ever by its own kernels; an interpreter that keeps
all tensors would run others, which round elsewhere.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite import file_inspection, runner
from tcc.compiler.support import regular_files

Array = NDArray[Any]


def of_file(
    path: Path, tensors: Iterable[Array], kinds: frozenset[str] = file_inspection.LEVELS
) -> Iterator[Mapping[str, Array]]:
    """Yield the values of some types that a file computes for each tensor, by name.

    Raises:
        UserError: It is no file that LiteRT can run on these (E0651).
    """
    try:
        with regular_files.opened(path) as file:
            data, places = _opened_up(file.read(), kinds)
        interpreter = runner.interpreter(data)
    except Exception as error:  # the runtime documents no exception types
        raise runner.broken(path, error) from error
    (details,) = interpreter.get_input_details()
    for tensor in tensors:
        try:
            interpreter.set_tensor(details["index"], runner.stored(tensor, details))
            interpreter.invoke()
            found = {name: _planar(interpreter.get_tensor(place)) for name, place in places.items()}
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise runner.broken(path, error) from error
        yield found


def _planar(values: Array) -> Array:
    """Return a value in the graph's layout: maps lie with their channels last in a file."""
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def _opened_up(data: bytes, kinds: frozenset[str]) -> tuple[bytes, Mapping[str, int]]:
    """Return a file that gives all its values of some types, and their places by name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    found = file_inspection.read(data)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    (graph,) = model.subgraphs
    # Only what operators make: constants are weights.
    made = {place for step in found.steps for place in step.outputs}
    inner = [i for i in sorted(made) if found.types[i] in kinds]
    given = [int(place) for place in graph.outputs]
    graph.outputs = np.array([*given, *(i for i in inner if i not in given)], np.int32)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), {graph.tensors[i].name.decode(): i for i in inner}
