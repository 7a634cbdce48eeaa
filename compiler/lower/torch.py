"""A graph as a trainable PyTorch module: the float meaning that all else is held against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tcc.compiler.data.weights import Weights, check_weights, initialize_random
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.rewrite import eliminate_dead_nodes, extract_inference_graph
from tcc.compiler.lower.torch_layers import create_layer, find_last_uses
from tcc.compiler.support.diagnostics import UnhandledError, fail, make_file_span


@dataclass(frozen=True, slots=True)
class TorchStep:
    """One use of a layer; `arguments` and `output` name values.

    `freed_values` lists the values that no later step reads.
    """

    layer: str
    arguments: tuple[str, ...]
    output: str
    freed_values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TorchProgram:
    """Steps in order, and the values that are the outputs, by the outputs' names."""

    steps: tuple[TorchStep, ...]
    outputs: Mapping[str, str]


class TorchNetwork(nn.Module):
    """The module of a graph: its children are layers of torch, by the names of the graph's nodes.

    Its state dict has exactly the names of the graph's weights, in their order. In training mode
    batch norms use and update their batch's statistics, dropout drops, and train-only outputs are
    there; in evaluation mode it computes what artifacts contain. `graph` is what it was made of.
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        super().__init__()
        self.graph = graph
        self._inputs = tuple(source.name for source in graph.inputs)
        self._weight_locations = _locate_weights(graph)
        owners = _find_owners(graph)
        # Two programs of the same layers, made once: what only training needs is not computed in
        # evaluation, and choosing one costs nothing in a step.
        self._programs = {
            True: _build_program(eliminate_dead_nodes(graph), owners),
            False: _build_program(extract_inference_graph(graph), owners),
        }
        for node in graph.nodes:
            # Set past add_module, which refuses layers called like a method: `train`, `type`.
            if owners[node.name] == node.name:
                self._modules[node.name] = create_layer(graph, node)
        with torch.no_grad():
            for name, tensor in self.named_weights().items():
                # `np.array` copies: torch warns of arrays that may not be written, as those of a
                # mapped file are.
                tensor.copy_(torch.from_numpy(np.array(weights[name], np.float32)))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name; inputs are (batch, *shape), in the graph's order."""
        program = self._programs[self.training]
        values = dict(zip(self._inputs, inputs, strict=True))
        layers: Mapping[str, Any] = self._modules
        for step in program.steps:
            values[step.output] = layers[step.layer](*[values[v] for v in step.arguments])
            # Autograd keeps what it needs for itself; without gradients memory is that of the
            # values alive.
            for name in step.freed_values:
                del values[name]
        return {name: values[value] for name, value in program.outputs.items()}

    def named_weights(self) -> dict[str, Tensor]:
        """Return the tensors of the weights by the graph's names, in the graph's order."""
        # Found through the layers each time and not kept: torch's tools may put another tensor, or
        # another layer, in their place (`SyncBatchNorm`, parametrisations).
        locations = ((name, *self._weight_locations[name]) for name in self.graph.params)
        return {name: _get_weight(self._modules[owner], role) for name, owner, role in locations}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; `training` is the mode even where a layer is called so."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def create_module(graph: Graph, weights: Weights | None = None) -> TorchNetwork:
    """Return the module of a graph.

    Args:
        graph: The network, train-only outputs included.
        weights: float32 arrays by the graph's names; None for `weights.random`'s.

    Returns:
        A module from tensors (batch, *shape), in the inputs' order, to outputs by name.
    """
    return TorchNetwork(graph, initialize_random(graph) if weights is None else weights)


def find_network(model: nn.Module) -> TorchNetwork:
    """Return the network that a module is or holds.

    Raises:
        UserError: It holds none, or several (E0516).
    """
    networks = [submodule for submodule in model.modules() if isinstance(submodule, TorchNetwork)]
    match networks:
        case [network]:
            return network
        case _:
            message = f"the module holds {len(networks)} networks of specs, not one"
            help = "give the module that `tcc.torch` returned"
            raise fail("E0516", message, make_file_span(type(model).__name__), help=help)


def copy_trained_weights(network: TorchNetwork) -> Weights:
    """Return a copy of the weights of a module: float32 arrays by the graph's names.

    Raises:
        UserError: A weight is not finite (E0506), or a variance is negative (E0507).
    """
    tensors = network.named_weights()
    copied = {n: t.detach().to("cpu", torch.float32, copy=True) for n, t in tensors.items()}
    return check_weights({name: tensor.numpy() for name, tensor in copied.items()}, network.graph)


def _build_program(graph: Graph, owners: Mapping[str, str]) -> TorchProgram:
    outputs = {output.name: output.value for output in graph.outputs}
    freed_by_step = find_last_uses((node.inputs for node in graph.nodes), outputs.values())
    steps = (
        TorchStep(owners[node.name], node.inputs, node.name, freed_values)
        for node, freed_values in zip(graph.nodes, freed_by_step, strict=True)
    )
    return TorchProgram(tuple(steps), outputs)


def _find_owners(graph: Graph) -> dict[str, str]:
    """Return the node whose layer each node uses: the first that has the same weights."""
    first_nodes: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.params:
            first_nodes.setdefault(name, node)
    owner_names: dict[str, str] = {}
    for node in graph.nodes:
        owner = first_nodes[node.params[0]] if node.params else node
        # One layer stands for all nodes that share its weights, so that they must agree in all
        # else.
        if (owner.op, owner.params) != (node.op, node.params):
            raise UnhandledError("operation with weights of other ones", node.name)
        owner_names[node.name] = owner.name
    return owner_names


def _locate_weights(graph: Graph) -> dict[str, tuple[str, str]]:
    """Return the node and the role of each weight; a pass may have given it another name."""
    locations: dict[str, tuple[str, str]] = {}
    for node in graph.nodes:
        roles = (param.role for param in node.op.params(*graph.get_input_types(node)))
        for name, role in zip(node.params, roles, strict=True):
            locations.setdefault(name, (node.name, role))
    return locations


def _get_weight(owner: nn.Module | None, role: str) -> Tensor:
    """Return a weight of a layer, or of what torch put in its place."""
    # `convert_sync_batchnorm` makes layers of torch's own class, with torch's names for the
    # statistics.
    synchronised = isinstance(owner, nn.SyncBatchNorm) and role in {"mean", "var"}
    tensor: Tensor = getattr(owner, f"running_{role}" if synchronised else role)
    return tensor
