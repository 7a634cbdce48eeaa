"""Both sides of a match: the modules of a checkpoint, and the layers of a graph."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from tcc.compiler.data.weight_misfits import size_of
from tcc.compiler.foreign.checkpoint.checkpoint_file import Checkpoint
from tcc.compiler.foreign.checkpoint.lazy_tensors import LazyTensor
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.types import Shape

Signature = tuple[tuple[str, Shape], ...]
"""Roles and shapes of a module's tensors, in an order of their own."""

ROLES = {"running_mean": "mean", "running_var": "var"}
"""PyTorch's words for our roles, where they differ."""


LOSS = re.compile(
    r"(^|.*[._])(criterion|criteria|loss(es)?|metrics?)(_?(fn|func|function))?([._].*|$)", re.I
)
"""Names of what measures a network in training, and may have weights of its own."""
AUXILIARY = re.compile(r"(^|.*[._])aux(iliary)?([._0-9].*|logits.*|head.*|classifier.*|$)", re.I)
"""Names of heads that only training uses."""
COUNTER = "num_batches_tracked"
"""What PyTorch's batch norms count; of floats where a whole state dict was cast."""


@dataclass(frozen=True)
class ForeignModule:
    """The tensors of a checkpoint that share everything before the last dot, by our roles."""

    name: str
    tensors: Mapping[str, LazyTensor]

    @cached_property
    def signature(self) -> Signature:
        """Roles and shapes."""
        return _signature((role, tensor.shape) for role, tensor in self.tensors.items())

    @cached_property
    def storage(self) -> object:
        """Equal for modules that are one and the same memory."""
        return tuple((role, tensor.storage) for role, tensor in sorted(self.tensors.items()))

    def flattened(self) -> "ForeignModule":
        """Return the module with its kernels as the rows of a linear layer."""
        tensors = {role: _rows(tensor) for role, tensor in self.tensors.items()}
        return ForeignModule(self.name, tensors)

    @cached_property
    def content(self) -> object:
        """Equal for modules of equal values; reads them."""
        found = hashlib.sha256(repr(self.signature).encode())
        for _, tensor in sorted(self.tensors.items()):
            found.update(tensor.values().tobytes())
        return found.digest()


@dataclass(frozen=True)
class WeightedLayer:
    """A node with weights: its name, and the name and shape of each tensor by role."""

    name: str
    tensors: Mapping[str, tuple[str, Shape]]

    @cached_property
    def signature(self) -> Signature:
        """Roles and shapes."""
        return _signature((role, shape) for role, (_, shape) in self.tensors.items())


def modules(checkpoint: Checkpoint) -> list[ForeignModule]:
    """Return the modules of a checkpoint in order; whole numbers and counters belong to none."""
    grouped: dict[str, dict[str, LazyTensor]] = {}
    for tensor in checkpoint.tensors:
        name, _, last = tensor.name.rpartition(".")
        if tensor.floating and last != COUNTER:
            tensors = grouped.setdefault(name, {})
            role = ROLES.get(last, last)
            # A module that has both words for a role, `mean` and `running_mean`, keeps the second
            # as it is.
            tensors[last if role in tensors else role] = tensor
    return [ForeignModule(name, tensors) for name, tensors in grouped.items()]


def layers(graph: Graph) -> list[WeightedLayer]:
    """Return the layers of a graph in order, each set of weights once."""
    found: dict[tuple[str, ...], WeightedLayer] = {}
    for node in graph.nodes:
        params = {n: graph.params[n] for n in node.params}
        tensors = {p.role: (n, p.shape) for n, p in params.items()}
        if tensors:
            found.setdefault(node.params, WeightedLayer(node.name, tensors))
    return list(found.values())


def _rows(tensor: LazyTensor) -> LazyTensor:
    shape = (tensor.shape[0], prod(tensor.shape[1:])) if len(tensor.shape) > 2 else tensor.shape
    return replace(tensor, shape=shape, values=lambda: tensor.values().reshape(shape))


def described(signature: Signature) -> str:
    """Return a signature as messages print it: `weight 64x3x7x7, bias 64`."""
    return ", ".join(f"{role} {size_of(shape)}" for role, shape in signature)


def _signature(tensors: Iterable[tuple[str, Shape]]) -> Signature:
    order = ("weight", "bias", "mean", "var")
    rank = {role: place for place, role in enumerate(order)}
    return tuple(sorted(tensors, key=lambda t: (rank.get(t[0], len(order)), t[0])))
