"""Which foreign module is which layer, by names that are known, by order and by shape.

Modules whose names a well-known program gives are put in the order in which that runs them; others
are taken in the order in which they were registered. They are the layers of a graph, in the order
in which those run, only if both are the same sequence of roles and shapes: the match is then
unique under that order. All else is refused, and what a rule file has to settle is listed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from tcc.compiler.foreign.checkpoint import naming_schemes
from tcc.compiler.foreign.checkpoint.checkpoint_file import natural
from tcc.compiler.foreign.checkpoint.lazy_tensors import shown
from tcc.compiler.foreign.checkpoint.naming_schemes import (
    AUXILIARY,
    LOSS,
    ForeignModule,
    Signature,
    WeightedLayer,
    described,
)
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file

MAX_MODULES_LISTED = 200
"""Most lines of a list in a message."""
MAX_NAMES_SHOWN = 50
"""Most names in a line of it."""
COPIES = 4
"""Copies are looked for by values only if all modules together hold at most so many times the
network's weights, since all of them are read for it."""
Key = Callable[[ForeignModule], object]


@dataclass(frozen=True, slots=True)
class MatchProblem:
    """What is left to match once rules and names have had their say.

    `side_layers` names those layers that only train-only outputs need, `strange` has tensors of
    the checkpoint that are none of floats, with what they are.
    """

    path: Path
    modules: Sequence[ForeignModule]
    taken: Sequence[ForeignModule]
    layers: Sequence[WeightedLayer]
    side_layers: frozenset[str]
    ordered: bool
    strange: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """How modules match, `names`, `order` or `shape`, and the module of each layer.

    What only training uses may be missing from the layers, and stands among `dropped` modules.
    `naming` is the well-known one that told the order, if one did.
    """

    how: str
    modules: Sequence[ForeignModule]
    layers: Sequence[WeightedLayer] = ()
    dropped: Sequence[ForeignModule] = ()
    naming: naming_schemes.NamingScheme | None = None


def matched(side: MatchProblem) -> LayerMatch:
    """Return which module is which layer.

    Modules that are copies of others, such as a stem registered under two names, may be left out;
    so may what measures the loss, heads that only training uses, and the layers of such heads,
    but only where all does not fit with them.

    Raises:
        UserError: Something has no counterpart (E0511), or more than one (E0512).
    """
    for each, dropped in _attempts(side):
        wanted = [layer.signature for layer in each.layers]
        # From what tells most to what tells least: names tell an order, shapes only what is alone.
        for find in (_by_names, _by_order, _by_shape):
            found = find(each, wanted)
            if found is not None:
                return replace(found, layers=each.layers, dropped=dropped)
    raise _unmatched(side, next(_variants(side, _storage)))


def _attempts(side: MatchProblem) -> Iterator[tuple[MatchProblem, Sequence[ForeignModule]]]:
    """Yield a side, then what is left of it without losses, and without heads for training."""
    lean = [layer for layer in side.layers if layer.name not in side.side_layers]
    seen = set()
    for layers in (side.layers, lean):
        for patterns in ((), (LOSS,), (LOSS, AUXILIARY)):
            out = [m for m in side.modules if any(p.match(m.name) for p in patterns)]
            # Each way leaves out more than the one before, so that sizes tell them apart.
            if (len(layers), len(out)) not in seen:
                seen.add((len(layers), len(out)))
                names = {module.name for module in out}
                left = [m for m in side.modules if m.name not in names]
                yield replace(side, modules=left, layers=layers), out


def _by_names(side: MatchProblem, wanted: list[Signature]) -> LayerMatch | None:
    """Return the modules in the order that their names have in a well-known program.

    Raises:
        UserError: Two such programs would run them in different orders (E0512).
    """
    names = [module.name for module in (*side.taken, *side.modules)]
    found: list[LayerMatch] = []
    for prefix in naming_schemes.prefixes(names):
        bare = [name.removeprefix(prefix) for name in names]
        for naming in naming_schemes.known():
            keys = naming.keys(bare)
            if keys is not None:
                modules = _sorted(side.modules, prefix, naming, keys)
                variants = _variants(replace(side, modules=modules), _storage)
                fit = next((v for v in variants if [m.signature for m in v] == wanted), None)
                found += [LayerMatch("names", fit, naming=naming)] if fit else []
    first = found[0].modules if found else []
    if any([m.name for m in other.modules] != [m.name for m in first] for other in found):
        raise _ambiguous(side, first, "the names fit two programs that run them in other orders")
    return found[0] if found else None


def _sorted(
    modules: Sequence[ForeignModule],
    prefix: str,
    naming: naming_schemes.NamingScheme,
    keys: dict[str, naming_schemes.Key],
) -> list[ForeignModule]:
    named = sorted((keys[module.name.removeprefix(prefix)], i) for i, module in enumerate(modules))
    found = [modules[i] for _, i in named]
    return [m.flattened() if m.name.removeprefix(prefix) in naming.flat else m for m in found]


def _by_order(side: MatchProblem, wanted: list[Signature]) -> LayerMatch | None:
    """Return the modules in the order in which they were registered, if it is the layers'.

    Raises:
        UserError: It is not certain that it is (E0512).
    """
    for key in _keys(side, wanted):
        found = [v for v in _variants(side, key) if [m.signature for m in v] == wanted]
        if not found:
            continue
        first = found[0]
        if any(list(map(key, other)) != list(map(key, first)) for other in found):
            raise _ambiguous(side, first, "copies of modules stand in more than one order")
        if not side.ordered:
            # Of copies, those whose names are numbered tell the order.
            first = next((v for v in found if not _unnumbered(v)), first)
        if not side.ordered and (loose := _unnumbered(first)):
            raise _ambiguous(side, first, "the file keeps no order of its modules", loose)
        return LayerMatch("order", first)
    return None


def _keys(side: MatchProblem, wanted: list[Signature]) -> list[Key]:
    """Return by what copies are known; values are read only where shapes say that it may help."""
    bag, known = Counter(m.signature for m in side.modules), {m.signature for m in side.taken}
    enough = Counter(wanted) <= bag and bag.keys() <= {*wanted, *known}
    elements = sum(map(_elements, bag.elements()))
    few = elements <= COPIES * sum(map(_elements, [*wanted, *known]))
    # From the cheapest to the dearest: names, places in the file, numbers that have to be read.
    return [_identity, _storage, *([_content] if enough and few else [])]


def _elements(signature: Signature) -> int:
    return sum(prod(shape) for _, shape in signature)


def _identity(module: ForeignModule) -> object:
    return module.name


def _storage(module: ForeignModule) -> object:
    return module.storage


def _content(module: ForeignModule) -> object:
    return module.content


def _variants(side: MatchProblem, key: Key) -> Iterator[list[ForeignModule]]:
    """Yield the modules with only the first, then with only the last, of those with equal keys."""
    # Of copies the first or the last may be the one that stands where its layer runs.
    for step in (1, -1):
        seen = {key(module) for module in side.taken}
        kept = []
        for module in side.modules[::step]:
            if key(module) not in seen:
                seen.add(key(module))
                kept.append(module)
        yield kept[::step]


def _by_shape(side: MatchProblem, wanted: list[Signature]) -> LayerMatch | None:
    """Return the module of each layer where shapes alone decide; None where they do not fit.

    Raises:
        UserError: Several layers have one shape (E0512).
    """
    bags = (v for key in _keys(side, wanted) for v in _variants(side, key))
    bag = next((b for b in bags if Counter(m.signature for m in b) == Counter(wanted)), None)
    if bag is None:
        return None
    several = {s for s, n in Counter(wanted).items() if n > 1}
    if several:
        reason = "the modules' order is not that of the layers"
        raise _ambiguous(side, bag, f"{reason}: {_first_difference(side, bag)}", several)
    by_signature = {module.signature: module for module in bag}
    return LayerMatch("shape", [by_signature[signature] for signature in wanted])


def _unnumbered(modules: list[ForeignModule]) -> set[Signature]:
    """Return the signatures of modules whose names do not tell their order by numbers."""
    last: dict[Signature, ForeignModule] = {}
    loose = set()
    for module in modules:
        before = last.get(module.signature)
        if before and not _numbered(before.name, module.name):
            loose.add(module.signature)
        last[module.signature] = module
    return loose


def _numbered(first: str, second: str) -> bool:
    """Whether the first difference of two names is a number."""
    pairs = enumerate(zip(natural(first), natural(second), strict=False))
    return next((i % 2 == 1 for i, (a, b) in pairs if a != b), False)


def _first_difference(side: MatchProblem, modules: Sequence[ForeignModule]) -> str:
    for module, layer in zip(modules, side.layers, strict=False):
        if module.signature != layer.signature:
            there = f"{shown(module.name)} ({described(module.signature)})"
            return f"first {there} where {layer.name} ({described(layer.signature)}) runs"
    return "one of them goes on longer"


def _ambiguous(
    side: MatchProblem,
    modules: Sequence[ForeignModule],
    reason: str,
    only: set[Signature] | None = None,
) -> UserError:
    there, here = _grouped(modules), _grouped(side.layers)
    several = [s for s in here if (s in only if only else len(here[s]) > 1)]
    notes = [f"{described(s)}: {_names(there[s])} <-> {_names(here[s])}" for s in several]
    count = sum(len(here[s]) for s in several)
    help = "a rule file (`--rules`) settles it; once it names enough of these, order does the rest"
    message = f"it is not certain which module of the checkpoint is which of {count} layers"
    return _error("E0512", side, message, reason, notes, help)


def _unmatched(side: MatchProblem, modules: Sequence[ForeignModule]) -> UserError:
    there, here = _grouped(modules), _grouped(side.layers)
    both = {s: (there.get(s, []), here.get(s, [])) for s in [*here, *there]}
    unlike = {s: (t, h) for s, (t, h) in both.items() if len(t) != len(h)}
    notes = [
        f"{described(s)}: {len(t)} in the checkpoint, {len(h)} in the graph:"
        f" {_names(t)} <-> {_names(h)}"
        for s, (t, h) in unlike.items()
    ]
    if side.strange:
        notes.insert(0, f"not read, since weights are plain floats: {_names(side.strange)}")
    more = sum(max(len(t) - len(h), 0) for t, h in unlike.values())
    fewer = sum(max(len(h) - len(t), 0) for t, h in unlike.values())
    message = f"{more} modules of the checkpoint match no layer, {fewer} layers no module"
    help = (
        "other parameters of the spec (`--set`)? What is only for training is left out by a rule"
        " file: `rules: [{ignore: aux.**}]`"
    )
    return _error("E0511", side, message, _first_difference(side, modules), notes, help)


def _grouped(them: Sequence[ForeignModule] | Sequence[WeightedLayer]) -> dict[Signature, list[str]]:
    groups: dict[Signature, list[str]] = {}
    for one in them:
        groups.setdefault(one.signature, []).append(shown(one.name))
    return groups


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_SHOWN:,} more" if len(names) > MAX_NAMES_SHOWN else ""
    return (", ".join(names[:MAX_NAMES_SHOWN]) or "none") + more


def _error(
    code: str, side: MatchProblem, message: str, label: str, notes: Sequence[str], help: str
) -> UserError:
    more = (
        [f"... and {len(notes) - MAX_MODULES_LISTED} more"]
        if len(notes) > MAX_MODULES_LISTED
        else []
    )
    listed = (*notes[:MAX_MODULES_LISTED], *more)
    where = whole_file(str(side.path))
    return UserError((Diagnostic(code, message, where, label, listed, help),))
