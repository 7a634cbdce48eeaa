"""A graph as a trainable PyTorch module: the float reference for all other forms."""

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

    `freed_values` are the values that no later step reads.
    """

    layer: str
    arguments: tuple[str, ...]
    output: str
    freed_values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TorchProgram:
    """Steps in order, and the output values by the outputs' names."""

    steps: tuple[TorchStep, ...]
    outputs: Mapping[str, str]


class TorchNetwork(nn.Module):
    """The module of a graph: its children are torch layers, named after the graph's nodes.

    Its state dict has exactly the names of the graph's weights, in their order. In training mode,
    batch norms use and update their batch's statistics, dropout is active, and train-only outputs
    are included. In evaluation mode, it computes what artifacts contain. `graph` is its source.
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        super().__init__()
        self.graph = graph
        self._inputs = tuple(network_input.name for network_input in graph.inputs)
        self._weight_locations = _locate_weights(graph)
        owners = _find_owners(graph)
        # Two programs over the same layers, built once: evaluation skips what only training needs,
        # and switching costs nothing per step.
        self._programs = {
            True: _build_program(eliminate_dead_nodes(graph), owners),
            False: _build_program(extract_inference_graph(graph), owners),
        }
        for node in graph.nodes:
            # Not by add_module, which refuses layers named like a method: `train`, `type`.
            if owners[node.name] == node.name:
                self._modules[node.name] = create_layer(graph, node)
        with torch.no_grad():
            for name, tensor in self.named_weights().items():
                # `np.array` copies: torch warns of read-only arrays, such as those of a mapped
                # file.
                tensor.copy_(torch.from_numpy(np.array(weights[name], np.float32)))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name; inputs are (batch, *shape), in the graph's order."""
        program = self._programs[self.training]
        values = dict(zip(self._inputs, inputs, strict=True))
        layers: Mapping[str, Any] = self._modules
        for step in program.steps:
            values[step.output] = layers[step.layer](*[values[v] for v in step.arguments])
            # Autograd keeps references to what it needs; without gradients, only live values take
            # memory.
            for name in step.freed_values:
                del values[name]
        return {name: values[value] for name, value in program.outputs.items()}

    def named_weights(self) -> dict[str, Tensor]:
        """Return the weight tensors by the graph's names, in the graph's order."""
        # Looked up in the layers each time: torch's tools may replace a tensor or a layer
        # (`SyncBatchNorm`, parametrizations).
        locations = ((name, *self._weight_locations[name]) for name in self.graph.params)
        return {name: _get_weight(self._modules[owner], role) for name, owner, role in locations}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; `training` is the mode, even if a layer has that name."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def create_module(graph: Graph, weights: Weights | None = None) -> TorchNetwork:
    """Return the module of a graph.

    Args:
        graph: The network, train-only outputs included.
        weights: float32 arrays by the graph's names; random ones if None.

    Returns:
        A module from tensors (batch, *shape), in the inputs' order, to outputs by name.
    """
    return TorchNetwork(graph, initialize_random(graph) if weights is None else weights)


def find_network(model: nn.Module) -> TorchNetwork:
    """Return the network that a module is or contains.

    Raises:
        UserError: It contains none, or several (E0516).
    """
    networks = [submodule for submodule in model.modules() if isinstance(submodule, TorchNetwork)]
    match networks:
        case [network]:
            return network
        case _:
            message = f"the module must contain one network from a spec, not {len(networks)}"
            help = "pass the module that `tcc.torch` returned"
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
    """Return the node whose layer each node uses: the first one with the same weights."""
    first_nodes: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.params:
            first_nodes.setdefault(name, node)
    owner_names: dict[str, str] = {}
    for node in graph.nodes:
        owner = first_nodes[node.params[0]] if node.params else node
        # One layer represents all nodes that share its weights, so they must agree in everything
        # else.
        if (owner.op, owner.params) != (node.op, node.params):
            raise UnhandledError("weights that other ops share with", node.name)
        owner_names[node.name] = owner.name
    return owner_names


def _locate_weights(graph: Graph) -> dict[str, tuple[str, str]]:
    """Return the node and the role of each weight; a pass may have renamed it."""
    locations: dict[str, tuple[str, str]] = {}
    for node in graph.nodes:
        roles = (param.role for param in node.op.params(*graph.get_input_types(node)))
        for name, role in zip(node.params, roles, strict=True):
            locations.setdefault(name, (node.name, role))
    return locations


def _get_weight(owner: nn.Module | None, role: str) -> Tensor:
    """Return a weight of a layer, or of the layer by which torch replaced it."""
    # `convert_sync_batchnorm` creates layers of torch's own class, with torch's names for the
    # statistics.
    synchronised = isinstance(owner, nn.SyncBatchNorm) and role in {"mean", "var"}
    tensor: Tensor = getattr(owner, f"running_{role}" if synchronised else role)
    return tensor
