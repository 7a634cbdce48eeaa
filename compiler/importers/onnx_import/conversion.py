"""Convert an ONNX graph to a model of tcc's ops, node by node."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from tcc.compiler.importers.onnx_import.convert import CONVERTERS, PATTERNS, OnnxNode, Operand
from tcc.compiler.importers.onnx_import.fusions import PARTS
from tcc.compiler.importers.onnx_import.graph_builder import (
    GraphBuilder,
    OperatorRefusal,
    UniqueNames,
    get_node_path,
    get_weight_layer,
    to_identifier,
)
from tcc.compiler.importers.onnx_import.inputs_outputs import GraphInput
from tcc.compiler.importers.onnx_import.node_arguments import (
    NotConstantError,
    get_computed_input_name,
)
from tcc.compiler.importers.onnx_import.refusal_causes import (
    ATTENTION,
    explain_attention,
    find_cause,
)
from tcc.compiler.importers.onnx_import.spec_rebuild import OperatorOrigin
from tcc.compiler.importers.onnx_import.tensor_view import MAX_ELEMENTS, TooLargeError, View
from tcc.compiler.ir.graph import Input, Model, Output
from tcc.compiler.ir.types import OutputActivation
from tcc.compiler.ops import Sigmoid, Softmax
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span

MAX_NAMES_SHOWN = 8
"""Maximum number of nodes that one diagnostic names."""
MAX_REFUSALS = 50
"""Maximum number of diagnostics per file."""


@dataclass(frozen=True, slots=True)
class PreActivation:
    """Input of an output's activation: its name in the file, and its view."""

    name: str
    view: View


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A model, the preferred names of its steps, and the origin of each operator of the file.

    `views`: the values of the network in the file's layout, by name. `maps`: vectors that were
    duplicated as maps of one pixel. `pre_activations` has an entry for each output with an
    activation.
    """

    model: Model
    preferred_names: Mapping[str, str]
    origins: tuple[OperatorOrigin, ...]
    views: Mapping[str, View]
    maps: Mapping[str, str]
    pre_activations: Mapping[str, PreActivation]


def convert(graph: gs.Graph, file: str, source: GraphInput, name: str) -> ConvertedModel:
    """Return the model of a graph that `fuse` has processed.

    Args:
        graph: The graph.
        file: Name of the file in diagnostics.
        source: Its input.
        name: Name of the network.

    Raises:
        UserError: Some nodes are not supported (E0910, E0911; all are listed); or an output is
            not a feature map or vector (E0906).
    """
    try:
        return _Converter(graph, file, source, name).convert_graph()
    except TooLargeError:  # of the input or an output; nodes report their own
        message = f"the input or an output rearranges more than {MAX_ELEMENTS} elements"
        help = "export the network with channels first, or with smaller images"
        raise fail("E0911", message, make_file_span(file), help=help) from None


@dataclass
class _RefusalList:
    """Refused nodes, grouped by reason."""

    file: str
    names_by_key: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    help_by_key: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, code: str, message: str, help: str, node: gs.Node) -> None:
        key = (code, node.op, message)
        self.names_by_key.setdefault(key, []).append(_describe_node(node))
        self.help_by_key.setdefault(key, help)

    def list_diagnostics(self) -> Iterator[Diagnostic]:
        # Attention comes first: if it is present, fixing the others does not help.
        sorted_refusals = sorted(
            self.names_by_key.items(), key=lambda item: item[0][2] != ATTENTION
        )
        for (code, op, message), names in sorted_refusals[:MAX_REFUSALS]:
            help = self.help_by_key[code, op, message]
            other_names = ", ".join(names[1:MAX_NAMES_SHOWN])
            remainder = (
                f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
            )
            notes = (f"also {other_names}{remainder}",) if other_names else ()
            span = make_file_span(f"{self.file}: node {names[0]}")
            yield Diagnostic(code, f"{op}: {message}", span, notes=notes, help=help)


class _Converter:
    """One conversion; a tensor that failed is None, which suppresses follow-on diagnostics."""

    def __init__(self, graph: gs.Graph, file: str, source: GraphInput, name: str) -> None:
        self.graph, self.file, self.name = graph, file, name
        names = UniqueNames(to_identifier(o.name, "output") for o in graph.outputs)
        graph_input = Input(names.make_unique(to_identifier(source.name, "image")), source.type)
        self.builder = GraphBuilder(graph_input, names)
        image = self.builder.make_view(graph_input.name)
        if source.channels_last:
            # TensorFlow's exporters keep an input of height x width x channels and transpose it
            # first. As a view of the same map, both need no step.
            image = image.transform(lambda index: np.moveaxis(index, 1, -1))
        self.tensors: dict[str, Operand | None] = {source.name: image}
        self.problems = _RefusalList(file)
        self.converted_nodes: list[tuple[gs.Node, Operand | None]] = []

    def convert_graph(self) -> ConvertedModel:
        # A refused node does not end the loop: one run reports every unsupported operator.
        for node in self.graph.nodes:
            self._convert_node(node)
        self._report_attention()
        # All at once: who has to export the network again needs the full list.
        diagnostics = tuple(self.problems.list_diagnostics())
        if diagnostics:
            raise UserError(diagnostics)
        model = self.builder.build_model(self.name, tuple(self._list_outputs()))
        views = {name: v for name, v in self.tensors.items() if isinstance(v, View)}
        origins = tuple(self._list_origins())
        pre_activations = self._find_pre_activations(model, views)
        return ConvertedModel(
            model,
            self.builder.preferred_names,
            origins,
            views,
            self.builder.map_by_vector,
            pre_activations,
        )

    def _find_pre_activations(
        self, model: Model, views: Mapping[str, View]
    ) -> Mapping[str, PreActivation]:
        final_views = (
            (name, self.builder.materialized_views.get(view, view)) for name, view in views.items()
        )
        pre_activation_by_value = {
            view.value: PreActivation(name, view)
            for name, view in final_views
            if view.is_complete()
        }
        activated_outputs = (
            output for output in model.graph.outputs if output.activation != "none"
        )
        return {
            output.name: pre_activation_by_value[output.value]
            for output in activated_outputs
            if output.value in pre_activation_by_value
        }

    def _list_origins(self) -> Iterator[OperatorOrigin]:
        for node, operand in self.converted_nodes:
            value = ""
            if isinstance(operand, View):
                value = self.builder.materialized_views.get(operand, operand).value
            widened = self.builder.map_by_vector.get(value, value)
            yield OperatorOrigin(_get_origin_operators(node), widened)

    def _convert_node(self, node: gs.Node) -> None:
        operands: Sequence[Operand | None] = [None] * len(node.outputs)
        # A node that reads a failed value fails for the same reason, which is already reported.
        computed_inputs = [
            t for t in node.inputs if not isinstance(t, gs.Constant) and not t.is_empty()
        ]
        if all(self.tensors.get(t.name) is not None for t in computed_inputs):
            operands = self._run_converter(node) or operands
        for tensor, operand in zip(node.outputs, operands, strict=False):
            self.tensors[tensor.name] = operand
        self.converted_nodes.append((node, operands[0] if operands else None))

    def _report_attention(self) -> None:
        """Report self-attention after a failed operator too: it is why transformers are refused."""
        for node in self.graph.nodes:
            operands = [
                self.tensors.get(t.name) for t in node.inputs if not isinstance(t, gs.Constant)
            ]
            # Queries times keys, or their product times values: neither factor is a weight. One of
            # them usually failed at the softmax or transposition before it.
            computed = len(operands) == 2 and all(
                operand is None or isinstance(operand, View) for operand in operands
            )
            if node.op == "MatMul" and computed and None in operands:
                self.problems.add(
                    "E0911", ATTENTION, explain_attention(get_computed_input_name(node)), node
                )

    def _run_converter(self, node: gs.Node) -> Sequence[Operand] | None:
        # Other domains, such as com.microsoft, reuse ONNX's names for different operators.
        converter = CONVERTERS.get(node.op) if _is_onnx(node) else None
        if converter is None:
            domain = "" if _is_onnx(node) else node.domain
            message, help = find_cause(node.op, domain, get_computed_input_name(node))
            message = message or "tcc does not support this operator"
            self.problems.add("E0910", message, help or _list_known_operators(), node)
            return None
        inputs = tuple(self._get_operand(tensor) for tensor in node.inputs)
        onnx_node = OnnxNode(node, inputs, self.builder, _name_step(node), self.graph.opset)
        try:
            converted = converter(onnx_node)
            operands = converted if isinstance(converted, tuple) else (converted,)
        except OperatorRefusal as refusal:
            self.problems.add("E0911", str(refusal), refusal.help, node)
        except NotConstantError as error:
            message = f"`{error}` is computed at run time"
            self.problems.add("E0911", message, "export the network with one fixed size", node)
        except TooLargeError:
            message = f"it rearranges more than {MAX_ELEMENTS} elements"
            self.problems.add("E0911", message, "export the network with smaller images", node)
        # Attributes in a third-party file can have any type and size. An error that they cause is
        # reported with the node, and is not a defect of tcc.
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            self.problems.add(
                "E0911", f"its attributes or inputs are invalid ({_format_error(error)})", "", node
            )
        else:
            return operands
        return None

    def _get_operand(self, tensor: gs.Tensor) -> Operand | None:
        if tensor.is_empty():
            return None
        return tensor.values if isinstance(tensor, gs.Constant) else self.tensors[tensor.name]

    def _list_outputs(self) -> Iterator[Output]:
        names = UniqueNames()
        for tensor in self.graph.outputs:
            operand = self.tensors.get(tensor.name)
            view = self.builder.materialize(operand) if isinstance(operand, View) else None
            name = names.make_unique(to_identifier(tensor.name, "output"))
            if view is None or not view.is_materialized:
                message = f"the output `{_trim_name(tensor.name)}` is not a feature map or a vector"
                help = "choose another output with --until NAME"
                raise UserError(
                    (Diagnostic("E0906", message, make_file_span(self.file), help=help),)
                )
            value, activation = self._split_activation(view.value)
            yield Output(name, value, activation)

    def _split_activation(self, value: str) -> tuple[str, OutputActivation]:
        """Return a value before its final activation, and this activation."""
        node = self.builder.nodes.get(value)
        # Only vectors: the output's contract gives the activation that the reader applies.
        if node is not None and len(node.type.shape) == 1:
            match node.op:
                case Softmax():
                    return node.inputs[0], "softmax"
                case Sigmoid():
                    return node.inputs[0], "sigmoid"
        return value, "none"


def _is_onnx(node: gs.Node) -> bool:
    return node.domain in (None, "", "ai.onnx")


def _name_step(node: gs.Node) -> str:
    """Return a step name from the node's weights or its path; else an empty name."""
    # More than one element: a scalar that several layers share does not name any of them.
    weights = [t.name for t in node.inputs if isinstance(t, gs.Constant) and t.values.size > 1]
    layer = next(filter(None, map(get_weight_layer, weights)), "")
    name, type = _get_origin_operators(node)[0]
    return to_identifier(layer or get_node_path(name, type))


def _get_origin_operators(node: gs.Node) -> tuple[tuple[str, str], ...]:
    """Return the operators of the file that a node represents, the last first."""
    return tuple(node.attrs.get(PARTS, ((node.name, node.op),)))


def _describe_node(node: gs.Node) -> str:
    """Return a node's name, or else its first output."""
    if node.name:
        return f"`{_trim_name(node.name)}`"
    return f"of `{_trim_name(node.outputs[0].name)}`" if node.outputs else "without an output"


def _trim_name(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."


def _format_error(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _list_known_operators() -> str:
    operators = sorted({*CONVERTERS, *PATTERNS} - {"ChannelNorm"})
    return (
        f"supported operators: {', '.join(operators)}. Use --until NAME to import only the part "
        "before other operators"
    )
