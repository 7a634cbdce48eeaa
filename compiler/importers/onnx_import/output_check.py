"""An imported spec is held against its file: both are run on the same inputs."""

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
"""Largest difference of an output, relative to what the input changes of it at most: an output of
large constants must not hide that what varies is wrong."""
ROUNDING = 3e-5
"""Difference of an output that rounding explains, relative to the largest of its values: of 3,120
outputs of the tests' files none differed by more than 4.7e-6."""
MIN_OUTPUT_CHANGE = 1e-4
"""What an input changes of an output, relative to its largest value, if it shows little."""
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
    """Return how far a spec's outputs are from its file's, and what is to say of the comparison.

    Args:
        path: The file, for diagnostics.
        model: The file, whose outputs may be added to.
        source: Its input.
        rebuilt: The spec.
        pre_activations: What enters the activation of outputs, by the spec's name of the output.
        contract: What the spec says of preprocessing.
        runner: What runs the file.

    Raises:
        UserError: They are further apart than rounding explains (E0920), or the file cannot be
            run (E0921).
    """
    graph = rebuilt.spec.graph
    compared_outputs = _list_compared_outputs(model, graph, pre_activations)
    tensors = list(iterate_probes(graph.inputs[0].type, contract))
    file_runs, task_result = runner.run(model, [{source.name: source.to_batch(t)} for t in tensors])
    if not file_runs:
        raise make_run_error(path, task_result.problem)
    # On ONNX Runtime without optimisations, as the file is: what differs is the network and not the
    # order of sums.
    spec_runs = float_program.run(Model(graph, rebuilt.weights), tensors)
    max_difference, is_constant = 0.0, True
    for compared_output in compared_outputs:
        spec_outputs = [compared_output.get_spec_output(run) for run in spec_runs]
        file_outputs = [compared_output.get_file_output(run) for run in file_runs]
        max_difference = max(
            max_difference, *map(_compute_relative_difference, spec_outputs, file_outputs)
        )
        is_constant &= _check_outputs(path, compared_output, spec_outputs, file_outputs)
    note = "on the inputs tried, the outputs hardly change: each operator was compared by itself"
    return max_difference, (note,) if is_constant else ()


@dataclass(frozen=True, slots=True)
class _ComparedOutput:
    """A value at which both are compared."""

    output: Output
    name: str
    view: View | None = None

    def get_spec_output(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        raw = run[self.output.name]
        return apply_activation("none" if self.view else self.output.activation, raw)

    def get_file_output(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        file_output = np.asarray(run[self.name], np.float64)
        # A file's outputs may lack the batch axis, or be one number.
        if self.view is None:
            return file_output[0] if file_output.ndim else file_output
        arranged = np.empty(self.view.type.elements)
        arranged[self.view.compute_positions().ravel()] = file_output.ravel()
        return arranged.reshape(self.view.type.shape)


def _list_compared_outputs(
    model: "onnx.ModelProto", graph: Graph, pre_activations: Mapping[str, PreActivation]
) -> list[_ComparedOutput]:
    """Return the outputs of both, before their activation as well where the file holds that."""
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
    """Refuse outputs that are too far apart; return whether they hardly change."""
    is_constant = True
    for spec_output, file_output in zip(spec_outputs, file_outputs, strict=True):
        magnitude = _find_magnitude(file_output)
        change = (
            _find_magnitude(file_output - file_outputs[0])
            if file_output.shape == file_outputs[0].shape
            else 0.0
        )
        is_constant &= change <= MIN_OUTPUT_CHANGE * magnitude
        # A share of what varies and a share of the whole: the one finds errors that large constants
        # would hide, the other allows for the rounding that these bring.
        difference = measure_distance(
            spec_output, file_output, max(TOLERANCE * change + ROUNDING * magnitude, 1e-30)
        )
        if difference > 1:
            suffix = (
                f" before its {compared_output.output.activation}" if compared_output.view else ""
            )
            description = (
                f"differs by {_compute_relative_difference(spec_output, file_output):.2g} of "
                "the largest"
            )
            raise fail(
                "E0920",
                "the spec would not compute what the file does",
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


def iterate_probes(kind: TensorType, contract: PreprocessOptions | None) -> Iterator[Tensor]:
    """Yield the inputs that are tried: nothing at all, noise of several sizes, pixels, extremes.

    The first is all zeros, to which the change of an output is taken.
    """
    shape = kind.shape
    random = np.random.default_rng(0)
    yield np.zeros(shape, np.float32)
    # Small ones stay in the middle of activations, large ones reach their ends.
    for size in (1.0, 1.0, 0.01, 100.0):
        yield random.standard_normal(shape, np.float32) * np.float32(size)
    mean, std = _get_scaling(shape[0], contract)
    yield ((random.random(shape, np.float32) - mean) / std).astype(np.float32)
    # White all over: borders show, as zeros around a constant image.
    yield np.broadcast_to((1 - mean) / std, shape).astype(np.float32)
    # One pixel in the last corner: only windows at the ends of the map see it.
    corner = np.zeros(shape, np.float32)
    corner[:, -1, -1] = 1
    yield corner
    # One channel alone: channels in another order show, and what is below 0.
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
