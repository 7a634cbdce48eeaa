"""A network in training that computes what its integer program will: to the bit.

Each forward pass goes the way of a build: the spec's weights go through the passes and are rounded
to nearest into the integer program of a fixed calibration, whose operations run on levels in torch.
The parameters are the spec's, in float, and gradients reach them through the passes
themselves. Batch norms are folded with the statistics that they have, and stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from tcc.compiler import passes
from tcc.compiler.bundle.manifest import WeightsOrigin
from tcc.compiler.data.weights import Weights, digest
from tcc.compiler.ir.graph import Graph, Input, Model, Node
from tcc.compiler.ir.op import Exact
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.ir.types import DType
from tcc.compiler.lower.torch import TorchNetwork, trained_weights
from tcc.compiler.lower.torch_layers import last_readings, layer
from tcc.compiler.ops.integer import QConv, RealConv
from tcc.compiler.ops.integer.conv import fits
from tcc.compiler.quant import calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.channel_equalization import equalized
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest
from tcc.compiler.quant.scale_groups import fused_clamps
from tcc.compiler.train import integer_layers
from tcc.compiler.train.traced_arrays import TracedArray


@dataclass(frozen=True, slots=True)
class LiveProgram:
    """An integer program, its weights as tensors, and the convolutions whose sums are wide."""

    model: Model
    weights: Mapping[str, Tensor]
    wide: frozenset[str]
    device: torch.device


class FakeQuantizedNetwork(TorchNetwork):
    """The module of a graph as its integer program computes it, with gradients.

    State dict and parameters are those of the float module. Train-only outputs and dropout are
    left out, as in the program. Inputs are the float module's, of which grey levels are made again,
    or uint8 grey levels.
    """

    def __init__(self, graph: Graph, weights: Weights, calibration: Calibration) -> None:
        super().__init__(graph, weights)
        self.calibration = calibration
        # Calibration has no ranges for what is there in training alone.
        self._lean = for_inference(graph)
        self._ready: tuple[Weights, LiveProgram] | None = None

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, float32 (N, *shape), of inputs (N, *shape)."""
        program = self._program(inputs[0].device)
        graph = program.model.graph
        values = {
            source.name: _entered(x, own, source)
            for x, own, source in zip(inputs, self.graph.inputs, graph.inputs, strict=True)
        }
        # Rounded to bfloat16, sums would be no integers any more.
        with torch.autocast(inputs[0].device.type, enabled=False):
            kept = (output.value for output in graph.outputs)
            # Each level takes four bytes here: a value is let go once nothing reads it.
            lasts = last_readings((node.inputs for node in graph.nodes), kept)
            for node, last in zip(graph.nodes, lasts, strict=True):
                values[node.name] = self._node(program, node, values)
                for name in last:
                    del values[name]
        return {output.name: values[output.value] for output in graph.outputs}

    def trained_calibration(self) -> Calibration:
        """Return the calibration with the integer weights of the weights as they are."""
        with torch.no_grad():
            return self._rounded(self._prepared(self._values()))[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the program out, which is made again."""
        return {**self.__dict__, "_ready": None}

    def _node(self, program: LiveProgram, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        graph = program.model.graph
        types = graph.input_types(node)
        xs = tuple(values[value] for value in node.inputs)
        own = tuple(program.weights[name] for name in node.params)
        computes = not node.op.moves and isinstance(node.op, Exact)
        if computes and any(kind.dtype is not DType.F32 for kind in (*types, node.type)):
            # CUDA's kernels may transform what they multiply, which rounds float32.
            wide = node.name in program.wide or (xs[0].is_cuda and not self.training)
            return integer_layers.integer(node.op, types, xs, own, wide=wide)
        made = layer(graph, node).eval()
        roles = (param.role for param in node.op.params(*types))
        found: Tensor = functional_call(made, dict(zip(roles, own, strict=True)), xs)
        return found

    def _program(self, device: torch.device) -> LiveProgram:
        """Return the program of the weights as they are: made anew where gradients are wanted."""
        if torch.is_grad_enabled():
            traced = {name: TracedArray(t) for name, t in self.named_weights().items()}
            return self._live(self._prepared(traced), device)
        values = self._values()
        # By the numbers themselves: tensors change in place, and come in each other's memory.
        if self._ready and self._ready[1].device == device and _equal(self._ready[0], values):
            return self._ready[1]
        live = self._live(self._prepared(values), device)
        self._ready = values, live
        return live

    def _values(self) -> dict[str, Any]:
        return {n: t.detach().float().cpu().numpy().copy() for n, t in self.named_weights().items()}

    def _prepared(self, weights: Mapping[str, Any]) -> Model:
        """Return the ready model of weights, traced or not."""
        lean = Model(self._lean, {name: weights[name] for name in self._lean.params})
        return reduce(lambda model, step: step(model), passes.INT8, lean)

    def _rounded(self, ready: Model) -> tuple[Model, Calibration]:
        """Return a ready model with its channels equalised, and the rounded weights with ranges."""
        equal = equalized(ready, self.calibration.factors)
        rounded = round_nearest(_concrete(equal), self.calibration.ranges)
        return equal, replace(self.calibration, rounded=rounded)

    def _live(self, ready: Model, device: torch.device) -> LiveProgram:
        equal, calibration = self._rounded(ready)
        model = quantize(_concrete(ready), calibration)
        weights = {
            name: torch.tensor(np.asarray(value, np.float32), device=device)
            for name, value in model.weights.items()
        }
        wide = (node.name for node in model.graph.nodes if _is_wide(model, node))
        live = _differentiable(ready, equal, model, calibration)
        return LiveProgram(model, {**weights, **live}, frozenset(wide), device)


def trained_calibration(
    network: FakeQuantizedNetwork, found: CalibrationDocument
) -> CalibrationDocument:
    """Return the calibration file's words for a network that was trained after it.

    With it and the network's weights a build makes the very integers that the network computes in
    evaluation mode. What was judged before the training is left out: the build is to judge anew.

    Args:
        network: The trained network.
        found: The document that its calibration came from.

    Raises:
        UserError: A weight is not finite (E0506), or a sum could overflow (E0802).
    """
    tensors = trained_weights(network)
    origin = WeightsOrigin("file", digest(tensors), None, None, None)
    return calibration_file.retrained(found, network.trained_calibration(), origin)


def _equal(one: Weights, other: Weights) -> bool:
    return all(np.array_equal(values, other[name]) for name, values in one.items())


def _concrete(model: Model) -> Model:
    """Return a model whose weights are numbers alone."""
    return Model(model.graph, {name: _numbers(value) for name, value in model.weights.items()})


def _numbers(value: Any) -> NDArray[np.float32]:
    match value:
        case TracedArray(tensor=tensor):
            numbers: NDArray[np.float32] = tensor.detach().cpu().numpy()
            return numbers
        case _:
            return np.asarray(value)


def _differentiable(
    ready: Model, equal: Model, program: Model, calibration: Calibration
) -> dict[str, Tensor]:
    """Return the program's weights that come from traced ones: their numbers, with gradients."""
    clamps = fused_clamps(ready.graph)
    made = {node.name: node for node in ready.graph.nodes}
    found: dict[str, Tensor] = {}

    def stand(name: str, source: Any, slope: Any) -> None:
        if isinstance(source, TracedArray):
            value = program.weights[name]
            found[name] = integer_layers.standing(source.tensor, value, slope)

    for node in program.graph.nodes:
        match node.op:
            case QConv() | RealConv():
                owner = made[clamps.get(node.name, node.name)]
                weight, bias = (equal.weights[name] for name in owner.params)
                scale = calibration.rounded[owner.name].scale.astype(np.float64)
                step = scale * calibration.ranges[owner.inputs[0]].scale
                stand(node.params[0], weight, 1 / scale[:, None, None, None])
                stand(node.params[2], bias, 1 / step)
            case op:
                same = made.get(node.name.removesuffix(":float"))
                if same is not None and same.op == op:
                    for name, source in zip(node.params, same.params, strict=True):
                        stand(name, ready.weights[source], 1.0)
    return found


def _is_wide(program: Model, node: Node) -> bool:
    """Whether a sum of products could pass what float32 holds exactly."""
    match node.op:
        case QConv() | RealConv():
            weight, _, bias = (program.weights[name] for name in node.params)
            (x,) = program.graph.input_types(node)
            return not fits(weight, bias, max(map(abs, x.limits)))
        case _:
            return False


def _entered(x: Tensor, written: Input, source: Input) -> Tensor:
    """Return what the program reads: of a normalised image its grey levels."""
    if source.type.dtype is DType.F32 or x.dtype is torch.uint8:
        return x.to(torch.float32)
    pre = written.preprocess
    assert pre is not None
    mean, std = (
        torch.tensor(np.broadcast_to(np.array(v, np.float32), x.shape[1]).copy(), device=x.device)
        for v in (pre.mean, pre.std)
    )
    levels = (x * std[:, None, None] + mean[:, None, None]) * 255
    return integer_layers.rounded(levels, 0, 255)
