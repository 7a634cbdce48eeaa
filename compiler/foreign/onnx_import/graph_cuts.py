"""A file's graph and the steps it became, cut in the same places: at every value both know."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from tcc.compiler.foreign.onnx_import.conversion import ConvertedModel
from tcc.compiler.foreign.onnx_import.tensor_view import View
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.ops import Resize

FED_PREFIX = "fed to "
"""What stands before the name of a value that is given instead of computed."""
OLDEST_IR = 4
"""The first version of the format in which a constant need not be an input."""


@dataclass(frozen=True)
class GraphCut:
    """`model` as it was converted, and what it became."""

    model: ModelProto
    found: ConvertedModel

    @cached_property
    def views(self) -> Mapping[str, View]:
        """Return the values in which both are cut, by what the file calls them."""
        here = {value.name for value in self._graph.input} | self.makers.keys()
        # Cleaning may have removed what conversion still knew of the file: both have to have the
        # value.
        views = self.found.views.items()
        return {name: v for name, v in views if name in here and not self._spread(v.value)}

    @cached_property
    def makers(self) -> Mapping[str, NodeProto]:
        """Return the operator that makes each value of the file."""
        return {name: node for node in self._graph.node for name in node.output if name}

    def needed(self, name: str) -> frozenset[str]:
        """Return the values, in which the graph is cut, that a value is computed from."""
        return frozenset(self._walked([name])[1])

    def theirs(self, names: Sequence[str]) -> ModelProto:
        """Return the part of the file that computes some values; inputs are `FED_PREFIX` others."""
        makers, fed = self._walked(names)
        # By identity: protobuf's messages can be no elements of a set.
        nodes = [node for node in self._graph.node if id(node) in makers]
        read = {name for node in nodes for name in node.input}
        # Sorted, so that the same file gives the same part.
        inputs = (
            helper.make_tensor_value_info(FED_PREFIX + n, TensorProto.FLOAT, self.views[n].shape)
            for n in sorted(fed)
        )
        body = GraphProto(name="part")
        body.node.extend(_fed(node, fed) for node in nodes)
        body.initializer.extend(t for t in self._graph.initializer if t.name in read)
        body.input.extend(inputs)
        body.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
        # Older files list their constants among the inputs, which the part leaves out.
        version = max(self.model.ir_version, OLDEST_IR)
        return helper.make_model(body, opset_imports=self.model.opset_import, ir_version=version)

    def ours(self, values: Iterable[str]) -> Model:
        """Return the steps that compute some values; its inputs are `FED_PREFIX` others.

        Its outputs bear the values' names.
        """
        # Backwards from what is wanted, up to the nearest values that both sides know: every
        # operator is run once with inputs that are equal on both sides, so that errors do not add
        # up.
        pending, wanted = [*values], dict.fromkeys(values)
        taken: set[str] = set()
        fed: dict[str, None] = {}
        while pending:
            node = self.nodes[pending.pop()]
            if node.name not in taken:
                taken.add(node.name)
                fed |= dict.fromkeys(v for v in node.inputs if v in self._known)
                pending += (v for v in node.inputs if v not in self._known)
        whole = self.found.model.graph
        nodes = (_renamed(self.nodes[n], fed) for n in self.nodes if n in taken)
        inputs = tuple(Input(FED_PREFIX + value, whole.types[value]) for value in fed)
        outputs = tuple(Output(value, value) for value in wanted)
        return Model(Graph("part", inputs, tuple(nodes), outputs), self.found.model.weights)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """Return the steps by what they make."""
        return {node.name: node for node in self.found.model.graph.nodes}

    @cached_property
    def maps(self) -> Mapping[str, str]:
        """Return the vectors among the known values that were made a second time, as maps."""
        values = {view.value for view in self.views.values()}
        both = self.found.maps.items()
        return {v: m for v, m in both if v in values and m not in values}

    @property
    def _graph(self) -> GraphProto:
        return self.model.graph

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset({view.value for view in self.views.values()} | {*self.maps.values()})

    def _spread(self, value: str) -> bool:
        """Whether a value is one pixel laid over all, in whose place that pixel may be read."""
        node = self.nodes.get(value)
        if node is None or not isinstance(node.op, Resize):
            return False
        return self.found.model.graph.types[node.inputs[0]].shape[1:] == (1, 1)

    def _walked(self, names: Sequence[str]) -> tuple[set[int], set[str]]:
        """Return the operators, by identity, that compute values, and the known ones they read."""
        makers: set[int] = set()
        fed: set[str] = set()
        pending = [*names]
        while pending:
            node = self.makers[pending.pop()]
            if id(node) not in makers:
                makers.add(id(node))
                fed.update(name for name in node.input if name in self.views)
                pending += (n for n in node.input if n in self.makers and n not in self.views)
        return makers, fed


def _fed(node: NodeProto, fed: set[str]) -> NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = [FED_PREFIX + name if name in fed else name for name in node.input]
    return made


def _renamed(node: Node, fed: Mapping[str, None]) -> Node:
    inputs = tuple(FED_PREFIX + value if value in fed else value for value in node.inputs)
    return Node(node.name, node.op, inputs, node.params, node.type)
