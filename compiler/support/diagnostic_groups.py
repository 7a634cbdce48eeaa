"""Diagnostics of one cause, as one text: the first in full, and what the others are about."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tcc.compiler.support.diagnostics import MAX_TOLD, Diagnostic

MIN_SIZE = 5
"""Fewest diagnostics of one shape that are shown as one."""
MAX_FILES = 10
"""Most files that are named of the others. Lines of a text all are, as far as they are reported:
each has to be fixed."""
_VARIABLE = re.compile(r"`[^`]*`|\S*[\d/_.]\S*")
"""What differs between two messages of one shape: what is quoted, numbers, paths and names."""


@dataclass(frozen=True)
class DiagnosticGroup:
    """One diagnostic or several of one shape."""

    members: tuple[Diagnostic, ...]

    def __str__(self) -> str:
        """Return the first one's text, with a note about the others."""
        leader, *followers = self.members
        return str(leader) if not followers else f"{leader}\n   = {self._summary(followers)}"

    def _summary(self, followers: Sequence[Diagnostic]) -> str:
        limit = MAX_TOLD if self.members[0].at.line else MAX_FILES
        labels = dict.fromkeys(
            _name(self.members[0], diagnostic) for diagnostic in followers[:limit]
        )
        remainder = f", and {len(followers) - limit:,} others" if len(followers) > limit else ""
        return f"{len(followers):,} more like this: {', '.join(labels)}{remainder}"


def group(diagnostics: Iterable[Diagnostic]) -> list[DiagnosticGroup]:
    """Return diagnostics in groups, in the order in which the groups begin.

    Those of one shape are one group: of the same code, whose messages differ in names and numbers
    alone. Fewer than `LEAST` stay by themselves.
    """
    all_diagnostics = list(diagnostics)
    shapes: dict[tuple[str, ...], list[Diagnostic]] = {}
    for diagnostic in all_diagnostics:
        shapes.setdefault(_shape(diagnostic), []).append(diagnostic)
    groups = []
    for diagnostic in all_diagnostics:
        members = shapes[_shape(diagnostic)]
        if len(members) < MIN_SIZE:
            groups.append(DiagnosticGroup((diagnostic,)))
        elif members[0] is diagnostic:
            groups.append(DiagnosticGroup(tuple(members)))
    return groups


def _shape(diagnostic: Diagnostic) -> tuple[str, ...]:
    texts = (diagnostic.message, diagnostic.help)
    return (
        diagnostic.code,
        diagnostic.severity,
        diagnostic.kind,
        *(_VARIABLE.sub("_", text) for text in texts),
    )


def _name(leader: Diagnostic, other: Diagnostic) -> str:
    """Return what tells one diagnostic from the first: its place, or what its message names."""
    location = f"{other.at.file}:{other.at.line}" if other.at.line else other.at.file
    tokens = _VARIABLE.findall(other.message)
    differing = [token.strip(",.;:") for token in tokens if token not in leader.message]
    if not differing:
        return location
    labels = " ".join(differing)
    same_file = other.at.file == leader.at.file and not other.at.line
    return labels if same_file else f"{labels} ({location})"
