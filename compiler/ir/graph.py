"""The graph that every stage reads and returns; nothing here ever changes."""

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
    """A value that comes from outside; `preprocess` says how an image becomes it."""

    name: str
    type: TensorType
    preprocess: "Preprocess | None" = None


@dataclass(frozen=True, slots=True)
class Node:
    """One use of an operation; its output bears its name, the path of its step in the spec.

    `params` names the weight tensors in the order of `op.params`; `at` is the step's place.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    type: TensorType
    # No part of what a node is: two specs that say the same on other lines have equal graphs.
    at: Span = field(default=NOWHERE, compare=False)

    def __repr__(self) -> str:
        """Return one line."""
        return f"Node {self.name}: {self.op.keyword}({', '.join(self.inputs)}) -> {self.type}"


@dataclass(frozen=True, slots=True)
class Output:
    """A value that leaves the graph. `activation` is applied after it, by whoever runs it.

    `kind` is what the spec says of its meaning, if it says anything.
    """

    name: str
    value: str
    activation: OutputActivation = "none"
    labels: tuple[str, ...] = ()
    train_only: bool = False
    kind: OutputKind | None = None

    @property
    def meaning(self) -> OutputKind:
        """What its values stand for: as the spec says, else as activation and labels tell."""
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


# Without slots, since a cached property keeps its value in the instance's `__dict__`.
@dataclass(frozen=True, repr=False)
class Graph(ValueView):
    """Nodes in an order in which each comes after its inputs."""

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
            # Indexed once for all values: asking each node of each value would take quadratic time
            # in networks of some thousand nodes.
            # A node that reads a value twice is one reader of it.
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
            trained = ", in training alone" if output.train_only else ""
            kind = f"{output.meaning}, activation {output.activation}{trained}"
            yield f"output {output.name}: {self.types[output.value]} {kind}{labels}"

    def get_input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Return the types of a node's inputs."""
        return tuple(self.types[value] for value in node.inputs)

    def find_sole_reader(self, value: str) -> Node | None:
        """Return the one node that reads a value, if nothing else does."""
        readers = self.readers[value]
        # An output is read from outside: what it holds has to stay, however few nodes read it.
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
    """A pure step from model to model that keeps what the model computes.

    `bound` is the most that an output may move, relative to the outputs' largest magnitude (at
    least 1); 0 is exact, to the bit. `doc` is the first line of what it says of itself.
    """

    name: str
    bound: float
    doc: str
    apply: Transform

    def __call__(self, model: Model) -> Model:
        """Return the model after the pass."""
        return self.apply(model)


def exact_pass(transform: Transform) -> Pass:
    """Make a pass of a function that changes no bit of any output."""
    return bounded_pass(0.0)(transform)


def bounded_pass(bound: float) -> Callable[[Transform], Pass]:
    """Make a pass of a function that rounds differently, within a bound."""

    def make_pass(step: Transform) -> Pass:
        doc, _, _ = (step.__doc__ or "").partition("\n")
        return Pass(step.__name__, bound, doc, step)

    return make_pass


class GraphError(AssertionError):
    """A graph breaks its own rules: a fault of the compiler, never of the user."""


def verify(graph: Graph) -> Graph:
    """Return the graph if it is well formed.

    Checked: names are unique, every value is defined before it is read, input counts fit the
    ops, every type is what the op infers, and every output exists.

    Raises:
        GraphError: A rule is broken; the message names the node.
    """
    problem = next(_find_problems(graph), None)
    if problem:
        raise GraphError(f"{graph.name}: {problem}")
    return graph


def _find_problems(graph: Graph) -> Iterator[str]:
    defined_types: dict[str, TensorType] = {}
    for source in graph.inputs:
        if source.name in defined_types:
            yield f"two inputs are called {source.name}"
        defined_types[source.name] = source.type
    for node in graph.nodes:
        yield from _find_node_problems(node, defined_types)
        defined_types[node.name] = node.type
    names = [o.name for o in graph.outputs]
    if len(set(names)) != len(names):
        yield "two outputs share a name"
    sources = {source.name for source in graph.inputs}
    for output in graph.outputs:
        if output.value not in defined_types:
            yield f"output {output.name} is not defined"
        # ONNX has one space of names for inputs, outputs and values (its IR, "Names Within a
        # Graph"): such an output could not be written.
        elif output.name in sources and output.name != output.value:
            yield f"output {output.name} bears the name of an input"


def _find_node_problems(node: Node, defined_types: Mapping[str, TensorType]) -> Iterator[str]:
    if node.name in defined_types:
        yield f"{node.name} is defined twice"
    missing = [value for value in node.inputs if value not in defined_types]
    if missing:
        yield f"{node.name} reads {missing[0]}, which no earlier node defines"
        return
    min_inputs, max_inputs = node.op.arity
    if len(node.inputs) < min_inputs or (max_inputs is not None and len(node.inputs) > max_inputs):
        # Nothing more is asked of a node whose inputs are wrong: `infer` may take their number for
        # granted.
        yield f"{node.name} has {len(node.inputs)} inputs"
        return
    types = tuple(defined_types[value] for value in node.inputs)
    try:
        # Passes write types down as they make nodes: here they are worked out anew, so that one
        # that is stale is found where it began and not in a target.
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
    """Return the node of a word applied to inputs of given types; None where it is the identity.

    Args:
        name: What the node, and its value, is called.
        op: The operation as written.
        inputs: The names of the values that it reads.
        types: Their types, in the same order.
        at: The step's place in the text.

    Raises:
        OpError: The inputs do not fit the op.
    """
    resolved: Op | None = op.resolve(*types)
    # A word may stand for nothing at all, as a resize to the size that is there does.
    if resolved is None:
        return None
    output_type = resolved.infer(*types)
    params = tuple(f"{name}.{p.role}" for p in resolved.params(*types))
    return Node(name, resolved, inputs, params, output_type, at)
