"""Parsing of one step, and the check of its keyword and argument names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from tcc.compiler.frontend.argument_values import OPTIONS, describe_parameter
from tcc.compiler.frontend.block_library import CONTROL_KEYWORDS, JOIN_NAMES, OPS_BY_NAME, Block
from tcc.compiler.frontend.framework_aliases import match_argument, match_operation
from tcc.compiler.frontend.suggestions import explain_call_syntax, explain_missing_colon
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Parameter, Required, list_parameters
from tcc.compiler.support.diagnostics import (
    MAX_CANDIDATES,
    Diagnostic,
    Explain,
    Span,
    UserError,
    fail,
    join_names,
)


@dataclass(frozen=True, slots=True)
class Step:
    """The keyword of a step with its arguments and options; `at` is the location of the keyword."""

    keyword: str
    args: Tree | None
    at: Span
    tree: Tree
    name: Scalar | None = None
    """`as:`"""
    sources: tuple[Scalar, ...] = ()
    """`from:`"""
    id: Scalar | None = None


def parse_step(tree: Tree) -> Step:
    """Return the parts of a step.

    Raises:
        UserError: The step has no keyword, or more than one.
    """
    if isinstance(tree, Scalar):
        return Step(str(tree.value), None, tree.span, tree)
    if not isinstance(tree, MappingTree):
        raise fail(
            "E0204", "a step is a name such as `relu` or a mapping such as `conv: {...}`", tree.span
        )
    calls = [(key, args) for key, args in tree.items if key.value not in OPTIONS]
    if not calls:
        raise fail(
            "E0205", "a step needs an op or a block", tree.span, help="add one, or `identity`"
        )
    if len(calls) > 1:
        raise _create_two_keywords_error(calls[0][0], calls[1][0])
    key, args = calls[0]
    name, step_id = tree.get("as"), tree.get("id")
    return Step(
        str(key.value),
        # `- relu:` with nothing after the colon is common, and means the same as `- relu`.
        None if isinstance(args, Scalar) and args.value is None else args,
        key.span,
        tree,
        name if isinstance(name, Scalar) else None,
        _collect_scalars(tree.get("from")),
        step_id if isinstance(step_id, Scalar) else None,
    )


def _create_two_keywords_error(first_key: Scalar, second_key: Scalar) -> UserError:
    # An argument that is indented too little looks like a second keyword.
    op_class = OPS_BY_NAME.get(str(first_key.value))
    if op_class is not None and any(p.name == second_key.value for p in list_parameters(op_class)):
        return fail(
            "E0205",
            f"`{second_key.value}` is an argument of `{first_key.value}`, but it is next to it",
            second_key.span,
            help=f"indent it further, or write `{first_key.value}: {{{second_key.value}: ...}}`",
        )
    return fail(
        "E0205",
        "a step has exactly one op or block",
        second_key.span,
        label=f"`{first_key.value}` is already the op of this step",
        help=(
            f"start a new step with `- {second_key.value}`, or indent it under `{first_key.value}:`"
        ),
    )


def _collect_scalars(tree: Tree | None) -> tuple[Scalar, ...]:
    match tree:
        case Scalar():
            return (tree,)
        case Sequence(items=items):
            return tuple(i for i in items if isinstance(i, Scalar))
        case _:
            return ()


def find_bound_names(tree: Tree) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of values, and those of numbers, that a step binds for later steps."""
    return _collect_bound_names(tree, loops=False)


def find_names_bound_in(
    steps: Tree | None, *, loops: bool = False
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that the steps of a sequence bind; `loops` includes those in its loops."""
    bound_names = (
        [_collect_bound_names(s, loops=loops) for s in steps.items]
        if isinstance(steps, Sequence)
        else []
    )
    value_names = frozenset[str]().union(*(value_names for value_names, _ in bound_names))
    return value_names, frozenset[str]().union(*(names for _, names in bound_names))


def _collect_bound_names(tree: Tree, *, loops: bool) -> tuple[frozenset[str], frozenset[str]]:
    value_names: set[str] = set()
    names: set[str] = set()
    if not isinstance(tree, MappingTree):
        return frozenset(), frozenset()
    value_names |= _get_text(tree.get("as"))
    for key, args in tree.items:
        if not isinstance(args, MappingTree):
            continue
        if key.value == "let":
            names |= {str(name.value) for name, _ in args.items}
        elif key.value == "side":
            value_names |= _get_text(args.get("as"))
        for part in _get_binding_parts(str(key.value), loops=loops):
            inner = find_names_bound_in(args.get(part), loops=loops)
            value_names |= inner[0]
            names |= inner[1]
        # `collect` is bound after a loop. Names of its body are not, unless they carry over.
        if key.value in ("repeat", "each"):
            value_names |= _get_text(args.get("collect"))
    return frozenset(value_names), frozenset(names)


def _get_binding_parts(keyword: str, *, loops: bool) -> tuple[str, ...]:
    """Return the parts of a step that bind names for later steps."""
    if keyword == "when":
        return ("then", "else")
    return ("body",) if loops and keyword in ("repeat", "each") else ()


def _get_text(tree: Tree | None) -> frozenset[str]:
    return frozenset((str(tree.value),)) if isinstance(tree, Scalar) else frozenset()


def check_step(tree: Tree, blocks: Mapping[str, Block]) -> Iterator[Explain]:
    """Yield explanations of errors in the keyword and the argument names of a step.

    The schema checks arguments of ops in mapping form; it does not know blocks.
    """
    step = parse_step(tree)
    # A block cannot have the name of an op, so the order does not matter.
    if step.keyword in blocks:
        yield from check_names(step.keyword, blocks[step.keyword].params, step.args, step.at)
    elif step.keyword in OPS_BY_NAME and step.keyword not in JOIN_NAMES:
        if step.args is None:
            yield from check_names(
                step.keyword, list_parameters(OPS_BY_NAME[step.keyword]), None, step.at
            )
    elif step.keyword in CONTROL_KEYWORDS or step.keyword in JOIN_NAMES:
        if isinstance(tree, Scalar) or (step.args is None and not step.sources):
            yield lambda: [Diagnostic("E0215", f"`{step.keyword}` needs arguments", step.at)]
    else:
        yield lambda: [_describe_unknown_keyword(step, blocks)]


def _describe_unknown_keyword(step: Step, blocks: Mapping[str, Block]) -> Diagnostic:
    known_names = (*OPS_BY_NAME, *CONTROL_KEYWORDS, *blocks)
    help = explain_call_syntax(step.keyword, blocks) or explain_missing_colon(step.keyword, blocks)
    help = help or match_operation(step.keyword, known_names).help
    help = help or "see the list of ops in the reference"
    if step.keyword in ("if", "then", "else"):
        help = "a condition is one step: `when: {if: ..., then: [...], else: [...]}`"
    message = f"no op or block is called `{step.keyword[:80]}`"
    return Diagnostic("E0201", message, step.at, help=help)


def iterate_sequences(tree: MappingTree) -> Iterator[Sequence]:
    """Yield all lists of steps in a file, outermost first, called or not."""
    roots: list[Tree | None] = [tree.get("graph")]
    blocks = tree.get("blocks")
    if isinstance(blocks, MappingTree):
        roots += [b.get("body") for _, b in blocks.items if isinstance(b, MappingTree)]
    return iterate_nested_sequences(*roots)


def iterate_nested_sequences(*roots: Tree | None) -> Iterator[Sequence]:
    """Yield lists of steps and all lists within them."""
    # Not recursive: a text can nest deeper than the Python stack.
    pending = list(roots)
    while pending:
        steps = pending.pop()
        if isinstance(steps, Sequence):
            yield steps
            for step in steps.items:
                pending += iterate_step_sequences(step)


def iterate_step_sequences(step: Tree) -> Iterator[Tree | None]:
    """Yield the lists of steps in a step."""
    if not isinstance(step, MappingTree):
        return
    for key, args in step.items:
        # Branches of a join are lists within its list; a computed branch is under `branch`.
        if key.value in JOIN_NAMES and isinstance(args, Sequence):
            yield from args.items
        elif key.value == "seq":
            yield args
        elif (key.value in CONTROL_KEYWORDS or key.value in JOIN_NAMES) and isinstance(
            args, MappingTree
        ):
            yield from (args.get(k) for k in ("body", "then", "else", "branch"))


def check_names(
    keyword: str, params: tuple[Parameter, ...], args: Tree | None, at: Span
) -> Iterator[Explain]:
    """Yield an explanation for each unknown or missing argument of a call."""
    if args is not None and not isinstance(args, MappingTree) and not _is_empty(args):
        yield lambda: [_describe_missing_mapping(keyword, params, args.span)]
        return
    parameter_names = tuple(p.name for p in params)
    keys = {str(key.value): key for key, _ in args.items} if isinstance(args, MappingTree) else {}
    # A set next to the tuple, so that a call with a thousand wrong arguments is fast too.
    parameter_set = set(parameter_names)
    unknown_names = [name for name in keys if name not in parameter_set]
    for name in unknown_names:
        yield partial(_explain_unknown_argument, keyword, name, parameter_names, keys[name].span)
    for p in params:
        if isinstance(p.default, Required) and p.name not in keys:
            yield partial(_explain_missing_argument, keyword, p, unknown_names, parameter_names, at)


def _describe_missing_mapping(keyword: str, params: tuple[Parameter, ...], at: Span) -> Diagnostic:
    expected = ", ".join(f"{p.name}: ..." for p in params if isinstance(p.default, Required))
    message = f"`{keyword}` takes its arguments as a mapping"
    return Diagnostic("E0204", message, at, help=f"write `{keyword}: {{{expected or '...'}}}`")


def _explain_unknown_argument(
    keyword: str, key: str, parameter_names: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    return [describe_unknown_argument(keyword, key, parameter_names, at)]


def _explain_missing_argument(
    keyword: str, p: Parameter, unknown_names: list[str], parameter_names: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    # `kernel_size` instead of `kernel` is one error, not an unknown and a missing argument.
    if any(
        match_argument(key, parameter_names).known_name == p.name
        for key in unknown_names[:MAX_CANDIDATES]
    ):
        return []  # the unknown argument is reported instead
    help = f"add `{p.name}:`, {describe_parameter(p)}" + (f": {p.doc}" if p.doc else "")
    return [Diagnostic("E0215", f"`{keyword}` needs the argument `{p.name}`", at, help=help)]


def describe_unknown_argument(
    keyword: str, key: str, parameter_names: tuple[str, ...], at: Span, noun: str = "argument"
) -> Diagnostic:
    """Return the diagnostic for an argument that an op, block or key does not have."""
    # Brackets of YAML split text at commas: `{filters: max(a, b)}` has a key `b)`.
    if key.endswith((")", "]")):
        help = 'put text with commas in quotes: "max(a, b)"; write a list as [a, b]'
        return Diagnostic("E0202", f"`{keyword}` has no {noun} `{key}`", at, help=help)
    if key in OPTIONS and noun == "argument":
        help = f"write `{key}` next to `{keyword}:`, not inside it"
        return Diagnostic("E0202", f"`{keyword}` has no argument `{key}`", at, help=help)
    accepted = f"it takes {join_names(parameter_names)}" if parameter_names else "it takes none"
    help = match_argument(key, parameter_names).help or accepted
    return Diagnostic("E0202", f"`{keyword}` has no {noun} `{key[:80]}`", at, help=help)


def _is_empty(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None
