"""Declarations of the parameters of a spec or a block."""

from collections.abc import Iterator, Set
from dataclasses import replace

from tcc.compiler.frontend.argument_values import evaluate_argument
from tcc.compiler.frontend.expr import UNKNOWN, ExpressionScope
from tcc.compiler.frontend.expr.operators import Budget, GraphValue
from tcc.compiler.frontend.expr.parser import KEYWORDS
from tcc.compiler.frontend.yaml import Mapping, Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Kind, Parameter
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail

TYPES = tuple(k.value for k in Kind if k is not Kind.ANY)
_UNBOUNDED = (Kind.BOOL, Kind.ENUM, Kind.STRING, Kind.NAMES)
_KIND_BY_TYPE = {bool: Kind.BOOL, int: Kind.INT, float: Kind.FLOAT}


def read_parameters(tree: Tree | None) -> tuple[Parameter, ...]:
    """Return the parameters of a `params:` mapping; defaults stay trees until they are bound.

    `name: int` declares a required parameter and `name: 3` a default with its type. A mapping
    sets all properties.
    """
    if not isinstance(tree, Mapping):
        return ()
    for key, _ in tree.items:
        check_bindable(str(key.value), key.span)
    return tuple(_read_parameter(str(key.value), key.span, body) for key, body in tree.items)


def check_bindable(name: str, at: Span) -> None:
    """Refuse to bind a name with a fixed meaning in expressions.

    Raises:
        UserError: The name is a size of the input or a keyword of expressions.
    """
    if name in ("C", "H", "W"):
        message = f"`{name}` is a size of the current value, so nothing else can have this name"
        raise fail("E0231", message, at, help="choose another name")
    if name in KEYWORDS:
        message = f"`{name}` is a keyword of expressions, so nothing else can have this name"
        raise fail("E0231", message, at, help="choose another name")


def _read_parameter(name: str, at: Span, body: Tree) -> Parameter:
    match body:
        case Scalar(value=str(type_name)) if type_name in TYPES:
            return _check_choices(Parameter(name, Kind(type_name)), at)
        # By exact type, because `bool` is a subclass of `int`.
        case Scalar(value=bool() | int() | float() as value):
            return Parameter(name, _KIND_BY_TYPE[type(value)], body)
        case Sequence():
            return Parameter(name, Kind.LIST, body)
        case Mapping():
            return _check_choices(_read_full_parameter(name, at, body), at)
        case _:
            return Parameter(name, Kind.ANY, body)


def _read_full_parameter(name: str, at: Span, body: Mapping) -> Parameter:
    kind, choices_tree, default = body.get("type"), body.get("values"), body.get("default")
    # The default determines the type, unless the mapping has one.
    default_parameter = (
        _read_parameter(name, at, default) if default is not None else Parameter(name, Kind.ANY)
    )
    # Values of an enum are text, even if YAML reads them as numbers or Booleans.
    choices = (
        tuple(str(v.value) for v in choices_tree.items if isinstance(v, Scalar))
        if isinstance(choices_tree, Sequence)
        else ()
    )
    declared = Parameter(
        name, Kind.ENUM if choices else default_parameter.kind, default_parameter.default, choices
    )
    if isinstance(kind, Scalar):
        declared = replace(declared, kind=Kind(str(kind.value)))
    elif default is None:
        raise fail(
            "E0211",
            f"parameter `{name}` needs a `type` or a `default`",
            at,
            help=f"types are {', '.join(TYPES)}",
        )
    low, high = body.get("min"), body.get("max")
    declared = replace(declared, low=_read_number(low), high=_read_number(high))
    _check_bounds(declared, body)
    return replace(declared, default=default or default_parameter.default)


def _check_bounds(p: Parameter, body: Mapping) -> None:
    """Refuse bounds and values that no argument can satisfy, or that have no effect.

    Raises:
        UserError: E0211, at the bound.
    """
    for key in ("min", "max"):
        bound = body.get_key(key)
        if bound is not None and p.kind in _UNBOUNDED:
            message = f"a parameter of type `{p.kind}` has no `{key}`"
            raise fail("E0211", message, bound.span, help="only numbers can have `min` and `max`")
    choices_key, low = body.get_key("values"), body.get("min")
    if choices_key is not None and p.kind is not Kind.ENUM:
        message = f"a parameter of type `{p.kind}` has no `values`"
        raise fail("E0211", message, choices_key.span, help="only `type: enum` can have `values`")
    if low is not None and p.low is not None and p.high is not None and p.low > p.high:
        label = f"`max` is {p.high:g}"
        raise fail("E0211", f"`min` of `{p.name}` is above its `max`", low.span, label=label)


def _read_number(tree: Tree | None) -> float | None:
    return float(tree.value) if isinstance(tree, Scalar) and tree.value is not None else None


def _check_choices(declared: Parameter, at: Span) -> Parameter:
    if declared.kind is Kind.ENUM and not declared.choices:
        raise fail(
            "E0211",
            f"parameter `{declared.name}` is an enum without `values`",
            at,
            help=f"write {declared.name}: {{type: enum, values: [...]}}",
        )
    return declared


def find_default_problems(
    params: tuple[Parameter, ...],
    budget: Budget,
    inputs: tuple[str, ...] = (),
    sizes: bool = True,
    tried: Set[str] = frozenset(),
) -> Iterator[Diagnostic]:
    """Yield the errors of defaults, used or not.

    The defaults of `tried` already have an error, or depend on one that has.
    """
    names = dict.fromkeys(("C", "H", "W") if sizes else (), UNKNOWN)
    # Sizes and earlier parameters are unknown here, but a default may use them.
    scope = ExpressionScope(names, dict.fromkeys(inputs, GraphValue("", None)), budget)
    for p in params:
        if p.name not in tried and isinstance(p.default, Scalar | Sequence | Mapping):
            try:
                evaluate_argument(p, p.default, scope)
            except UserError as error:
                yield from error.diagnostics
        names[p.name] = UNKNOWN
