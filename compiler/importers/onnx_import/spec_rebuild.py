"""Compile the spec of an imported model again, with the weights under the spec's paths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tcc.compiler.data.weights import Weights, check_weights
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.importers.onnx_import.graph_builder import Tensor
from tcc.compiler.importers.onnx_import.options import ImportOptions, PreprocessOptions
from tcc.compiler.importers.onnx_import.spec_writer import (
    SpecHeading,
    SpecText,
    build_steps,
    describe_op,
    fold_repeats,
    format_text,
    iterate_nodes,
    write_spec,
)
from tcc.compiler.ir.graph import Graph, GraphError, Model
from tcc.compiler.ir.preprocess import count_channels
from tcc.compiler.ir.types import TensorType
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

WARNINGS_OF_OPTIONS = frozenset({"no-preprocess", "pixel-statistics"})
"""Kinds of warnings about the user's options; other kinds concern the network itself."""


@dataclass(frozen=True, slots=True)
class RebuiltSpec:
    """A spec: text, file suffix, compiled form, weights, and the path of each model value."""

    text: str
    suffix: str
    spec: Spec
    weights: Weights
    paths: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OperatorOrigin:
    """Operators of the file, last first as (name, type), and the value they became."""

    nodes: tuple[tuple[str, str], ...]
    value: str


@dataclass(frozen=True, slots=True)
class ImportedOperator:
    """An operator of the file and its step; empty if the operator is part of other steps."""

    node: str
    types: str
    path: str
    word: str
    shape: tuple[int, ...]


def build_spec(model: Model, path: Path, import_options: ImportOptions) -> RebuiltSpec:
    """Return the spec of a model that was imported from a file.

    Args:
        model: The converted model, with weights.
        path: The file, for names and errors.
        import_options: The user's names, labels and preprocessing.

    Raises:
        UserError: The model has no steps or another number of labels (E0906), it exceeds the
            limits of specs, or the weights are not finite.
    """
    graph = model.graph
    if not graph.nodes:
        raise fail(
            "E0906", "the network has no operators that change its input", make_file_span(str(path))
        )
    _check_labels(path, graph, import_options.labels)
    steps, named_values = build_steps(graph)
    if import_options.fold:
        steps = fold_repeats(steps, graph, named_values)
    preprocess = _build_preprocess(path, graph.inputs[0].type, import_options.preprocess)
    file = path.name.encode(errors="replace").decode()  # file names may be in any encoding
    heading = SpecHeading(graph.name, f"Imported from {file}.", preprocess, import_options.labels)
    document = write_spec(graph, steps, named_values, heading)
    text = format_text(document, json_wanted=import_options.json)
    spec = _load_spec(path, text)
    # The user cannot fix oddities of a third-party network, so the spec allows them by name.
    if allow := sorted({w.kind for w in spec.warnings} - WARNINGS_OF_OPTIONS):
        document = write_spec(graph, steps, named_values, replace(heading, allow=tuple(allow)))
        text = format_text(document, json_wanted=import_options.json)
        spec = _load_spec(path, text)
    order = [node.name for node in iterate_nodes(steps)]
    # The text is compiled again; its steps are in the order in which they were written.
    paths = dict(zip(order, (node.name for node in spec.graph.nodes), strict=True))
    paths[graph.inputs[0].name] = spec.graph.inputs[0].name
    tensors = _rename_weights(model, spec.graph, paths)
    return RebuiltSpec(text.text, text.suffix, spec, check_weights(tensors, spec.graph), paths)


def _check_labels(path: Path, graph: Graph, labels: Sequence[str]) -> None:
    sizes = {str(graph.types[output.value]) for output in graph.outputs}
    if labels and str(len(labels)) not in sizes:
        label = f"{len(labels)} labels, but the output has shape {', '.join(sorted(sizes))}"
        raise fail(
            "E0906",
            "the number of labels must be the number of classes",
            make_file_span(str(path)),
            label=label,
        )


def _build_preprocess(
    path: Path, tensor_type: TensorType, preprocess_options: PreprocessOptions | None
) -> dict[str, Any]:
    """Return the `preprocess` section of the spec.

    Raises:
        UserError: It does not fit the input (E0905).
    """
    if preprocess_options is None:
        return {}
    channels, height, width = tensor_type.shape
    if channels != count_channels(preprocess_options.color):
        label = f"the input has {channels} channels"
        message = f"`{preprocess_options.color}` images do not fit the input"
        help = "choose another `--color`"
        raise fail("E0905", message, make_file_span(str(path)), label=label, help=help)
    section: dict[str, Any] = {"color": preprocess_options.color}
    if preprocess_options.mode != "none":
        section["resize"] = {"size": [height, width], "mode": preprocess_options.mode}
    if preprocess_options.scale != "255":
        section["scale"] = preprocess_options.scale
    for name, numbers in (("mean", preprocess_options.mean), ("std", preprocess_options.std)):
        if len(numbers) not in (0, 1, channels):
            label = f"number of values: {len(numbers)}; the input has {channels} channels"
            raise fail(
                "E0905",
                f"`{name}` needs one number, or one per channel",
                make_file_span(str(path)),
                label=label,
            )
        if numbers:
            section[name] = list(numbers)
    return section


def _load_spec(path: Path, text: SpecText) -> Spec:
    """Return a compiled spec.

    Raises:
        UserError: It exceeds the limits of specs; the error's location is the imported file.
    """
    with atomic_files.create_scratch_folder() as folder:
        file = folder / f"network{text.suffix}"
        # `load` needs a file. Its location in messages is replaced by the imported file.
        file.write_text(text.text)
        try:
            return load(file)
        except UserError as error:
            at = make_file_span(str(path))
            raise UserError(tuple(replace(d, at=at) for d in error.diagnostics)) from None


def _rename_weights(model: Model, graph: Graph, paths: Mapping[str, str]) -> Weights:
    """Return the weights under a spec's paths; spec and model must be the same graph."""
    node_by_path = {node.name: node for node in graph.nodes}
    tensors: dict[str, Tensor] = {}
    for node in model.graph.nodes:
        rebuilt_node = node_by_path[paths[node.name]]
        types = model.graph.get_input_types(node)
        # If the writer omits an argument that matters, the text compiles to another graph. Ops are
        # compared one by one, so that no weight gets the wrong path.
        is_same_op = (
            describe_op(rebuilt_node.op, *types) == describe_op(node.op, *types)
            and rebuilt_node.type == node.type
        )
        if not is_same_op or rebuilt_node.inputs != tuple(paths[v] for v in node.inputs):
            raise GraphError(f"{node.name} was written and compiled to {rebuilt_node}")
        tensors.update(
            zip(rebuilt_node.params, (model.weights[name] for name in node.params), strict=True)
        )
    return tensors


def list_imported_operators(
    origins: Sequence[OperatorOrigin], renamed_values: Mapping[str, str], rebuilt: RebuiltSpec
) -> Iterator[ImportedOperator]:
    """Yield the step of each operator of the file, in the file's order.

    `renamed_values` maps values of the converted model to those of the simplified one.
    """
    steps = {node.name: node for node in rebuilt.spec.graph.nodes}
    for origin in origins:
        types = " + ".join(type for _, type in reversed(origin.nodes))
        value = renamed_values.get(origin.value, "")
        step = steps.get(rebuilt.paths.get(value, ""))
        name = origin.nodes[0][0]
        if step is None:
            yield ImportedOperator(name, types, "", "", ())
        else:
            yield ImportedOperator(name, types, step.name, step.op.keyword, step.type.shape)
