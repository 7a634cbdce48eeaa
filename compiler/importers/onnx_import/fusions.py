"""Operators that exporters spell out are made one again."""

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
"""What the names of a pattern stand for: tensors of captures, nodes of operators."""


class Pattern(ABC):
    """What a tensor may be."""

    @abstractmethod
    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield what the names stand for, in each way in which a tensor fits."""


@dataclass(frozen=True, slots=True)
class AnyValue(Pattern):
    """Any value that is computed, the same one wherever the name stands."""

    name: str

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the tensor under the name."""
        # By identity: the same tensor, not one of the same name or numbers.
        if bindings.get(self.name, tensor) is tensor and not isinstance(tensor, gs.Constant):
            yield {**bindings, self.name: tensor}


@dataclass(frozen=True, slots=True)
class NumberPattern(Pattern):
    """A constant that is one number, or nearly."""

    expected: float

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield what was found before."""
        if isinstance(tensor, gs.Constant) and tensor.values.size == 1:
            (number,) = tensor.values.reshape(-1)
            # The file's numbers are float32, some 6e-8 beside what is meant.
            if isclose(float(number), self.expected, rel_tol=1e-6):
                yield bindings


@dataclass(frozen=True, slots=True)
class AnyConstant(Pattern):
    """Any constant."""

    name: str

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield the tensor under the name."""
        if isinstance(tensor, gs.Constant):
            yield {**bindings, self.name: tensor}


@dataclass(frozen=True, slots=True)
class OperatorPattern(Pattern):
    """What an operator makes of its first inputs; the node is found under `name`."""

    type: str
    inputs: tuple[Pattern, ...]
    name: str = ""

    def match_tensor(self, tensor: gs.Tensor, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which the node that makes the tensor fits."""
        # The first output alone: what Split or Dropout give besides is no result of the pattern.
        if len(tensor.inputs) == 1 and tensor.inputs[0].outputs[0] is tensor:
            yield from self.match_node(tensor.inputs[0], bindings)

    def match_node(self, node: gs.Node, bindings: PatternMatch) -> Iterator[PatternMatch]:
        """Yield each way in which a node fits."""
        if node.op != self.type or len(node.inputs) < len(self.inputs):
            return
        if node.op in COMMUTATIVE and len(node.inputs) != len(self.inputs):
            return  # one of three
        if self.name:
            bindings = {**bindings, self.name: node}
        # At most two orders an operator; the longest pattern, a layer norm with weights, has nine.
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
    """Return the pattern of an operator; plain numbers stand for constants."""
    wrapped = (i if isinstance(i, Pattern) else NumberPattern(i) for i in inputs)
    return OperatorPattern(type, tuple(wrapped), name)


def find_match(pattern: OperatorPattern, node: gs.Node) -> PatternMatch | None:
    """Return what the names stand for if a node ends the pattern."""
    return next(pattern.match_node(node, {}), None)


PARTS = "parts"
"""The attribute of a fused node that names the operators it was: (name, type) pairs."""

CHANNEL_NORM = "ChannelNorm"
"""Layer normalisation along one axis, which need not be the last."""

INPUT = AnyValue("x")
ANY_TYPE = TensorType((1,))
"""A type where none matters."""
SIXTH = 1 / 6
Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FusionRule:
    """A pattern and the operator that means the same; `attributes` None refuses a match."""

    pattern: OperatorPattern
    type: str
    attributes: Callable[[PatternMatch], Attributes | None] = lambda _: {}
    inputs: tuple[str, ...] = ("x",)


def fuse(graph: gs.Graph, until: Sequence[str] = ()) -> None:
    """Replace every pattern by the one operator that it spells out, and drop what is dead.

    Where values are named by `until`, the graph is cut after them.
    """
    tensors = graph.tensors() if until else {}
    # Cut before anything is matched: what lies behind must not keep inner values of a pattern
    # alive.
    graph.outputs = [tensors[name] for name in until] or graph.outputs
    _fold_constants(graph)
    # Files list operators in order, but cutting and folding may have left others.
    graph.toposort()
    # From the end, so that a pattern is found whole before the part of it that is one, too.
    for node in reversed(list(graph.nodes)):
        for rule in RULES.get(node.op, ()):
            if _apply(rule, node):
                break
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def _fold_constants(graph: gs.Graph) -> None:
    """Turn nodes that hold a constant into constants."""
    for node in graph.nodes:
        if node.op == "Constant" and len(node.outputs) == 1 and len(node.attrs) == 1:
            (attribute,) = node.attrs.values()
            array = attribute.values if isinstance(attribute, gs.Constant) else np.array(attribute)
            (tensor,) = node.outputs
            node.outputs.clear()
            tensor.to_constant(_cast_to_float32(array))


def _cast_to_float32(array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the types that ONNX gives to plain ones."""
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
    # The last node becomes the whole operator, and keeps its name and its result, which others
    # read; its former inputs are dead, and `cleanup` drops them.
    node.op, node.attrs = rule.type, attributes
    node.inputs = [bindings[name] for name in rule.inputs]
    return True


def _list_parts(pattern: OperatorPattern, node: gs.Node) -> Iterator[tuple[str, str]]:
    """Yield the operators of a match that has just been found, the last one first."""
    yield node.name, node.op
    # A pattern's operators may stand in either order in the file: each is found by its type, and
    # taken once.
    unmatched = [p for p in pattern.inputs if isinstance(p, OperatorPattern)]
    for tensor in node.inputs:
        producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        inner = next((p for p in unmatched if producer is not None and p.type == producer.op), None)
        if inner is not None and producer is not None:
            unmatched.remove(inner)
            yield from _list_parts(inner, producer)


def _is_sixth(bindings: PatternMatch) -> Attributes | None:
    node = bindings["h"]
    # x * HardSigmoid(x) is hard swish only with a slope of 1/6; with ONNX's default it is another
    # function.
    alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    return {} if isclose(alpha, SIXTH, rel_tol=1e-6) and beta == 0.5 else None


def _is_relu6(bindings: PatternMatch) -> Attributes | None:
    node = bindings["c"]
    low, high = get_scalar(node, "min", 1, float("-inf")), get_scalar(node, "max", 2, float("inf"))
    return {} if (low, high) == (0.0, 6.0) else None


def _get_layer_norm_attributes(bindings: PatternMatch) -> Attributes | None:
    # Mean and variance must be over the same axis: two different ones are no normalisation.
    axes = {get_integers(bindings[name], "axes", 1) for name in ("mean", "var")}
    power = bindings.get("two")
    if len(axes) != 1 or (power is not None and float(power.values.reshape(-1)[0]) != 2.0):
        return None
    epsilon = bindings["eps"].values
    (axis,) = axes.pop() or (None,)
    return {"axis": axis, "epsilon": float(epsilon.reshape(-1)[0])} if axis is not None else None


def _iterate_layer_norms() -> Iterator[FusionRule]:
    """Yield (x - mean) / sqrt(mean of squares + eps), with a weight and bias or without."""
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
        # With weights first: a norm alone is the beginning of both. Opset 17 has an operator for
        # it, LayerNormalization, which older exporters cannot write.
        yield FusionRule(shifted, CHANNEL_NORM, _get_layer_norm_attributes, ("x", "weight", "bias"))
        yield FusionRule(norm, CHANNEL_NORM, _get_layer_norm_attributes)


def _iterate_gelus() -> Iterator[FusionRule]:
    """Yield the ways to write x / 2 * (1 + erf(x / sqrt(2)))."""
    # PyTorch's exporter divides by sqrt(2), others multiply by its inverse, and where the half
    # stands differs as well; opset 20 has Gelu itself.
    for inner in (make_pattern("Div", INPUT, sqrt(2)), make_pattern("Mul", INPUT, sqrt(0.5))):
        gate = make_pattern("Add", make_pattern("Erf", inner), 1.0)
        yield FusionRule(make_pattern("Mul", make_pattern("Mul", INPUT, 0.5), gate), "Gelu")
        yield FusionRule(make_pattern("Mul", make_pattern("Mul", INPUT, gate), 0.5), "Gelu")
        yield FusionRule(make_pattern("Mul", INPUT, make_pattern("Mul", gate, 0.5)), "Gelu")


def _iterate_decomposed_activations() -> Iterator[FusionRule]:
    """Yield activations that older opsets have no operator for, as their own `onnx` spells them."""
    for op in ACTIVATIONS:
        # Arguments and attributes would have to be compared as well: such have rules of their own.
        if op.onnx_operator and not list_parameters(op):
            # How an op is written for an old opset and how it is read from one are one table: what
            # tcc exports at opset 11, it imports.
            calls = op().onnx(ANY_TYPE, opset=MIN_OPSET)
            if len(calls) > 1 and not any(call.attributes for call in calls):
                yield FusionRule(_build_pattern(calls), op.onnx_operator)


def _build_pattern(calls: Sequence[Call]) -> OperatorPattern:
    """Return the last of some calls as a pattern; each reads `x0`, numbers and earlier ones."""
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
    """Yield the ways to write hard swish and hard sigmoid."""
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
    """Yield the ways to write relu6 that are two operators."""
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
"""Rules by the operator that ends their pattern; the first that matches holds."""
