"""Quantization-aware training, bit-exact with the integer program of the int8 model.

Each forward pass repeats a build: it applies the passes to the float weights and rounds them to
nearest into the integer program of a fixed calibration. PyTorch runs the program's operations on
quantized values. Gradients flow through the passes to the spec's float parameters. Batch norms are
folded with their current statistics, which do not change.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from tcc.compiler import passes
from tcc.compiler.bundle.manifest import WeightsOrigin
from tcc.compiler.data.weights import Weights, digest
from tcc.compiler.ir.graph import Graph, Input, Model, Node
from tcc.compiler.ir.op import ExactIntegerOp
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import DType
from tcc.compiler.lower.torch import TorchNetwork, copy_trained_weights
from tcc.compiler.lower.torch_layers import create_layer, find_last_uses
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.ops.integer.conv import is_exact_in_float32
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.channel_equalization import equalize_model
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.scale_groups import (
    MIN_SCALE,
    compute_scale,
    find_fused_clamps,
    find_output_values,
    find_scale_groups,
)
from tcc.compiler.train import integer_layers
from tcc.compiler.train.traced_arrays import TracedArray

RANGE_EXPONENTS = "range_exponents"
"""The parameter with the learned ranges; weights have a dot in their names."""


@dataclass(frozen=True, slots=True)
class DifferentiableProgram:
    """An integer program, its weights as tensors, and its convolutions that need float64 sums."""

    model: Model
    weights: Mapping[str, Tensor]
    wide: frozenset[str]
    device: torch.device


class FakeQuantizedNetwork(TorchNetwork):
    """A graph's module that computes the results of its integer program, with gradients.

    State dict and parameters are those of the float module. With `learns_ranges`, they also contain
    the exponents of the ranges: float32 (scale groups,). Each is the power of two by which the
    scale of a group differs from the calibration's. Train-only outputs and dropout are omitted, as
    in the program. Inputs are uint8 pixels, or the float module's normalised inputs, which are
    converted back to pixels.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        calibration: Calibration,
        *,
        learns_ranges: bool = False,
    ) -> None:
        super().__init__(graph, weights)
        self.start_calibration = calibration
        # Whether convolutions keep the quantized weights of the calibration, as a build does.
        self.keeps_rounding = False
        self.learned_values: Mapping[str, int] = {}
        # The calibration has no ranges for train-only nodes.
        self._inference_graph = extract_inference_graph(graph)
        self._prepared: tuple[Weights, DifferentiableProgram] | None = None
        if learns_ranges:
            lowered_graph = self._lower_model(self._copy_weights()).graph
            self.learned_values = list_learned_values(lowered_graph)
            group_count = max(self.learned_values.values(), default=-1) + 1
            setattr(self, RANGE_EXPONENTS, nn.Parameter(torch.zeros(group_count)))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, float32 (N, *shape), for inputs (N, *shape)."""
        program = self._build_program(inputs[0].device)
        graph = program.model.graph
        tensors = {
            source.name: _quantize_input(x, program_input, source)
            for x, program_input, source in zip(
                inputs, self.graph.inputs, graph.inputs, strict=True
            )
        }
        # No autocast, because sums rounded to bfloat16 would not be exact integers.
        with torch.autocast(inputs[0].device.type, enabled=False):
            output_values = (output.value for output in graph.outputs)
            # Each quantized value takes four bytes here: free a tensor after its last use.
            dead_names_by_node = find_last_uses(
                (node.inputs for node in graph.nodes), output_values
            )
            for node, dead_names in zip(graph.nodes, dead_names_by_node, strict=True):
                tensors[node.name] = self._run_node(program, node, tensors)
                for name in dead_names:
                    del tensors[name]
        return {output.name: tensors[output.value] for output in graph.outputs}

    @property
    def calibration(self) -> Calibration:
        """The calibration with the current ranges."""
        if not self.learned_values:
            return self.start_calibration
        factors = np.exp2(self._copy_exponents().astype(np.float64))
        ranges = dict(self.start_calibration.ranges)
        for name, index in self.learned_values.items():
            scale = float(np.float32(max(ranges[name].scale * factors[index], MIN_SCALE)))
            ranges[name] = replace(ranges[name], scale=scale)
        return replace(self.start_calibration, ranges=ranges)

    @contextmanager
    def use_calibrated_rounding(self) -> Iterator[None]:
        """Compute the program that a build makes of the calibration, before any training."""
        self.keeps_rounding, self._prepared = True, None
        try:
            yield
        finally:
            self.keeps_rounding, self._prepared = False, None

    def compute_calibration(self) -> Calibration:
        """Return the calibration with the rounded values of the current weights."""
        with torch.no_grad():
            return self._round_weights(self._lower_model(self._copy_weights()))[1]

    def widen_output_ranges(self, output_peaks: Mapping[str, float]) -> Mapping[str, Range]:
        """Return the ranges of values that only outputs read, where they are too narrow.

        Args:
            output_peaks: The largest magnitude of each output, by its name.
        """
        lowered_graph = self._lower_model(self._copy_weights()).graph
        output_values, ranges = find_output_values(lowered_graph), self.calibration.ranges
        peaks = {
            output.value: output_peaks[output.name]
            for output in lowered_graph.outputs
            if output.name in output_peaks
        }
        widened_ranges: dict[str, Range] = {}
        for group in find_scale_groups(lowered_graph):
            value_range = ranges[group[0]]
            peak = max((peaks[name] for name in group if name in peaks), default=0.0)
            if output_values.issuperset(group) and peak > value_range.scale * value_range.limits[1]:
                scale = compute_scale(peak, value_range.signed)
                widened_ranges |= dict.fromkeys(group, replace(value_range, scale=scale))
        return widened_ranges

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the cached program."""
        return {**self.__dict__, "_prepared": None}

    def _run_node(
        self, program: DifferentiableProgram, node: Node, tensors: Mapping[str, Tensor]
    ) -> Tensor:
        graph = program.model.graph
        types = graph.get_input_types(node)
        operands = tuple(tensors[input_name] for input_name in node.inputs)
        weights = tuple(program.weights[name] for name in node.params)
        is_integer_op = not node.op.moves and isinstance(node.op, ExactIntegerOp)
        if is_integer_op and any(kind.dtype is not DType.F32 for kind in (*types, node.type)):
            # CUDA kernels may transform their operands, which rounds float32.
            wide = node.name in program.wide or (operands[0].is_cuda and not self.training)
            index = self.learned_values.get(node.name)
            exponent = None if index is None else getattr(self, RANGE_EXPONENTS)[index]
            return integer_layers.run_integer_op(
                node.op, types, operands, weights, wide=wide, exponent=exponent
            )
        float_layer = create_layer(graph, node).eval()
        roles = (param.role for param in node.op.params(*types))
        output: Tensor = functional_call(
            float_layer, dict(zip(roles, weights, strict=True)), operands
        )
        return output

    def _build_program(self, device: torch.device) -> DifferentiableProgram:
        """Return the program of the current weights; it is rebuilt if gradients are enabled."""
        if torch.is_grad_enabled():
            traced_weights = {name: TracedArray(t) for name, t in self.named_weights().items()}
            return self._build_traced_program(self._lower_model(traced_weights), device)
        arrays = self._copy_weights()
        if self.learned_values:
            arrays[RANGE_EXPONENTS] = self._copy_exponents()
        # Compare values, because tensors change in place and reuse each other's memory.
        if (
            self._prepared
            and self._prepared[1].device == device
            and _has_equal_weights(self._prepared[0], arrays)
        ):
            return self._prepared[1]
        program = self._build_traced_program(self._lower_model(arrays), device)
        self._prepared = arrays, program
        return program

    def _copy_exponents(self) -> NDArray[np.float32]:
        exponents: NDArray[np.float32] = (
            getattr(self, RANGE_EXPONENTS).detach().cpu().numpy().copy()
        )
        return exponents

    def _copy_weights(self) -> dict[str, Any]:
        return {n: t.detach().float().cpu().numpy().copy() for n, t in self.named_weights().items()}

    def _lower_model(self, weights: Mapping[str, Any]) -> Model:
        """Return the lowered model of weights, traced or not."""
        inference_model = Model(
            self._inference_graph, {name: weights[name] for name in self._inference_graph.params}
        )
        return reduce(lambda model, step: step(model), passes.INT8, inference_model)

    def _round_weights(self, lowered_model: Model) -> tuple[Model, Calibration]:
        """Return a lowered model with equalised channels, and the calibration with its weights."""
        equalized_model = equalize_model(lowered_model, self.calibration.factors)
        calibration = self.calibration
        rounded = dict(round_nearest(_detach_model(equalized_model), calibration.ranges))
        if self.keeps_rounding:
            rounded |= calibration.rounded
        return equalized_model, replace(calibration, rounded=rounded)

    def _build_traced_program(
        self, lowered_model: Model, device: torch.device
    ) -> DifferentiableProgram:
        equalized_model, calibration = self._round_weights(lowered_model)
        model = quantize(_detach_model(lowered_model), calibration)
        weights = {
            name: torch.tensor(np.asarray(array, np.float32), device=device)
            for name, array in model.weights.items()
        }
        wide_names = (node.name for node in model.graph.nodes if _is_wide(model, node))
        traced_weights = _build_traced_weights(lowered_model, equalized_model, model, calibration)
        return DifferentiableProgram(
            model, {**weights, **traced_weights}, frozenset(wide_names), device
        )


def build_trained_calibration(
    network: FakeQuantizedNetwork,
    document: CalibrationDocument,
    output_peaks: Mapping[str, float] | None = None,
) -> CalibrationDocument:
    """Return the calibration document of a network after quantization-aware training.

    A build with this document and the network's weights is bit-exact with the network in evaluation
    mode. The document omits evaluations from before the training: the build evaluates again.

    Args:
        network: The trained network.
        document: The document of the network's calibration.
        output_peaks: The largest magnitude of each output, by its name. Their ranges are widened to
            contain it, because a target with 8-bit outputs clips larger values.

    Raises:
        UserError: A weight is not finite (E0506), or a sum could overflow (E0802).
    """
    tensors = copy_trained_weights(network)
    origin = WeightsOrigin("file", digest(tensors), None, None, None)
    calibration = network.compute_calibration()
    ranges = {**calibration.ranges, **network.widen_output_ranges(output_peaks or {})}
    values = {
        name: value
        if value.scale == ranges[name].scale
        # The trace describes how the calibration computed its own scale.
        else msgspec.structs.replace(value, scale=ranges[name].scale, trace=None)
        for name, value in document.values.items()
    }
    return calibration_file.build_retrained_document(
        msgspec.structs.replace(document, values=values), calibration, origin
    )


def _has_equal_weights(cached_weights: Weights, weights: Weights) -> bool:
    return all(np.array_equal(array, weights[name]) for name, array in cached_weights.items())


def _detach_model(model: Model) -> Model:
    """Return a model with plain arrays as weights, without gradients."""
    return Model(model.graph, {name: _to_array(array) for name, array in model.weights.items()})


def _to_array(array: Any) -> NDArray[np.float32]:
    match array:
        case TracedArray(tensor=tensor):
            numbers: NDArray[np.float32] = tensor.detach().cpu().numpy()
            return numbers
        case _:
            return np.asarray(array)


def _build_traced_weights(
    lowered_model: Model, equalized_model: Model, program: Model, calibration: Calibration
) -> dict[str, Tensor]:
    """Return the program's weights that are computed from traced weights, with gradients."""
    clamps = find_fused_clamps(lowered_model.graph)
    lowered_nodes = {node.name: node for node in lowered_model.graph.nodes}
    traced_weights: dict[str, Tensor] = {}

    def add_weight(name: str, source: Any, slope: Any) -> None:
        if isinstance(source, TracedArray):
            quantized = program.weights[name]
            traced_weights[name] = integer_layers.replace_values(source.tensor, quantized, slope)

    for node in program.graph.nodes:
        match node.op:
            case QConv() | RealConv():
                owner = lowered_nodes[clamps.get(node.name, node.name)]
                weight, bias = (equalized_model.weights[name] for name in owner.params)
                scale = calibration.rounded[owner.name].scale.astype(np.float64)
                step = scale * calibration.ranges[owner.inputs[0]].scale
                add_weight(node.params[0], weight, 1 / scale[:, None, None, None])
                add_weight(node.params[2], bias, 1 / step)
            case op:
                lowered_node = lowered_nodes.get(node.name.removesuffix(":float"))
                if lowered_node is not None and lowered_node.op == op:
                    for name, source in zip(node.params, lowered_node.params, strict=True):
                        add_weight(name, lowered_model.weights[source], 1.0)
    return traced_weights


def _is_wide(program: Model, node: Node) -> bool:
    """Whether a sum of products could exceed the exact integer range of float32."""
    match node.op:
        case QConv() | RealConv():
            weight, _, bias = (program.weights[name] for name in node.params)
            (input_type,) = program.graph.get_input_types(node)
            return not is_exact_in_float32(weight, bias, max(map(abs, input_type.limits)))
        case _:
            return False


def _quantize_input(tensor: Tensor, float_input: Input, network_input: Input) -> Tensor:
    """Return the program's input: the pixel values, if the input is a normalised image."""
    if network_input.type.dtype is DType.F32 or tensor.dtype is torch.uint8:
        return tensor.to(torch.float32)
    preprocess = float_input.preprocess
    assert preprocess is not None
    mean, std = (
        torch.tensor(
            np.broadcast_to(np.array(v, np.float32), tensor.shape[1]).copy(), device=tensor.device
        )
        for v in (preprocess.mean, preprocess.std)
    )
    pixels = (tensor * std[:, None, None] + mean[:, None, None]) * 255
    return integer_layers.round_straight_through(pixels, 0, 255)


def list_learned_values(lowered_graph: Graph) -> Mapping[str, int]:
    """Return the values whose ranges can be learned, with the index of their scale group.

    Not those of the input, whose quantized values are pixels, nor those that only outputs read.
    """
    fixed = {network_input.name for network_input in lowered_graph.inputs}
    fixed |= find_output_values(lowered_graph)
    groups = [g for g in find_scale_groups(lowered_graph) if not fixed.intersection(g)]
    return {name: index for index, group in enumerate(groups) for name in group}
