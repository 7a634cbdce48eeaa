"""Compare an imported spec with its file: run both on the same inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.conversion import PreActivation
from tcc.compiler.importers.onnx_import.inputs_outputs import GraphInput, add_output
from tcc.compiler.importers.onnx_import.operator_comparison import make_run_error, measure_distance
from tcc.compiler.importers.onnx_import.options import ModelRunner, PreprocessOptions
from tcc.compiler.importers.onnx_import.spec_rebuild import RebuiltSpec
from tcc.compiler.importers.onnx_import.tensor_view import View
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.types import TensorType
from tcc.compiler.reference import float_program
from tcc.compiler.reference.output_activations import apply_activation
from tcc.compiler.support.diagnostics import fail, make_file_span

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-3
"""Maximum difference of an output, relative to its largest change between inputs. Relative to the
change, because large constants in an output must not hide errors in the part that varies."""
ROUNDING = 3e-5
"""Maximum rounding difference of an output, relative to its largest value. None of 3,120 outputs
of the test files differed by more than 4.7e-6."""
MIN_OUTPUT_CHANGE = 1e-4
"""Changes of an output below this, relative to its largest value, are too small to show errors."""
Tensor = NDArray[np.float32]


def compare_outputs(
    path: Path,
    model: "onnx.ModelProto",
    source: GraphInput,
    rebuilt: RebuiltSpec,
    pre_activations: Mapping[str, PreActivation],
    contract: PreprocessOptions | None,
    runner: ModelRunner,
) -> tuple[float, tuple[str, ...]]:
    """Return the largest relative difference of the outputs, and notes on the comparison.

    Args:
        path: The file, for diagnostics.
        model: The file's model; outputs may be added to it.
        source: Its input.
        rebuilt: The spec.
        pre_activations: Inputs of the outputs' activations, by name of the output in the spec.
        contract: The spec's preprocessing.
        runner: Runs the file.

    Raises:
        UserError: The difference is larger than rounding explains (E0920), or the file cannot be
            run (E0921).
    """
    graph = rebuilt.spec.graph
    compared_outputs = _list_compared_outputs(model, graph, pre_activations)
    tensors = list(iterate_probes(graph.inputs[0].type, contract))
    file_runs, task_result = runner.run(model, [{source.name: source.to_batch(t)} for t in tensors])
    if not file_runs:
        raise make_run_error(path, task_result.problem)
    # On ONNX Runtime without optimizations, like the file: differences then come from the network,
    # not from the order of sums.
    spec_runs = float_program.run(Model(graph, rebuilt.weights), tensors)
    max_difference, is_constant = 0.0, True
    for compared_output in compared_outputs:
        spec_outputs = [compared_output.get_spec_output(run) for run in spec_runs]
        file_outputs = [compared_output.get_file_output(run) for run in file_runs]
        max_difference = max(
            max_difference, *map(_compute_relative_difference, spec_outputs, file_outputs)
        )
        is_constant &= _check_outputs(path, compared_output, spec_outputs, file_outputs)
    note = "the outputs hardly change between the test inputs; the check relies on single operators"
    return max_difference, (note,) if is_constant else ()


@dataclass(frozen=True, slots=True)
class _ComparedOutput:
    """A value that is compared between file and spec."""

    output: Output
    name: str
    view: View | None = None

    def get_spec_output(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        raw = run[self.output.name]
        return apply_activation("none" if self.view else self.output.activation, raw)

    def get_file_output(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        file_output = np.asarray(run[self.name], np.float64)
        # A file's outputs may have no batch axis, or be a scalar.
        if self.view is None:
            return file_output[0] if file_output.ndim else file_output
        arranged = np.empty(self.view.type.elements)
        arranged[self.view.compute_positions().ravel()] = file_output.ravel()
        return arranged.reshape(self.view.type.shape)


def _list_compared_outputs(
    model: "onnx.ModelProto", graph: Graph, pre_activations: Mapping[str, PreActivation]
) -> list[_ComparedOutput]:
    """Return the outputs of both, and the inputs of their activations if the file has these."""
    compared_outputs = [
        _ComparedOutput(o, v.name) for o, v in zip(graph.outputs, model.graph.output, strict=True)
    ]
    file_values = {name for node in model.graph.node for name in node.output}
    for output in graph.outputs:
        pre_activation = pre_activations.get(output.name)
        if pre_activation is not None and pre_activation.name in file_values:
            compared_outputs.append(
                _ComparedOutput(output, pre_activation.name, pre_activation.view)
            )
            add_output(model, pre_activation.name)
    return compared_outputs


def _check_outputs(
    path: Path,
    compared_output: _ComparedOutput,
    spec_outputs: list[NDArray[np.float64]],
    file_outputs: list[NDArray[np.float64]],
) -> bool:
    """Refuse outputs that differ too much; return whether they hardly change."""
    is_constant = True
    for spec_output, file_output in zip(spec_outputs, file_outputs, strict=True):
        magnitude = _find_magnitude(file_output)
        change = (
            _find_magnitude(file_output - file_outputs[0])
            if file_output.shape == file_outputs[0].shape
            else 0.0
        )
        is_constant &= change <= MIN_OUTPUT_CHANGE * magnitude
        # A share of the change plus a share of the magnitude. The first finds errors that large
        # constants would hide; the second allows for the rounding of these constants.
        difference = measure_distance(
            spec_output, file_output, max(TOLERANCE * change + ROUNDING * magnitude, 1e-30)
        )
        if difference > 1:
            suffix = (
                f" before its {compared_output.output.activation}" if compared_output.view else ""
            )
            description = (
                f"differs by {_compute_relative_difference(spec_output, file_output):.2g} of "
                "its largest value"
            )
            raise fail(
                "E0920",
                "the imported spec does not compute the same values as the file",
                make_file_span(str(path)),
                label=f"its output `{compared_output.output.name}`{suffix} {description}",
                help="please report this with the file; nothing was written",
            )
    return is_constant


def _compute_relative_difference(
    actual: NDArray[np.float64], expected: NDArray[np.float64]
) -> float:
    return measure_distance(actual, expected, max(_find_magnitude(expected), 1e-30))


def _find_magnitude(tensor: NDArray[np.float64]) -> float:
    return float(np.abs(np.where(np.isfinite(tensor), tensor, 0)).max(initial=0.0))


def iterate_probes(tensor_type: TensorType, contract: PreprocessOptions | None) -> Iterator[Tensor]:
    """Yield the test inputs: zeros, noise of several scales, pixels, and extreme inputs.

    The first is all zeros; changes of an output are relative to it.
    """
    shape = tensor_type.shape
    random = np.random.default_rng(0)
    yield np.zeros(shape, np.float32)
    # Small noise stays in the middle range of activations, large noise reaches their limits.
    for size in (1.0, 1.0, 0.01, 100.0):
        yield random.standard_normal(shape, np.float32) * np.float32(size)
    mean, std = _get_scaling(shape[0], contract)
    yield ((random.random(shape, np.float32) - mean) / std).astype(np.float32)
    # A white image: zero padding shows as a border around it.
    yield np.broadcast_to((1 - mean) / std, shape).astype(np.float32)
    # One pixel in the last corner: only windows at the end of the map include it.
    corner = np.zeros(shape, np.float32)
    corner[:, -1, -1] = 1
    yield corner
    # One negative channel: shows a wrong order of channels, and tests values below 0.
    negative_channel = np.zeros(shape, np.float32)
    negative_channel[0] = -1
    yield negative_channel


def _get_scaling(channels: int, contract: PreprocessOptions | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, shaped to broadcast."""
    mean = contract.mean if contract and contract.mean else (0.0,)
    std = contract.std if contract and contract.std else (1.0,)
    return _expand_to_channels(mean, channels), _expand_to_channels(std, channels)


def _expand_to_channels(numbers: tuple[float, ...], channels: int) -> Tensor:
    column = np.asarray(numbers, np.float32)[:, None, None]
    return np.broadcast_to(column, (channels, 1, 1))
