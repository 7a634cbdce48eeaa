"""From a ready float model and its calibration to the integer program, if that cannot overflow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, verify
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import Op, Relu, Relu6, ScaleShift
from tcc.compiler.ops.integer import Dequantize, IntegerSite, Quantize, integer_form
from tcc.compiler.quant.calibration import Calibration, Float32, Range, RoundedWeights
from tcc.compiler.quant.rounding.nearest_rounding import largest_level, round_nearest
from tcc.compiler.quant.scale_groups import SMALLEST, end_values, fused_clamps
from tcc.compiler.support.diagnostics import Diagnostic, UnhandledError, UserError, whole_file

Tensors = tuple[NDArray[Any], ...]
Out = tuple[float, bool, int, int]
"""An output's scale, whether it is signed, and the levels that it is kept within."""


def quantize(model: Model, calibration: Calibration) -> Model:
    """Return the integer program of a ready model: 8-bit values, int8 weights, int32 biases.

    Real ends are those whose sums are sure to be exact. A value keeps its name; `<name>:real` is
    its float form where a float needs it, and `<input>:levels` the integers of a float input. What
    has no exact form stays a float operation between a `dequantize` and a `quantize`.

    A sum is requantised as rint(float32(sum) * M) with M = float32(float32(x * w) / y) of the
    scales of input, weights and output, each step in float32: that is what ONNX Runtime and XNNPACK
    compute, and one rounding in float64 gives other integers now and then.

    Args:
        model: A ready model, its channels not equalised.
        calibration: Ranges of all its kept values, and weights of its convolutions.

    Raises:
        UserError: A scale is no normal number (E0801), or a sum could overflow (E0802); each is
            named with its layer.
    """
    check_scales(model, calibration)
    rounded = {**round_nearest(model, calibration.ranges), **calibration.rounded}
    check_sums(model, calibration, rounded)
    work = _Quantizer(model, calibration, rounded)
    for source in model.graph.inputs:
        work.enter(source)
    # A node that a clamp takes in is made at the clamp's place, under its name.
    inside = {source: clamp for clamp, source in work.clamps.items()}
    for node in model.graph.nodes:
        if node.name not in inside:
            work.place(node)
    return work.finished()


@dataclass
class _Quantizer:
    """The integer program while it grows: its nodes, weights and inputs so far."""

    model: Model
    calibration: Calibration
    rounded: Mapping[str, RoundedWeights]
    nodes: dict[str, Node] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.clamps = fused_clamps(graph)
        self.by_name = {node.name: node for node in graph.nodes}
        self.named = {source.name: source.name for source in graph.inputs}
        self.ends = end_values(graph)

    def enter(self, source: Input) -> None:
        """Take in an input: grey levels as they are, a float tensor through `quantize`."""
        found = self.calibration.ranges[source.name]
        if source.preprocess is not None and source.preprocess.raw:
            kind = TensorType(source.type.shape, DType.U8, 1.0)
            self.inputs.append(replace(source, type=kind))
            self.types[source.name] = kind
            return
        self.inputs.append(source)
        self.types[source.name] = source.type
        self.named[source.name] = f"{source.name}:levels"
        self.add(
            self.named[source.name],
            Quantize(found.scale, found.signed, *found.limits),
            (source.name,),
            (),
        )

    def place(self, node: Node) -> None:
        """Add what a node becomes."""
        clamp, worked = None, node
        if node.name in self.clamps:
            clamp, worked = node.op, self.by_name[self.clamps[node.name]]
        y = self.calibration.ranges[node.name]
        bounds = _bounds(y, clamp)
        if not self.calibration.in_float & {node.name, worked.name}:
            inputs = tuple(self.named.get(value, value) for value in worked.inputs)
            types = tuple(self.types[value] for value in inputs)
            form = integer_form(worked.op, self.site(worked, types, (y.scale, y.signed, *bounds)))
            if form:
                op, params = form
                self.add(node.name, op, inputs, params, worked)
                return
        self.in_float(node, worked, (y.scale, y.signed, *bounds))

    def site(self, node: Node, types: tuple[TensorType, ...], out: Out) -> IntegerSite:
        """Return where a node would become an operation on integers."""
        own = self.rounded.get(node.name)
        weights = (own.weight, own.scale, own.bias) if own else ()
        return IntegerSite(
            types, out, self.calibration.real_ends and node.name in self.ends, weights
        )

    def in_float(self, node: Node, worked: Node, out: Out) -> None:
        """Add a float operation and its clamp, and what makes integers of the result.

        The latter is dropped again if only floats read it; at the end of the graph none do.
        """
        inputs = tuple(self.real(value) for value in worked.inputs)
        own = tuple(self.model.weights[param] for param in worked.params)
        last = node.name if node.name in self.ends else f"{node.name}:float"
        if node is worked:
            self.add(last, node.op, inputs, own, node)
        else:
            self.add(f"{worked.name}:float", worked.op, inputs, own, worked)
            self.add(last, node.op, (f"{worked.name}:float",), (), node)
        # What outputs alone read stays a float: nothing makes integers of it.
        if node.name in self.ends:
            return
        # Integers hold equalised channels, each divided by its factor; float weights are as they
        # were.
        factor = self.calibration.factors.get(node.name)
        if factor is not None:
            last = self.scaled(f"{node.name}:equalised", last, np.float32(1) / factor)
        self.add(node.name, Quantize(*out), (last,), (), node)

    def real(self, value: str) -> str:
        """Return the name of a value's float form, which is made once."""
        if f"{value}:float" in self.nodes:
            return f"{value}:float"
        if value in self.nodes and self.types[value].scale is None:
            return value
        name = f"{value}:real"
        if name not in self.nodes:
            factor = self.calibration.factors.get(value)
            first = name if factor is None else f"{value}:equal"
            self.add(first, Dequantize(), (self.named.get(value, value),), ())
            if factor is not None:
                self.scaled(name, first, factor)
        return name

    def scaled(self, name: str, value: str, factor: Float32) -> str:
        """Add what multiplies the channels of a float value; return its name."""
        shape = ScaleShift().params(self.types[value])[0].shape
        factor = factor.astype(np.float32).reshape(shape)
        self.add(name, ScaleShift(), (value,), (factor, np.zeros_like(factor)))
        return name

    def add(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        params: Tensors,
        origin: Node | None = None,
    ) -> None:
        """Add a node and its weights."""
        types = tuple(self.types[value] for value in inputs)
        names = tuple(f"{name}.{param.role}" for param in op.params(*types))
        node = Node(name, op, inputs, names, op.infer(*types))
        self.nodes[name] = replace(node, at=origin.at) if origin else node
        self.types[name] = node.type
        self.weights.update(zip(names, params, strict=True))

    def finished(self) -> Model:
        """Return the model; each output is the float form of its value."""
        graph = self.model.graph
        outputs: list[Output] = [
            replace(output, value=self.real(output.value)) for output in graph.outputs
        ]
        made = Graph(graph.name, tuple(self.inputs), tuple(self.nodes.values()), tuple(outputs))
        verify(made)
        return eliminate_dead(Model(made, self.weights))


def _bounds(y: Range, clamp: Op | None) -> tuple[int, int]:
    """Return the levels that a value is kept within."""
    low, high = y.limits
    match clamp:
        case Relu():
            return max(low, 0), high
        case Relu6():
            return max(low, 0), min(high, int(np.rint(6 / np.float64(y.scale))))
        case None:
            return low, high
        case _:
            raise UnhandledError("clamp", clamp.word)


HELP = "calibrate again, with images that the network is meant for"


def check_scales(model: Model, calibration: Calibration) -> None:
    """Refuse scales that are no normal number, listing every such value and layer.

    Raises:
        UserError: E0801 for each.
    """
    _raise(_scale_problems(model, calibration))


def check_sums(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> None:
    """Refuse weights and biases whose sums could overflow: an input within its type's limits.

    Args:
        model: A ready model.
        calibration: The ranges of what its convolutions read.
        rounded: Their integer weights and biases by name.

    Raises:
        UserError: E0802 for each layer.
    """
    _raise(_sum_problems(model, calibration, rounded))


def _raise(found: Iterator[Diagnostic]) -> None:
    problems = tuple(found)
    if problems:
        raise UserError(problems)


def _scale_problems(model: Model, calibration: Calibration) -> Iterator[Diagnostic]:
    places = {node.name: node.at for node in model.graph.nodes}
    for name, found in calibration.ranges.items():
        if not SMALLEST <= found.scale < np.inf:
            message = f"the scale of `{name}` is {found.scale:g}"
            at = places.get(name, whole_file(model.graph.name))
            label = "this layer's output" if name in places else "the network's input"
            yield Diagnostic("E0801", message, at, label, help=HELP)
    for name, own in calibration.rounded.items():
        if not ((own.scale >= SMALLEST) & np.isfinite(own.scale)).all():
            message = f"a weight scale of `{name}` is no normal number"
            yield Diagnostic("E0801", message, places[name], "this layer's weights", help=HELP)


def _sum_problems(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> Iterator[Diagnostic]:
    at = {node.name: node for node in model.graph.nodes}
    for name, own in rounded.items():
        x = calibration.ranges[at[name].inputs[0]]
        # The worst input has the largest level everywhere, with its weight's sign. No partial sum,
        # in whatever order a runtime adds, exceeds the sum of magnitudes either. int64, so that it
        # is seen.
        total = np.abs(own.weight.reshape(len(own.weight), -1).astype(np.int64)).sum(axis=1)
        most = total * largest_level(x) + np.abs(own.bias.astype(np.int64))
        if (most >= 1 << 31).any():
            message = f"the sums of `{name}` could overflow 32 bits"
            label = f"they may reach {int(most.max()):,}"
            yield Diagnostic("E0802", message, at[name].at, label, help=HELP)
