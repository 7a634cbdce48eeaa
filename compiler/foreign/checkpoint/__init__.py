"""Weights from elsewhere: a foreign checkpoint's tensors under the names of a graph's weights.

A module of the checkpoint finds its layer by a rule file, else by bearing the layer's own path,
else by names that are known, or by order and shape (`layer_matching`). Nothing is left over or
guessed: see `ImportedWeights.rows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.data.weights import Weights, checked, random
from tcc.compiler.foreign.checkpoint import (
    checkpoint_file,
    layer_matching,
    naming_schemes,
    rule_files,
)
from tcc.compiler.foreign.checkpoint.checkpoint_file import Checkpoint
from tcc.compiler.foreign.checkpoint.lazy_tensors import shown
from tcc.compiler.foreign.checkpoint.naming_schemes import (
    COUNTER,
    LOSS,
    ForeignModule,
    WeightedLayer,
    described,
    layers,
    modules,
)
from tcc.compiler.foreign.checkpoint.rule_files import MatchRule
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.rewrite import for_inference
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import fail, nearest

__all__ = ["ImportedTensor", "ImportedWeights", "import_checkpoint"]


@dataclass(frozen=True, slots=True)
class ImportedTensor:
    """What became of one tensor of a checkpoint.

    `source` is its name there, `name` the weight that it gives, or would give, or none. `how` is
    `rule`, `name`, `names` (those of a well-known program), `order`, `shape`, `duplicate` (of one
    taken already) or `ignored`.
    """

    source: str
    name: str
    shape: Shape
    how: str


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """The weights of a graph, where each tensor of the checkpoint went, and what else to say.

    `pixels` are those that torchvision's weights under the checkpoint's names were trained on,
    where the graph's input contract gives it others.
    """

    weights: Weights
    rows: tuple[ImportedTensor, ...]
    notes: tuple[str, ...] = ()
    pixels: naming_schemes.PixelScaling | None = None


@dataclass(frozen=True, slots=True)
class LayerAssignment:
    """Where a module goes: no layer if it is left out; `module` has the shapes of the layer."""

    how: str
    layer: WeightedLayer | None
    module: ForeignModule


LayerAssignments = dict[str, LayerAssignment]
"""By the names of modules."""


def import_checkpoint(
    path: Path, graph: Graph, rules: Path | None = None, entry: str | None = None
) -> ImportedWeights:
    """Return the weights of a graph from a PyTorch checkpoint or safetensors of any names.

    Args:
        path: The checkpoint.
        graph: The network whose weights are wanted.
        rules: A rule file, if there is one.
        entry: The part of the checkpoint to take, where there are several.

    Raises:
        UserError: The checkpoint cannot be read (E0510); a module has no counterpart (E0511) or
            several (E0512); the rule file is wrong (E0513) or does not fit (E0514); the
            checkpoint has several entries or none of that name (E0515); a value is not finite
            (E0506).
    """
    listed = rule_files.read(rules) if rules else ()
    checkpoint = checkpoint_file.read(path, entry)
    there, here = modules(checkpoint), layers(graph)
    places = _by_rule(listed, there, here)
    _by_name(there, here, places)
    found = _by_order(checkpoint, there, graph, places)
    tensors = {
        place.layer.tensors[role][0]: tensor.values()
        for place in places.values()
        if place.layer and place.how != "duplicate"
        for role, tensor in place.module.tensors.items()
    }
    missing = [name for name in graph.params if name not in tensors]
    tensors |= random(graph, only=missing)
    notes = (*checkpoint.notes, *_notes(found, missing))
    rows = _rows(checkpoint, there, places)
    return ImportedWeights(checked(tensors, graph), rows, notes, _other_pixels(found, graph))


def _other_pixels(
    found: layer_matching.LayerMatch, graph: Graph
) -> naming_schemes.PixelScaling | None:
    wanted = found.naming.pixels if found.naming else None
    return None if wanted is None or wanted.fit(graph.inputs[0].preprocess) else wanted


def _notes(found: layer_matching.LayerMatch, missing: Sequence[str]) -> Iterator[str]:
    if found.naming:
        yield f"the names are those of {found.naming.title}"
        yield from filter(None, [found.naming.note])
    if found.dropped:
        names = ", ".join(shown(module.name) for module in found.dropped[:8])
        more = ", ..." if found.dropped[8:] else ""
        yield f"ignored, since only training uses it: {names}{more}"
    if missing:
        yield (
            f"the checkpoint has no {missing[0].rpartition('.')[0]}"
            f" and what else only training uses ({len(missing)} tensors); it starts anew"
        )


def _by_rule(
    listed: Sequence[MatchRule], there: Sequence[ForeignModule], here: Sequence[WeightedLayer]
) -> LayerAssignments:
    named = {layer.name: layer for layer in here}
    places: LayerAssignments = {}
    owners: dict[str, ForeignModule] = {}
    unused = dict.fromkeys(listed)
    for module in there:
        hits = ((rule, rule_files.capture(rule.pattern, module.name)) for rule in listed)
        rule, stars = next(((r, s) for r, s in hits if s is not None), (None, ()))
        if rule is None:
            continue
        unused.pop(rule, None)
        if rule.to is None:
            places[module.name] = LayerAssignment("ignored", None, module)
            continue
        layer = _target(rule, module, rule_files.target(rule, stars), named)
        owner = owners.setdefault(layer.name, module)
        # Modules of equal values may go to one layer: a program may save one under two names.
        if owner.content != module.content:
            message = f"two modules become {layer.name}"
            label = f"{shown(owner.name)} and {shown(module.name)}"
            raise fail("E0514", message, rule.at, label=label)
        places[module.name] = LayerAssignment(
            "rule" if owner is module else "duplicate", layer, module
        )
    for rule in unused:
        raise fail("E0514", f"no module of the checkpoint fits `{rule.pattern}`", rule.at)
    return places


def _target(
    rule: MatchRule, module: ForeignModule, name: str, named: Mapping[str, WeightedLayer]
) -> WeightedLayer:
    layer = named.get(name)
    if layer is None:
        # A nearest name is a costly search: among many it is no help either.
        close = nearest(name, set(named)) if len(named) <= 1000 else None
        help = f"did you mean `{close}`?" if close else "`tcc check` lists the layers"
        label = f"what {shown(module.name)} would become"
        raise fail("E0514", f"no layer is called `{shown(name)}`", rule.at, label=label, help=help)
    if layer.signature != module.signature:
        message = f"{shown(module.name)} cannot be {name}"
        label = f"it has {described(module.signature)}, not {described(layer.signature)}"
        raise fail("E0514", message, rule.at, label=label)
    return layer


def _by_name(
    there: Sequence[ForeignModule], here: Sequence[WeightedLayer], places: LayerAssignments
) -> None:
    taken = {place.layer.name for place in places.values() if place.layer}
    free = {(layer.name, layer.signature): layer for layer in here if layer.name not in taken}
    for prefix in naming_schemes.prefixes([m.name for m in there if not LOSS.match(m.name)]):
        for module in there:
            layer = free.get((module.name.removeprefix(prefix), module.signature))
            if layer and module.name not in places:
                places[module.name] = LayerAssignment("name", layer, module)
        if any(place.how == "name" for place in places.values()):
            return


def _by_order(
    checkpoint: Checkpoint, there: Sequence[ForeignModule], graph: Graph, places: LayerAssignments
) -> layer_matching.LayerMatch:
    """Place what rules and names left over."""
    here = layers(graph)
    needed = {layer.name for layer in layers(for_inference(graph))}
    taken = {place.layer.name for place in places.values() if place.layer}
    side = layer_matching.MatchProblem(
        checkpoint.path,
        modules=[m for m in there if m.name not in places],
        taken=[m for m in there if m.name in places and places[m.name].layer],
        layers=[layer for layer in here if layer.name not in taken],
        side_layers=frozenset(layer.name for layer in here if layer.name not in needed),
        ordered=checkpoint.ordered,
        strange=[
            f"{shown(tensor.name)} ({tensor.kind})"
            for tensor in checkpoint.tensors
            if not tensor.floating and not tensor.name.endswith(COUNTER)
        ],
    )
    found = layer_matching.matched(side)
    for module, layer in zip(found.modules, found.layers, strict=True):
        places[module.name] = LayerAssignment(found.how, layer, module)
    for module in found.dropped:
        places[module.name] = LayerAssignment("ignored", None, module)
    _place_copies([m for m in side.modules if m.name not in places], there, places)
    return found


def _place_copies(
    copies: Sequence[ForeignModule], there: Sequence[ForeignModule], places: LayerAssignments
) -> None:
    placed = [m for m in there if m.name in places and places[m.name].layer and copies]
    # Backwards, so that of equal ones the first stays.
    shared = {module.storage: module for module in reversed(placed)}
    alike: dict[object, ForeignModule] = {}
    for module in copies:
        # Values are read only where it is not known to be the same memory.
        if module.storage not in shared and not alike:
            alike = {m.content: m for m in reversed(placed)}
        original = shared.get(module.storage) or alike[module.content]
        places[module.name] = LayerAssignment("duplicate", places[original.name].layer, module)


def _rows(
    checkpoint: Checkpoint, there: Sequence[ForeignModule], places: LayerAssignments
) -> tuple[ImportedTensor, ...]:
    found: dict[str, tuple[str, str]] = {}
    for module in there:
        place = places[module.name]
        ours = place.layer.tensors if place.layer else {}
        for role, tensor in module.tensors.items():
            found[tensor.name] = (ours[role][0] if ours else "", place.how)
    rows = ((t, *found.get(t.name, ("", "ignored"))) for t in checkpoint.tensors)
    return tuple(ImportedTensor(tensor.name, name, tensor.shape, how) for tensor, name, how in rows)
