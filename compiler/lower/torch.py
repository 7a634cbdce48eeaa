"""A graph as a trainable PyTorch module: the float meaning that all else is held against."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcc.compiler.data.weights import Weights, random
from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.op import Argument, Call
from tcc.compiler.ir.rewrite import eliminate_dead_nodes, for_inference


@dataclass(frozen=True, slots=True)
class TorchCall:
    """One function call; `arguments` and `result` name values and weights.

    `last` lists the values that no later step reads.
    """

    function: Callable[..., Tensor]
    arguments: tuple[str, ...]
    result: str
    options: Mapping[str, Any]
    trains: bool
    packed: bool
    last: tuple[str, ...] = ()

    def run(self, values: dict[str, Tensor], training: bool) -> None:
        """Add the result to the values, and forget those that are read for the last time."""
        tensors = [values[name] for name in self.arguments]
        arguments = [tensors] if self.packed else tensors
        mode = {"training": training} if self.trains else {}
        values[self.result] = self.function(*arguments, **self.options, **mode)
        for name in self.last:
            del values[name]


@dataclass(frozen=True, slots=True)
class TorchProgram:
    """Calls in order, and the values that are the outputs, by the outputs' names."""

    steps: tuple[TorchCall, ...]
    outputs: Mapping[str, str]


class TorchNetwork(nn.Module):
    """The module of a graph. Its state dict has exactly the names of the graph's weights.

    In training mode batch norms use and update their batch's statistics, dropout drops, and
    train-only outputs are there; in evaluation mode it computes what artifacts contain.
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        super().__init__()
        self._inputs = tuple(source.name for source in graph.inputs)
        self._places = tuple(name.rpartition(".")[::2] for name in graph.params)
        self._programs = {
            True: _program(eliminate_dead_nodes(graph)),
            False: _program(for_inference(graph)),
        }
        for (layer, role), (name, param) in zip(self._places, graph.params.items(), strict=True):
            tensor = torch.tensor(weights[name], dtype=torch.float32)
            # Set past add_module, which refuses layers called like a method: `train`, `type`.
            child = self._modules.setdefault(layer, nn.Module())
            assert child is not None
            if param.trainable:
                child.register_parameter(role, nn.Parameter(tensor))
            else:
                child.register_buffer(role, tensor)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name; inputs are (batch, *shape), in the graph's order."""
        program = self._programs[self.training]
        values = dict(zip(self._inputs, inputs, strict=True)) | dict(self._weights())
        for step in program.steps:
            step.run(values, self.training)
        return {name: values[value] for name, value in program.outputs.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; `training` is the mode even where a layer is called so."""
        if name == "training":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for layer, role in self._places:
            yield f"{layer}.{role}", getattr(self._modules[layer], role)


def module(graph: Graph, weights: Weights | None = None) -> TorchNetwork:
    """Return the module of a graph.

    Args:
        graph: The network, train-only outputs included.
        weights: float32 arrays by the graph's names; None for `weights.random`'s.

    Returns:
        A module from tensors (batch, *shape), in the inputs' order, to outputs by name.
    """
    return TorchNetwork(graph, random(graph) if weights is None else weights)


def _program(graph: Graph) -> TorchProgram:
    steps = [step for node in graph.nodes for step in _steps(graph, node)]
    outputs = {output.name: output.value for output in graph.outputs}
    kept = {*outputs.values(), *graph.params}
    # Backwards, the first call that is met with a value is the last that reads it: there the value
    # is dropped, so that memory holds what is still needed, as in a module written by hand.
    freed: list[TorchCall] = []
    for step in reversed(steps):
        read = dict.fromkeys(step.arguments)
        freed.append(replace(step, last=tuple(name for name in read if name not in kept)))
        kept.update(read)
    return TorchProgram(tuple(reversed(freed)), outputs)


def _steps(graph: Graph, node: Node) -> Iterator[TorchCall]:
    types = graph.input_types(node)
    roles = (param.role for param in node.op.params(*types))
    names = {f"x{i}": value for i, value in enumerate(node.inputs)}
    names |= dict(zip(roles, node.params, strict=True))
    for call in node.op.torch(*types):
        result = node.name if call.output == "y" else f"{node.name}:{call.output}"
        arguments = tuple(names[_local(argument)] for argument in call.inputs)
        names[call.output] = result
        yield TorchCall(
            _function(call), arguments, result, call.attributes, call.trains, call.packed
        )


def _local(argument: Argument) -> str:
    match argument:
        case str():
            return argument
    raise TypeError("a torch call takes tensors only; literals are its attributes")


def _function(call: Call) -> Callable[..., Tensor]:
    found: Callable[..., Tensor] | None = getattr(functional, call.function, None)
    return found or getattr(torch, call.function)
