"""Builds a tree from the events of a YAML or JSON reader, within limits."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tcc.compiler.frontend.yaml.source_text import SourceText
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, find_nearest_name


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value; `quoted` if it was in quotes or a block scalar.

    The span covers its text, including quotes, on its first line.
    """

    value: str | int | float | bool | None
    span: Span
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list. Its span is that of its brackets, or of its first dash."""

    items: "tuple[Tree, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in text order. Its span is that of its braces, or of its first key."""

    items: "tuple[tuple[Scalar, Tree], ...]"
    span: Span
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the keys."""
        # Once per mapping: the schema check looks up every key.
        positions = {str(key.value): position for position, (key, _) in enumerate(self.items)}
        object.__setattr__(self, "_positions", positions)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in text order."""
        return tuple(self._positions)

    def get(self, key: str) -> "Tree | None":
        """Return the value of a key, or None."""
        position = self._positions.get(key)
        return None if position is None else self.items[position][1]

    def get_key(self, key: str) -> Scalar | None:
        """Return the key with its span, or None."""
        position = self._positions.get(key)
        return None if position is None else self.items[position][0]


Tree = Scalar | Sequence | Mapping


def to_plain(tree: Tree) -> object:
    """Return the tree as dicts, lists and values, without locations."""
    match tree:
        case Scalar(value=value):
            return value
        case Sequence(items=items):
            return [to_plain(item) for item in items]
        case Mapping(items=pairs):
            return {key.value: to_plain(value) for key, value in pairs}


def find_subtree(tree: Tree, path: Iterable[str | int]) -> Tree:
    """Return the part of a tree at a path of keys and indices, or the deepest one that exists."""
    for step in path:
        match tree, step:
            case Mapping(), str() if (subtree := tree.get(step)) is not None:
                tree = subtree
            case Sequence(items=items), int() if 0 <= step < len(items):
                tree = items[step]
            case _:
                break
    return tree


def find_span(tree: Tree, path: Iterable[str | int]) -> Span:
    """Return the span of the value at a path, or of the deepest part that exists."""
    return find_subtree(tree, path).span


def find_key_span(tree: Tree, path: Iterable[str | int], key: str) -> Span:
    """Return the span of a key in the mapping at a path, or else the span of the mapping."""
    match find_subtree(tree, path):
        case Mapping() as mapping if (key_scalar := mapping.get_key(key)) is not None:
            return key_scalar.span
        case subtree:
            return subtree.span


MAX_NODES = 100_000
"""Most values, keys and lists in one text, with aliases expanded.

Nested aliases can double the expanded size with every line (the "billion laughs")."""
MAX_DEPTH = 256
"""Most nested lists and mappings."""
MAX_INT = 1 << 63
"""Largest integer, in magnitude."""
MAX_ERRORS = 50
"""Most errors that are collected before reading stops."""

# Escapes in quotes can contain these characters; lone surrogates come from escapes in JSON.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(slots=True)
class OpenBranch:
    """A list or mapping that is not closed yet.

    `start_count` is the number of nodes before it, and `deepest` the largest depth in it.
    """

    mapping: bool
    start: int
    anchor: str | None
    start_count: int
    deepest: int
    children: list[Tree] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Anchored:
    """A tree with an anchor, its number of nodes, and its levels of nesting."""

    tree: Tree
    nodes: int
    height: int


class TreeBuilder:
    """Builds the tree from values, openings and closings in text order.

    Errors that can be skipped are collected and raised by `finish`; a violated limit is raised at
    once.
    """

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.errors: list[Diagnostic] = []
        self._root: Tree | None = None
        self._open: list[OpenBranch] = []
        self._anchors: dict[str, _Anchored] = {}
        self._nodes = 0

    @property
    def awaits_value(self) -> bool:
        """Whether the next item is the value of a key."""
        return bool(self._open) and self._open[-1].mapping and len(self._open[-1].children) % 2 == 1

    @property
    def bracket(self) -> int | None:
        """The index of the innermost open bracket, if any."""
        start = self._open[-1].start if self._open else -1
        return start if self.source.text[start : start + 1] in ("[", "{") else None

    def add_error(
        self, code: str, message: str, at: Span, *, label: str = "", help: str = ""
    ) -> None:
        """Collect an error; reading continues.

        Raises:
            UserError: There are too many errors.
        """
        self.errors.append(Diagnostic(code, message, at, label=label, help=help))
        if len(self.errors) >= MAX_ERRORS:
            # Empty, because `create_error` adds the collected errors.
            raise UserError(())

    def add_scalar(self, scalar: Scalar, anchor: str | None = None) -> None:
        """Add a value or key."""
        value = scalar.value
        if isinstance(value, str) and (control_match := _CONTROL.search(value)):
            code = f"U+{ord(control_match.group()):04X}"
            self.add_error("E0101", f"the quoted text contains the character {code}", scalar.span)
        elif isinstance(value, int) and abs(value) > MAX_INT:
            self.add_error("E0104", "the number is too large for 64 bits", scalar.span)
        self._count_nodes(1, scalar.span)
        self._attach_tree(scalar, anchor, 1, 0)

    def open_branch(self, start: int, *, mapping: bool, anchor: str | None = None) -> None:
        """Start a mapping or list at an index of the text."""
        depth = len(self._open) + 1
        if depth > MAX_DEPTH or self._nodes >= MAX_NODES:
            span = self.source.get_span(start, start + 1)
            self._check_depth(depth, span)
            self._count_nodes(1, span)
        self._open.append(OpenBranch(mapping, start, anchor, self._nodes, depth))
        # The list or mapping itself; its contents are counted later.
        self._nodes += 1

    def close_branch(self, end: int | None = None) -> None:
        """Close the innermost branch; `end` is the index after its closing bracket."""
        closed_branch = self._open.pop()
        children = tuple(closed_branch.children)
        span = self.source.get_span(
            closed_branch.start, closed_branch.start + 1 if end is None else end
        )
        # A mapping without braces starts at its first key.
        if closed_branch.mapping and end is None and children:
            span = children[0].span
        tree = (
            self._build_mapping(children, span)
            if closed_branch.mapping
            else Sequence(children, span)
        )
        # The levels of nesting in the branch: an alias to it adds them to the depth of the alias.
        height = closed_branch.deepest - len(self._open)
        self._attach_tree(
            tree, closed_branch.anchor, self._nodes - closed_branch.start_count, height
        )

    def add_alias(self, name: str, span: Span) -> None:
        """Add a reference to an anchor."""
        anchored = self._anchors.get(name)
        if anchored is None:
            self._report_unknown_alias(name, span)
            self.add_scalar(Scalar(None, span))
            return
        # Counted as if expanded; the tree itself is shared, so memory does not grow.
        self._count_nodes(anchored.nodes, span)
        self._check_depth(len(self._open) + anchored.height, span)
        self._attach_tree(anchored.tree, None, anchored.nodes, anchored.height)

    def finish(self) -> Tree:
        """Return the tree.

        Raises:
            UserError: All errors, in text order.
        """
        if self._root is None and not self.errors:
            raise fail(
                "E0106",
                "the file is empty",
                self.source.get_end_span(),
                label="expected `key: value`",
            )
        if isinstance(self._root, Scalar) and not self.errors:
            self.add_error(
                "E0106",
                f"expected `key: value`, found only {describe_tree(self._root)}",
                self._root.span,
            )
        if self.errors or self._root is None:
            raise self.create_error()
        return self._root

    def create_error(self, *extra_errors: Diagnostic) -> UserError:
        """Return an error with all collected diagnostics and `extra_errors`, in text order."""
        errors = [*self.errors, *extra_errors]
        return UserError(tuple(sorted(errors, key=lambda d: (d.at.line, d.at.column))))

    def _attach_tree(self, tree: Tree, anchor: str | None, nodes: int, height: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = _Anchored(tree, nodes, height)
        if not self._open:
            self._root = tree
            return
        parent = self._open[-1]
        parent.children.append(tree)
        parent.deepest = max(parent.deepest, len(self._open) + height)

    def _build_mapping(self, children: tuple[Tree, ...], span: Span) -> Mapping:
        items: dict[str, tuple[Scalar, Tree]] = {}
        for key, value in zip(children[::2], children[1::2], strict=True):
            if (name := self._read_key_name(key)) is None or self._report_glued_key(key, value):
                continue
            if name in items:
                self._report_duplicate(items[name][0], key)
            else:
                items[name] = (Scalar(name, key.span, quoted=True), value)
        return Mapping(tuple(items.values()), span)

    def _read_key_name(self, key: Tree) -> str | None:
        match key:
            case Scalar(value="<<", quoted=False):
                message = "merge keys (`<<`) are not part of YAML 1.2"
                hint = "write out the keys, or move the shared part into a block or a parameter"
                self.add_error("E0107", message, key.span, help=hint)
            case Scalar(value=str() as name):
                return name
            case Scalar(value=None, span=span) if span.text[span.column - 1 :].startswith(":"):
                self.add_error(
                    "E0107", "a key is missing before this `:`", span, help="write `key: value`"
                )
            case Scalar():
                hint = "put it in quotes"
                message = f"a key must be a name, found {describe_tree(key)}"
                self.add_error("E0107", message, key.span, help=hint)
            case _:
                self.add_error(
                    "E0107", f"a key must be a name, found {describe_tree(key)}", key.span
                )
        return None

    def _report_glued_key(self, key: Tree, value: Tree) -> bool:
        """Report a key such as `stride:2`, which has no value because a space is missing."""
        match key, value:
            case Scalar(value=str() as name, quoted=False), Scalar(value=None) if ":" in name:
                hint = "write " + name.replace(":", ": ", 1)
                message = f"a space is missing after the `:` of `{name[:40]}`"
                self.add_error("E0102", message, key.span, help=hint)
                return True
        return False

    def _report_duplicate(self, first_key: Scalar, second_key: Tree) -> None:
        message = f"the key `{first_key.value}` appears twice"
        self.add_error(
            "E0103",
            message,
            second_key.span,
            label="second occurrence",
            help="remove one of them, or correct its name",
        )
        self.errors[-1] = self.errors[-1].add_notes(f"first at {first_key.span}")

    def _report_unknown_alias(self, name: str, span: Span) -> None:
        if any(opened.anchor == name for opened in self._open):
            self.add_error("E0107", f"`*{name}` is inside the value that it refers to", span)
            return
        nearest_name = find_nearest_name(name, set(self._anchors))
        hint = (
            f"did you mean `*{nearest_name}`?"
            if nearest_name
            else "put the text in quotes if it is not an alias"
        )
        self.add_error("E0107", f"there is no `&{name}` before `*{name}`", span, help=hint)

    def _count_nodes(self, nodes: int, span: Span) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"the file has more than {MAX_NODES:,} values, with aliases expanded"
            hint = "use `repeat`, `each` and blocks for parts that repeat"
            raise fail("E0104", message, span, label="the limit is exceeded here", help=hint)

    def _check_depth(self, depth: int, span: Span) -> None:
        if depth > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} nested lists and mappings"
            hint = "move inner parts into blocks"
            raise fail("E0105", message, span, label="too deep here", help=hint)


def parse_digits(digits: str) -> int:
    """Return the value of decimal digits; for very many digits, a number above `MAX_INT`."""
    return int(digits) if len(digits) < 100 else MAX_INT + 1


def describe_tree(tree: Tree) -> str:
    """Return a description of a tree for messages: `the number 3`, `a list`."""
    match tree:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar(value=None):
            return "nothing (`null`)"
        case Scalar(value=bool() as value):
            return f"the Boolean `{str(value).lower()}`"
        case Scalar(value=str() as value):
            display_text = value if len(value) <= 40 else value[:37] + "..."
            return f"the text `{display_text}`".replace("\n", " ")
        case Scalar(value=value):
            return f"the number {value}"
