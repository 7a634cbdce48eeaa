"""Places in a user's text, and the diagnostics that point at them."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MAX_LINE = 160
"""Longest stretch of a source line that a diagnostic shows, in characters."""
MAX_TEXT = 1000
"""Longest part of a diagnostic, in characters."""
MAX_REPORTED = 50
"""Most mistakes of one input that are told; further ones are counted."""
MAX_LISTED = 30
"""Most names that a message lists."""
MAX_CANDIDATES = 300
"""Names among which no misspelt one is looked for any more."""
MAX_NAME_CHARS = 64
"""Longest word that a misspelling is looked for of."""


class Span(NamedTuple):
    """A stretch of one line of a file; line and column count from 1.

    A tuple is made several times as soon as a frozen dataclass, and each value of a text has one.
    """

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        """`file:line:column`, as editors and terminals link it."""
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Span("<none>", 0, 0)
"""The place of what no text gave rise to."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a stable code, what and where, and what would be right.

    `label` stands beside the caret; `notes` are printed one a line (the chain of
    block calls comes this way); `help` says what to do; `kind` is the name of a kind of warning.
    """

    code: str
    message: str
    at: Span
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str = ""
    severity: str = "error"
    kind: str = ""

    def add_notes(self, *notes: str) -> "Diagnostic":
        """Return the diagnostic with notes added."""
        return replace(self, notes=(*self.notes, *notes))

    def __str__(self) -> str:
        """Several lines of text: header, place, source line with caret, notes, help."""
        head = f"{self.severity}[{self.code}]: {_truncate(self.message)}"
        head += f" [{self.kind}]" if self.kind else ""
        lines = [head, *_render_excerpt(self.at, _truncate(self.label))]
        lines += [f"   = {_truncate(note)}" for note in (*self.notes, *_note_invisible(self.at))]
        if self.help:
            lines.append(f"   = help: {_truncate(self.help)}")
        return "\n".join(map(_replace_unprintable, lines))

    def to_json(self) -> dict[str, object]:
        """Return the diagnostic as plain data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": _truncate(self.message),
            "file": self.at.file,
            "line": self.at.line,
            "column": self.at.column,
            "label": _truncate(self.label),
            "notes": [*map(_truncate, self.notes), *_note_invisible(self.at)],
            "help": _truncate(self.help),
            **({"kind": self.kind} if self.kind else {}),
        }


def _render_excerpt(at: Span, label: str) -> list[str]:
    if at.line == 0:
        return [f"  --> {at.file}", *([f"   = {label}"] if label else [])]
    gutter = len(str(at.line))
    blank = " " * gutter + " |"
    start = max(0, at.column - 1 - MAX_LINE // 2) if len(at.text) > MAX_LINE else 0
    source_line = _replace_unprintable(at.text[start : start + MAX_LINE])
    offset = at.column - 1 - start
    width = max(1, min(at.width, len(source_line) - offset))
    caret = " " * offset + "^" * width + (f" {label}" if label else "")
    return [
        f"{' ' * gutter}--> {at}",
        blank,
        f"{at.line} | {source_line}",
        f"{blank} {caret}",
    ]


def _note_invisible(at: Span) -> list[str]:
    """Return a note on the first character of a line that looks like a space or like nothing."""
    from unicodedata import category, name

    text = at.text[: 1 << 16]
    odd = {c for c in set(text) if c > "~" and category(c) in ("Zs", "Cf")}
    for column, letter in enumerate(text if odd else "", 1):
        if letter in odd:
            character = f"U+{ord(letter):04X} ({name(letter, 'unnamed').lower()})"
            advice = "write a space" if category(letter) == "Zs" else "remove it"
            return [f"column {column} holds {character}, which is no plain space: {advice}"]
    return []


def _truncate(text: str) -> str:
    """Return what is said, cut where a name or a list in it is endless."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _replace_unprintable(text: str) -> str:
    """Replace what would move a terminal's cursor; keeps one character a column."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


class SpecWarning(UserWarning):
    """A spec compiles, but its author hardly meant all that it says."""


class CalibrationWarning(UserWarning):
    """A calibration is made, but its images tell too little, or its integers lose too much."""


@dataclass
class UserError(Exception):
    """The user's input is wrong; the command line exits with 2.

    Carries one or more diagnostics, all of which are shown, and the number of `omitted_count`
    mistakes that were only counted; after so many that looking for them was `is_truncated` short,
    there may be others.
    """

    diagnostics: tuple[Diagnostic, ...] = field(default=())
    omitted_count: int = 0
    is_truncated: bool = False

    @property
    def count(self) -> int:
        """How many mistakes were found."""
        return len(self.diagnostics) + self.omitted_count

    @property
    def count_text(self) -> str:
        """How many mistakes there are, in words."""
        return f"{'at least ' if self.is_truncated else ''}{self.count:,} errors"

    def __str__(self) -> str:
        """All diagnostics, a blank line between."""
        omitted_lines = (
            [f"and {'at least ' if self.is_truncated else ''}{self.omitted_count:,} more"]
            if self.omitted_count
            else []
        )
        return "\n\n".join([*map(str, self.diagnostics), *omitted_lines])


class Mistakes:
    """What is wrong with one input: as many mistakes as are told, and the number of the others."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.omitted_count = 0
        self.is_truncated = False

    @property
    def is_full(self) -> bool:
        """Whether further mistakes are only counted."""
        return len(self.diagnostics) >= MAX_REPORTED

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.diagnostics)

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Take mistakes that are known already."""
        for diagnostic in diagnostics:
            if self.is_full:
                self.omitted_count += 1
            else:
                self.diagnostics.append(diagnostic)

    def explain(self, explained: "Explain") -> None:
        """Take a mistake whose message costs time; one too many is counted without it."""
        if self.is_full:
            self.omitted_count += 1
        else:
            self.add(explained())

    def merge(self, other_mistakes: "Mistakes") -> None:
        """Take those that were found before."""
        self.add(other_mistakes.diagnostics)
        self.omitted_count += other_mistakes.omitted_count
        self.is_truncated |= other_mistakes.is_truncated

    def make_error(self, other_mistakes: "Mistakes | None" = None) -> UserError:
        """Return the error of all of these, and of others, in the order of the text, none twice."""
        if other_mistakes is not None:
            self.merge(other_mistakes)
        # One mistake may be met on several ways, by each caller of a block for one.
        unique = {(d.code, d.at, d.message): d for d in self.diagnostics}
        ordered = sorted(unique.values(), key=lambda d: (d.at.file, d.at.line, d.at.column))
        return UserError(tuple(ordered), self.omitted_count, self.is_truncated)


Explain = Callable[[], Iterable[Diagnostic]]
"""Makes the diagnostics of a mistake, which costs time where a name is looked for."""


def fail(code: str, message: str, at: Span, *, label: str = "", help: str = "") -> UserError:
    """Return the error of a single diagnostic, to be raised."""
    return UserError((Diagnostic(code, message, at, label=label, help=help),))


def make_file_span(path: str) -> Span:
    """Return the place that stands for a file as a whole."""
    return Span(path, 0, 0)


def join_names(names: Collection[str]) -> str:
    """Return names in a row, in words where they are too many for a line."""
    ordered_names = sorted(names) if isinstance(names, Set) else list(names)
    omitted_text = (
        f" and {len(ordered_names) - MAX_LISTED:,} more" if len(ordered_names) > MAX_LISTED else ""
    )
    return ", ".join(ordered_names[:MAX_LISTED]) + omitted_text


def find_nearest_name(typed_name: str, known_names: "Collection[str]") -> str | None:
    """Return the known name that a word misspells, if there is one; case does not count.

    A misspelling is a slip of the fingers: one letter more, less, wrong or out of order, and two
    in longer words. Numbers are not misspelt, `resnet50` is not meant to be `resnet34`; and
    among very many names none is looked for.
    """
    if len(known_names) > MAX_CANDIDATES or len(typed_name) > MAX_NAME_CHARS:
        return None
    lower_name = typed_name.lower()
    best: tuple[int, str] | None = None
    # In order, so that of names equally near the same one is named every time.
    for name in sorted(known_names):
        typo_count = _count_typos(lower_name, name.lower())
        if typo_count is not None and (best is None or typo_count < best[0]):
            best = typo_count, name
    return best[1] if best else None


def _count_typos(typed_name: str, name: str) -> int | None:
    """Return how many slips make a name into a word; None for more than one would make."""
    shorter = min(len(typed_name), len(name))
    max_typos = (shorter > 1) + (shorter > 4)
    if abs(len(typed_name) - len(name)) > max_typos:
        return None
    digits, name_digits = ("".join(filter(str.isdigit, text)) for text in (typed_name, name))
    if len(digits) == len(name_digits) and sorted(digits) != sorted(name_digits):
        return None
    distance = _compute_edit_distance(typed_name, name, max_typos)
    if (
        distance == 1
        and shorter == len(typed_name) == len(name) <= 3
        and sorted(typed_name) != sorted(name)
    ):
        return None  # another letter makes another word of so short a one
    return distance if distance <= max_typos else None


def _compute_edit_distance(a: str, b: str, max_distance: int) -> int:
    """Return the Damerau-Levenshtein distance of two words, exact up to `max_distance`."""
    previous_row: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        older_row, previous_row, row = previous_row, row, [i]
        for j, other_letter in enumerate(b, 1):
            cost = min(
                previous_row[j] + 1, row[-1] + 1, previous_row[j - 1] + (letter != other_letter)
            )
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other_letter:
                cost = min(cost, older_row[j - 2] + 1)
            row.append(cost)
        if min(row) > max_distance:
            return max_distance + 1
    return row[-1]


def make_command_span(command: str) -> Span:
    """Return the place of words on the command line."""
    clipped_command = command if len(command) <= 120 else f"{command[:117]}..."
    return make_file_span(f"command line: {clipped_command}")


class UnhandledError(AssertionError):
    """Nothing is written for a name or a type: a fault of the compiler, never of the user."""

    def __init__(self, kind: str, unhandled: object) -> None:
        super().__init__(f"nothing is written for the {kind} {unhandled!r}")


MIN_GROUP_SIZE = 5
"""Fewest diagnostics of one shape that are shown as one."""
MAX_GROUP_FILES = 10
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
        return str(leader) if not followers else f"{leader}\n   = {self._summarize(followers)}"

    def _summarize(self, followers: Sequence[Diagnostic]) -> str:
        limit = MAX_REPORTED if self.members[0].at.line else MAX_GROUP_FILES
        labels = dict.fromkeys(
            _name_in_group(self.members[0], diagnostic) for diagnostic in followers[:limit]
        )
        remainder = f", and {len(followers) - limit:,} others" if len(followers) > limit else ""
        return f"{len(followers):,} more like this: {', '.join(labels)}{remainder}"


def group_alike(diagnostics: Iterable[Diagnostic]) -> list[DiagnosticGroup]:
    """Return diagnostics in groups, in the order in which the groups begin.

    Those of one shape are one group: of the same code, whose messages differ in names and numbers
    alone. Fewer than `LEAST` stay by themselves.
    """
    all_diagnostics = list(diagnostics)
    shapes: dict[tuple[str, ...], list[Diagnostic]] = {}
    for diagnostic in all_diagnostics:
        shapes.setdefault(_group_shape(diagnostic), []).append(diagnostic)
    groups = []
    for diagnostic in all_diagnostics:
        members = shapes[_group_shape(diagnostic)]
        if len(members) < MIN_GROUP_SIZE:
            groups.append(DiagnosticGroup((diagnostic,)))
        elif members[0] is diagnostic:
            groups.append(DiagnosticGroup(tuple(members)))
    return groups


def _group_shape(diagnostic: Diagnostic) -> tuple[str, ...]:
    texts = (diagnostic.message, diagnostic.help)
    return (
        diagnostic.code,
        diagnostic.severity,
        diagnostic.kind,
        *(_VARIABLE.sub("_", text) for text in texts),
    )


def _name_in_group(leader: Diagnostic, member: Diagnostic) -> str:
    """Return what tells one diagnostic from the first: its place, or what its message names."""
    location = f"{member.at.file}:{member.at.line}" if member.at.line else member.at.file
    tokens = _VARIABLE.findall(member.message)
    differing = [token.strip(",.;:") for token in tokens if token not in leader.message]
    if not differing:
        return location
    labels = " ".join(differing)
    same_file = member.at.file == leader.at.file and not member.at.line
    return labels if same_file else f"{labels} ({location})"
