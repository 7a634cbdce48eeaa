"""Names and values that a step can see, and the paths of its nodes."""

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
"""Most names in a layer that is copied to bind another name.

A single table would be copied by every `let`, in quadratic time; a layer per name would be slow
to search. So small layers are copied and large ones are stacked.
"""


class Bindings(Mapping[str, T]):
    """Immutable mapping of names in scope; `merge` returns one with more names."""

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, T]) -> None:
        self.layers = layers

    def merge(self, new_names: Mapping[str, T]) -> "Bindings[T]":
        """Return these bindings with more names; new names hide old ones."""
        # Only the newest layer is copied; older ones are shared between scopes.
        if self.layers and len(self.layers[0]) + len(new_names) <= MAX_COPIED_NAMES:
            return Bindings({**self.layers[0], **new_names}, *self.layers[1:])
        return Bindings(new_names, *self.layers)

    def __getitem__(self, name: str) -> T:
        """The value of a name."""
        for layer in self.layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is bound."""
        for layer in self.layers:  # noqa: SIM110 - `any` takes twice as long with many layers
            if name in layer:
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each once."""
        # Newest first, so that a name is at the position of its newest binding.
        return iter(dict.fromkeys(name for layer in self.layers for name in layer))

    def __len__(self) -> int:
        """The number of names."""
        return sum(1 for _ in self)


LOOP_NAMES = frozenset({"i", "first", "last"})
"""Names that each iteration of a loop binds."""


CURRENT_VALUE_NAMES = frozenset(
    ("current", "cur", "this", "self", "it", "x", "prev", "previous", "last", "_", "here")
)
"""Names for the current value in other languages and frameworks."""


_AXES = ("C", "H", "W")
_NO_AXES: Mapping[str, Any] = dict.fromkeys(_AXES, UNKNOWN)

BoundNames = tuple[frozenset[str], frozenset[str]]
"""Names of values, and names of numbers, that steps bind."""

ERROR_VALUE = GraphValue("", None)
"""The value of a failed step; it suppresses follow-on diagnostics."""


@dataclass
class PathNode:
    """A node of the path tree: a graph node, a block call or a loop body.

    `base` is the id or keyword of the step; `fixed` bases stay as they are, others are numbered.
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
        """Add and return a child."""
        child = PathNode(base, fixed, numbered, at)
        self.children.append(child)
        return child


@dataclass(frozen=True)
class StepScope:
    """The scope of one step; each step of a sequence passes a new one to the next.

    `chain` describes the calls, innermost first; `calls` are the names of the open blocks; `loop`
    is the iteration of the innermost loop; `depth` is the nesting depth.
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
        """Return a copy with other fields; faster than `dataclasses.replace`."""
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
        """Return the scope with names whose values an error or a branch hides."""
        return self.replace_fields(
            names=self.names.merge(dict.fromkeys(names, UNKNOWN)),
            values=self.values.merge(dict.fromkeys(value_names, ERROR_VALUE)),
        )

    def enter_path(self, path_node: PathNode) -> "StepScope":
        """Return the scope with another parent for the names of nodes."""
        return self.replace_fields(path_node=path_node)

    def enter_iteration(
        self, loop_kind: str, index: int, count: int, path_node: PathNode, names: Mapping[str, Any]
    ) -> "StepScope":
        """Return the scope of one iteration of a loop; `names` are bound in addition."""
        loop_names = {"i": index, "first": index == 0, "last": index == count - 1, **names}
        return self.replace_fields(
            path_node=path_node,
            names=self.names.merge(loop_names),
            loop=f"{loop_kind} {index + 1} of {count}",
            depth=self.depth + 1,
        )

    def select_carried_names(self, bound: BoundNames, *loop_names: str) -> BoundNames:
        """Return the names bound by the body of a loop that carry over to the next iteration.

        These are the names bound before the loop, except those that the loop itself binds:
        `loop_names`, `i`, `first` and `last`.
        """
        value_names, names = bound
        return (
            frozenset(n for n in value_names if n in self.values),
            frozenset(n for n in names - LOOP_NAMES - {*loop_names} if n in self.names),
        )

    def merge_iteration(self, iteration: "StepScope", bound: BoundNames) -> "StepScope":
        """Return the scope after an iteration of a loop, with its values of carried names."""
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
        """Return the scope of an expression in a step with a given input; `inner` comes first."""
        axes = _NO_AXES
        if current.type is not None:
            axes = dict(zip(_AXES, current.type.shape, strict=False))
        names = Bindings(axes, *inner, *self.names.layers)  # no other name equals an axis
        return ExpressionScope(names, self.values, self.budget)

    def use_budget(self, amount: int, at: Span) -> None:
        """Use up part of the budget of the spec.

        Raises:
            UserError: The budget is exhausted (E0406).
        """
        try:
            self.budget.use(amount)
        except OperandError as error:
            raise fail(error.code, error.message, at, help=error.help) from None


def lookup(name: Scalar, current: GraphValue, env: StepScope) -> tuple[GraphValue, ...]:
    """Return the value of a name, or values of a list: `name`, `name[0]`, `name[1:]`.

    Raises:
        UserError: There is no such name in scope, or no such entry in the list.
    """
    text = str(name.value)
    if text.isidentifier():
        named_value = _lookup_named_value(text, name, env)
        return named_value if isinstance(named_value, tuple) else (named_value,)
    return _select_list_values(parse_expr(text, name.span), name, current, env)


def lookup_single_value(name: Scalar, current: GraphValue, env: StepScope) -> GraphValue:
    """Return the single value of a name.

    Raises:
        UserError: The name has several values, or `lookup` fails.
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
    """Return the entries of a list that an index or a slice selects."""
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
