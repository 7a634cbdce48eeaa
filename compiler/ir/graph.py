"""The graph that all stages use; it is immutable."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, assert_never

from tcc.compiler.ir.op import Op, OpError, Param
from tcc.compiler.ir.types import OutputActivation, OutputKind, TensorType
from tcc.compiler.support.diagnostics import NOWHERE, Span
from tcc.compiler.support.value_views import ValueView, count, list_names

if TYPE_CHECKING:
    import numpy as np

    from tcc.compiler.ir.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class Input:
    """An input value; `preprocess` defines how an image becomes it."""

    name: str
    type: TensorType
    preprocess: "Preprocess | None" = None


@dataclass(frozen=True, slots=True)
class Node:
    """One use of an op. Its output has the node's name, which is the path of its step in the spec.

    `params` names the weight tensors in the order of `op.params`; `at` is the step's span.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    type: TensorType
    # Not compared: specs that differ only in line numbers have equal graphs.
    at: Span = field(default=NOWHERE, compare=False)

    def __repr__(self) -> str:
        """Return one line."""
        return f"Node {self.name}: {self.op.keyword}({', '.join(self.inputs)}) -> {self.type}"


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the graph. `activation` is applied after it, by whoever runs the graph.

    `kind` is the meaning that the spec gives it, if any.
    """

    name: str
    value: str
    activation: OutputActivation = "none"
    labels: tuple[str, ...] = ()
    train_only: bool = False
    kind: OutputKind | None = None

    @property
    def meaning(self) -> OutputKind:
        """The meaning of its values: from the spec, or else from activation and labels."""
        if self.kind is not None:
            return self.kind
        match self.activation:
            case "softmax":
                return "classes"
            case "sigmoid":
                return "decisions"
            case "none":
                return "classes" if self.labels else "regression"
            case _:
                assert_never(self.activation)


# Without slots, because a cached property stores its value in the instance's `__dict__`.
@dataclass(frozen=True, repr=False)
class Graph(ValueView):
    """Nodes in topological order: each comes after its inputs."""

    name: str
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def types(self) -> Mapping[str, TensorType]:
        """The type of every value by name."""
        types_by_name = {i.name: i.type for i in self.inputs}
        return types_by_name | {n.name: n.type for n in self.nodes}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in order."""
        readers_by_value: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            # Indexed once for all values: otherwise large networks would take quadratic time.
            # A node that reads a value twice is one reader.
            for value in dict.fromkeys(node.inputs):
                readers_by_value[value].append(node)
        return {name: tuple(nodes) for name, nodes in readers_by_value.items()}

    @cached_property
    def params(self) -> Mapping[str, Param]:
        """Every weight tensor by name, in order of first use."""
        return {
            name: param
            for node in self.nodes
            for name, param in zip(
                node.params, node.op.params(*self.get_input_types(node)), strict=True
            )
        }

    def _summarize(self) -> Iterator[str]:
        numbers = sum(param.elements for param in self.params.values())
        yield f"Graph {self.name}: {count(len(self.nodes), 'node')}, {numbers:,} weights"
        yield from self.describe_io()

    def describe_io(self) -> Iterator[str]:
        """Yield a line for each input and each output."""
        for source in self.inputs:
            image = f", an image ({source.preprocess.color})" if source.preprocess else ""
            yield f"input {source.name}: {source.type.dtype} {source.type}{image}"
        for output in self.outputs:
            labels = f": {list_names(output.labels)}" if output.labels else ""
            trained = ", only in training" if output.train_only else ""
            kind = f"{output.meaning}, activation {output.activation}{trained}"
            yield f"output {output.name}: {self.types[output.value]} {kind}{labels}"

    def get_input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's inputs."""
        return tuple(self.types[value] for value in node.inputs)

    def find_sole_reader(self, value: str) -> Node | None:
        """Return the one node that reads a value, if nothing else does."""
        readers = self.readers[value]
        # An output is also read from outside, so its value must stay.
        is_sole = len(readers) == 1 and all(value != o.value for o in self.outputs)
        return readers[0] if is_sole else None


@dataclass(frozen=True, repr=False)
class Model(ValueView):
    """A graph with the values of its weights."""

    graph: Graph
    weights: "Mapping[str, np.ndarray]"

    def _summarize(self) -> Iterator[str]:
        size = sum(array.nbytes for array in self.weights.values())
        nodes = count(len(self.graph.nodes), "node")
        tensors = count(len(self.weights), "weight tensor")
        yield f"Model {self.graph.name}: {nodes}, {tensors}, {size:,} bytes"
        yield from self.graph.describe_io()


Transform = Callable[[Model], Model]


@dataclass(frozen=True, slots=True)
class Pass:
    """A pure function from model to model that preserves what the model computes.

    `bound` is the largest change of an output, relative to the outputs' largest magnitude (at
    least 1); 0 means bit-exact. `doc` is the first line of the function's docstring.
    """

    name: str
    bound: float
    doc: str
    apply: Transform

    def __call__(self, model: Model) -> Model:
        """Return the model after the pass."""
        return self.apply(model)


def exact_pass(transform: Transform) -> Pass:
    """Make a pass from a function that changes no bit of any output."""
    return bounded_pass(0.0)(transform)


def bounded_pass(bound: float) -> Callable[[Transform], Pass]:
    """Return a decorator for a pass that rounds differently, within a bound."""

    def make_pass(step: Transform) -> Pass:
        doc, _, _ = (step.__doc__ or "").partition("\n")
        return Pass(step.__name__, bound, doc, step)

    return make_pass


class GraphError(AssertionError):
    """A graph breaks its own rules: a bug in the compiler, never the user's mistake."""


def verify(graph: Graph) -> Graph:
    """Return the graph if it is well formed.

    Checks that names are unique, that every value is defined before it is read, that input counts
    fit the ops, that every type is what the op infers, and that every output exists.

    Raises:
        GraphError: A check fails; the message names the node.
    """
    problem = next(_find_problems(graph), None)
    if problem:
        raise GraphError(f"{graph.name}: {problem}")
    return graph


def _find_problems(graph: Graph) -> Iterator[str]:
    defined_types: dict[str, TensorType] = {}
    for network_input in graph.inputs:
        if network_input.name in defined_types:
            yield f"two inputs are named {network_input.name}"
        defined_types[network_input.name] = network_input.type
    for node in graph.nodes:
        yield from _find_node_problems(node, defined_types)
        defined_types[node.name] = node.type
    names = [o.name for o in graph.outputs]
    if len(set(names)) != len(names):
        yield "two outputs share a name"
    sources = {network_input.name for network_input in graph.inputs}
    for output in graph.outputs:
        if output.value not in defined_types:
            yield f"output {output.name} is not defined"
        # ONNX has one namespace for inputs, outputs and values (its IR, "Names Within a Graph"):
        # such an output could not be written.
        elif output.name in sources and output.name != output.value:
            yield f"output {output.name} has the name of an input"


def _find_node_problems(node: Node, defined_types: Mapping[str, TensorType]) -> Iterator[str]:
    if node.name in defined_types:
        yield f"{node.name} is defined twice"
    missing = [value for value in node.inputs if value not in defined_types]
    if missing:
        yield f"{node.name} reads {missing[0]}, which no earlier node defines"
        return
    min_inputs, max_inputs = node.op.arity
    if len(node.inputs) < min_inputs or (max_inputs is not None and len(node.inputs) > max_inputs):
        # Nothing else is checked then: `infer` may rely on the number of inputs.
        yield f"{node.name} has {len(node.inputs)} inputs"
        return
    types = tuple(defined_types[value] for value in node.inputs)
    try:
        # Passes write types down when they make nodes. They are inferred again here, so that a
        # stale one is reported here and not in a backend.
        inferred = node.op.infer(*types)
    except OpError as error:
        yield f"{node.name}: {error}"
        return
    if inferred != node.type:
        yield f"{node.name} is {node.type}, but its op infers {inferred}"
    if len(node.params) != len(node.op.params(*types)):
        yield f"{node.name} has {len(node.params)} weight tensors"


def make_node(
    name: str, op: Op, inputs: tuple[str, ...], types: tuple[TensorType, ...], at: Span = NOWHERE
) -> Node | None:
    """Return the node of an op applied to inputs of given types; None if it is the identity.

    Args:
        name: The name of the node and its value.
        op: The op as written.
        inputs: The names of the values that it reads.
        types: Their types, in the same order.
        at: The step's span.

    Raises:
        OpError: The inputs do not fit the op.
    """
    resolved: Op | None = op.resolve(*types)
    # Some steps do nothing, such as a resize to the current size.
    if resolved is None:
        return None
    output_type = resolved.infer(*types)
    params = tuple(f"{name}.{p.role}" for p in resolved.params(*types))
    return Node(name, resolved, inputs, params, output_type, at)
