"""Weights from elsewhere: a foreign checkpoint's tensors under the names of a graph's weights.

A module of the checkpoint finds its layer by a rule file, else by bearing the layer's own path,
else by order and shape (`match`). Nothing is left over or guessed: see `Imported.rows`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.checkpoint import foreign, match
from tcc.compiler.checkpoint import rules as rule_files
from tcc.compiler.checkpoint.foreign import Checkpoint, shown
from tcc.compiler.checkpoint.modules import Layer, Module, described, layers, modules
from tcc.compiler.checkpoint.rules import Rule
from tcc.compiler.graph import Graph
from tcc.compiler.source import fail, nearest
from tcc.compiler.types import Shape
from tcc.compiler.weights import Weights, checked

__all__ = ["Imported", "Row", "import_checkpoint"]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one tensor of a checkpoint.

    `source` is its name there, `name` the weight that it gives, or would give, or none. `how` is
    `rule`, `name`, `order`, `shape`, `duplicate` (of one taken already) or `ignored`.
    """

    source: str
    name: str
    shape: Shape
    how: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The weights of a graph, and where each tensor of the checkpoint went."""

    weights: Weights
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module goes: no layer if it is left out."""

    how: str
    layer: Layer | None


Places = dict[str, Place]
"""By the names of modules."""


def import_checkpoint(path: Path, graph: Graph, rules: Path | None = None) -> Imported:
    """Return the weights of a graph from a PyTorch checkpoint or safetensors of any names.

    Raises:
        UserError: The checkpoint cannot be read (E0510); a module has no counterpart (E0511) or
            several (E0512); the rule file is wrong (E0513) or does not fit (E0514); a value is
            not finite (E0506).
        MissingTool: PyTorch is needed to read it.
    """
    listed = rule_files.read(rules) if rules else ()
    checkpoint = foreign.read(path)
    there, here = modules(checkpoint), layers(graph)
    places = _by_rule(listed, there, here)
    _by_name(there, here, places)
    _by_order(checkpoint, there, here, places)
    tensors = {
        layer.tensors[role][0]: tensor.values()
        for module in there
        if (layer := places[module.name].layer) and places[module.name].how != "duplicate"
        for role, tensor in module.tensors.items()
    }
    return Imported(checked(tensors, graph), _rows(checkpoint, there, places))


def _by_rule(listed: Sequence[Rule], there: Sequence[Module], here: Sequence[Layer]) -> Places:
    named = {layer.name: layer for layer in here}
    places: Places = {}
    owners: dict[str, Module] = {}
    unused = dict.fromkeys(listed)
    for module in there:
        hits = ((rule, rule_files.capture(rule.pattern, module.name)) for rule in listed)
        rule, stars = next(((r, s) for r, s in hits if s is not None), (None, ()))
        if rule is None:
            continue
        unused.pop(rule, None)
        if rule.to is None:
            places[module.name] = Place("ignored", None)
            continue
        layer = _target(rule, module, rule_files.target(rule, stars), named)
        owner = owners.setdefault(layer.name, module)
        if owner.content != module.content:
            message = f"two modules become {layer.name}"
            label = f"{shown(owner.name)} and {shown(module.name)}"
            raise fail("E0514", message, rule.at, label=label)
        places[module.name] = Place("rule" if owner is module else "duplicate", layer)
    for rule in unused:
        raise fail("E0514", f"no module of the checkpoint fits `{rule.pattern}`", rule.at)
    return places


def _target(rule: Rule, module: Module, name: str, named: Mapping[str, Layer]) -> Layer:
    layer = named.get(name)
    if layer is None:
        close = nearest(name, set(named)) if len(named) <= 1000 else None
        help = f"did you mean `{close}`?" if close else "`tcc check` lists the layers"
        label = f"what {shown(module.name)} would become"
        raise fail("E0514", f"no layer is called `{shown(name)}`", rule.at, label=label, help=help)
    if layer.signature != module.signature:
        message = f"{shown(module.name)} cannot be {name}"
        label = f"it has {described(module.signature)}, not {described(layer.signature)}"
        raise fail("E0514", message, rule.at, label=label)
    return layer


def _by_name(there: Sequence[Module], here: Sequence[Layer], places: Places) -> None:
    taken = {place.layer.name for place in places.values() if place.layer}
    free = {(layer.name, layer.signature): layer for layer in here if layer.name not in taken}
    for module in there:
        layer = free.get((module.name, module.signature))
        if layer and module.name not in places:
            places[module.name] = Place("name", layer)


def _by_order(
    checkpoint: Checkpoint, there: Sequence[Module], here: Sequence[Layer], places: Places
) -> None:
    taken = {place.layer.name for place in places.values() if place.layer}
    side = match.Side(
        checkpoint.path,
        modules=[m for m in there if m.name not in places],
        taken=[m for m in there if m.name in places and places[m.name].layer],
        layers=[layer for layer in here if layer.name not in taken],
        ordered=checkpoint.ordered,
    )
    how, found = match.by_order(side)
    for module, layer in zip(found, side.layers, strict=True):
        places[module.name] = Place(how, layer)
    copies = [module for module in side.modules if module.name not in places]
    originals = {m.content: places[m.name].layer for m in [*side.taken, *found] if copies}
    for module in copies:
        places[module.name] = Place("duplicate", originals[module.content])


def _rows(checkpoint: Checkpoint, there: Sequence[Module], places: Places) -> tuple[Row, ...]:
    found: dict[str, tuple[str, str]] = {}
    for module in there:
        place = places[module.name]
        ours = place.layer.tensors if place.layer else {}
        for role, tensor in module.tensors.items():
            found[tensor.name] = (ours[role][0] if ours else "", place.how)
    rows = ((t, *found.get(t.name, ("", "ignored"))) for t in checkpoint.tensors)
    return tuple(Row(tensor.name, name, tensor.shape, how) for tensor, name, how in rows)
