"""Where in a checkpoint the weights are: what programs for training save beside and around them.

An entry is a dict of tensors by name, or a whole module that was pickled, found under its keys. Of
several, the averaged ones give way to the others; what is not certain is refused.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.importers.checkpoint.lazy_tensors import (
    SAVE_HELP,
    LazyTensor,
    TensorReader,
    escape_text,
    make_read_error,
)
from tcc.compiler.importers.checkpoint.pickle_reader import (
    ConstructedObject,
    GlobalName,
    PickleError,
    is_mapping,
)
from tcc.compiler.support.diagnostics import fail, make_file_span

USUAL_KEYS = frozenset(
    ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "params")
)
"""Keys under which weights are saved among other things."""
AVERAGED_KEY = re.compile(r"(^|_)(ema|swa|averaged?|avg|shadow)(_|$)", re.IGNORECASE)
"""Keys of weights that were averaged over the training."""
PARALLEL_PREFIX = "module."
"""What PyTorch's wrappers for parallel modules put before every name."""
COMPILED_PREFIX = re.compile(r"(^|\.)_orig_mod\.")
"""What `torch.compile` puts into names."""
MAX_DEPTH, MAX_MODULE_DEPTH = 3, 64
"""How deep entries lie, and modules in modules."""
MAX_ATTRIBUTES = 1_000_000
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
        return f"`{escape_text(self.name)}`" if self.path else "the top level"

    @property
    def averaged(self) -> bool:
        """Whether a key says that these are averages."""
        return any(map(AVERAGED_KEY.search, self.path))


def find_state_dicts(root: object, reader: TensorReader) -> list[StateDict]:
    """Return the entries of a checkpoint.

    Raises:
        PickleError: One has names that are no text, or too many tensors.
    """
    state_dicts: list[StateDict] = []
    seen_ids: set[int] = set()

    def visit(pickled: object, path: tuple[str, ...]) -> None:
        if id(pickled) in seen_ids or not isinstance(pickled, ConstructedObject):
            return
        seen_ids.add(id(pickled))
        tensors = _collect_tensors(pickled, reader)
        if tensors:
            state_dicts.append(StateDict(path, tuple(tensors)))
        if is_mapping(pickled) and len(path) < MAX_DEPTH:
            for key, child in pickled.items:
                # Optimizers keep moments in the shapes of the weights, which would be taken for
                # weights.
                if isinstance(key, str) and not key.startswith("optim"):
                    visit(child, (*path, key))

    visit(root, ())
    return state_dicts


def _collect_tensors(pickled: ConstructedObject, reader: TensorReader) -> list[LazyTensor]:
    named_objects = (
        pickled.items if is_mapping(pickled) else _iterate_module(pickled, "", [MAX_ATTRIBUTES])
    )
    tensor_by_name: dict[str, LazyTensor] = {}
    for key, child in named_objects:
        tensor = reader.make_tensor(key if isinstance(key, str) else "it", child)
        if tensor is None:
            continue
        if not isinstance(key, str):
            raise PickleError(f"a tensor's name is no text but {_describe_kind(key)}")
        if key in tensor_by_name:
            raise PickleError(f"it names {escape_text(key)} twice")
        tensor_by_name[key] = tensor
        if len(tensor_by_name) > MAX_TENSORS:
            raise PickleError(f"it holds more than {MAX_TENSORS} tensors")
    return list(tensor_by_name.values())


def _iterate_module(
    module: ConstructedObject, prefix: str, budget: list[int]
) -> Iterator[tuple[str, object]]:
    """Yield the names and tensors of a pickled module: PyTorch's own, or TorchScript's.

    `budget` is how many attributes may still be looked at: a module may hold one twice in one
    twice.
    """
    state = module.state
    if not (isinstance(state, ConstructedObject) and is_mapping(state)):
        return
    budget[0] -= len(state.items)
    if budget[0] < 0 or prefix.count(".") > MAX_MODULE_DEPTH:
        raise PickleError("its modules repeat without end")
    attributes = _get_named_objects(state)
    if (
        isinstance(module.callee, GlobalName)
        and module.callee.module.partition(".")[0] == "__torch__"
    ):
        # TorchScript's classes have tensors and modules as plain attributes.
        own_tensors, submodules = attributes, attributes
    else:
        # PyTorch leaves such buffers out of a state dict, and a graph has none of them.
        non_persistent = _parse_names(attributes.get("_non_persistent_buffers_set"))
        own_tensors = _get_named_objects(attributes.get("_parameters")) | _get_named_objects(
            attributes.get("_buffers")
        )
        own_tensors = {
            key: child for key, child in own_tensors.items() if key not in non_persistent
        }
        submodules = _get_named_objects(attributes.get("_modules"))
        budget[0] -= len(non_persistent) + len(own_tensors) + len(submodules)
    for key, child in own_tensors.items():
        yield prefix + key, child
    for key, child in submodules.items():
        if isinstance(child, ConstructedObject):
            yield from _iterate_module(child, f"{prefix}{key}.", budget)


def _get_named_objects(value: object) -> dict[str, object]:
    if not (isinstance(value, ConstructedObject) and is_mapping(value)):
        return {}
    return {key: child for key, child in value.items if isinstance(key, str)}


def _parse_names(value: object) -> frozenset[str]:
    """Return the names in a set: `set([names])`, or what newer pickles make of it."""
    match value:
        case ConstructedObject(args=(list(names),)) | list(names):
            return frozenset(name for name in names if isinstance(name, str))
    return frozenset()


def _describe_kind(value: object) -> str:
    return (
        escape_text(str(value.callee))
        if isinstance(value, ConstructedObject)
        else f"a {type(value).__name__}"
    )


def list_others(root: object, state_dict: StateDict) -> list[str]:
    """Return what lies beside an entry: `epoch`, or `args (argparse.Namespace)`."""
    if not isinstance(root, ConstructedObject) or not is_mapping(root) or not state_dict.path:
        return []
    siblings = [(k, v) for k, v in root.items if isinstance(k, str) and k != state_dict.path[0]]
    return [
        escape_text(k) + (f" ({_describe_kind(v)})" if _is_object(v) else "")
        for k, v in siblings[:50]
    ]


def _is_object(value: object) -> bool:
    return isinstance(value, ConstructedObject) and not is_mapping(value)


def choose_state_dict(
    path: Path, state_dicts: Sequence[StateDict], entry_name: str | None
) -> tuple[StateDict, tuple[str, ...]]:
    """Return the entry to take, and what to say of it beside others.

    It is the one that the user names, or the one that it can be.

    Args:
        path: The checkpoint, for errors.
        state_dicts: Those that hold tensors.
        entry_name: The name that the user gives, if any.

    Raises:
        UserError: There are several, or none of that name (E0515).
    """
    candidates = _remove_duplicates(
        [part for state_dict in state_dicts for part in _split_wrappers(state_dict)]
    )
    selected = (
        _choose_likely(path, candidates)
        if entry_name is None
        else _choose_named(path, candidates, entry_name)
    )
    other_titles = [
        state_dict.title for state_dict in candidates if state_dict.name != selected.name
    ]
    if not other_titles or selected not in candidates:
        return selected, ()
    titles = ", ".join(other_titles[:8]) + (", ..." if other_titles[8:] else "")
    return selected, (
        f"took the weights of {selected.title}; others are in {titles} (`--entry NAME`)",
    )


def _choose_likely(path: Path, candidates: Sequence[StateDict]) -> StateDict:
    unaveraged = [candidate for candidate in candidates if not candidate.averaged] or candidates
    usual_candidates = [
        candidate
        for candidate in unaveraged
        if candidate.path and USUAL_KEYS.issuperset(candidate.path)
    ]
    selected, *alternatives = (
        usual_candidates
        or [candidate for candidate in unaveraged if not candidate.path]
        or unaveraged
    )
    if alternatives:
        titles = ", ".join(candidate.title for candidate in (selected, *alternatives)[:20])
        message = "several entries of the checkpoint hold weights"
        help = "say which one to take: `--entry NAME`"
        raise fail("E0515", message, make_file_span(str(path)), label=titles, help=help)
    return selected


def _choose_named(path: Path, candidates: Sequence[StateDict], entry_name: str) -> StateDict:
    hits = [
        candidate
        for candidate in candidates
        if entry_name in (candidate.name, *candidate.path[-1:])
    ]
    hits = hits or [
        part for candidate in candidates if (part := _extract_prefix(candidate, entry_name))
    ]
    if len(hits) == 1:
        return hits[0]
    titles = ", ".join(candidate.title for candidate in candidates[:20])
    subject = "several entries are" if hits else "no entry is"
    message = f"{subject} called `{escape_text(entry_name)}`"
    raise fail("E0515", message, make_file_span(str(path)), label=f"weights are in: {titles}")


def _extract_prefix(state_dict: StateDict, prefix: str) -> StateDict | None:
    """Return the tensors of an entry whose names start with a prefix, without it."""
    prefixed = [t for t in state_dict.tensors if t.name.startswith(f"{prefix}.")]
    renamed = tuple(replace(t, name=t.name.removeprefix(f"{prefix}.")) for t in prefixed)
    return StateDict((*state_dict.path, prefix), renamed) if renamed else None


def _split_wrappers(state_dict: StateDict) -> Iterator[StateDict]:
    """Yield an entry without wrappers; averages under a prefix of it are entries of their own."""
    unwrapped_dict = StateDict(state_dict.path, unwrap_names(state_dict.tensors))
    groups: dict[str, list[LazyTensor]] = {"": []}
    for tensor in unwrapped_dict.tensors:
        first_part, dot, _ = tensor.name.partition(".")
        groups.setdefault(first_part if dot and AVERAGED_KEY.search(first_part) else "", []).append(
            tensor
        )
    if any(tensor.floating for tensor in groups[""]):
        yield StateDict(state_dict.path, unwrap_names(groups.pop("")))
        for prefix, tensors in groups.items():
            if part := _extract_prefix(StateDict(state_dict.path, tuple(tensors)), prefix):
                yield StateDict(part.path, unwrap_names(part.tensors))
    else:
        yield unwrapped_dict


def _remove_duplicates(state_dicts: Sequence[StateDict]) -> list[StateDict]:
    """Return entries without those that name the same memory as one before."""
    unique: dict[object, StateDict] = {}
    for state_dict in state_dicts:
        unique.setdefault(frozenset((t.name, t.storage) for t in state_dict.tensors), state_dict)
    return list(unique.values())


def unwrap_names(tensors: Sequence[LazyTensor]) -> tuple[LazyTensor, ...]:
    """Return tensors without what wrappers put into their names."""
    bare_names = [COMPILED_PREFIX.sub(r"\1", tensor.name) for tensor in tensors]
    while _has_common_prefix(PARALLEL_PREFIX, bare_names, tensors):
        bare_names = [name.removeprefix(PARALLEL_PREFIX) for name in bare_names]
    # Where names would fall together, what looks like a wrapper's is their own.
    if len(set(bare_names)) < len(bare_names):
        return tuple(tensors)
    return tuple(replace(t, name=name) for t, name in zip(tensors, bare_names, strict=True))


def _has_common_prefix(prefix: str, names: Sequence[str], tensors: Sequence[LazyTensor]) -> bool:
    """Whether the names of all weights start so; counters may stand beside them."""
    floating = [n for n, t in zip(names, tensors, strict=True) if t.floating]
    return bool(floating) and all(name.startswith(prefix) for name in floating)


def make_empty_error(path: Path, root: object) -> Exception:
    """Return the error of a checkpoint without weights."""
    keys = (
        [k for k, _ in root.items]
        if isinstance(root, ConstructedObject) and is_mapping(root)
        else []
    )
    names = [escape_text(key) if isinstance(key, str) else _describe_kind(key) for key in keys[:8]]
    label = f"its keys are {', '.join(names)}" if names else ""
    return make_read_error(path, "the checkpoint holds no state dict", label, SAVE_HELP)
