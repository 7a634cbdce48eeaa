"""The spec of an imported model, compiled again, with the weights under its own paths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tcc.compiler.data.weights import Weights, checked
from tcc.compiler.foreign.onnx_import.graph_builder import Tensor
from tcc.compiler.foreign.onnx_import.options import ImportOptions, PreprocessOptions
from tcc.compiler.foreign.onnx_import.spec_writer import (
    SpecHeading,
    SpecText,
    folded,
    format_text,
    nodes,
    structured,
    write_spec,
    written,
)
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.graph import Graph, GraphError, Model
from tcc.compiler.ir.preprocess import channels_of
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

WARNINGS_OF_OPTIONS = frozenset({"no-preprocess", "pixel-statistics"})
"""Kinds of warnings about what the user says; others are about the network, which is as it is."""


@dataclass(frozen=True, slots=True)
class RebuiltSpec:
    """A spec: text, file suffix, compiled form, weights, and its paths of the model's values."""

    text: str
    suffix: str
    spec: Spec
    weights: Weights
    paths: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OperatorOrigin:
    """Operators of the file, last first as (name, type), and the value that they became."""

    nodes: tuple[tuple[str, str], ...]
    value: str


@dataclass(frozen=True, slots=True)
class ImportedOperator:
    """An operator of the file and the step that does its work; without one, it is in others."""

    node: str
    types: str
    path: str
    word: str
    shape: tuple[int, ...]


def rebuild(model: Model, path: Path, wanted: ImportOptions) -> RebuiltSpec:
    """Return the spec of a model that was imported from a file.

    Args:
        model: What the file's operators have become, with weights.
        path: The file, for names and errors.
        wanted: What the user says of names, labels and preprocessing.

    Raises:
        UserError: There is nothing in it or another number of labels (E0906), it is beyond the
            limits of the language, or the weights are not finite.
    """
    graph = model.graph
    if not graph.nodes:
        raise fail("E0906", "the network does nothing with its input", whole_file(str(path)))
    _check_labels(path, graph, wanted.labels)
    items, named = structured(graph)
    if wanted.fold:
        items = folded(items, graph, named)
    preprocess = _preprocess(path, graph.inputs[0].type, wanted.preprocess)
    file = path.name.encode(errors="replace").decode()  # a name of a file may be in any encoding
    heading = SpecHeading(graph.name, f"Imported from {file}.", preprocess, wanted.labels)
    document = write_spec(graph, items, named, heading)
    text = format_text(document, json_wanted=wanted.json)
    spec = _load(path, text)
    # What is remarkable of a foreign network is not the user's to mend: the spec allows it by name.
    if allow := sorted({w.kind for w in spec.warnings} - WARNINGS_OF_OPTIONS):
        document = write_spec(graph, items, named, replace(heading, allow=tuple(allow)))
        text = format_text(document, json_wanted=wanted.json)
        spec = _load(path, text)
    order = [node.name for node in nodes(items)]
    # The text is compiled anew, and its steps are met in the order in which they were written.
    paths = dict(zip(order, (node.name for node in spec.graph.nodes), strict=True))
    paths[graph.inputs[0].name] = spec.graph.inputs[0].name
    tensors = _renamed(model, spec.graph, paths)
    return RebuiltSpec(text.text, text.suffix, spec, checked(tensors, spec.graph), paths)


def _check_labels(path: Path, graph: Graph, labels: Sequence[str]) -> None:
    sizes = {str(graph.types[output.value]) for output in graph.outputs}
    if labels and str(len(labels)) not in sizes:
        label = f"{len(labels)} labels, the output is {', '.join(sorted(sizes))}"
        raise fail(
            "E0906", "there must be one label for each class", whole_file(str(path)), label=label
        )


def _preprocess(path: Path, kind: TensorType, given: PreprocessOptions | None) -> dict[str, Any]:
    """Return what the spec says of preprocessing.

    Raises:
        UserError: It does not fit the input (E0905).
    """
    if given is None:
        return {}
    channels, height, width = kind.shape
    if channels != channels_of(given.color):
        label = f"the input has {channels} channels"
        message = f"`{given.color}` images do not fit the input"
        raise fail("E0905", message, whole_file(str(path)), label=label)
    found: dict[str, Any] = {"color": given.color}
    if given.mode != "none":
        found["resize"] = {"size": [height, width], "mode": given.mode}
    if given.scale != "255":
        found["scale"] = given.scale
    for name, values in (("mean", given.mean), ("std", given.std)):
        if len(values) not in (0, 1, channels):
            label = f"there are {len(values)}, the input has {channels} channels"
            raise fail(
                "E0905", f"`{name}` is one number per channel", whole_file(str(path)), label=label
            )
        if values:
            found[name] = list(values)
    return found


def _load(path: Path, text: SpecText) -> Spec:
    """Return a spec, compiled.

    Raises:
        UserError: It is beyond the limits of the language; the place is the file's.
    """
    with atomic_files.scratch_folder() as place:
        file = place / f"network{text.suffix}"
        # In a file, as `load` takes one; its place in messages is replaced by that of the user's
        # file.
        file.write_text(text.text)
        try:
            return load(file)
        except UserError as error:
            at = whole_file(str(path))
            raise UserError(tuple(replace(d, at=at) for d in error.diagnostics)) from None


def _renamed(model: Model, graph: Graph, paths: Mapping[str, str]) -> Weights:
    """Return the weights under a spec's paths, which must be those of the same graph."""
    made = {node.name: node for node in graph.nodes}
    tensors: dict[str, Tensor] = {}
    for node in model.graph.nodes:
        twin = made[paths[node.name]]
        types = model.graph.input_types(node)
        # A text may come back as another graph if the writer leaves out an argument that matters:
        # compared op by op, so that no wrong weight is ever filed under a right name.
        same = written(twin.op, *types) == written(node.op, *types) and twin.type == node.type
        if not same or twin.inputs != tuple(paths[v] for v in node.inputs):
            raise GraphError(f"{node.name} came back as {twin}")
        tensors.update(zip(twin.params, (model.weights[name] for name in node.params), strict=True))
    return tensors


def imported_operators(
    origins: Sequence[OperatorOrigin], values: Mapping[str, str], made: RebuiltSpec
) -> Iterator[ImportedOperator]:
    """Yield what became of each operator of the file, in its order.

    `values` says what the values of its first model are called in the one that was rebuilt.
    """
    steps = {node.name: node for node in made.spec.graph.nodes}
    for origin in origins:
        types = " + ".join(type for _, type in reversed(origin.nodes))
        value = values.get(origin.value, "")
        step = steps.get(made.paths.get(value, ""))
        name = origin.nodes[0][0]
        if step is None:
            yield ImportedOperator(name, types, "", "", ())
        else:
            yield ImportedOperator(name, types, step.name, step.op.word, step.type.shape)
