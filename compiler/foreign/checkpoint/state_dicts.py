"""Where in a checkpoint the weights are: what programs for training save beside and around them.

An entry is a dict of tensors by name, or a whole module that was pickled, found under its keys. Of
several, the averaged ones give way to the others; what is not certain is refused.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.foreign.checkpoint.lazy_tensors import SAVE, LazyTensor, TensorReader, bad, shown
from tcc.compiler.foreign.checkpoint.pickle_reader import (
    ConstructedObject,
    GlobalName,
    PickleError,
    is_mapping,
)
from tcc.compiler.support.diagnostics import fail, whole_file

USUAL = frozenset(
    ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "params")
)
"""Keys under which weights are saved among other things."""
AVERAGED = re.compile(r"(^|_)(ema|swa|averaged?|avg|shadow)(_|$)", re.IGNORECASE)
"""Keys of weights that were averaged over the training."""
PARALLEL = "module."
"""What PyTorch's wrappers for parallel modules put before every name."""
COMPILED = re.compile(r"(^|\.)_orig_mod\.")
"""What `torch.compile` puts into names."""
DEPTH, MODULES = 3, 64
"""How deep entries lie, and modules in modules."""
WORK = 1_000_000
"""Attributes of pickled modules that are looked at."""
MAX_TENSORS = 50_000
"""Most tensors of a checkpoint."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name, and the keys under which they lie."""

    path: tuple[str, ...]
    tensors: tuple[LazyTensor, ...]

    @property
    def name(self) -> str:
        """As `--entry` takes it."""
        return ".".join(self.path)

    @property
    def title(self) -> str:
        """As messages call it."""
        return f"`{shown(self.name)}`" if self.path else "the top level"

    @property
    def averaged(self) -> bool:
        """Whether a key says that these are averages."""
        return any(map(AVERAGED.search, self.path))


def find(root: object, reader: TensorReader) -> list[StateDict]:
    """Return the entries of a checkpoint.

    Raises:
        PickleError: One has names that are no text, or too many tensors.
    """
    entries: list[StateDict] = []
    seen: set[int] = set()

    def visit(value: object, path: tuple[str, ...]) -> None:
        if id(value) in seen or not isinstance(value, ConstructedObject):
            return
        seen.add(id(value))
        tensors = _tensors(value, reader)
        if tensors:
            entries.append(StateDict(path, tuple(tensors)))
        if is_mapping(value) and len(path) < DEPTH:
            for key, item in value.items:
                # Optimizers keep moments in the shapes of the weights, which would be taken for
                # weights.
                if isinstance(key, str) and not key.startswith("optim"):
                    visit(item, (*path, key))

    visit(root, ())
    return entries


def _tensors(value: ConstructedObject, reader: TensorReader) -> list[LazyTensor]:
    named = value.items if is_mapping(value) else _module(value, "", [WORK])
    found: dict[str, LazyTensor] = {}
    for key, item in named:
        tensor = reader.tensor(key if isinstance(key, str) else "it", item)
        if tensor is None:
            continue
        if not isinstance(key, str):
            raise PickleError(f"a tensor's name is no text but {_kind(key)}")
        if key in found:
            raise PickleError(f"it names {shown(key)} twice")
        found[key] = tensor
        if len(found) > MAX_TENSORS:
            raise PickleError(f"it holds more than {MAX_TENSORS} tensors")
    return list(found.values())


def _module(value: ConstructedObject, prefix: str, left: list[int]) -> Iterator[tuple[str, object]]:
    """Yield the names and tensors of a pickled module: PyTorch's own, or TorchScript's.

    `left` is how many attributes may still be looked at: a module may hold one twice in one twice.
    """
    state = value.state
    if not (isinstance(state, ConstructedObject) and is_mapping(state)):
        return
    left[0] -= len(state.items)
    if left[0] < 0 or prefix.count(".") > MODULES:
        raise PickleError("its modules repeat without end")
    attributes = _named(state)
    if isinstance(value.what, GlobalName) and value.what.module.partition(".")[0] == "__torch__":
        # TorchScript's classes have tensors and modules as plain attributes.
        own, inner = attributes, attributes
    else:
        # PyTorch leaves such buffers out of a state dict, and a graph has none of them.
        passing = _names(attributes.get("_non_persistent_buffers_set"))
        own = _named(attributes.get("_parameters")) | _named(attributes.get("_buffers"))
        own = {key: item for key, item in own.items() if key not in passing}
        inner = _named(attributes.get("_modules"))
        left[0] -= len(passing) + len(own) + len(inner)
    for key, item in own.items():
        yield prefix + key, item
    for key, item in inner.items():
        if isinstance(item, ConstructedObject):
            yield from _module(item, f"{prefix}{key}.", left)


def _named(value: object) -> dict[str, object]:
    if not (isinstance(value, ConstructedObject) and is_mapping(value)):
        return {}
    return {key: item for key, item in value.items if isinstance(key, str)}


def _names(value: object) -> frozenset[str]:
    """Return the names in a set: `set([names])`, or what newer pickles make of it."""
    match value:
        case ConstructedObject(args=(list(names),)) | list(names):
            return frozenset(name for name in names if isinstance(name, str))
    return frozenset()


def _kind(value: object) -> str:
    return (
        shown(str(value.what))
        if isinstance(value, ConstructedObject)
        else f"a {type(value).__name__}"
    )


def others(root: object, taken: StateDict) -> list[str]:
    """Return what lies beside an entry: `epoch`, or `args (argparse.Namespace)`."""
    if not isinstance(root, ConstructedObject) or not is_mapping(root) or not taken.path:
        return []
    beside = [(k, v) for k, v in root.items if isinstance(k, str) and k != taken.path[0]]
    return [shown(k) + (f" ({_kind(v)})" if _is_object(v) else "") for k, v in beside[:50]]


def _is_object(value: object) -> bool:
    return isinstance(value, ConstructedObject) and not is_mapping(value)


def choose(
    path: Path, entries: Sequence[StateDict], wanted: str | None
) -> tuple[StateDict, tuple[str, ...]]:
    """Return the entry to take, and what to say of it beside others.

    It is the one that the user names, or the one that it can be.

    Args:
        path: The checkpoint, for errors.
        entries: Those that hold tensors.
        wanted: The name that the user gives, if any.

    Raises:
        UserError: There are several, or none of that name (E0515).
    """
    each = _different([part for entry in entries for part in _split(entry)])
    taken = _likely(path, each) if wanted is None else _wanted(path, each, wanted)
    more = [entry.title for entry in each if entry.name != taken.name]
    if not more or taken not in each:
        return taken, ()
    rest = ", ".join(more[:8]) + (", ..." if more[8:] else "")
    return taken, (f"took the weights of {taken.title}; others are in {rest} (`--entry NAME`)",)


def _likely(path: Path, each: Sequence[StateDict]) -> StateDict:
    raw = [entry for entry in each if not entry.averaged] or each
    usual = [entry for entry in raw if entry.path and USUAL.issuperset(entry.path)]
    first, *more = usual or [entry for entry in raw if not entry.path] or raw
    if more:
        named = ", ".join(entry.title for entry in (first, *more)[:20])
        message = "several entries of the checkpoint hold weights"
        help = "say which one to take: `--entry NAME`"
        raise fail("E0515", message, whole_file(str(path)), label=named, help=help)
    return first


def _wanted(path: Path, entries: Sequence[StateDict], wanted: str) -> StateDict:
    hits = [entry for entry in entries if wanted in (entry.name, *entry.path[-1:])]
    hits = hits or [part for entry in entries if (part := _below(entry, wanted))]
    if len(hits) == 1:
        return hits[0]
    named = ", ".join(entry.title for entry in entries[:20])
    what = "several entries are" if hits else "no entry is"
    message = f"{what} called `{shown(wanted)}`"
    raise fail("E0515", message, whole_file(str(path)), label=f"weights are in: {named}")


def _below(entry: StateDict, prefix: str) -> StateDict | None:
    """Return the tensors of an entry whose names start with a prefix, without it."""
    mine = [t for t in entry.tensors if t.name.startswith(f"{prefix}.")]
    bare = tuple(replace(t, name=t.name.removeprefix(f"{prefix}.")) for t in mine)
    return StateDict((*entry.path, prefix), bare) if bare else None


def _split(entry: StateDict) -> Iterator[StateDict]:
    """Yield an entry without wrappers; averages under a prefix of it are entries of their own."""
    whole = StateDict(entry.path, unwrapped(entry.tensors))
    groups: dict[str, list[LazyTensor]] = {"": []}
    for tensor in whole.tensors:
        first, dot, _ = tensor.name.partition(".")
        groups.setdefault(first if dot and AVERAGED.search(first) else "", []).append(tensor)
    if any(tensor.floating for tensor in groups[""]):
        yield StateDict(entry.path, unwrapped(groups.pop("")))
        for prefix, tensors in groups.items():
            if part := _below(StateDict(entry.path, tuple(tensors)), prefix):
                yield StateDict(part.path, unwrapped(part.tensors))
    else:
        yield whole


def _different(entries: Sequence[StateDict]) -> list[StateDict]:
    """Return entries without those that name the same memory as one before."""
    found: dict[object, StateDict] = {}
    for entry in entries:
        found.setdefault(frozenset((t.name, t.storage) for t in entry.tensors), entry)
    return list(found.values())


def unwrapped(tensors: Sequence[LazyTensor]) -> tuple[LazyTensor, ...]:
    """Return tensors without what wrappers put into their names."""
    bare = [COMPILED.sub(r"\1", tensor.name) for tensor in tensors]
    while _all_start(PARALLEL, bare, tensors):
        bare = [name.removeprefix(PARALLEL) for name in bare]
    # Where names would fall together, what looks like a wrapper's is their own.
    if len(set(bare)) < len(bare):
        return tuple(tensors)
    return tuple(replace(t, name=name) for t, name in zip(tensors, bare, strict=True))


def _all_start(prefix: str, names: Sequence[str], tensors: Sequence[LazyTensor]) -> bool:
    """Whether the names of all weights start so; counters may stand beside them."""
    floating = [n for n, t in zip(names, tensors, strict=True) if t.floating]
    return bool(floating) and all(name.startswith(prefix) for name in floating)


def none(path: Path, root: object) -> Exception:
    """Return the error of a checkpoint without weights."""
    keys = (
        [k for k, _ in root.items]
        if isinstance(root, ConstructedObject) and is_mapping(root)
        else []
    )
    names = [shown(key) if isinstance(key, str) else _kind(key) for key in keys[:8]]
    label = f"its keys are {', '.join(names)}" if names else ""
    return bad(path, "the checkpoint holds no state dict", label, SAVE)
