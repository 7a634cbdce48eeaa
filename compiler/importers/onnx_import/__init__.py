"""A foreign ONNX classifier as a spec and weights that compute the same.

`read_file` and `inputs_outputs` take the file in, `sandbox` cleans it, `fusions` and `conversion`
turn operators into the language's, `simplify`, `spec_rebuild` and `spec_writer` make a spec of
them, `operator_comparison` and `output_check` hold it against the file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.importers.onnx_import.options import ImportOptions, ModelRunner, PreprocessOptions
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool, Tool

if TYPE_CHECKING:
    import onnx
    import onnx_graphsurgeon as gs

    from tcc.compiler.data.weights import Weights
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.importers.onnx_import.sandbox import TaskResult
    from tcc.compiler.importers.onnx_import.spec_rebuild import ImportedOperator

REQUIRED_LIBRARIES = {"onnx_graphsurgeon": "onnx-graphsurgeon", "onnxsim": "onnxsim"}
"""What is needed beside the package's own dependencies: modules, and what they are called."""


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A spec's text, its weights, and what became of each operator.

    `suffix` is that of the spec's file: `.yaml`, or `.json` for a large spec.
    `difference` is the largest between the file's outputs and the spec's, relative to the
    largest output.
    """

    text: str
    suffix: str
    spec: "Spec"
    weights: "Weights"
    rows: "tuple[ImportedOperator, ...]"
    notes: tuple[str, ...]
    difference: float


def import_onnx(
    path: Path, import_options: ImportOptions, runner: ModelRunner | None = None
) -> ImportedModel:
    """Return an ONNX file as a spec with weights.

    Args:
        path: The file.
        import_options: Names, preprocessing, the input's size, and where to cut the file.
        runner: Cleans and runs ONNX files; None is what `sandbox` has for that.

    Raises:
        UserError: The file is wrong (E0901 to E0906), has operators that no step stands for
            (E0910, E0911), the spec would not compute what it does (E0920), or it cannot be
            run to see that (E0921).
        MissingTool: A library that is needed is not installed.
    """
    _check_tools()
    from tcc.compiler.importers.onnx_import import (
        conversion,
        graph_builder,
        inputs_outputs,
        operator_comparison,
        output_check,
        read_file,
        sandbox,
        spec_rebuild,
    )
    from tcc.compiler.importers.onnx_import.fusions import fuse
    from tcc.compiler.importers.onnx_import.simplify import simplify

    runner = runner or ModelRunner(sandbox.clean, sandbox.run_model)
    model = read_file.read_model(path)
    until = tuple(dict.fromkeys(import_options.until))
    inputs_outputs.check_values(path, model, until)
    source = inputs_outputs.resolve_input(path, model, import_options.shape)
    # Cleaned once: what is compared operator by operator below is this model, and the whole is
    # compared with the file as it came.
    cleaned, task_result = runner.clean(model)
    notes = _report_cleaning(path, task_result)
    graph = _parse_graph(path, cleaned)
    fuse(graph, until)
    name = import_options.name or graph_builder.to_identifier(path.stem, "network")
    try:
        converted = conversion.convert(graph, str(path), source, name)
    except UserError as error:
        raise _add_notes(error, path, notes) from None
    # Simplified as a graph and written as a text, which is then compiled as any spec: what the
    # import promises is said of what a user gets, not of a graph that only the importer saw.
    simplified, renamed_values = simplify(converted.model, converted.preferred_names)
    rebuilt = spec_rebuild.build_spec(simplified, path, import_options)
    rows = tuple(spec_rebuild.list_imported_operators(converted.origins, renamed_values, rebuilt))
    # Operators one by one first, as its message names the culprit; whole outputs after them.
    operator_comparison.check(path, cleaned, converted, runner)
    inputs_outputs.replace_outputs(model, until)
    difference, check_notes = output_check.compare_outputs(
        path, model, source, rebuilt, converted.pre_activations, import_options.preprocess, runner
    )
    text = (rebuilt.text, rebuilt.suffix)
    return ImportedModel(
        *text, rebuilt.spec, rebuilt.weights, rows, (*notes, *check_notes), difference
    )


def _check_tools() -> None:
    from importlib.util import find_spec

    for module, name in REQUIRED_LIBRARIES.items():
        if find_spec(module) is None:
            raise MissingTool(Tool(name, "import ONNX files", None))


def _report_cleaning(path: Path, task_result: "TaskResult") -> tuple[str, ...]:
    """Return what is to say of cleaning a model.

    Raises:
        UserError: It is no valid model (E0902).
    """
    if "checked" not in task_result.steps:
        # What ONNX's own checker refuses has no meaning that a spec could be held against.
        raise fail(
            "E0902",
            "this is no valid ONNX model",
            make_file_span(str(path)),
            label=task_result.problem,
        )
    if "simplified" not in task_result.steps:
        # A remark and no error: simplifying only computes what is constant, and conversion does
        # without wherever the file computes nothing of its shapes.
        return (
            f"onnxsim could not simplify the file, which is taken as it is: {task_result.problem}",
        )
    return ()


def _parse_graph(path: Path, model: "onnx.ModelProto") -> "gs.Graph":
    """Return a model as a graph to work on.

    Raises:
        UserError: Its parts are not well formed (E0902).
    """
    import onnx_graphsurgeon as gs

    try:
        return gs.import_onnx(model)
    except Exception as error:  # a broken tensor or attribute fails in any way at all
        label = " ".join(str(error).split())[:200]
        message = "this is no valid ONNX model"
        raise fail("E0902", message, make_file_span(str(path)), label=label) from None


def _add_notes(error: UserError, path: Path, notes: tuple[str, ...]) -> UserError:
    """Return an error with notes that may explain it."""
    span = make_file_span(str(path))
    warnings = (Diagnostic("E0902", note, span, severity="warning") for note in notes)
    return UserError((*error.diagnostics, *warnings))


__all__ = [
    "ImportOptions",
    "ImportedModel",
    "ModelRunner",
    "PreprocessOptions",
    "UserError",
    "import_onnx",
]
