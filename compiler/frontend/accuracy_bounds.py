"""Bounds on the accuracy of an int8 model, from `accuracy:` in a spec or from the user."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from math import inf, isfinite
from pathlib import Path

from tcc.compiler.frontend import yaml
from tcc.compiler.frontend.argument_values import evaluate_tree
from tcc.compiler.frontend.expr import ExpressionScope
from tcc.compiler.frontend.yaml import Mapping, Tree
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, make_command_span

BOUNDS = {"min_cosine": 1.0, "max_drop": 1.0, "min_correlation": 1.0, "max_error": inf}
"""Upper limit of each bound; the lower limit is 0."""
HELP = f"floors are {', '.join(BOUNDS)}; for example min_cosine=0.95"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Bounds of `reference.accuracy_floor`; None is a bound that nobody set."""

    min_cosine: float | None = None
    max_drop: float | None = None
    min_correlation: float | None = None
    max_error: float | None = None

    def merge_defaults(self, defaults: "Accuracy") -> "Accuracy":
        """Return these bounds, with those of `defaults` for the ones not set here."""
        names = [field.name for field in fields(self)]
        pairs = {name: (getattr(self, name), getattr(defaults, name)) for name in names}
        return Accuracy(**{n: b if a is None else a for n, (a, b) in pairs.items()})


def read_accuracy(tree: Tree | None, env: ExpressionScope) -> Accuracy:
    """Return the bounds in `accuracy:` of a spec.

    Raises:
        UserError: A bound is not a number in its range (E0213).
    """
    if not isinstance(tree, Mapping):
        return Accuracy()
    floors = ((str(key.value), evaluate_tree(value, env), value.span) for key, value in tree.items)
    return check_floors(floors, "E0213")


def read_floors(options: Sequence[str]) -> Accuracy:
    """Return the bounds of the `--floor` options; each bound may be set once.

    Args:
        options: The values of the options: `name=value`, or a file of bounds.

    Raises:
        UserError: A file cannot be read (E0603), or it is not valid YAML (E01..). It is not a
            mapping, a name is unknown or repeated, or a value is out of range (E0790).
    """
    return check_floors(floor for option in options for floor in _list_floors(option))


def check_floors(floors: Iterable[tuple[str, object, Span]], code: str = "E0790") -> Accuracy:
    """Return checked bounds.

    Args:
        floors: The name, value and location of each bound.
        code: The code of the errors.

    Raises:
        UserError: A name is unknown or repeated, or a value is not a number in its range.
    """
    stated: dict[str, float] = {}
    problems = []
    for name, value, at in floors:
        if name not in BOUNDS:
            problems.append(Diagnostic(code, f"there is no floor `{name[:80]}`", at, help=HELP))
        elif name in stated:
            help = "state each floor once"
            problems.append(Diagnostic(code, f"`{name}` is stated twice", at, help=help))
        elif isinstance(value, bool) or not isinstance(value, int | float):
            # In Python `true` equals 1, so it would pass as a bound.
            problems.append(_describe_invalid_bound(code, name, at))
        elif not (isfinite(value) and 0 <= value <= BOUNDS[name]):
            problems.append(_describe_invalid_bound(code, name, at))
        else:
            stated[name] = float(value)
    if problems:
        raise UserError(tuple(problems))
    return Accuracy(**stated)


def _describe_invalid_bound(code: str, name: str, at: Span) -> Diagnostic:
    expected_range = "from 0 to 1" if BOUNDS[name] == 1 else "that is not negative"
    return Diagnostic(code, f"`{name}` must be a number {expected_range}", at)


def _list_floors(option: str) -> Iterator[tuple[str, object, Span]]:
    """Yield the bounds of one `--floor` option: one bound, or those of a file."""
    path, at = Path(option), make_command_span(f"--floor {option}")
    name, equals, text = option.partition("=")
    if equals and not path.is_file():
        try:
            yield name.strip(), parse_float(text.strip()), at
        except ValueError:
            yield name.strip(), text, at
        return
    if not path.is_file():
        message = f"`{option[:80]}` is neither `name=value` nor a file"
        raise fail("E0790", message, at, help=HELP)
    try:
        with regular_files.open_file(path) as file:
            tree = yaml.parse(file.read(yaml.MAX_YAML_BYTES + 1), str(path))
    except OSError as error:
        raise atomic_files.explain(error, path, "read the floors") from error
    if not isinstance(tree, Mapping):
        help = f"write a line for each floor, such as min_cosine: 0.95; {HELP.partition(';')[0]}"
        raise fail("E0790", "floors must be a mapping of names to numbers", tree.span, help=help)
    for key, value in tree.items:
        yield str(key.value), yaml.to_plain(value), value.span
