"""The located tree that a text is read into, whatever its notation."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tcc.compiler.support.diagnostics import Span


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value; `quoted` where the text held it in quotes or as a block of text.

    The span covers the value's text, quotes included, on its first line.
    """

    value: str | int | float | bool | None
    span: Span
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list. The span is that of its brackets, or of its first dash."""

    items: "tuple[Tree, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the text's order. The span is that of its braces, or of its first key."""

    items: "tuple[tuple[Scalar, Tree], ...]"
    span: Span
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the keys."""
        # Once for each mapping: a schema's check asks for every key of it by name.
        places = {str(key.value): place for place, (key, _) in enumerate(self.items)}
        object.__setattr__(self, "_places", places)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in order."""
        return tuple(self._places)

    def get(self, key: str) -> "Tree | None":
        """Return the value under a key, if there is one."""
        place = self._places.get(key)
        return None if place is None else self.items[place][1]

    def key(self, key: str) -> Scalar | None:
        """Return the key itself, for its span."""
        place = self._places.get(key)
        return None if place is None else self.items[place][0]


Tree = Scalar | Sequence | Mapping


def plain(tree: Tree) -> object:
    """Return the tree as dicts, lists and values, without places."""
    match tree:
        case Scalar(value=value):
            return value
        case Sequence(items=items):
            return [plain(item) for item in items]
        case Mapping(items=pairs):
            return {key.value: plain(value) for key, value in pairs}


def find(tree: Tree, path: Iterable[str | int]) -> Tree:
    """Return the part of a tree that a path of keys and indices leads to, or as far as it leads."""
    for step in path:
        match tree, step:
            case Mapping(), str() if (found := tree.get(step)) is not None:
                tree = found
            case Sequence(items=items), int() if 0 <= step < len(items):
                tree = items[step]
            case _:
                break
    return tree


def at(tree: Tree, path: Iterable[str | int]) -> Span:
    """Return the place of the value that a path leads to, or of its deepest part there is."""
    return find(tree, path).span


def key_at(tree: Tree, path: Iterable[str | int], key: str) -> Span:
    """Return the place of a key in the mapping that a path leads to, or else the mapping's."""
    match find(tree, path):
        case Mapping() as mapping if (found := mapping.key(key)) is not None:
            return found.span
        case other:
            return other.span
