"""Names that well-known programs give to modules, and the order in which those run.

`zoo/namings.yaml` has them: a list of patterns in the order of the network, in which a mapping is
a pattern and what is below it. A star stands for text inside a part of a name, and what it stands
for sorts first: `layer*.*: [conv1, bn1]` is `layer1.0.conv1`, `layer1.0.bn1`, `layer1.1.conv1`.

A naming fits where every module has a name in it and every pattern of its first level a module;
heads that only training uses may be missing.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from tcc.compiler.data.weights import size_of
from tcc.compiler.foreign.checkpoint.checkpoint_file import Checkpoint, natural
from tcc.compiler.foreign.checkpoint.lazy_tensors import LazyTensor
from tcc.compiler.foreign.checkpoint.rule_files import capture
from tcc.compiler.frontend.yaml import parse, plain
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.preprocess import Preprocess
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


Key = tuple[Any, ...]
"""Sorts names in the order of the network: places in lists, and what stars stand for."""


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern for a whole name, or for its first parts and then what is below."""

    pattern: str
    below: "tuple[NamePattern, ...]" = ()


@dataclass(frozen=True, slots=True)
class PixelScaling:
    """What images are divided to, channel by channel in RGB: ((value / 255) - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def fit(self, contract: Preprocess | None) -> bool:
        """Whether an input contract gives a network such pixels."""
        if contract is None or contract.raw or contract.color != "rgb" or contract.scale != "255":
            return False
        given = (contract.mean, contract.std)
        wide = [one * 3 if len(one) == 1 else one for one in given]
        return wide == [self.mean, self.std]


@dataclass(frozen=True, slots=True)
class NamingScheme:
    """A way of naming modules; the kernels of `flat` ones are the rows of linear layers.

    `note` says what names and shapes do not tell of the weights that come with that program,
    `pixels` what torchvision's own were trained on, where it is one of torchvision's namings.
    """

    title: str
    order: tuple[NamePattern, ...]
    flat: frozenset[str]
    note: str
    pixels: PixelScaling | None

    def keys(self, names: Sequence[str]) -> dict[str, Key] | None:
        """Return the place of each name, or None if the naming does not fit."""
        found = {name: key(self.order, name.split(".")) for name in names}
        placed = {name: at for name, at in found.items() if at is not None}
        used = {at[0] for at in placed.values()}
        needed = {i for i, item in enumerate(self.order) if not AUXILIARY.match(item.pattern)}
        return placed if len(placed) == len(found) and needed <= used else None


def key(items: Sequence[NamePattern], parts: Sequence[str]) -> Key | None:
    """Return where a name, given by its parts, stands in a list; None if it does not."""
    for place, item in enumerate(items):
        length = item.pattern.count(".") + 1
        stars = capture(item.pattern, ".".join(parts[:length]))
        if stars is None or (len(parts) > length) != bool(item.below):
            continue
        inner = key(item.below, parts[length:]) if item.below else ()
        if inner is not None:
            return (place, *map(natural, stars), *inner)
    return None


def prefixes(names: Sequence[str]) -> Iterator[str]:
    """Yield what may be taken off all names: nothing, `model.`, `model.net.`, as far as all share.

    A program's wrapper of a network puts its own name for it there.
    """
    prefix = ""
    yield prefix
    rest = list(names)
    for _ in range(4):
        firsts = {name.partition(".")[0] for name in rest}
        if len(firsts) != 1 or not all("." in name for name in rest):
            return
        prefix += f"{firsts.pop()}."
        yield prefix
        rest = [name.partition(".")[2] for name in rest]


@cache
def known() -> tuple[NamingScheme, ...]:
    """Return the namings that come with the package."""
    path = Path(str(files("tcc"))) / "zoo" / "namings.yaml"
    found: Any = plain(parse(path.read_text(), path.name))
    return tuple(
        NamingScheme(
            title,
            _items(one["order"]),
            frozenset(one.get("flat", ())),
            one.get("note", ""),
            _pixels(one["pixels"]) if "pixels" in one else None,
        )
        for title, one in found.items()
    )


def _pixels(one: Any) -> PixelScaling:
    return PixelScaling(tuple(one["mean"]), tuple(one["std"]))


def _items(listed: Sequence[Any]) -> tuple[NamePattern, ...]:
    return tuple(item for one in listed for item in _item(one))


def _item(one: Any) -> Iterator[NamePattern]:
    if isinstance(one, dict):
        for pattern, below in one.items():
            yield NamePattern(str(pattern), _items(below))
    else:
        yield NamePattern(str(one))
