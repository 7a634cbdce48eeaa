"""Diagnostics of one cause, as one text: the first in full, and what the others are about."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tcc.compiler.support.diagnostics import MAX_TOLD, Diagnostic

LEAST = 5
"""Fewest diagnostics of one shape that are shown as one."""
NAMED = 10
"""Most files that are named of the others; lines of a text are, as many as are told of one input:
each has to be mended."""
_VARIABLE = re.compile(r"`[^`]*`|\S*[\d/_.]\S*")
"""What differs between two messages of one shape: what is quoted, numbers, paths and names."""


@dataclass(frozen=True)
class DiagnosticGroup:
    """One diagnostic or several of one shape."""

    members: tuple[Diagnostic, ...]

    def __str__(self) -> str:
        """Return the first one's text, with a note about the others."""
        first, *others = self.members
        return str(first) if not others else f"{first}\n   = {self._summary(others)}"

    def _summary(self, others: Sequence[Diagnostic]) -> str:
        most = MAX_TOLD if self.members[0].at.line else NAMED
        names = dict.fromkeys(_name(self.members[0], each) for each in others[:most])
        more = f", and {len(others) - most:,} others" if len(others) > most else ""
        return f"{len(others):,} more like this: {', '.join(names)}{more}"


def group(diagnostics: Iterable[Diagnostic]) -> list[DiagnosticGroup]:
    """Return diagnostics in groups, in the order in which the groups begin.

    Those of one shape are one group: of the same code, whose messages differ in names and numbers
    alone. Fewer than `LEAST` stay by themselves.
    """
    found = list(diagnostics)
    shapes: dict[tuple[str, ...], list[Diagnostic]] = {}
    for each in found:
        shapes.setdefault(_shape(each), []).append(each)
    groups = []
    for each in found:
        members = shapes[_shape(each)]
        if len(members) < LEAST:
            groups.append(DiagnosticGroup((each,)))
        elif members[0] is each:
            groups.append(DiagnosticGroup(tuple(members)))
    return groups


def _shape(each: Diagnostic) -> tuple[str, ...]:
    texts = (each.message, each.help)
    return (each.code, each.severity, each.kind, *(_VARIABLE.sub("_", text) for text in texts))


def _name(first: Diagnostic, other: Diagnostic) -> str:
    """Return what tells one diagnostic from the first: its place, or what its message names."""
    place = f"{other.at.file}:{other.at.line}" if other.at.line else other.at.file
    words = _VARIABLE.findall(other.message)
    differing = [word.strip(",.;:") for word in words if word not in first.message]
    if not differing:
        return place
    names = " ".join(differing)
    return names if other.at.file == first.at.file and not other.at.line else f"{names} ({place})"
