"""What a step can see, and where its nodes are named."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tcc.compiler.frontend.expr import (
    UNKNOWN,
    ExpressionScope,
    ParsedExpression,
    parse_expr,
    select_entries,
)
from tcc.compiler.frontend.expr.operators import Budget, GraphValue, NamedValue, OperandError
from tcc.compiler.frontend.yaml import Scalar
from tcc.compiler.support.diagnostics import Span, fail, find_nearest_name, join_names

T = TypeVar("T")
MAX_COPIED_NAMES = 128
"""Most names of a layer that is copied when another name is bound.

One table for all would be copied by every `let`, in time that grows with the square of their
number; one layer a name would be searched as long. So small layers are copied, large ones stacked.
"""


class Bindings(Mapping[str, T]):
    """Names in scope; it never changes, `merge` returns another with more names."""

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, T]) -> None:
        self.layers = layers

    def merge(self, new_names: Mapping[str, T]) -> "Bindings[T]":
        """Return these with more names, which hide older ones."""
        # Only the newest layer grows: older ones are shared by every scope that was made of them.
        if self.layers and len(self.layers[0]) + len(new_names) <= MAX_COPIED_NAMES:
            return Bindings({**self.layers[0], **new_names}, *self.layers[1:])
        return Bindings(new_names, *self.layers)

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


CURRENT_VALUE_NAMES = frozenset(
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
    output: GraphValue | None = None

    def add_child(
        self, base: str, at: Span, *, fixed: bool = False, numbered: bool = False
    ) -> "PathNode":
        """Add and return a part below this one."""
        child = PathNode(base, fixed, numbered, at)
        self.children.append(child)
        return child


@dataclass(frozen=True)
class StepScope:
    """What is in scope for one step; a sequence hands a new one from each step to the next.

    `chain` tells how this place was reached, innermost first; `calls` names the open blocks,
    `loop` the turn of the innermost loop; `depth` counts nesting.
    """

    path_node: PathNode
    names: Bindings[Any] = field(default_factory=Bindings)
    values: Bindings[NamedValue] = field(default_factory=Bindings)
    chain: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    loop: str = ""
    depth: int = 0
    budget: Budget = field(default_factory=Budget)

    def replace_fields(self, **changes: Any) -> "StepScope":
        """Return the scope with other fields, as `dataclasses.replace` makes it, but sooner."""
        # `dataclasses.replace` runs `__init__`, which sets each field of a frozen class by a call.
        scope = object.__new__(StepScope)
        scope.__dict__.update(self.__dict__, **changes)
        return scope

    def bind(self, names: Mapping[str, Any]) -> "StepScope":
        """Return the scope with more names."""
        return self.replace_fields(names=self.names.merge(names))

    def name_value(self, name: str, named_value: NamedValue) -> "StepScope":
        """Return the scope with a value, or a list of values, named."""
        return self.replace_fields(values=self.values.merge({name: named_value}))

    def hide_names(self, value_names: Collection[str], names: Collection[str]) -> "StepScope":
        """Return the scope with names of which an error, or a choice, hides what they stand for."""
        return self.replace_fields(
            names=self.names.merge(dict.fromkeys(names, UNKNOWN)),
            values=self.values.merge(dict.fromkeys(value_names, ERROR_VALUE)),
        )

    def enter_path(self, path_node: PathNode) -> "StepScope":
        """Return the scope with nodes named below another place."""
        return self.replace_fields(path_node=path_node)

    def enter_iteration(
        self, loop_kind: str, index: int, count: int, path_node: PathNode, names: Mapping[str, Any]
    ) -> "StepScope":
        """Return the scope of one turn of a loop, with names of the turn's own."""
        loop_names = {"i": index, "first": index == 0, "last": index == count - 1, **names}
        return self.replace_fields(
            path_node=path_node,
            names=self.names.merge(loop_names),
            loop=f"{loop_kind} {index + 1} of {count}",
            depth=self.depth + 1,
        )

    def select_carried_names(self, bound: BoundNames, *loop_names: str) -> BoundNames:
        """Return those of the names that a loop's body binds that are carried from turn to turn.

        That are those in scope before it, but for the names that the loop itself binds:
        `loop_names`, `i`, `first` and `last`.
        """
        value_names, names = bound
        return (
            frozenset(n for n in value_names if n in self.values),
            frozenset(n for n in names - LOOP_NAMES - {*loop_names} if n in self.names),
        )

    def merge_iteration(self, iteration: "StepScope", bound: BoundNames) -> "StepScope":
        """Return the scope after a turn of a loop, with the turn's values of what is carried."""
        value_names, names = bound
        if not value_names and not names:
            return self
        return self.replace_fields(
            names=self.names.merge({n: iteration.names[n] for n in names}),
            values=self.values.merge({n: iteration.values[n] for n in value_names}),
        )

    def describe_calls(self) -> tuple[str, ...]:
        """Return the chain of calls for a diagnostic."""
        loop_note = () if self.calls or not self.loop else (f"in {self.loop}",)
        return (*loop_note, *self.chain)

    def create_expression_scope(
        self, current: GraphValue, *inner: Mapping[str, Any]
    ) -> ExpressionScope:
        """Return what an expression of a step with a given input sees, `inner` names first."""
        axes = _NO_AXES
        if current.type is not None:
            axes = dict(zip(_AXES, current.type.shape, strict=False))
        names = Bindings(axes, *inner, *self.names.layers)  # nothing else may be called so
        return ExpressionScope(names, self.values, self.budget)

    def use_budget(self, amount: int, at: Span) -> None:
        """Take from what the spec may cost.

        Raises:
            UserError: Nothing is left (E0406).
        """
        try:
            self.budget.use(amount)
        except OperandError as error:
            raise fail(error.code, error.message, at, help=error.help) from None


def lookup(name: Scalar, current: GraphValue, env: StepScope) -> tuple[GraphValue, ...]:
    """Return the value that a name stands for, or those of a list: `name`, `name[0]`, `name[1:]`.

    Raises:
        UserError: None of that name is in scope, or the list has no such entry.
    """
    text = str(name.value)
    if text.isidentifier():
        named_value = _lookup_named_value(text, name, env)
        return named_value if isinstance(named_value, tuple) else (named_value,)
    return _select_list_values(parse_expr(text, name.span), name, current, env)


def lookup_single_value(name: Scalar, current: GraphValue, env: StepScope) -> GraphValue:
    """Return the one value that a name stands for.

    Raises:
        UserError: It stands for several, or as `lookup`.
    """
    graph_values = lookup(name, current, env)
    if len(graph_values) == 1:
        return graph_values[0]
    raise fail(
        "E0218",
        f"`{name.value}` is a list of values, and this needs one value",
        name.span,
        label=f"it has {len(graph_values)}",
        help=f"name one of them, such as `{name.value}[0]`, or join them: `concat: [{name.value}]`",
    )


def _select_list_values(
    expr: ParsedExpression, name: Scalar, current: GraphValue, env: StepScope
) -> tuple[GraphValue, ...]:
    """Return the entries of a list that an index or a slice takes."""
    list_name = expr.text.partition("[")[0].strip()
    named_value = _lookup_named_value(list_name, name, env) if list_name.isidentifier() else ()
    if named_value == ERROR_VALUE:
        return (ERROR_VALUE,)
    if isinstance(named_value, GraphValue):
        raise fail(
            "E0222",
            f"`{list_name}` is one value, not a list",
            name.span,
            help=f"write `{list_name}`",
        )
    match select_entries(expr, len(named_value), env.create_expression_scope(current)):
        case int(index):
            return (named_value[index],)
        case tuple(indices):
            return tuple(named_value[p] for p in indices if isinstance(p, int))
        case _:
            return (ERROR_VALUE,)


def _lookup_named_value(value_name: str, name: Scalar, env: StepScope) -> NamedValue:
    if value_name in env.values:
        return env.values[value_name]
    if value_name in CURRENT_VALUE_NAMES:
        help = "the current value has no name: write `[]` instead, as in `add: [[], earlier]`"
        raise fail("E0217", f"no value is called `{value_name}`", name.span, help=help)
    nearest_name = find_nearest_name(value_name, tuple(env.values))
    known_names = join_names(env.values.keys()) or "none here: name one with `as:`"
    raise fail(
        "E0217",
        f"no value is called `{value_name}`",
        name.span,
        help=f"did you mean `{nearest_name}`?"
        if nearest_name
        else f"named values are {known_names}",
    )
