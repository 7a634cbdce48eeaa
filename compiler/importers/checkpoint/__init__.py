"""Import weights: a third-party checkpoint's tensors under the names of a graph's weights.

A module of the checkpoint is matched to its layer by a rule file, else by the layer's own path,
else by well-known names, order or shape (`layer_matching`). Nothing is guessed, and every tensor
is accounted for: see `ImportedWeights.rows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.data.weights import Weights, check_weights, initialize_random
from tcc.compiler.importers.checkpoint import (
    checkpoint_file,
    layer_matching,
    naming_schemes,
    rule_files,
)
from tcc.compiler.importers.checkpoint.checkpoint_file import Checkpoint
from tcc.compiler.importers.checkpoint.lazy_tensors import escape_text
from tcc.compiler.importers.checkpoint.naming_schemes import (
    BATCH_COUNTER,
    LOSS_NAME,
    CheckpointModule,
    WeightedLayer,
    collect_layers,
    collect_modules,
    format_signature,
)
from tcc.compiler.importers.checkpoint.rule_files import MatchRule
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import fail, find_nearest_name

__all__ = ["ImportedTensor", "ImportedWeights", "import_checkpoint"]


@dataclass(frozen=True, slots=True)
class ImportedTensor:
    """How one tensor of a checkpoint was used.

    `source` is its name in the checkpoint. `name` is the weight that it matches, or empty. `how`
    is `rule`, `name`, `names` (those of a well-known program), `order`, `shape`, `duplicate` (a
    copy of an imported one) or `ignored`.
    """

    source: str
    name: str
    shape: Shape
    how: str


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """The weights of a graph, the use of each tensor of the checkpoint, and notes for the user.

    `pixels` is the pixel scaling that torchvision's weights with these names were trained with,
    if the graph's input contract differs from it.
    """

    weights: Weights
    rows: tuple[ImportedTensor, ...]
    notes: tuple[str, ...] = ()
    pixels: naming_schemes.PixelScaling | None = None


@dataclass(frozen=True, slots=True)
class LayerAssignment:
    """The layer of a module, or None if it is ignored; `module` has the shapes of the layer."""

    method: str
    layer: WeightedLayer | None
    module: CheckpointModule


LayerAssignments = dict[str, LayerAssignment]
"""Key: name of the module."""


def import_checkpoint(
    path: Path, graph: Graph, rules: Path | None = None, entry_name: str | None = None
) -> ImportedWeights:
    """Return the weights of a graph from a PyTorch or safetensors checkpoint with any names.

    Args:
        path: The checkpoint.
        graph: The network that needs weights.
        rules: A rule file, if there is one.
        entry_name: The entry of the checkpoint to use, if it has several.

    Raises:
        UserError: The checkpoint cannot be read (E0510); a module has no counterpart (E0511) or
            several (E0512); the rule file is wrong (E0513) or does not fit (E0514); the
            checkpoint has several entries or none with that name (E0515); a value is not finite
            (E0506).
    """
    match_rules = rule_files.read_rules(rules) if rules else ()
    checkpoint = checkpoint_file.read_checkpoint(path, entry_name)
    checkpoint_modules, graph_layers = collect_modules(checkpoint), collect_layers(graph)
    assignments = _assign_by_rule(match_rules, checkpoint_modules, graph_layers)
    _assign_by_name(checkpoint_modules, graph_layers, assignments)
    layer_match = _assign_by_order(checkpoint, checkpoint_modules, graph, assignments)
    tensors = {
        assignment.layer.tensors[role][0]: tensor.read_values()
        for assignment in assignments.values()
        if assignment.layer and assignment.method != "duplicate"
        for role, tensor in assignment.module.tensors.items()
    }
    missing = [name for name in graph.params if name not in tensors]
    tensors |= initialize_random(graph, only=missing)
    notes = (*checkpoint.notes, *_list_notes(layer_match, missing))
    rows = _build_rows(checkpoint, checkpoint_modules, assignments)
    return ImportedWeights(
        check_weights(tensors, graph), rows, notes, _find_other_pixels(layer_match, graph)
    )


def _find_other_pixels(
    layer_match: layer_matching.LayerMatch, graph: Graph
) -> naming_schemes.PixelScaling | None:
    trained_pixels = layer_match.naming.pixels if layer_match.naming else None
    return (
        None
        if trained_pixels is None or trained_pixels.matches(graph.inputs[0].preprocess)
        else trained_pixels
    )


def _list_notes(layer_match: layer_matching.LayerMatch, missing: Sequence[str]) -> Iterator[str]:
    if layer_match.naming:
        yield f"the module names are those of {layer_match.naming.title}"
        yield from filter(None, [layer_match.naming.note])
    if layer_match.dropped:
        names = ", ".join(escape_text(module.name) for module in layer_match.dropped[:8])
        ellipsis = ", ..." if layer_match.dropped[8:] else ""
        yield f"ignored, because only training uses them: {names}{ellipsis}"
    if missing:
        yield (
            f"the checkpoint has no {missing[0].rpartition('.')[0]}: {len(missing)} train-only"
            " tensors are initialized at random"
        )


def _assign_by_rule(
    match_rules: Sequence[MatchRule],
    checkpoint_modules: Sequence[CheckpointModule],
    graph_layers: Sequence[WeightedLayer],
) -> LayerAssignments:
    layer_by_name = {layer.name: layer for layer in graph_layers}
    assignments: LayerAssignments = {}
    owners: dict[str, CheckpointModule] = {}
    unused = dict.fromkeys(match_rules)
    for module in checkpoint_modules:
        hits = ((rule, rule_files.match_pattern(rule.pattern, module.name)) for rule in match_rules)
        rule, stars = next(((r, s) for r, s in hits if s is not None), (None, ()))
        if rule is None:
            continue
        unused.pop(rule, None)
        if rule.to is None:
            assignments[module.name] = LayerAssignment("ignored", None, module)
            continue
        layer = _find_target_layer(
            rule, module, rule_files.format_target(rule, stars), layer_by_name
        )
        owner = owners.setdefault(layer.name, module)
        # Modules with equal values may become one layer: a program may save one under two names.
        if owner.content != module.content:
            message = f"two modules with different values are mapped to {layer.name}"
            label = f"{escape_text(owner.name)} and {escape_text(module.name)}"
            raise fail("E0514", message, rule.at, label=label, help="give each its own layer")
        assignments[module.name] = LayerAssignment(
            "rule" if owner is module else "duplicate", layer, module
        )
    for rule in unused:
        message = f"no module of the checkpoint matches `{rule.pattern}`"
        raise fail("E0514", message, rule.at, help="correct the pattern, or remove the rule")
    return assignments


def _find_target_layer(
    rule: MatchRule, module: CheckpointModule, name: str, layer_by_name: Mapping[str, WeightedLayer]
) -> WeightedLayer:
    layer = layer_by_name.get(name)
    if layer is None:
        # The search for the nearest name is slow, and among many names it does not help.
        suggestion = (
            find_nearest_name(name, set(layer_by_name)) if len(layer_by_name) <= 1000 else None
        )
        help = f"did you mean `{suggestion}`?" if suggestion else "`tcc check` lists the layers"
        label = f"target of the module {escape_text(module.name)}"
        raise fail(
            "E0514", f"no layer is called `{escape_text(name)}`", rule.at, label=label, help=help
        )
    if layer.signature != module.signature:
        message = f"the shapes of {escape_text(module.name)} and {name} differ"
        label = (
            f"the module has {format_signature(module.signature)}, the layer"
            f" {format_signature(layer.signature)}"
        )
        raise fail("E0514", message, rule.at, label=label)
    return layer


def _assign_by_name(
    checkpoint_modules: Sequence[CheckpointModule],
    graph_layers: Sequence[WeightedLayer],
    assignments: LayerAssignments,
) -> None:
    assigned_names = {
        assignment.layer.name for assignment in assignments.values() if assignment.layer
    }
    free_layers = {
        (layer.name, layer.signature): layer
        for layer in graph_layers
        if layer.name not in assigned_names
    }
    for prefix in naming_schemes.iterate_prefixes(
        [m.name for m in checkpoint_modules if not LOSS_NAME.match(m.name)]
    ):
        for module in checkpoint_modules:
            layer = free_layers.get((module.name.removeprefix(prefix), module.signature))
            if layer and module.name not in assignments:
                assignments[module.name] = LayerAssignment("name", layer, module)
        if any(assignment.method == "name" for assignment in assignments.values()):
            return


def _assign_by_order(
    checkpoint: Checkpoint,
    checkpoint_modules: Sequence[CheckpointModule],
    graph: Graph,
    assignments: LayerAssignments,
) -> layer_matching.LayerMatch:
    """Assign the modules that have neither a rule nor a matching name."""
    graph_layers = collect_layers(graph)
    needed = {layer.name for layer in collect_layers(extract_inference_graph(graph))}
    assigned_names = {
        assignment.layer.name for assignment in assignments.values() if assignment.layer
    }
    problem = layer_matching.MatchProblem(
        checkpoint.path,
        modules=[m for m in checkpoint_modules if m.name not in assignments],
        assigned=[
            m for m in checkpoint_modules if m.name in assignments and assignments[m.name].layer
        ],
        layers=[layer for layer in graph_layers if layer.name not in assigned_names],
        train_only_layers=frozenset(
            layer.name for layer in graph_layers if layer.name not in needed
        ),
        ordered=checkpoint.ordered,
        non_float_tensors=[
            f"{escape_text(tensor.name)} ({tensor.kind})"
            for tensor in checkpoint.tensors
            if not tensor.floating and not tensor.name.endswith(BATCH_COUNTER)
        ],
    )
    layer_match = layer_matching.match_layers(problem)
    for module, layer in zip(layer_match.modules, layer_match.layers, strict=True):
        assignments[module.name] = LayerAssignment(layer_match.method, layer, module)
    for module in layer_match.dropped:
        assignments[module.name] = LayerAssignment("ignored", None, module)
    _assign_copies(
        [m for m in problem.modules if m.name not in assignments], checkpoint_modules, assignments
    )
    return layer_match


def _assign_copies(
    copies: Sequence[CheckpointModule],
    checkpoint_modules: Sequence[CheckpointModule],
    assignments: LayerAssignments,
) -> None:
    assigned_modules = [
        m
        for m in checkpoint_modules
        if m.name in assignments and assignments[m.name].layer and copies
    ]
    # Reversed, so that the first of several equal modules is kept.
    module_by_storage = {module.storage: module for module in reversed(assigned_modules)}
    module_by_content: dict[object, CheckpointModule] = {}
    for module in copies:
        # Values are read only if the memory is not known to be the same.
        if module.storage not in module_by_storage and not module_by_content:
            module_by_content = {m.content: m for m in reversed(assigned_modules)}
        original = module_by_storage.get(module.storage) or module_by_content[module.content]
        assignments[module.name] = LayerAssignment(
            "duplicate", assignments[original.name].layer, module
        )


def _build_rows(
    checkpoint: Checkpoint,
    checkpoint_modules: Sequence[CheckpointModule],
    assignments: LayerAssignments,
) -> tuple[ImportedTensor, ...]:
    destinations: dict[str, tuple[str, str]] = {}
    for module in checkpoint_modules:
        assignment = assignments[module.name]
        layer_tensors = assignment.layer.tensors if assignment.layer else {}
        for role, tensor in module.tensors.items():
            destinations[tensor.name] = (
                layer_tensors[role][0] if layer_tensors else "",
                assignment.method,
            )
    rows = ((t, *destinations.get(t.name, ("", "ignored"))) for t in checkpoint.tensors)
    return tuple(
        ImportedTensor(tensor.name, name, tensor.shape, method) for tensor, name, method in rows
    )
