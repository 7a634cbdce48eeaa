"""What a step can see, and where its nodes are named."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tcc.compiler.frontend.expr import (
    UNKNOWN,
    ExpressionScope,
    ParsedExpression,
    entries,
    parse_expr,
)
from tcc.compiler.frontend.expr.operators import Budget, GraphValue, NamedValue, OperandError
from tcc.compiler.frontend.yaml import Scalar
from tcc.compiler.support.diagnostics import Span, fail, listed, nearest

T = TypeVar("T")
SMALL = 128
"""Most names of a layer that is copied when another name is bound.

One table for all would be copied by every `let`, in time that grows with the square of their
number; one layer a name would be searched as long. So small layers are copied, large ones stacked.
"""


class Bindings(Mapping[str, T]):
    """Names in scope; it never changes, `plus` returns another with more names."""

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, T]) -> None:
        self.layers = layers

    def plus(self, more: Mapping[str, T]) -> "Bindings[T]":
        """Return these with more names, which hide older ones."""
        # Only the newest layer grows: older ones are shared by every scope that was made of them.
        if self.layers and len(self.layers[0]) + len(more) <= SMALL:
            return Bindings({**self.layers[0], **more}, *self.layers[1:])
        return Bindings(more, *self.layers)

    def __getitem__(self, name: str) -> T:
        """What a name stands for."""
        for layer in self.layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        """Whether a name is bound."""
        for layer in self.layers:  # noqa: SIM110 - of very many layers, `any` takes twice as long
            if name in layer:
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        """Every name once."""
        # Newest first, so that a name that hides another one is met once, in its own place.
        return iter(dict.fromkeys(name for layer in self.layers for name in layer))

    def __len__(self) -> int:
        """How many names there are."""
        return sum(1 for _ in self)


LOOP_NAMES = frozenset({"i", "first", "last"})
"""What every turn of a loop binds anew."""


WORDS_FOR_CURRENT = frozenset(
    ("current", "cur", "this", "self", "it", "x", "prev", "previous", "last", "_", "here")
)
"""What the current value is called where it has a name."""


_AXES = ("C", "H", "W")
_NO_AXES: Mapping[str, Any] = dict.fromkeys(_AXES, UNKNOWN)

BoundNames = tuple[frozenset[str], frozenset[str]]
"""Names of values, and names of numbers, that steps bind."""

ERROR_VALUE = GraphValue("", None)
"""Stands for a value that an error kept from being made; nothing is said of it again."""


@dataclass
class PathNode:
    """A part of the path tree: a node, or a block call or loop body that holds more.

    `base` is the step's id or word; `fixed` places keep it as it is, others are numbered.
    """

    base: str
    fixed: bool = False
    numbered: bool = False
    at: Span | None = None
    node: str | None = None
    children: "list[PathNode]" = field(default_factory=list)
    result: GraphValue | None = None

    def child(
        self, base: str, at: Span, *, fixed: bool = False, numbered: bool = False
    ) -> "PathNode":
        """Add and return a part below this one."""
        made = PathNode(base, fixed, numbered, at)
        self.children.append(made)
        return made


@dataclass(frozen=True)
class StepScope:
    """What is in scope for one step; a sequence hands a new one from each step to the next.

    `chain` tells how this place was reached, innermost first; `calls` names the open blocks,
    `loop` the turn of the innermost loop; `depth` counts nesting.
    """

    place: PathNode
    names: Bindings[Any] = field(default_factory=Bindings)
    values: Bindings[NamedValue] = field(default_factory=Bindings)
    chain: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    loop: str = ""
    depth: int = 0
    budget: Budget = field(default_factory=Budget)

    def but(self, **changes: Any) -> "StepScope":
        """Return the scope with other fields, as `dataclasses.replace` makes it, but sooner."""
        # `dataclasses.replace` runs `__init__`, which sets each field of a frozen class by a call.
        made = object.__new__(StepScope)
        made.__dict__.update(self.__dict__, **changes)
        return made

    def bind(self, names: Mapping[str, Any]) -> "StepScope":
        """Return the scope with more names."""
        return self.but(names=self.names.plus(names))

    def name_value(self, name: str, value: NamedValue) -> "StepScope":
        """Return the scope with a value, or a list of values, named."""
        return self.but(values=self.values.plus({name: value}))

    def hidden(self, values: Collection[str], names: Collection[str]) -> "StepScope":
        """Return the scope with names of which an error, or a choice, hides what they stand for."""
        return self.but(
            names=self.names.plus(dict.fromkeys(names, UNKNOWN)),
            values=self.values.plus(dict.fromkeys(values, ERROR_VALUE)),
        )

    def at(self, place: PathNode) -> "StepScope":
        """Return the scope with nodes named below another place."""
        return self.but(place=place)

    def iteration(
        self, word: str, index: int, count: int, place: PathNode, names: Mapping[str, Any]
    ) -> "StepScope":
        """Return the scope of one turn of a loop, with names of the turn's own."""
        turn = {"i": index, "first": index == 0, "last": index == count - 1, **names}
        return self.but(
            place=place,
            names=self.names.plus(turn),
            loop=f"{word} {index + 1} of {count}",
            depth=self.depth + 1,
        )

    def carried(self, bound: BoundNames, *own: str) -> BoundNames:
        """Return those of the names that a loop's body binds that are carried from turn to turn.

        That are those in scope before it, but for the names that the loop itself binds: `own`,
        `i`, `first` and `last`.
        """
        values, names = bound
        return (
            frozenset(n for n in values if n in self.values),
            frozenset(n for n in names - LOOP_NAMES - {*own} if n in self.names),
        )

    def carry(self, turn: "StepScope", bound: BoundNames) -> "StepScope":
        """Return the scope after a turn of a loop, with the turn's values of what is carried."""
        values, names = bound
        if not values and not names:
            return self
        return self.but(
            names=self.names.plus({n: turn.names[n] for n in names}),
            values=self.values.plus({n: turn.values[n] for n in values}),
        )

    def notes(self) -> tuple[str, ...]:
        """Return the chain of calls for a diagnostic."""
        own = () if self.calls or not self.loop else (f"in {self.loop}",)
        return (*own, *self.chain)

    def scope(self, current: GraphValue, *inner: Mapping[str, Any]) -> ExpressionScope:
        """Return what an expression of a step with a given input sees, `inner` names first."""
        axes = _NO_AXES
        if current.type is not None:
            axes = dict(zip(_AXES, current.type.shape, strict=False))
        names = Bindings(axes, *inner, *self.names.layers)  # nothing else may be called so
        return ExpressionScope(names, self.values, self.budget)

    def spend(self, amount: int, at: Span) -> None:
        """Take from what the spec may cost.

        Raises:
            UserError: Nothing is left (E0406).
        """
        try:
            self.budget.spend(amount)
        except OperandError as error:
            raise fail(error.code, error.message, at, help=error.help) from None


def lookup(name: Scalar, current: GraphValue, env: StepScope) -> tuple[GraphValue, ...]:
    """Return the value that a name stands for, or those of a list: `name`, `name[0]`, `name[1:]`.

    Raises:
        UserError: None of that name is in scope, or the list has no such entry.
    """
    word = str(name.value)
    if word.isidentifier():
        found = _named(word, name, env)
        return found if isinstance(found, tuple) else (found,)
    return _entries(parse_expr(word, name.span), name, current, env)


def single_value(name: Scalar, current: GraphValue, env: StepScope) -> GraphValue:
    """Return the one value that a name stands for.

    Raises:
        UserError: It stands for several, or as `lookup`.
    """
    found = lookup(name, current, env)
    if len(found) == 1:
        return found[0]
    raise fail(
        "E0218",
        f"`{name.value}` is a list of values, and one is taken here",
        name.span,
        label=f"it holds {len(found)}",
        help=f"name one of them, such as `{name.value}[0]`, or join them: `concat: [{name.value}]`",
    )


def _entries(
    expr: ParsedExpression, name: Scalar, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the entries of a list that an index or a slice takes."""
    word = expr.text.partition("[")[0].strip()
    found = _named(word, name, env) if word.isidentifier() else ()
    if found == ERROR_VALUE:
        return (ERROR_VALUE,)
    if isinstance(found, GraphValue):
        raise fail("E0222", f"`{word}` is one value, no list", name.span, help=f"write `{word}`")
    match entries(expr, len(found), env.scope(current)):
        case int(place):
            return (found[place],)
        case tuple(places):
            return tuple(found[p] for p in places if isinstance(p, int))
        case _:
            return (ERROR_VALUE,)


def _named(word: str, name: Scalar, env: StepScope) -> NamedValue:
    if word in env.values:
        return env.values[word]
    if word in WORDS_FOR_CURRENT:
        help = "the current value has no name: write `[]` in its place, as in `add: [[], earlier]`"
        raise fail("E0217", f"no value is called `{word}`", name.span, help=help)
    close = nearest(word, tuple(env.values))
    known = listed(env.values.keys()) or "none here: name one with `as:`"
    raise fail(
        "E0217",
        f"no value is called `{word}`",
        name.span,
        help=f"did you mean `{close}`?" if close else f"named values are {known}",
    )
