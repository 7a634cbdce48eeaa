"""Module names of well-known programs, and the order in which these run the modules.

`zoo/namings.yaml` lists patterns in execution order. In a list, a mapping is a pattern with the
patterns below it. A star matches text inside one part of a name, and its text is the first sort
key: `layer*.*: [conv1, bn1]` is `layer1.0.conv1`, `layer1.0.bn1`, `layer1.1.conv1`.

A naming scheme fits if it has a pattern for every module and every pattern of its first level
matches a module. Train-only heads may be missing.
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

from tcc.compiler.data.weights import format_shape
from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.importers.checkpoint.checkpoint_file import Checkpoint, make_natural_key
from tcc.compiler.importers.checkpoint.lazy_tensors import LazyTensor
from tcc.compiler.importers.checkpoint.rule_files import match_pattern
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import Shape

Signature = tuple[tuple[str, Shape], ...]
"""Roles and shapes of a module's tensors, in a fixed order of roles."""

ROLES = {"running_mean": "mean", "running_var": "var"}
"""PyTorch's tensor names that differ from the roles here."""


LOSS_NAME = re.compile(
    r"(^|.*[._])(criterion|criteria|loss(es)?|metrics?)(_?(fn|func|function))?([._].*|$)", re.I
)
"""Names of loss and metric modules, which may have weights of their own."""
AUXILIARY_NAME = re.compile(
    r"(^|.*[._])aux(iliary)?([._0-9].*|logits.*|head.*|classifier.*|$)", re.I
)
"""Names of train-only heads."""
BATCH_COUNTER = "num_batches_tracked"
"""Counter of PyTorch's batch norms; floating point if the complete state dict was cast."""


@dataclass(frozen=True)
class CheckpointModule:
    """Tensors of a checkpoint with the same name before the last dot, by role."""

    name: str
    tensors: Mapping[str, LazyTensor]

    @cached_property
    def signature(self) -> Signature:
        """Roles and shapes."""
        return _sort_signature((role, tensor.shape) for role, tensor in self.tensors.items())

    @cached_property
    def storage(self) -> object:
        """Equal for modules that share the same memory."""
        return tuple((role, tensor.storage) for role, tensor in sorted(self.tensors.items()))

    def flatten_kernels(self) -> "CheckpointModule":
        """Return the module with each kernel reshaped to a linear layer's weight matrix."""
        tensors = {role: _flatten_tensor(tensor) for role, tensor in self.tensors.items()}
        return CheckpointModule(self.name, tensors)

    @cached_property
    def content(self) -> object:
        """Equal for modules with equal values; reads them."""
        checksum = hashlib.sha256(repr(self.signature).encode())
        for _, tensor in sorted(self.tensors.items()):
            checksum.update(tensor.read_values().tobytes())
        return checksum.digest()


@dataclass(frozen=True)
class WeightedLayer:
    """A node with weights: its name, and the name and shape of each tensor by role."""

    name: str
    tensors: Mapping[str, tuple[str, Shape]]

    @cached_property
    def signature(self) -> Signature:
        """Roles and shapes."""
        return _sort_signature((role, shape) for role, (_, shape) in self.tensors.items())


def collect_modules(checkpoint: Checkpoint) -> list[CheckpointModule]:
    """Return the modules of a checkpoint in order, without integer tensors and counters."""
    tensors_by_module: dict[str, dict[str, LazyTensor]] = {}
    for tensor in checkpoint.tensors:
        name, _, suffix = tensor.name.rpartition(".")
        if tensor.floating and suffix != BATCH_COUNTER:
            tensors = tensors_by_module.setdefault(name, {})
            role = ROLES.get(suffix, suffix)
            # A module that has both names of a role, `mean` and `running_mean`, keeps the second
            # name.
            tensors[suffix if role in tensors else role] = tensor
    return [CheckpointModule(name, tensors) for name, tensors in tensors_by_module.items()]


def collect_layers(graph: Graph) -> list[WeightedLayer]:
    """Return the layers of a graph in order; layers that share weights appear once."""
    layer_by_params: dict[tuple[str, ...], WeightedLayer] = {}
    for node in graph.nodes:
        params = {n: graph.params[n] for n in node.params}
        tensors = {p.role: (n, p.shape) for n, p in params.items()}
        if tensors:
            layer_by_params.setdefault(node.params, WeightedLayer(node.name, tensors))
    return list(layer_by_params.values())


def _flatten_tensor(tensor: LazyTensor) -> LazyTensor:
    shape = (tensor.shape[0], prod(tensor.shape[1:])) if len(tensor.shape) > 2 else tensor.shape
    return replace(tensor, shape=shape, read_values=lambda: tensor.read_values().reshape(shape))


def format_signature(signature: Signature) -> str:
    """Return a signature in the form of messages: `weight 64x3x7x7, bias 64`."""
    return ", ".join(f"{role} {format_shape(shape)}" for role, shape in signature)


def _sort_signature(tensors: Iterable[tuple[str, Shape]]) -> Signature:
    order = ("weight", "bias", "mean", "var")
    rank = {role: index for index, role in enumerate(order)}
    return tuple(sorted(tensors, key=lambda t: (rank.get(t[0], len(order)), t[0])))


Key = tuple[Any, ...]
"""Sort key for execution order: positions in the pattern lists, and the texts of the stars."""


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A pattern for a full name, or for its first parts with `children` for the rest."""

    pattern: str
    children: "tuple[NamePattern, ...]" = ()


@dataclass(frozen=True, slots=True)
class PixelScaling:
    """Normalization of pixels per RGB channel: ((value / 255) - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def matches(self, contract: Preprocess | None) -> bool:
        """Whether an input contract scales pixels the same way."""
        if contract is None or contract.raw or contract.color != "rgb" or contract.scale != "255":
            return False
        statistics = (contract.mean, contract.std)
        channel_statistics = [
            numbers * 3 if len(numbers) == 1 else numbers for numbers in statistics
        ]
        return channel_statistics == [self.mean, self.std]


@dataclass(frozen=True, slots=True)
class NamingScheme:
    """One naming scheme; kernels of the modules in `flat` are reshaped to linear layers.

    `note`: facts about that program's weights that names and shapes do not show. `pixels`: the
    scaling that torchvision trained its own weights with, if the scheme is torchvision's.
    """

    title: str
    order: tuple[NamePattern, ...]
    flat: frozenset[str]
    note: str
    pixels: PixelScaling | None

    def find_keys(self, names: Sequence[str]) -> dict[str, Key] | None:
        """Return the sort key of each name, or None if the scheme does not fit."""
        key_by_name = {name: find_key(self.order, name.split(".")) for name in names}
        matched_keys = {
            name: name_key for name, name_key in key_by_name.items() if name_key is not None
        }
        used_indices = {name_key[0] for name_key in matched_keys.values()}
        needed_indices = {
            i
            for i, name_pattern in enumerate(self.order)
            if not AUXILIARY_NAME.match(name_pattern.pattern)
        }
        return (
            matched_keys
            if len(matched_keys) == len(key_by_name) and needed_indices <= used_indices
            else None
        )


def find_key(patterns: Sequence[NamePattern], parts: Sequence[str]) -> Key | None:
    """Return the sort key of a name, given by its parts; None if no pattern matches."""
    for index, name_pattern in enumerate(patterns):
        length = name_pattern.pattern.count(".") + 1
        stars = match_pattern(name_pattern.pattern, ".".join(parts[:length]))
        if stars is None or (len(parts) > length) != bool(name_pattern.children):
            continue
        inner = find_key(name_pattern.children, parts[length:]) if name_pattern.children else ()
        if inner is not None:
            return (index, *map(make_natural_key, stars), *inner)
    return None


def iterate_prefixes(names: Sequence[str]) -> Iterator[str]:
    """Yield the prefixes that all names share: nothing, then `model.`, then `model.net.`.

    Wrappers of a network add such prefixes.
    """
    prefix = ""
    yield prefix
    suffixes = list(names)
    for _ in range(4):
        first_parts = {name.partition(".")[0] for name in suffixes}
        if len(first_parts) != 1 or not all("." in name for name in suffixes):
            return
        prefix += f"{first_parts.pop()}."
        yield prefix
        suffixes = [name.partition(".")[2] for name in suffixes]


@cache
def load_naming_schemes() -> tuple[NamingScheme, ...]:
    """Return the naming schemes that are included in the package."""
    path = Path(str(files("tcc"))) / "zoo" / "namings.yaml"
    scheme_by_title: Any = to_plain(parse(path.read_text(), path.name))
    return tuple(
        NamingScheme(
            title,
            _parse_patterns(scheme["order"]),
            frozenset(scheme.get("flat", ())),
            scheme.get("note", ""),
            _parse_pixels(scheme["pixels"]) if "pixels" in scheme else None,
        )
        for title, scheme in scheme_by_title.items()
    )


def _parse_pixels(mapping: Any) -> PixelScaling:
    return PixelScaling(tuple(mapping["mean"]), tuple(mapping["std"]))


def _parse_patterns(trees: Sequence[Any]) -> tuple[NamePattern, ...]:
    return tuple(name_pattern for tree in trees for name_pattern in _parse_pattern(tree))


def _parse_pattern(tree: Any) -> Iterator[NamePattern]:
    if isinstance(tree, dict):
        for pattern, children in tree.items():
            yield NamePattern(str(pattern), _parse_patterns(children))
    else:
        yield NamePattern(str(tree))
