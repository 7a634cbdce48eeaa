"""An imported spec is held against its file: both are run on the same inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.foreign.onnx_import.conversion import PreActivation
from tcc.compiler.foreign.onnx_import.inputs_outputs import GraphInput, add_output
from tcc.compiler.foreign.onnx_import.operator_comparison import distance, unrun
from tcc.compiler.foreign.onnx_import.options import ModelRunner, PreprocessOptions
from tcc.compiler.foreign.onnx_import.spec_rebuild import RebuiltSpec
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.types import TensorType
from tcc.compiler.reference import float_program
from tcc.compiler.reference.output_activations import applied
from tcc.compiler.support.diagnostics import fail, whole_file

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-3
"""Largest difference of an output, relative to what the input changes of it at most: an output of
large constants must not hide that what varies is wrong."""
ROUNDING = 3e-5
"""Difference of an output that rounding explains, relative to the largest of its values: of 3,120
outputs of the tests' files none differed by more than 4.7e-6."""
COLLAPSED = 1e-4
"""What an input changes of an output, relative to its largest value, if it shows little."""
Tensor = NDArray[np.float32]


def largest_difference(
    path: Path,
    model: "onnx.ModelProto",
    source: GraphInput,
    made: RebuiltSpec,
    raws: Mapping[str, PreActivation],
    contract: PreprocessOptions | None,
    runner: ModelRunner,
) -> tuple[float, tuple[str, ...]]:
    """Return how far a spec's outputs are from its file's, and what is to say of the comparison.

    Args:
        path: The file, for diagnostics.
        model: The file, whose outputs may be added to.
        source: Its input.
        made: The spec.
        raws: What enters the activation of outputs, by the spec's name of the output.
        contract: What the spec says of preprocessing.
        runner: What runs the file.

    Raises:
        UserError: They are further apart than rounding explains (E0920), or the file cannot be
            run (E0921).
    """
    graph = made.spec.graph
    ends = _ends(model, graph, raws)
    tensors = list(probes(graph.inputs[0].type, contract))
    theirs, done = runner.outputs(model, [{source.name: source.arranged(t)} for t in tensors])
    if not theirs:
        raise unrun(path, done.problem)
    # On ONNX Runtime without optimisations, as the file is: what differs is the network and not the
    # order of sums.
    ours = float_program.run(Model(graph, made.weights), tensors)
    furthest, still = 0.0, True
    for end in ends:
        own = [end.own(run) for run in ours]
        other = [end.other(run) for run in theirs]
        furthest = max(furthest, *map(_relative, own, other))
        still &= _judge(path, end, own, other)
    note = "on the inputs tried, the outputs hardly change: each operator was compared by itself"
    return furthest, (note,) if still else ()


@dataclass(frozen=True, slots=True)
class _End:
    """A value at which both are compared."""

    output: Output
    name: str
    view: View | None = None

    def own(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        raw = run[self.output.name]
        return applied("none" if self.view else self.output.activation, raw)

    def other(self, run: Mapping[str, Tensor]) -> NDArray[np.float64]:
        found = np.asarray(run[self.name], np.float64)
        # A file's outputs may lack the batch axis, or be one number.
        if self.view is None:
            return found[0] if found.ndim else found
        shown = np.empty(self.view.type.elements)
        shown[self.view.positions().ravel()] = found.ravel()
        return shown.reshape(self.view.type.shape)


def _ends(model: "onnx.ModelProto", graph: Graph, raws: Mapping[str, PreActivation]) -> list[_End]:
    """Return the outputs of both, before their activation as well where the file holds that."""
    ends = [_End(o, v.name) for o, v in zip(graph.outputs, model.graph.output, strict=True)]
    here = {name for node in model.graph.node for name in node.output}
    for output in graph.outputs:
        raw = raws.get(output.name)
        if raw is not None and raw.name in here:
            ends.append(_End(output, raw.name, raw.view))
            add_output(model, raw.name)
    return ends


def _judge(
    path: Path, end: _End, own: list[NDArray[np.float64]], other: list[NDArray[np.float64]]
) -> bool:
    """Refuse outputs that are too far apart; return whether they hardly change."""
    still = True
    for mine, their in zip(own, other, strict=True):
        largest = _largest(their)
        change = _largest(their - other[0]) if their.shape == other[0].shape else 0.0
        still &= change <= COLLAPSED * largest
        # A share of what varies and a share of the whole: the one finds errors that large constants
        # would hide, the other allows for the rounding that these bring.
        apart = distance(mine, their, max(TOLERANCE * change + ROUNDING * largest, 1e-30))
        if apart > 1:
            before = f" before its {end.output.activation}" if end.view else ""
            found = f"differs by {_relative(mine, their):.2g} of the largest"
            raise fail(
                "E0920",
                "the spec would not compute what the file does",
                whole_file(str(path)),
                label=f"its output `{end.output.name}`{before} {found}",
                help="please report this with the file; nothing was written",
            )
    return still


def _relative(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return distance(own, other, max(_largest(other), 1e-30))


def _largest(tensor: NDArray[np.float64]) -> float:
    return float(np.abs(np.where(np.isfinite(tensor), tensor, 0)).max(initial=0.0))


def probes(kind: TensorType, contract: PreprocessOptions | None) -> Iterator[Tensor]:
    """Yield the inputs that are tried: nothing at all, noise of several sizes, pixels, extremes.

    The first is all zeros, to which the change of an output is taken.
    """
    shape = kind.shape
    random = np.random.default_rng(0)
    yield np.zeros(shape, np.float32)
    # Small ones stay in the middle of activations, large ones reach their ends.
    for size in (1.0, 1.0, 0.01, 100.0):
        yield random.standard_normal(shape, np.float32) * np.float32(size)
    mean, std = _scaling(shape[0], contract)
    yield ((random.random(shape, np.float32) - mean) / std).astype(np.float32)
    # White all over: borders show, as zeros around a constant image.
    yield np.broadcast_to((1 - mean) / std, shape).astype(np.float32)
    # One pixel in the last corner: only windows at the ends of the map see it.
    corner = np.zeros(shape, np.float32)
    corner[:, -1, -1] = 1
    yield corner
    # One channel alone: channels in another order show, and what is below 0.
    one = np.zeros(shape, np.float32)
    one[0] = -1
    yield one


def _scaling(channels: int, contract: PreprocessOptions | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, shaped to broadcast."""
    mean = contract.mean if contract and contract.mean else (0.0,)
    std = contract.std if contract and contract.std else (1.0,)
    return _per_channel(mean, channels), _per_channel(std, channels)


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    column = np.asarray(values, np.float32)[:, None, None]
    return np.broadcast_to(column, (channels, 1, 1))
