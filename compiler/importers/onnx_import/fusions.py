"""Fuse operator sequences that exporters write for one operator."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose, sqrt
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from tcc.compiler.importers.onnx_import.node_arguments import (
    NotConstantError,
    get_integers,
    get_scalar,
)
from tcc.compiler.ir.argument_declarations import list_parameters
from tcc.compiler.ir.op import Argument, Call, Const
from tcc.compiler.ir.types import TensorType
from tcc.compiler.lower.onnx import MIN_OPSET
from tcc.compiler.ops import ACTIVATIONS
from tcc.compiler.support.diagnostics import UnhandledError

COMMUTATIVE = frozenset({"Add", "Max", "Min", "Mul"})
PatternMatch = Mapping[str, Any]
"""Values of a pattern's names: tensors of captures, nodes of operators."""


class Pattern(ABC):
    """A condition on a tensor."""

    @abstractmethod
    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the bindings of each way in which a tensor matches."""


@dataclass(frozen=True, slots=True)
class AnyValue(Pattern):
    """Any computed value; the same value wherever the name is used."""

    name: str

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the bindings with the tensor under the name."""
        # By identity: the same tensor, not one with the same name or elements.
        if bindings.get(self.name, tensor) is tensor and not isinstance(tensor, gs.Constant):
            yield {**bindings, self.name: tensor}


@dataclass(frozen=True, slots=True)
class NumberPattern(Pattern):
    """A scalar constant that equals a number, within rounding."""

    expected: float

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the unchanged bindings."""
        if isinstance(tensor, gs.Constant) and tensor.values.size == 1:
            (number,) = tensor.values.reshape(-1)
            # Numbers in the file are float32, so they differ from exact values by up to 6e-8.
            if isclose(float(number), self.expected, rel_tol=1e-6):
                yield bindings


@dataclass(frozen=True, slots=True)
class AnyConstant(Pattern):
    """Any constant."""

    name: str

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the bindings with the tensor under the name."""
        if isinstance(tensor, gs.Constant):
            yield {**bindings, self.name: tensor}


@dataclass(frozen=True, slots=True)
class OperatorPattern(Pattern):
    """The output of an operator for its first inputs; binds the node to `name`."""

    type: str
    inputs: tuple[Pattern, ...]
    name: str = ""

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which the node that computes the tensor matches."""
        # Only the first output: other outputs of Split or Dropout are not part of the pattern.
        if len(tensor.inputs) == 1 and tensor.inputs[0].outputs[0] is tensor:
            yield from self.match_node(tensor.inputs[0], bindings)

    def match_node(self, node: gs.Node, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which a node matches."""
        if node.op != self.type or len(node.inputs) < len(self.inputs):
            return
        if node.op in COMMUTATIVE and len(node.inputs) != len(self.inputs):
            return  # it has another number of inputs
        if self.name:
            bindings = {**bindings, self.name: node}
        # At most two orders per operator. The longest pattern, a layer norm with weights, has nine.
        orders = [self.inputs]
        if node.op in COMMUTATIVE:
            orders.append(self.inputs[::-1])
        for order in orders:
            yield from _match_all(order, tuple(node.inputs), bindings)


def _match_all(
    patterns: tuple[Pattern, ...], tensors: tuple[gs.Tensor, ...], bindings: PatternMatch
) -> Iterator[PatternMatch]:
    if not patterns:
        yield bindings
        return
    for inner_bindings in patterns[0].match_tensor(tensors[0], bindings):
        yield from _match_all(patterns[1:], tensors[1:], inner_bindings)


def make_pattern(type: str, *inputs: Pattern | float, name: str = "") -> OperatorPattern:
    """Return the pattern of an operator; plain numbers are constants."""
    wrapped = (i if isinstance(i, Pattern) else NumberPattern(i) for i in inputs)
    return OperatorPattern(type, tuple(wrapped), name)


def find_match(pattern: OperatorPattern, node: gs.Node) -> PatternMatch | None:
    """Return the bindings if a node is the end of the pattern, else None."""
    return next(pattern.match_node(node, {}), None)


PARTS = "parts"
"""Attribute of a fused node with its original operators: (name, type) pairs."""

CHANNEL_NORM = "ChannelNorm"
"""Layer normalization along one axis, which need not be the last."""

INPUT = AnyValue("x")
ANY_TYPE = TensorType((1,))
"""Placeholder where the type does not matter."""
SIXTH = 1 / 6
Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FusionRule:
    """A pattern and its equivalent operator; `attributes` returns None to reject a match."""

    pattern: OperatorPattern
    type: str
    attributes: Callable[[PatternMatch], Attributes | None] = lambda _: {}
    inputs: tuple[str, ...] = ("x",)


def fuse(graph: gs.Graph, until: Sequence[str] = ()) -> None:
    """Replace every pattern by its equivalent operator, and remove dead nodes.

    If `until` names values, the graph is cut after them.
    """
    tensors = graph.tensors() if until else {}
    # Cut before matching: nodes after the cut must not keep inner values of a pattern alive.
    graph.outputs = [tensors[name] for name in until] or graph.outputs
    _fold_constants(graph)
    # Files list operators in order, but cutting and folding may have changed the order.
    graph.toposort()
    # From the end, so that a full pattern matches before a smaller pattern that is part of it.
    for node in reversed(list(graph.nodes)):
        for rule in RULES.get(node.op, ()):
            if _apply(rule, node):
                break
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def _fold_constants(graph: gs.Graph) -> None:
    """Turn Constant nodes into constants."""
    for node in graph.nodes:
        if node.op == "Constant" and len(node.outputs) == 1 and len(node.attrs) == 1:
            (attribute,) = node.attrs.values()
            array = attribute.values if isinstance(attribute, gs.Constant) else np.array(attribute)
            (tensor,) = node.outputs
            node.outputs.clear()
            tensor.to_constant(_cast_to_float32(array))


def _cast_to_float32(array: NDArray[Any]) -> NDArray[Any]:
    """Return float64 constants as float32, and others unchanged."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _apply(rule: FusionRule, node: gs.Node) -> bool:
    bindings = find_match(rule.pattern, node)
    if bindings is None:
        return False
    try:
        attributes = rule.attributes(bindings)
    except NotConstantError:
        return False
    if attributes is None:
        return False
    attributes[PARTS] = tuple(_list_parts(rule.pattern, node))
    # The last node becomes the fused operator and keeps its name and output, which others read.
    # Its former inputs are dead, and `cleanup` removes them.
    node.op, node.attrs = rule.type, attributes
    node.inputs = [bindings[name] for name in rule.inputs]
    return True


def _list_parts(pattern: OperatorPattern, node: gs.Node) -> Iterator[tuple[str, str]]:
    """Yield the operators of a match, the last one first."""
    yield node.name, node.op
    # A pattern's operators may be in either order in the file: each is found by its type and used
    # once.
    unmatched = [p for p in pattern.inputs if isinstance(p, OperatorPattern)]
    for tensor in node.inputs:
        producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        inner = next((p for p in unmatched if producer is not None and p.type == producer.op), None)
        if inner is not None and producer is not None:
            unmatched.remove(inner)
            yield from _list_parts(inner, producer)


def _is_sixth(bindings: PatternMatch) -> Attributes | None:
    node = bindings["h"]
    # x * HardSigmoid(x) is hard swish only with a slope of 1/6, not with ONNX's default slope.
    alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    return {} if isclose(alpha, SIXTH, rel_tol=1e-6) and beta == 0.5 else None


def _is_relu6(bindings: PatternMatch) -> Attributes | None:
    node = bindings["c"]
    low, high = get_scalar(node, "min", 1, float("-inf")), get_scalar(node, "max", 2, float("inf"))
    return {} if (low, high) == (0.0, 6.0) else None


def _get_layer_norm_attributes(bindings: PatternMatch) -> Attributes | None:
    # Mean and variance must be over the same axis; otherwise it is not a normalization.
    axes = {get_integers(bindings[name], "axes", 1) for name in ("mean", "var")}
    power = bindings.get("two")
    if len(axes) != 1 or (power is not None and float(power.values.reshape(-1)[0]) != 2.0):
        return None
    epsilon = bindings["eps"].values
    (axis,) = axes.pop() or (None,)
    return {"axis": axis, "epsilon": float(epsilon.reshape(-1)[0])} if axis is not None else None


def _iterate_layer_norms() -> Iterator[FusionRule]:
    """Yield (x - mean) / sqrt(mean of squares + eps), with and without weight and bias."""
    centred = make_pattern(
        "Sub", INPUT, make_pattern("ReduceMean", INPUT, name="mean"), name="centred"
    )
    squares = (
        make_pattern("Pow", centred, AnyConstant("two")),
        make_pattern("Mul", centred, centred),
    )
    for square in squares:
        variance = make_pattern("ReduceMean", square, name="var")
        norm = make_pattern(
            "Div", centred, make_pattern("Sqrt", make_pattern("Add", variance, AnyConstant("eps")))
        )
        scaled = make_pattern("Mul", norm, AnyConstant("weight"))
        shifted = make_pattern("Add", scaled, AnyConstant("bias"))
        # With weights first, because both begin with the plain norm. Opset 17 has an operator for
        # it, LayerNormalization, which older exporters cannot use.
        yield FusionRule(shifted, CHANNEL_NORM, _get_layer_norm_attributes, ("x", "weight", "bias"))
        yield FusionRule(norm, CHANNEL_NORM, _get_layer_norm_attributes)


def _iterate_gelus() -> Iterator[FusionRule]:
    """Yield the forms of x / 2 * (1 + erf(x / sqrt(2)))."""
    # PyTorch's exporter divides by sqrt(2), others multiply by its inverse. The position of the
    # factor 0.5 differs too. Opset 20 has a Gelu operator.
    for inner in (make_pattern("Div", INPUT, sqrt(2)), make_pattern("Mul", INPUT, sqrt(0.5))):
        gate = make_pattern("Add", make_pattern("Erf", inner), 1.0)
        yield FusionRule(make_pattern("Mul", make_pattern("Mul", INPUT, 0.5), gate), "Gelu")
        yield FusionRule(make_pattern("Mul", make_pattern("Mul", INPUT, gate), 0.5), "Gelu")
        yield FusionRule(make_pattern("Mul", INPUT, make_pattern("Mul", gate, 0.5)), "Gelu")


def _iterate_decomposed_activations() -> Iterator[FusionRule]:
    """Yield activations without an operator in older opsets, in the form of their `onnx` method."""
    for op in ACTIVATIONS:
        # Ops with parameters have separate rules, because their attributes must be compared too.
        if op.onnx_operator and not list_parameters(op):
            # The same table defines how an op is exported to an old opset and imported from it, so
            # that tcc can import what it exports at opset 11.
            calls = op().onnx(ANY_TYPE, opset=MIN_OPSET)
            if len(calls) > 1 and not any(call.attributes for call in calls):
                yield FusionRule(_build_pattern(calls), op.onnx_operator)


def _build_pattern(calls: Sequence[Call]) -> OperatorPattern:
    """Return the last of some calls as a pattern; each reads `x0`, numbers and earlier calls."""
    outputs: dict[str, Pattern] = {"x0": INPUT}
    for call in calls:
        inputs = (_convert_input(argument, outputs) for argument in call.inputs)
        outputs[call.output] = pattern = make_pattern(call.function, *inputs)
    return pattern


def _convert_input(argument: Argument, outputs: Mapping[str, Pattern]) -> Pattern | float:
    match argument:
        case str():
            return outputs[argument]
        case Const(elements=(int() | float() as number,)):
            return number
        case _:
            raise UnhandledError("literal of a pattern", str(argument))


def _iterate_hard_activations() -> Iterator[FusionRule]:
    """Yield the forms of hard swish and hard sigmoid."""
    gate = make_pattern("HardSigmoid", INPUT, name="h")
    yield FusionRule(make_pattern("Mul", INPUT, gate), "HardSwish", _is_sixth)
    clipped = make_pattern("Clip", make_pattern("Add", INPUT, 3.0), name="c")
    # x * relu6(x + 3) / 6, as MobileNetV3 defines hard swish (Howard et al., 2019, section 5.2).
    for type, number in (("Div", 6.0), ("Mul", SIXTH)):
        yield FusionRule(
            make_pattern("Mul", INPUT, make_pattern(type, clipped, number)), "HardSwish", _is_relu6
        )
        yield FusionRule(
            make_pattern(type, make_pattern("Mul", INPUT, clipped), number), "HardSwish", _is_relu6
        )
        yield FusionRule(
            make_pattern(type, clipped, number), "HardSigmoid", _get_relu6_gate_attributes
        )


def _iterate_relu6() -> Iterator[FusionRule]:
    """Yield the forms of relu6 with two operators."""
    # tf2onnx writes relu6 as min(max(x, 0), 6), PyTorch's exporter as Clip.
    for inner in (make_pattern("Max", INPUT, 0.0), make_pattern("Relu", INPUT)):
        yield FusionRule(
            make_pattern("Min", inner, 6.0), "Clip", lambda _: {"min": 0.0, "max": 6.0}
        )
        yield FusionRule(make_pattern("Clip", inner, name="c"), "Clip", _get_clip_bounds)


def _get_clip_bounds(bindings: PatternMatch) -> Attributes | None:
    low = get_scalar(bindings["c"], "min", 1, float("-inf"))
    high = get_scalar(bindings["c"], "max", 2, float("inf"))
    return {"min": 0.0, "max": high} if low <= 0.0 < high else None


def _get_relu6_gate_attributes(bindings: PatternMatch) -> Attributes | None:
    return None if _is_relu6(bindings) is None else {"alpha": SIXTH, "beta": 0.5}


def _build_table() -> dict[str, tuple[FusionRule, ...]]:
    rules = (
        *_iterate_decomposed_activations(),
        *_iterate_hard_activations(),
        *_iterate_relu6(),
        *_iterate_gelus(),
        *_iterate_layer_norms(),
    )
    last_types = {rule.pattern.type for rule in rules}
    return {type: tuple(r for r in rules if r.pattern.type == type) for type in sorted(last_types)}


RULES = _build_table()
"""Rules by the last operator of their pattern; the first match is used."""
