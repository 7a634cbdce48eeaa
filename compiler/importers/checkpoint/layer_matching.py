"""Match checkpoint modules to layers by well-known names, by order or by shape.

Modules with the names of a well-known program are sorted into its execution order. Others keep
the order in which they were registered. They match the layers, in execution order, only if both
sequences have the same roles and shapes: the match is then unique under that order. Otherwise an
error lists what a rule file must decide.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from tcc.compiler.importers.checkpoint import naming_schemes
from tcc.compiler.importers.checkpoint.checkpoint_file import make_natural_key
from tcc.compiler.importers.checkpoint.lazy_tensors import escape_text
from tcc.compiler.importers.checkpoint.naming_schemes import (
    AUXILIARY_NAME,
    LOSS_NAME,
    CheckpointModule,
    Signature,
    WeightedLayer,
    format_signature,
)
from tcc.compiler.support.diagnostics import Diagnostic, UserError, make_file_span

MAX_MODULES_LISTED = 200
"""Maximum number of lines of a list in a message."""
MAX_NAMES_SHOWN = 50
"""Maximum number of names in such a line."""
MAX_COPY_FACTOR = 4
"""Copies are detected by value only if all modules together have at most this many times the
elements of the network's weights, because all of them are read for it."""
Key = Callable[[CheckpointModule], object]


@dataclass(frozen=True, slots=True)
class MatchProblem:
    """What is still unmatched after rules and names.

    `train_only_layers`: names of layers that only train-only outputs need. `non_float_tensors`:
    tensors of the checkpoint that are not floating point, with their types.
    """

    path: Path
    modules: Sequence[CheckpointModule]
    assigned: Sequence[CheckpointModule]
    layers: Sequence[WeightedLayer]
    train_only_layers: frozenset[str]
    ordered: bool
    non_float_tensors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """The module of each layer, and the method that matched them: `names`, `order` or `shape`.

    Train-only layers may be missing from `layers`; train-only modules are in `dropped`. `naming`
    is the well-known naming scheme that gave the order, or None.
    """

    method: str
    modules: Sequence[CheckpointModule]
    layers: Sequence[WeightedLayer] = ()
    dropped: Sequence[CheckpointModule] = ()
    naming: naming_schemes.NamingScheme | None = None


def match_layers(problem: MatchProblem) -> LayerMatch:
    """Return which module is which layer.

    Copies of modules may be left out, such as a stem that is registered under two names. Loss
    modules, train-only heads and the layers of such heads may be left out too, but only if the
    rest does not match with them.

    Raises:
        UserError: A module or layer has no counterpart (E0511) or more than one (E0512).
    """
    for attempt, dropped in _iterate_attempts(problem):
        signatures = [layer.signature for layer in attempt.layers]
        # From most to least specific: names give an order, shapes only identify unique modules.
        for matcher in (_match_by_names, _match_by_order, _match_by_shape):
            layer_match = matcher(attempt, signatures)
            if layer_match is not None:
                return replace(layer_match, layers=attempt.layers, dropped=dropped)
    raise _make_unmatched_error(problem, next(_iterate_variants(problem, _get_storage)))


def _iterate_attempts(
    problem: MatchProblem,
) -> Iterator[tuple[MatchProblem, Sequence[CheckpointModule]]]:
    """Yield the problem, then without loss modules, then without train-only heads."""
    inference_layers = [
        layer for layer in problem.layers if layer.name not in problem.train_only_layers
    ]
    seen_sizes = set()
    for layers in (problem.layers, inference_layers):
        for patterns in ((), (LOSS_NAME,), (LOSS_NAME, AUXILIARY_NAME)):
            excluded = [m for m in problem.modules if any(p.match(m.name) for p in patterns)]
            # Each attempt leaves out more than the one before, so the sizes distinguish them.
            if (len(layers), len(excluded)) not in seen_sizes:
                seen_sizes.add((len(layers), len(excluded)))
                names = {module.name for module in excluded}
                remaining = [m for m in problem.modules if m.name not in names]
                yield replace(problem, modules=remaining, layers=layers), excluded


def _match_by_names(problem: MatchProblem, signatures: list[Signature]) -> LayerMatch | None:
    """Return the modules in the order that their names have in a well-known program.

    Raises:
        UserError: Two such programs run them in different orders (E0512).
    """
    names = [module.name for module in (*problem.assigned, *problem.modules)]
    matches: list[LayerMatch] = []
    for prefix in naming_schemes.iterate_prefixes(names):
        bare_names = [name.removeprefix(prefix) for name in names]
        for naming in naming_schemes.load_naming_schemes():
            keys = naming.find_keys(bare_names)
            if keys is not None:
                modules = _sort_modules(problem.modules, prefix, naming, keys)
                variants = _iterate_variants(replace(problem, modules=modules), _get_storage)
                matched_modules = next(
                    (v for v in variants if [m.signature for m in v] == signatures), None
                )
                matches += (
                    [LayerMatch("names", matched_modules, naming=naming)] if matched_modules else []
                )
    first_modules = matches[0].modules if matches else []
    if any(
        [m.name for m in layer_match.modules] != [m.name for m in first_modules]
        for layer_match in matches
    ):
        raise _make_ambiguity_error(
            problem,
            first_modules,
            "the names fit two known networks that run these modules in different orders",
        )
    return matches[0] if matches else None


def _sort_modules(
    modules: Sequence[CheckpointModule],
    prefix: str,
    naming: naming_schemes.NamingScheme,
    keys: dict[str, naming_schemes.Key],
) -> list[CheckpointModule]:
    sorted_keys = sorted(
        (keys[module.name.removeprefix(prefix)], i) for i, module in enumerate(modules)
    )
    ordered_modules = [modules[i] for _, i in sorted_keys]
    return [
        m.flatten_kernels() if m.name.removeprefix(prefix) in naming.flat else m
        for m in ordered_modules
    ]


def _match_by_order(problem: MatchProblem, signatures: list[Signature]) -> LayerMatch | None:
    """Return the modules in the order in which they were registered, if the layers match it.

    Raises:
        UserError: The order is ambiguous (E0512).
    """
    for key in _list_copy_keys(problem, signatures):
        variants = [
            v for v in _iterate_variants(problem, key) if [m.signature for m in v] == signatures
        ]
        if not variants:
            continue
        first_variant = variants[0]
        if any(list(map(key, variant)) != list(map(key, first_variant)) for variant in variants):
            raise _make_ambiguity_error(
                problem, first_variant, "copies of modules appear in more than one order"
            )
        if not problem.ordered:
            # Among copies, prefer those whose names have numbers: these give the order.
            first_variant = next((v for v in variants if not _find_unnumbered(v)), first_variant)
        if not problem.ordered and (unordered := _find_unnumbered(first_variant)):
            raise _make_ambiguity_error(
                problem,
                first_variant,
                "the file does not store the order of its modules",
                unordered,
            )
        return LayerMatch("order", first_variant)
    return None


def _list_copy_keys(problem: MatchProblem, signatures: list[Signature]) -> list[Key]:
    """Return the keys that identify copies; values are read only if the shapes allow a match."""
    signature_counts, assigned_signatures = (
        Counter(m.signature for m in problem.modules),
        {m.signature for m in problem.assigned},
    )
    are_signatures_covered = Counter(
        signatures
    ) <= signature_counts and signature_counts.keys() <= {*signatures, *assigned_signatures}
    elements = sum(map(_count_elements, signature_counts.elements()))
    is_cheap = elements <= MAX_COPY_FACTOR * sum(
        map(_count_elements, [*signatures, *assigned_signatures])
    )
    # From the cheapest to the most expensive: names, file offsets, values that have to be read.
    return [
        _get_name,
        _get_storage,
        *([_get_content] if are_signatures_covered and is_cheap else []),
    ]


def _count_elements(signature: Signature) -> int:
    return sum(prod(shape) for _, shape in signature)


def _get_name(module: CheckpointModule) -> object:
    return module.name


def _get_storage(module: CheckpointModule) -> object:
    return module.storage


def _get_content(module: CheckpointModule) -> object:
    return module.content


def _iterate_variants(problem: MatchProblem, key: Key) -> Iterator[list[CheckpointModule]]:
    """Yield the modules with only the first, then with only the last, of those with equal keys."""
    # Either the first or the last copy may be at the position of its layer.
    for step in (1, -1):
        seen_keys = {key(module) for module in problem.assigned}
        distinct_modules = []
        for module in problem.modules[::step]:
            if key(module) not in seen_keys:
                seen_keys.add(key(module))
                distinct_modules.append(module)
        yield distinct_modules[::step]


def _match_by_shape(problem: MatchProblem, signatures: list[Signature]) -> LayerMatch | None:
    """Return the module of each layer if its shape is unique; None if the shapes do not match.

    Raises:
        UserError: Several layers have the same shape (E0512).
    """
    variants = (
        v for key in _list_copy_keys(problem, signatures) for v in _iterate_variants(problem, key)
    )
    matched_modules = next(
        (b for b in variants if Counter(m.signature for m in b) == Counter(signatures)), None
    )
    if matched_modules is None:
        return None
    repeated = {s for s, n in Counter(signatures).items() if n > 1}
    if repeated:
        reason = "the modules are not in the order of the layers"
        raise _make_ambiguity_error(
            problem,
            matched_modules,
            f"{reason}: {_describe_first_difference(problem, matched_modules)}",
            repeated,
        )
    by_signature = {module.signature: module for module in matched_modules}
    return LayerMatch("shape", [by_signature[signature] for signature in signatures])


def _find_unnumbered(modules: list[CheckpointModule]) -> set[Signature]:
    """Return the signatures of modules whose order is not given by numbers in their names."""
    last_by_signature: dict[Signature, CheckpointModule] = {}
    unordered = set()
    for module in modules:
        previous = last_by_signature.get(module.signature)
        if previous and not _is_numbered(previous.name, module.name):
            unordered.add(module.signature)
        last_by_signature[module.signature] = module
    return unordered


def _is_numbered(name: str, next_name: str) -> bool:
    """Whether the first difference of two names is a number."""
    pairs = enumerate(zip(make_natural_key(name), make_natural_key(next_name), strict=False))
    return next((i % 2 == 1 for i, (a, b) in pairs if a != b), False)


def _describe_first_difference(problem: MatchProblem, modules: Sequence[CheckpointModule]) -> str:
    for module, layer in zip(modules, problem.layers, strict=False):
        if module.signature != layer.signature:
            module_text = f"{escape_text(module.name)} ({format_signature(module.signature)})"
            return (
                f"first difference: {module_text} in the checkpoint, {layer.name}"
                f" ({format_signature(layer.signature)}) in the graph"
            )
    return "one of the two has more entries than the other"


def _make_ambiguity_error(
    problem: MatchProblem,
    modules: Sequence[CheckpointModule],
    reason: str,
    only: set[Signature] | None = None,
) -> UserError:
    modules_by_signature, layers_by_signature = (
        _group_by_signature(modules),
        _group_by_signature(problem.layers),
    )
    signatures = [
        s for s in layers_by_signature if (s in only if only else len(layers_by_signature[s]) > 1)
    ]
    notes = [
        f"{format_signature(s)}: {_format_names(modules_by_signature[s])} <-> "
        f"{_format_names(layers_by_signature[s])}"
        for s in signatures
    ]
    count = sum(len(layers_by_signature[s]) for s in signatures)
    help = "name some of these in a rule file (`--rules`); the order then decides the rest"
    message = f"{count} layers match several modules of the checkpoint"
    return _make_error("E0512", problem, message, reason, notes, help)


def _make_unmatched_error(problem: MatchProblem, modules: Sequence[CheckpointModule]) -> UserError:
    modules_by_signature, layers_by_signature = (
        _group_by_signature(modules),
        _group_by_signature(problem.layers),
    )
    names_by_signature = {
        s: (modules_by_signature.get(s, []), layers_by_signature.get(s, []))
        for s in [*layers_by_signature, *modules_by_signature]
    }
    unequal = {s: (t, h) for s, (t, h) in names_by_signature.items() if len(t) != len(h)}
    notes = [
        f"{format_signature(s)}: {len(t)} in the checkpoint, {len(h)} in the graph:"
        f" {_format_names(t)} <-> {_format_names(h)}"
        for s, (t, h) in unequal.items()
    ]
    if problem.non_float_tensors:
        notes.insert(
            0,
            "not imported, because they are not floating point:"
            f" {_format_names(problem.non_float_tensors)}",
        )
    extra_modules = sum(max(len(t) - len(h), 0) for t, h in unequal.values())
    missing_layers = sum(max(len(h) - len(t), 0) for t, h in unequal.values())
    message = (
        f"{extra_modules} modules of the checkpoint have no layer, {missing_layers} layers have"
        " no module"
    )
    help = (
        "check the parameters of the spec (`--set`); exclude train-only modules with a rule file:"
        " `rules: [{ignore: aux.**}]`"
    )
    return _make_error(
        "E0511", problem, message, _describe_first_difference(problem, modules), notes, help
    )


def _group_by_signature(
    members: Sequence[CheckpointModule] | Sequence[WeightedLayer],
) -> dict[Signature, list[str]]:
    groups: dict[Signature, list[str]] = {}
    for member in members:
        groups.setdefault(member.signature, []).append(escape_text(member.name))
    return groups


def _format_names(names: Sequence[str]) -> str:
    remainder = (
        f" and {len(names) - MAX_NAMES_SHOWN:,} more" if len(names) > MAX_NAMES_SHOWN else ""
    )
    return (", ".join(names[:MAX_NAMES_SHOWN]) or "none") + remainder


def _make_error(
    code: str, problem: MatchProblem, message: str, label: str, notes: Sequence[str], help: str
) -> UserError:
    ellipsis = (
        [f"... and {len(notes) - MAX_MODULES_LISTED} more"]
        if len(notes) > MAX_MODULES_LISTED
        else []
    )
    limited_notes = (*notes[:MAX_MODULES_LISTED], *ellipsis)
    span = make_file_span(str(problem.path))
    return UserError((Diagnostic(code, message, span, label, limited_notes, help),))
