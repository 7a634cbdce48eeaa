"""Whether the arguments of a call have the names that its word knows."""

from collections.abc import Iterator, Sequence
from functools import partial

from tcc.compiler.frontend.argument_values import OPTIONS, article
from tcc.compiler.frontend.foreign_names import argument
from tcc.compiler.frontend.yaml import Mapping, Scalar, Tree
from tcc.compiler.ir.argument_declarations import Parameter, Required
from tcc.compiler.support.diagnostics import MANY_NAMES, Diagnostic, Explain, Span, listed


def check_names(
    word: str, params: tuple[Parameter, ...], given: Tree | None, at: Span
) -> Iterator[Explain]:
    """Yield an explanation for each unknown or missing argument of a call."""
    if given is not None and not isinstance(given, Mapping) and not _empty(given):
        yield lambda: [_no_mapping(word, params, given.span)]
        return
    known = tuple(p.name for p in params)
    keys = {str(key.value): key for key, _ in given.items} if isinstance(given, Mapping) else {}
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
    word: str, p: Parameter, wrong: Sequence[str], known: tuple[str, ...], at: Span
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
