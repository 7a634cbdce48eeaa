"""Kinds of warnings, by their names in `allow:`."""

from collections.abc import Mapping
from dataclasses import dataclass

from tcc.compiler.support.diagnostics import Diagnostic, Span


@dataclass(frozen=True, slots=True)
class WarningKind:
    """A kind of warning: its name, its code, and a description."""

    name: str
    code: str
    doc: str


WARNING_KINDS = tuple(
    WarningKind(*row)
    for row in (
        ("unused-branch", "W0501", "steps, or a `side`, that no output needs"),
        ("unused-value", "W0502", "a name of a value (`as`, `collect`, `inputs`) that is not read"),
        ("unused-name", "W0503", "a name of `let`, or the `as` of a loop, that is not read"),
        ("unused-parameter", "W0504", "a parameter of the spec or of a block that is not read"),
        ("unused-block", "W0505", "a block of the spec that its graph does not use"),
        ("unused-library", "W0506", "a library in `use` that the spec does not use"),
        ("unused-allow", "W0507", "a name in `allow` that silences nothing"),
        ("no-preprocess", "W0513", "an input with the shape of an image, but without `preprocess`"),
        ("rebound-name", "W0511", "a name bound again in one sequence, not from its own value"),
        ("shadowed-name", "W0512", "a name that hides another one, which keeps its value"),
        ("single-branch", "W0521", "a `concat`, `add` or `mul` written with one branch"),
        ("slice-beyond-end", "W0522", "a `slice` with bounds beyond the channels"),
        ("repeated-op", "W0523", "an activation, norm or pooling right after the same one"),
        ("no-effect", "W0524", "a loop, condition or step with constants that make it do nothing"),
        ("double-activation", "W0531", "an output's activation after a step that applies it too"),
        ("constant-output", "W0532", "a softmax over one number, which is always 1"),
        ("same-output", "W0533", "two outputs that are the same value"),
        ("channels-last", "W0542", "an input shape that looks like height, width, channels"),
        ("pixel-statistics", "W0541", "a mean or std that pixels between 0 and 1 cannot have"),
    )
)  # fmt: skip
"""All kinds. To add one: add a line, and the check that finds it."""
KINDS_BY_NAME: Mapping[str, WarningKind] = {kind.name: kind for kind in WARNING_KINDS}


def create_warning(
    kind: str, message: str, at: Span, *, label: str = "", help: str = ""
) -> Diagnostic:
    """Return a warning of a kind."""
    code = KINDS_BY_NAME[kind].code
    return Diagnostic(code, message, at, label=label, help=help, severity="warning", kind=kind)
