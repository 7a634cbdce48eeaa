"""Tests in a spec: its `tests:` compared with the compiled graph."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tcc.compiler.frontend.argument_values import evaluate_tree, format_value
from tcc.compiler.frontend.expr import ExpressionScope
from tcc.compiler.frontend.expr.operators import Budget
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.ir.cost import Cost, compute_cost
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, find_nearest_name

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?"
TOLERANCE = re.compile(rf"^\s*(?P<value>{_NUMBER})\s*±\s*(?P<by>{_NUMBER})\s*(?P<percent>%?)\s*$")
"""`4.3e8 ± 1 %` or `186950 ± 10`."""


MAX_WORK = 60_000
"""Most work for all cases of a spec, in nodes; each case costs `CASE_WORK` in addition."""
CASE_WORK = 200


@dataclass(frozen=True, slots=True)
class Expectation:
    """An expected and an actual value, for the settings `case` (empty: the defaults)."""

    subject: str
    case: str
    expected: str
    actual: str
    holds: bool
    at: Span

    def create_diagnostic(self) -> Diagnostic:
        """Return the error for an expectation that is not met."""
        case_text = f" with {self.case}" if self.case else ""
        return Diagnostic(
            "E0240",
            f"the spec's test of {self.subject} fails{case_text}",
            self.at,
            label=f"expected {self.expected}, found {self.actual}",
            help="if the change is intended, write the value that was found",
        )


def check_expectations(spec: Spec) -> tuple[Expectation, ...]:
    """Evaluate all expectations in `tests:` of a spec.

    Cases with a `set` compile the spec with those settings. Other cases use the defaults of the
    spec, regardless of the settings of `spec`.

    Raises:
        UserError: The settings or expressions of a case are invalid.
    """
    match spec.tests:
        case MappingTree():
            return tuple(_check_case(_CaseCompiler(spec), spec.tests))
        case Sequence(items=items):
            cases = _CaseCompiler(spec)
            return tuple(
                f for c in items if isinstance(c, MappingTree) for f in _check_case(cases, c)
            )
        case _:
            return ()


class _CaseCompiler:
    """Compiles a spec with the settings of its cases, once per setting, within a limit."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.budget = Budget()
        self.work = 0
        self._compiled: dict[tuple[tuple[str, str], ...], tuple[Spec, Cost]] = {}

    def compile_case(self, texts: Mapping[str, str], at: Span) -> tuple[Spec, Cost]:
        """Return the spec compiled with some settings, and its costs."""
        # Cached: params, macs and shapes of the same settings are often in separate cases.
        key = tuple(texts.items())
        if key not in self._compiled:
            # The work is compiling, in nodes: ten thousand cases are a short text.
            if self.work > MAX_WORK:
                help = "test fewer settings, or smaller ones"
                raise fail("E0242", "the cases of `tests` take too long", at, help=help)
            try:
                compiled = self.spec.recompile(texts)
            except UserError as error:
                # The error is in the graph, for values of a case: fixing it needs both locations.
                diagnostics = (
                    d.add_notes(f"while testing the case at {at}") for d in error.diagnostics
                )
                raise UserError(
                    tuple(diagnostics), error.omitted_count, error.is_truncated
                ) from None
            self.work += len(compiled.graph.nodes) + CASE_WORK
            self._compiled[key] = compiled, compute_cost(compiled.graph)
        return self._compiled[key]


def _check_case(cases: _CaseCompiler, tree: MappingTree) -> Iterator[Expectation]:
    settings = tree.get("set")
    setting_items = settings.items if isinstance(settings, MappingTree) else ()
    texts = {str(key.value): _format_setting(value) for key, value in setting_items}
    compiled, total = cases.compile_case(texts, settings.span if settings else tree.span)
    case = ", ".join(f"{k} = {v}" for k, v in texts.items())
    scope = ExpressionScope(dict(compiled.params), budget=cases.budget)
    for subject, actual in (("params", total.params), ("macs", total.macs)):
        expected = tree.get(subject)
        if expected is not None:
            yield _check_count(subject, case, expected, actual, scope)
    shapes = tree.get("shape")
    for key, expected in shapes.items if isinstance(shapes, MappingTree) else ():
        yield _check_shape(compiled, case, key, expected, scope)


def _format_setting(tree: Tree) -> str:
    """Return the value of a setting as text for `--set`."""
    match tree:
        case Scalar(value=str(text)):
            # Quoted for `--set`, where a bare word that is not an identifier is an expression.
            is_plain = text.isidentifier() and text.lower() not in ("true", "false", "null")
            return text if is_plain else json.dumps(text, ensure_ascii=False)
        case Scalar(value=value):
            return str(value).lower() if isinstance(value, bool) else str(value)
        case Sequence(items=items):
            return f"[{', '.join(map(_format_setting, items))}]"
        case _:
            raise fail("E0204", "a setting is a value, not a mapping", tree.span)


def _check_count(
    subject: str, case: str, tree: Tree, actual: int, scope: ExpressionScope
) -> Expectation:
    text = str(tree.value) if isinstance(tree, Scalar) else ""
    slack = 0.0
    match = TOLERANCE.match(text)
    if match:
        expected: Any = float(match["value"])
        slack = float(match["by"]) * (expected / 100 if match["percent"] else 1)
    else:
        # `±` is not allowed in an expression, so a tolerance that does not match is an error.
        expected = None if "±" in text else evaluate_tree(tree, scope)
    is_finite = isinstance(expected, int | float) and abs(expected) < float("inf")
    if not is_finite or not slack < float("inf"):
        raise fail(
            "E0213",
            f"the expected {subject} must be a number",
            tree.span,
            help="write a tolerance as `4.3e8 ± 1 %`",
        )
    # Exact without a tolerance: counts are integers, and a difference of 1 is a change.
    is_met = abs(actual - expected) <= slack
    return Expectation(
        subject, case, text or format_value(expected), str(actual), is_met, tree.span
    )


def _check_shape(
    compiled: Spec, case: str, key: Scalar, tree: Tree, scope: ExpressionScope
) -> Expectation:
    path = str(key.value)
    if path not in compiled.shapes:
        nearest_path = find_nearest_name(path, tuple(compiled.shapes))
        raise fail(
            "E0241",
            f"the graph has no step `{path}`",
            key.span,
            help=f"did you mean `{nearest_path}`?"
            if nearest_path
            else "`tcc check` lists the paths",
        )
    expected_shape, actual_shape = evaluate_tree(tree, scope), compiled.shapes[path]
    return Expectation(
        f"the shape of {path}",
        case,
        format_value(expected_shape),
        format_value(actual_shape),
        expected_shape == actual_shape,
        tree.span,
    )
