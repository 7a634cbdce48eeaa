"""One step of a sequence, taken apart; and the check that its word and arguments exist."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from tcc.compiler.frontend.argument_values import OPTIONS, article
from tcc.compiler.frontend.block_library import CONTROL, JOIN_WORDS, WORDS, Block
from tcc.compiler.frontend.foreign_names import argument, operation
from tcc.compiler.frontend.suggestions import as_call, without_colon
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.argument_declarations import Parameter, Required, signature
from tcc.compiler.support.diagnostics import (
    MANY_NAMES,
    Diagnostic,
    Explain,
    Span,
    UserError,
    fail,
    listed,
)


@dataclass(frozen=True, slots=True)
class Step:
    """A step's word with its arguments, and the options beside it; `at` is the word's place."""

    word: str
    args: Tree | None
    at: Span
    tree: Tree
    name: Scalar | None = None
    """`as:`"""
    sources: tuple[Scalar, ...] = ()
    """`from:`"""
    id: Scalar | None = None


def take_apart(tree: Tree) -> Step:
    """Return the parts of a step.

    Raises:
        UserError: It has no word, or more than one.
    """
    if isinstance(tree, Scalar):
        return Step(str(tree.value), None, tree.span, tree)
    if not isinstance(tree, MappingTree):
        raise fail(
            "E0204", "a step is a word such as `relu` or a mapping such as `conv: {...}`", tree.span
        )
    words = [(key, value) for key, value in tree.items if key.value not in OPTIONS]
    if not words:
        raise fail(
            "E0205", "a step needs an op or a block", tree.span, help="add one, or `identity`"
        )
    if len(words) > 1:
        raise _two_words(words[0][0], words[1][0])
    key, args = words[0]
    name, own = tree.get("as"), tree.get("id")
    return Step(
        str(key.value),
        # `- relu:` with nothing after the colon is written as often as `- relu`, and means the
        # same.
        None if isinstance(args, Scalar) and args.value is None else args,
        key.span,
        tree,
        name if isinstance(name, Scalar) else None,
        _names(tree.get("from")),
        own if isinstance(own, Scalar) else None,
    )


def _two_words(first: Scalar, second: Scalar) -> UserError:
    # An argument that stands one level too far left makes two words of a step.
    own = WORDS.get(str(first.value))
    if own is not None and any(p.name == second.value for p in signature(own)):
        return fail(
            "E0205",
            f"`{second.value}` is an argument of `{first.value}` but stands beside it",
            second.span,
            help=f"indent it further, or write `{first.value}: {{{second.value}: ...}}`",
        )
    return fail(
        "E0205",
        "a step has exactly one op or block",
        second.span,
        label=f"`{first.value}` is already this step's",
        help=f"begin a new step with `- {second.value}`, or indent it under `{first.value}:`",
    )


def _names(tree: Tree | None) -> tuple[Scalar, ...]:
    match tree:
        case Scalar():
            return (tree,)
        case Sequence(items=items):
            return tuple(i for i in items if isinstance(i, Scalar))
        case _:
            return ()


def bound_by(tree: Tree) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of values, and those of numbers, that a step binds for those after it."""
    return _bound(tree, loops=False)


def bound_in(steps: Tree | None, *, loops: bool = False) -> tuple[frozenset[str], frozenset[str]]:
    """Return the same of all steps of a sequence; with `loops`, what loops in it may carry too."""
    each = [_bound(s, loops=loops) for s in steps.items] if isinstance(steps, Sequence) else []
    values = frozenset[str]().union(*(values for values, _ in each))
    return values, frozenset[str]().union(*(names for _, names in each))


def _bound(tree: Tree, *, loops: bool) -> tuple[frozenset[str], frozenset[str]]:
    values: set[str] = set()
    names: set[str] = set()
    if not isinstance(tree, MappingTree):
        return frozenset(), frozenset()
    values |= _text(tree.get("as"))
    for key, args in tree.items:
        if not isinstance(args, MappingTree):
            continue
        if key.value == "let":
            names |= {str(name.value) for name, _ in args.items}
        elif key.value == "side":
            values |= _text(args.get("as"))
        for part in _nested_parts(str(key.value), loops=loops):
            inner = bound_in(args.get(part), loops=loops)
            values |= inner[0]
            names |= inner[1]
        # What a loop collects is bound behind it; what its body binds is not, unless it carries.
        if key.value in ("repeat", "each"):
            values |= _text(args.get("collect"))
    return frozenset(values), frozenset(names)


def _nested_parts(word: str, *, loops: bool) -> tuple[str, ...]:
    """Return the parts of a step whose names stay bound after it."""
    if word == "when":
        return ("then", "else")
    return ("body",) if loops and word in ("repeat", "each") else ()


def _text(tree: Tree | None) -> frozenset[str]:
    return frozenset((str(tree.value),)) if isinstance(tree, Scalar) else frozenset()


def check_step(tree: Tree, blocks: Mapping[str, Block]) -> Iterator[Explain]:
    """Yield explanations of what is wrong with a step's word and the names of its arguments.

    Arguments of ops in mapping form are the schema's to check; it does not know blocks.
    """
    step = take_apart(tree)
    # Blocks first: a block may not have an op's name, so that no word is both.
    if step.word in blocks:
        yield from check_names(step.word, blocks[step.word].params, step.args, step.at)
    elif step.word in WORDS and step.word not in JOIN_WORDS:
        if step.args is None:
            yield from check_names(step.word, signature(WORDS[step.word]), None, step.at)
    elif step.word in CONTROL or step.word in JOIN_WORDS:
        if isinstance(tree, Scalar) or (step.args is None and not step.sources):
            yield lambda: [Diagnostic("E0215", f"`{step.word}` needs arguments", step.at)]
    else:
        yield lambda: [_unknown_word(step, blocks)]


def _unknown_word(step: Step, blocks: Mapping[str, Block]) -> Diagnostic:
    known = (*WORDS, *CONTROL, *blocks)
    help = as_call(step.word, blocks) or without_colon(step.word, blocks)
    help = help or operation(step.word, known).help
    help = help or "see the list of ops in the reference"
    if step.word in ("if", "then", "else"):
        help = "a condition is one step: `when: {if: ..., then: [...], else: [...]}`"
    message = f"no op or block is called `{step.word[:80]}`"
    return Diagnostic("E0201", message, step.at, help=help)


def sequences(tree: MappingTree) -> Iterator[Sequence]:
    """Yield every list of steps in a file, outermost first, whether or not anything calls it."""
    roots: list[Tree | None] = [tree.get("graph")]
    blocks = tree.get("blocks")
    if isinstance(blocks, MappingTree):
        roots += [b.get("body") for _, b in blocks.items if isinstance(b, MappingTree)]
    return sequences_in(*roots)


def sequences_in(*roots: Tree | None) -> Iterator[Sequence]:
    """Yield some lists of steps and all those within them."""
    # Not recursive: nesting is the text's to choose, and Python's stack is not.
    pending = list(roots)
    while pending:
        steps = pending.pop()
        if isinstance(steps, Sequence):
            yield steps
            for step in steps.items:
                pending += nested_in(step)


def nested_in(step: Tree) -> Iterator[Tree | None]:
    """Yield the sequences in a step."""
    if not isinstance(step, MappingTree):
        return
    for key, args in step.items:
        # A join's branches are sequences in its own list; a computed one is under `branch`.
        if key.value in JOIN_WORDS and isinstance(args, Sequence):
            yield from args.items
        elif key.value == "seq":
            yield args
        elif (key.value in CONTROL or key.value in JOIN_WORDS) and isinstance(args, MappingTree):
            yield from (args.get(k) for k in ("body", "then", "else", "branch"))


def check_names(
    word: str, params: tuple[Parameter, ...], given: Tree | None, at: Span
) -> Iterator[Explain]:
    """Yield an explanation for each unknown or missing argument of a call."""
    if given is not None and not isinstance(given, MappingTree) and not _empty(given):
        yield lambda: [_no_mapping(word, params, given.span)]
        return
    known = tuple(p.name for p in params)
    keys = {str(key.value): key for key, _ in given.items} if isinstance(given, MappingTree) else {}
    # A set beside the tuple: a call of a thousand wrong arguments is answered in time too.
    takes = set(known)
    wrong = [name for name in keys if name not in takes]
    for name in wrong:
        yield partial(_unknown, word, name, known, keys[name].span)
    for p in params:
        if isinstance(p.default, Required) and p.name not in keys:
            yield partial(_missing, word, p, wrong, known, at)


def _no_mapping(word: str, params: tuple[Parameter, ...], at: Span) -> Diagnostic:
    expected = ", ".join(f"{p.name}: ..." for p in params if isinstance(p.default, Required))
    message = f"`{word}` takes its arguments as a mapping"
    return Diagnostic("E0204", message, at, help=f"write `{word}: {{{expected or '...'}}}`")


def _unknown(word: str, key: str, known: tuple[str, ...], at: Span) -> list[Diagnostic]:
    return [unknown_argument(word, key, known, at)]


def _missing(
    word: str, p: Parameter, wrong: list[str], known: tuple[str, ...], at: Span
) -> list[Diagnostic]:
    # `kernel_size` in place of `kernel` is one mistake, not an unknown argument and a missing one.
    if any(argument(key, known).ours == p.name for key in wrong[:MANY_NAMES]):
        return []  # which is said of the wrong key
    help = f"add `{p.name}:`, {article(p)}" + (f": {p.doc}" if p.doc else "")
    return [Diagnostic("E0215", f"`{word}` needs the argument `{p.name}`", at, help=help)]


def unknown_argument(
    word: str, key: str, known: tuple[str, ...], at: Span, noun: str = "argument"
) -> Diagnostic:
    """Return the diagnostic of an argument that a word does not have."""
    # YAML's brackets cut text at commas: `{filters: max(a, b)}` has a key `b)`.
    if key.endswith((")", "]")):
        help = 'text with commas stands in quotes: "max(a, b)"; a list is [a, b]'
        return Diagnostic("E0202", f"`{word}` has no {noun} `{key}`", at, help=help)
    if key in OPTIONS and noun == "argument":
        help = f"`{key}` stands beside `{word}:`, not in it"
        return Diagnostic("E0202", f"`{word}` has no argument `{key}`", at, help=help)
    takes = f"it takes {listed(known)}" if known else "it takes none"
    help = argument(key, known).help or takes
    return Diagnostic("E0202", f"`{word}` has no {noun} `{key[:80]}`", at, help=help)


def _empty(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.value is None
