"""From an ONNX graph to a model of the language's operations, node by node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from tcc.compiler.foreign.onnx_import.convert import CONVERTERS, PATTERNS, OnnxNode, Operand
from tcc.compiler.foreign.onnx_import.fusions import PARTS
from tcc.compiler.foreign.onnx_import.graph_builder import (
    GraphBuilder,
    OperatorRefusal,
    UniqueNames,
    identifier,
    of_node,
    of_weight,
)
from tcc.compiler.foreign.onnx_import.inputs_outputs import GraphInput
from tcc.compiler.foreign.onnx_import.node_arguments import NotConstantError, before
from tcc.compiler.foreign.onnx_import.refusal_causes import ATTENTION, attention, cause
from tcc.compiler.foreign.onnx_import.spec_rebuild import OperatorOrigin
from tcc.compiler.foreign.onnx_import.tensor_view import LARGEST, TooLargeError, View
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.ops import Sigmoid, Softmax
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file

MAX_NAMES_SHOWN = 8
"""Nodes that one diagnostic names."""
MAX_REFUSALS = 50
"""Diagnostics of one file."""


@dataclass(frozen=True, slots=True)
class PreActivation:
    """What enters the activation of an output: what the file calls it, and how it holds it."""

    name: str
    view: View


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A model, the names its steps are to have, and what became of each operator of the file.

    `views` are the values of the network as the file has them, by its names; `maps` are vectors
    that were made again as maps of one pixel; `raws` is there for each output with an activation.
    """

    model: Model
    wished: Mapping[str, str]
    origins: tuple[OperatorOrigin, ...]
    views: Mapping[str, View]
    maps: Mapping[str, str]
    raws: Mapping[str, PreActivation]


def convert(graph: gs.Graph, file: str, source: GraphInput, name: str) -> ConvertedModel:
    """Return the model of a graph that `fuse` has gone through.

    Args:
        graph: The graph.
        file: What diagnostics call the file.
        source: Its input.
        name: What the network is called.

    Raises:
        UserError: Nodes that the language has no step for, all of them (E0910, E0911); or outputs
            that are no values of it (E0906).
    """
    try:
        return _Converter(graph, file, source, name).converted()
    except TooLargeError:  # of the input or an output: a node's is told with the node
        message = f"a value of more than {LARGEST} elements is rearranged on its way in or out"
        help = "export it with the channels first, or for smaller images"
        raise fail("E0911", message, whole_file(file), help=help) from None


@dataclass
class _Problems:
    """What was refused, equal reasons together."""

    file: str
    nodes: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    helps: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, code: str, message: str, help: str, node: gs.Node) -> None:
        key = (code, node.op, message)
        self.nodes.setdefault(key, []).append(_place(node))
        self.helps.setdefault(key, help)

    def found(self) -> Iterator[Diagnostic]:
        # Attention comes first: where it is, mending the others helps nothing.
        first = sorted(self.nodes.items(), key=lambda item: item[0][2] != ATTENTION)
        for (code, op, message), names in first[:MAX_REFUSALS]:
            help = self.helps[code, op, message]
            others = ", ".join(names[1:MAX_NAMES_SHOWN])
            more = (
                f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
            )
            notes = (f"also {others}{more}",) if others else ()
            where = whole_file(f"{self.file}: node {names[0]}")
            yield Diagnostic(code, f"{op}: {message}", where, notes=notes, help=help)


class _Converter:
    """One conversion; a tensor that failed is None, of which nothing more is said."""

    def __init__(self, graph: gs.Graph, file: str, source: GraphInput, name: str) -> None:
        self.graph, self.file, self.name = graph, file, name
        names = UniqueNames(identifier(o.name, "output") for o in graph.outputs)
        given = Input(names.fresh(identifier(source.name, "image")), source.type)
        self.build = GraphBuilder(given, names)
        image = self.build.view(given.name)
        if source.channels_last:
            # TensorFlow's exporters keep height x width x channels at the door and transpose behind
            # it: as a view of the same map, both are nothing.
            image = image.moved(lambda index: np.moveaxis(index, 1, -1))
        self.tensors: dict[str, Operand | None] = {source.name: image}
        self.problems = _Problems(file)
        self.results: list[tuple[gs.Node, Operand | None]] = []

    def converted(self) -> ConvertedModel:
        # A node that is refused does not end the walk: one run tells every operator that has no
        # step.
        for node in self.graph.nodes:
            self._node(node)
        self._attention()
        # All at once: whoever has to export anew wants to know everything that is in the way.
        found = tuple(self.problems.found())
        if found:
            raise UserError(found)
        model = self.build.model(self.name, tuple(self._outputs()))
        views = {name: v for name, v in self.tensors.items() if isinstance(v, View)}
        origins = tuple(self._origins())
        raws = self._raws(model, views)
        return ConvertedModel(model, self.build.wished, origins, views, self.build.as_maps, raws)

    def _raws(self, model: Model, views: Mapping[str, View]) -> Mapping[str, PreActivation]:
        last = ((name, self.build.settled.get(view, view)) for name, view in views.items())
        held = {view.value: PreActivation(name, view) for name, view in last if view.whole()}
        ends = (output for output in model.graph.outputs if output.activation != "none")
        return {output.name: held[output.value] for output in ends if output.value in held}

    def _origins(self) -> Iterator[OperatorOrigin]:
        for node, result in self.results:
            value = ""
            if isinstance(result, View):
                value = self.build.settled.get(result, result).value
            widened = self.build.as_maps.get(value, value)
            yield OperatorOrigin(_parts(node), widened)

    def _node(self, node: gs.Node) -> None:
        results: Sequence[Operand | None] = [None] * len(node.outputs)
        # What reads a value that failed fails for that reason, which was told: nothing more is said
        # of it.
        known = [t for t in node.inputs if not isinstance(t, gs.Constant) and not t.is_empty()]
        if all(self.tensors.get(t.name) is not None for t in known):
            results = self._converted(node) or results
        for tensor, result in zip(node.outputs, results, strict=False):
            self.tensors[tensor.name] = result
        self.results.append((node, results[0] if results else None))

    def _attention(self) -> None:
        """Name self-attention beyond what was refused: it is why a transformer cannot be taken."""
        for node in self.graph.nodes:
            operands = [
                self.tensors.get(t.name) for t in node.inputs if not isinstance(t, gs.Constant)
            ]
            # Queries by keys, or their product by values: neither factor is a weight. One of them
            # has usually failed already, at the softmax or the transposition before it.
            computed = len(operands) == 2 and all(
                x is None or isinstance(x, View) for x in operands
            )
            if node.op == "MatMul" and computed and None in operands:
                self.problems.add("E0911", ATTENTION, attention(before(node)), node)

    def _converted(self, node: gs.Node) -> Sequence[Operand] | None:
        # Other domains, such as com.microsoft, use ONNX's names for operators of their own.
        converter = CONVERTERS.get(node.op) if _is_onnx(node) else None
        if converter is None:
            domain = "" if _is_onnx(node) else node.domain
            message, help = cause(node.op, domain, before(node))
            message = message or "the language has no step for this operator"
            self.problems.add("E0910", message, help or _known(), node)
            return None
        inputs = tuple(self._operand(tensor) for tensor in node.inputs)
        whole = OnnxNode(node, inputs, self.build, _named(node), self.graph.opset)
        try:
            made = converter(whole)
            results = made if isinstance(made, tuple) else (made,)
        except OperatorRefusal as refusal:
            self.problems.add("E0911", str(refusal), refusal.help, node)
        except NotConstantError as error:
            message = f"`{error}` is computed while the network runs"
            self.problems.add("E0911", message, "export it with a fixed size", node)
        except TooLargeError:
            message = f"it rearranges a value of more than {LARGEST} elements"
            self.problems.add("E0911", message, "", node)
        # Attributes of a stranger's file have any type and size: what trips a converter up is told
        # with its node, and is no failure of ours.
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            self.problems.add("E0911", f"it is not well formed ({_brief(error)})", "", node)
        else:
            return results
        return None

    def _operand(self, tensor: gs.Tensor) -> Operand | None:
        if tensor.is_empty():
            return None
        return tensor.values if isinstance(tensor, gs.Constant) else self.tensors[tensor.name]

    def _outputs(self) -> Iterator[Output]:
        names = UniqueNames()
        for tensor in self.graph.outputs:
            found = self.tensors.get(tensor.name)
            view = self.build.settle(found) if isinstance(found, View) else None
            name = names.fresh(identifier(tensor.name, "output"))
            if view is None or not view.settled:
                message = f"the output `{_short(tensor.name)}` is no feature map and no vector"
                help = "choose other outputs with --until"
                raise UserError((Diagnostic("E0906", message, whole_file(self.file), help=help),))
            value, activation = self._activated(view.value)
            yield Output(name, value, activation)

    def _activated(self, value: str) -> tuple[str, OutputActivation]:
        """Return a value before the activation that ends it, and which that is."""
        node = self.build.nodes.get(value)
        # Of vectors alone: an output's contract says which activation whoever reads it applies.
        if node is not None and len(node.type.shape) == 1:
            match node.op:
                case Softmax():
                    return node.inputs[0], "softmax"
                case Sigmoid():
                    return node.inputs[0], "sigmoid"
        return value, "none"


def _is_onnx(node: gs.Node) -> bool:
    return node.domain in (None, "", "ai.onnx")


def _named(node: gs.Node) -> str:
    """Return what the step of a node is called: after its weights, or its place; else nothing."""
    # More than one number: a scalar that several layers share bears the name of none of them.
    weights = [t.name for t in node.inputs if isinstance(t, gs.Constant) and t.values.size > 1]
    layer = next(filter(None, map(of_weight, weights)), "")
    name, type = _parts(node)[0]
    return identifier(layer or of_node(name, type))


def _parts(node: gs.Node) -> tuple[tuple[str, str], ...]:
    """Return the operators of the file that a node stands for, the last first."""
    return tuple(node.attrs.get(PARTS, ((node.name, node.op),)))


def _place(node: gs.Node) -> str:
    """Return a node's name, or else what it makes."""
    if node.name:
        return f"`{_short(node.name)}`"
    return f"of `{_short(node.outputs[0].name)}`" if node.outputs else "without a result"


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _known() -> str:
    words = sorted({*CONVERTERS, *PATTERNS} - {"ChannelNorm"})
    return f"operators that are known: {', '.join(words)}; --until NAME cuts the file before others"
