"""Checkpoints in formats of other projects, made from weights of a graph, and matching graphs."""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tcc.compiler.importers.checkpoint import ImportedWeights, import_checkpoint
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ops import BatchNorm, Conv, Op
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

ROLES = {"mean": "running_mean", "var": "running_var"}
State = OrderedDict[str, torch.Tensor]


def list_layers(graph: Graph) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in graph.params))


def make_state(
    graph: Graph, names: Mapping[str, str] | None = None, order: Sequence[str] = ()
) -> State:
    """Return trained weights of a graph as a PyTorch state dict under other names."""
    weights = sample_weights(graph)
    state: State = OrderedDict()
    for layer in order or list_layers(graph):
        state_name = names[layer] if names else f"net.{list_layers(graph).index(layer)}"
        for name, tensor in weights.items():
            if name.rpartition(".")[0] == layer:
                role = name.rpartition(".")[2]
                state[f"{state_name}.{ROLES.get(role, role)}"] = torch.from_numpy(tensor)
        if f"{state_name}.running_var" in state:
            state[f"{state_name}.num_batches_tracked"] = torch.tensor(7)
    return state


def save_state(folder: Path, state: object, **options: object) -> Path:
    path = folder / "net.pth"
    torch.save(state, path, **options)
    return path


def catch_refusal(path: Path, graph: Graph, rules: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, graph, rules)
    text = str(caught.value).replace(str(path), "net.pth")
    return text.replace(str(rules), "rules.yaml")


def assert_complete(imported: ImportedWeights, graph: Graph) -> None:
    assert list(imported.weights) == list(graph.params)
    for name, tensor in sample_weights(graph).items():
        np.testing.assert_array_equal(imported.weights[name], tensor, err_msg=name)


def count_methods(imported: ImportedWeights) -> Counter[str]:
    return Counter(row.how for row in imported.rows)


def make_block_graph(*convolutions: tuple[str, Op]) -> Graph:
    add = NetBuilder(4, 6, 6, name="block")
    for name, op in convolutions:
        add(name, op)
        add(f"{name}_bn", BatchNorm())
    return add.build()


def make_twin_graph() -> Graph:
    """Return a graph of two equal layers after another layer."""
    return make_block_graph(("a", Conv(4, (3, 3))), ("b", Conv(4, (1, 1))), ("c", Conv(4, (1, 1))))
