"""Find the weights in a checkpoint, among the other data that training programs save.

An entry is a dict of tensors by name, or a complete pickled module, found under its keys. Entries
with averaged weights are used only if there are no others. Ambiguous choices are an error.
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
"""Keys under which training programs save weights."""
AVERAGED_KEY = re.compile(r"(^|_)(ema|swa|averaged?|avg|shadow)(_|$)", re.IGNORECASE)
"""Keys of weights averaged during training."""
PARALLEL_PREFIX = "module."
"""Prefix of all names that PyTorch's parallel wrappers add."""
COMPILED_PREFIX = re.compile(r"(^|\.)_orig_mod\.")
"""Part of a name that `torch.compile` adds."""
MAX_DEPTH, MAX_MODULE_DEPTH = 3, 64
"""Maximum nesting of entries, and of modules in modules."""
MAX_ATTRIBUTES = 1_000_000
"""Maximum number of attributes of pickled modules that are visited."""
MAX_TENSORS = 50_000
"""Maximum number of tensors of a checkpoint."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name, and the keys of the checkpoint that lead to them."""

    path: tuple[str, ...]
    tensors: tuple[LazyTensor, ...]

    @property
    def name(self) -> str:
        """The name that `--entry` accepts."""
        return ".".join(self.path)

    @property
    def title(self) -> str:
        """The name that messages use."""
        return f"`{escape_text(self.name)}`" if self.path else "the top level"

    @property
    def averaged(self) -> bool:
        """Whether a key marks these weights as averages."""
        return any(map(AVERAGED_KEY.search, self.path))


def find_state_dicts(root: object, reader: TensorReader) -> list[StateDict]:
    """Return the entries of a checkpoint.

    Raises:
        PickleError: A name is not text, or there are too many tensors.
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
                # Optimizers keep moments with the shapes of the weights, which would look like
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
            raise PickleError(f"a tensor's name must be text, not {_describe_kind(key)}")
        if key in tensor_by_name:
            raise PickleError(f"it contains {escape_text(key)} twice")
        tensor_by_name[key] = tensor
        if len(tensor_by_name) > MAX_TENSORS:
            raise PickleError(f"it contains more than {MAX_TENSORS} tensors")
    return list(tensor_by_name.values())


def _iterate_module(
    module: ConstructedObject, prefix: str, budget: list[int]
) -> Iterator[tuple[str, object]]:
    """Yield the names and tensors of a pickled module: PyTorch's or TorchScript's.

    `budget`: number of attributes that may still be visited. A module may contain another one
    twice, at every level of nesting.
    """
    state = module.state
    if not (isinstance(state, ConstructedObject) and is_mapping(state)):
        return
    budget[0] -= len(state.items)
    if budget[0] < 0 or prefix.count(".") > MAX_MODULE_DEPTH:
        raise PickleError("its modules are nested too deeply or repeat too often")
    attributes = _get_named_objects(state)
    if (
        isinstance(module.callee, GlobalName)
        and module.callee.module.partition(".")[0] == "__torch__"
    ):
        # TorchScript's classes store tensors and modules as plain attributes.
        own_tensors, submodules = attributes, attributes
    else:
        # PyTorch leaves such buffers out of a state dict, and a graph has no such buffers.
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
    """Return the names in a set: `set([names])`, or the list that newer pickles contain."""
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
    """Return the other keys of the checkpoint: `epoch`, or `args (argparse.Namespace)`."""
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
    """Return the chosen entry, and notes about the others.

    It is the entry that the user names, or the only plausible one.

    Args:
        path: The checkpoint, for errors.
        state_dicts: The entries with tensors.
        entry_name: The name that the user gives, if any.

    Raises:
        UserError: There are several entries, or none with that name (E0515).
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
        f"imported the weights of {selected.title}; other entries: {titles} (`--entry NAME`)",
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
        message = "several entries of the checkpoint contain weights"
        help = "choose one of them: `--entry NAME`"
        raise fail("E0515", message, make_file_span(str(path)), label=titles, help=help)
    return selected


def _choose_named(path: Path, candidates: Sequence[StateDict], entry_name: str) -> StateDict:
    """Return the entry with a name, or the tensors of an entry whose names start with it.

    Raises:
        UserError: There is no such entry, or there are several (E0515).
    """
    matching_entries = [
        candidate
        for candidate in candidates
        if entry_name in (candidate.name, *candidate.path[-1:])
    ]
    matching_entries = matching_entries or [
        part for candidate in candidates if (part := _extract_prefix(candidate, entry_name))
    ]
    if len(matching_entries) == 1:
        return matching_entries[0]
    titles = ", ".join(candidate.title for candidate in candidates[:20])
    subject = "several entries are" if matching_entries else "no entry is"
    message = f"{subject} called `{escape_text(entry_name)}`"
    label = f"entries with weights: {titles}"
    help = "choose one of these: `--entry NAME`"
    raise fail("E0515", message, make_file_span(str(path)), label=label, help=help)


def _extract_prefix(state_dict: StateDict, prefix: str) -> StateDict | None:
    """Return the tensors of an entry whose names start with a prefix, and remove the prefix."""
    prefixed = [t for t in state_dict.tensors if t.name.startswith(f"{prefix}.")]
    renamed = tuple(replace(t, name=t.name.removeprefix(f"{prefix}.")) for t in prefixed)
    return StateDict((*state_dict.path, prefix), renamed) if renamed else None


def _split_wrappers(state_dict: StateDict) -> Iterator[StateDict]:
    """Yield an entry without wrappers; averages under a prefix become entries of their own."""
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
    """Return the entries, without those that refer to the same memory as an earlier one."""
    unique: dict[object, StateDict] = {}
    for state_dict in state_dicts:
        unique.setdefault(frozenset((t.name, t.storage) for t in state_dict.tensors), state_dict)
    return list(unique.values())


def unwrap_names(tensors: Sequence[LazyTensor]) -> tuple[LazyTensor, ...]:
    """Return tensors without the parts that wrappers add to their names."""
    bare_names = [COMPILED_PREFIX.sub(r"\1", tensor.name) for tensor in tensors]
    while _has_common_prefix(PARALLEL_PREFIX, bare_names, tensors):
        bare_names = [name.removeprefix(PARALLEL_PREFIX) for name in bare_names]
    # If names would collide, the part that looks like a wrapper's belongs to the names.
    if len(set(bare_names)) < len(bare_names):
        return tuple(tensors)
    return tuple(replace(t, name=name) for t, name in zip(tensors, bare_names, strict=True))


def _has_common_prefix(prefix: str, names: Sequence[str], tensors: Sequence[LazyTensor]) -> bool:
    """Whether the names of all weights start with the prefix; counters need not."""
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
    return make_read_error(path, "the checkpoint contains no state dict", label, SAVE_HELP)
