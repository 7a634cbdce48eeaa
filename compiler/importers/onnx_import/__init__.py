"""Import an ONNX classifier as a spec and weights that compute the same.

`read_file` and `inputs_outputs` read the file, and `sandbox` cleans it. `fusions` and `conversion`
convert operators to tcc's ops. `simplify`, `spec_rebuild` and `spec_writer` write a spec.
`operator_comparison` and `output_check` compare it with the file.
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
"""Optional dependencies: module and distribution names."""


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A spec's text, its weights, and the step of each operator.

    `suffix` is the suffix of the spec's file: `.yaml`, or `.json` for a large spec. `difference`
    is the largest difference between the outputs of file and spec, relative to the largest
    output.
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
        runner: Cleans and runs ONNX files; None uses `sandbox`.

    Raises:
        UserError: The file is wrong (E0901 to E0906), has unsupported operators (E0910, E0911),
            the spec does not compute the same (E0920), or the file cannot be run for the
            comparison (E0921).
        MissingTool: A required library is not installed.
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
    # Cleaned once. The operators below are compared with this model, and the outputs with the
    # original file.
    cleaned, task_result = runner.clean(model)
    notes = _report_cleaning(path, task_result)
    graph = _parse_graph(path, cleaned)
    fuse(graph, until)
    name = import_options.name or graph_builder.to_identifier(path.stem, "network")
    try:
        converted = conversion.convert(graph, str(path), source, name)
    except UserError as error:
        raise _add_notes(error, path, notes) from None
    # The simplified graph is written as text and compiled like any spec, so that the comparison
    # covers what the user gets and not an internal graph.
    simplified, renamed_values = simplify(converted.model, converted.preferred_names)
    rebuilt = spec_rebuild.build_spec(simplified, path, import_options)
    rows = tuple(spec_rebuild.list_imported_operators(converted.origins, renamed_values, rebuilt))
    # Operators first, because that message names the wrong operator; then the outputs.
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
    """Return notes about cleaning a model.

    Raises:
        UserError: It is not a valid model (E0902).
    """
    if "checked" not in task_result.steps:
        # A file that ONNX's own checker rejects has no defined meaning to compare with.
        raise fail(
            "E0902",
            "this is not a valid ONNX model",
            make_file_span(str(path)),
            label=task_result.problem,
            help="export the network again",
        )
    if "simplified" not in task_result.steps:
        # Not an error: simplifying only computes constants. Conversion works without it if the
        # file does not compute shapes.
        return (
            "onnxsim could not simplify the file; it is imported without this step:"
            f" {task_result.problem}",
        )
    return ()


def _parse_graph(path: Path, model: "onnx.ModelProto") -> "gs.Graph":
    """Return a model as an editable graph.

    Raises:
        UserError: Its parts are invalid (E0902).
    """
    import onnx_graphsurgeon as gs

    try:
        return gs.import_onnx(model)
    except Exception as error:  # a broken tensor or attribute can raise any exception
        label = " ".join(str(error).split())[:200]
        message = "this is not a valid ONNX model"
        help = "export the network again"
        raise fail("E0902", message, make_file_span(str(path)), label=label, help=help) from None


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
