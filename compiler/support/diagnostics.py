"""Source spans in a user's text, and the diagnostics that point at them."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MAX_LINE = 160
"""Characters of a source line that a diagnostic shows."""
MAX_TEXT = 1000
"""Characters that each text of a diagnostic may have."""
MAX_REPORTED = 50
"""Errors of one input that are shown; further ones are counted."""
MAX_LISTED = 30
"""Names that a message lists."""
MAX_CANDIDATES = 300
"""Known names above which no spelling suggestion is searched for."""
MAX_NAME_CHARS = 64
"""Characters of a typed name above which no spelling suggestion is searched for."""


class Span(NamedTuple):
    """A stretch of one line of a file; line and column count from 1.

    A named tuple, because creating one is several times as fast as a frozen dataclass, and each
    value of a text has one.
    """

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        """Return `file:line:column`, the form that editors and terminals link."""
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Span("<none>", 0, 0)
"""The span of values that come from no text."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning: a stable code, what is wrong and where, and how to fix it.

    `label` is printed next to the caret; `notes` are printed one per line (such as the chain of
    block calls); `help` says how to fix it; `kind` is the kind of a warning.
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
        """Return several lines: heading, location, source line with caret, notes, help."""
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
    """Return a note on the first character of a line that only looks like a space, or like none."""
    from unicodedata import category, name

    text = at.text[: 1 << 16]
    odd = {c for c in set(text) if c > "~" and category(c) in ("Zs", "Cf")}
    for column, letter in enumerate(text if odd else "", 1):
        if letter in odd:
            character = f"U+{ord(letter):04X} ({name(letter, 'unnamed').lower()})"
            advice = "write a space" if category(letter) == "Zs" else "remove it"
            return [f"column {column} contains {character}, not an ordinary space: {advice}"]
    return []


def _truncate(text: str) -> str:
    """Return a text, clipped where a name or a list in it is very long."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _replace_unprintable(text: str) -> str:
    """Replace characters that would move a terminal's cursor; columns stay the same."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


class SpecWarning(UserWarning):
    """A spec compiles, but part of it is probably a mistake."""


class CalibrationWarning(UserWarning):
    """A calibration succeeded, but its images are too few or the int8 model is not accurate."""


@dataclass
class UserError(Exception):
    """The user's input is wrong; the command line exits with 2.

    Carries one or more diagnostics, which are all shown. `omitted_count` further errors were only
    counted. If `is_truncated`, the search stopped early and there may be more.
    """

    diagnostics: tuple[Diagnostic, ...] = field(default=())
    omitted_count: int = 0
    is_truncated: bool = False

    @property
    def count(self) -> int:
        """How many errors were detected."""
        return len(self.diagnostics) + self.omitted_count

    @property
    def count_text(self) -> str:
        """The number of errors as text."""
        return f"{'at least ' if self.is_truncated else ''}{self.count:,} errors"

    def __str__(self) -> str:
        """Return all diagnostics, separated by blank lines."""
        omitted_lines = (
            [f"and {'at least ' if self.is_truncated else ''}{self.omitted_count:,} more"]
            if self.omitted_count
            else []
        )
        return "\n\n".join([*map(str, self.diagnostics), *omitted_lines])


class Mistakes:
    """Collects the errors of one input: diagnostics up to a limit, then only their number."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.omitted_count = 0
        self.is_truncated = False

    @property
    def is_full(self) -> bool:
        """Whether further errors are only counted."""
        return len(self.diagnostics) >= MAX_REPORTED

    def __bool__(self) -> bool:
        """Whether there are any errors."""
        return bool(self.diagnostics)

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add diagnostics."""
        for diagnostic in diagnostics:
            if self.is_full:
                self.omitted_count += 1
            else:
                self.diagnostics.append(diagnostic)

    def explain(self, explained: "Explain") -> None:
        """Add an error whose message is costly; beyond the limit it is counted instead."""
        if self.is_full:
            self.omitted_count += 1
        else:
            self.add(explained())

    def merge(self, other_mistakes: "Mistakes") -> None:
        """Add the errors of another collection."""
        self.add(other_mistakes.diagnostics)
        self.omitted_count += other_mistakes.omitted_count
        self.is_truncated |= other_mistakes.is_truncated

    def make_error(self, other_mistakes: "Mistakes | None" = None) -> UserError:
        """Return one error with all diagnostics, of others too, deduplicated, in text order."""
        if other_mistakes is not None:
            self.merge(other_mistakes)
        # One error may be met several times, for example by each caller of a block.
        unique = {(d.code, d.at, d.message): d for d in self.diagnostics}
        ordered = sorted(unique.values(), key=lambda d: (d.at.file, d.at.line, d.at.column))
        return UserError(tuple(ordered), self.omitted_count, self.is_truncated)


Explain = Callable[[], Iterable[Diagnostic]]
"""Makes the diagnostics of an error; costly where it searches for a similar name."""


def fail(code: str, message: str, at: Span, *, label: str = "", help: str = "") -> UserError:
    """Return an error with a single diagnostic, to be raised."""
    return UserError((Diagnostic(code, message, at, label=label, help=help),))


def make_file_span(path: str) -> Span:
    """Return the span that stands for a file without a line."""
    return Span(path, 0, 0)


def join_names(names: Collection[str]) -> str:
    """Return names separated by commas; beyond `MAX_LISTED`, the number of the others."""
    ordered_names = sorted(names) if isinstance(names, Set) else list(names)
    omitted_text = (
        f" and {len(ordered_names) - MAX_LISTED:,} more" if len(ordered_names) > MAX_LISTED else ""
    )
    return ", ".join(ordered_names[:MAX_LISTED]) + omitted_text


def find_nearest_name(typed_name: str, known_names: "Collection[str]") -> str | None:
    """Return the known name that a typed name probably misspells, ignoring case; None if none.

    A misspelling is one letter too many, missing, wrong or swapped, and two in longer names. Names
    that differ in their digits do not match: `resnet50` does not mean `resnet34`. Above
    `MAX_CANDIDATES` known names none is searched for.
    """
    if len(known_names) > MAX_CANDIDATES or len(typed_name) > MAX_NAME_CHARS:
        return None
    lower_name = typed_name.lower()
    best: tuple[int, str] | None = None
    # Sorted, so that of equally similar names the same one is returned every time.
    for name in sorted(known_names):
        typo_count = _count_typos(lower_name, name.lower())
        if typo_count is not None and (best is None or typo_count < best[0]):
            best = typo_count, name
    return best[1] if best else None


def _count_typos(typed_name: str, name: str) -> int | None:
    """Return the number of typing errors between two names; None if they are too many."""
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
        return None  # in a name this short, another letter makes another name
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
    """Return the span of words on the command line."""
    clipped_command = command if len(command) <= 120 else f"{command[:117]}..."
    return make_file_span(f"command line: {clipped_command}")


class UnhandledError(AssertionError):
    """No case handles a name or a type: a bug in the compiler, never the user's mistake."""

    def __init__(self, kind: str, unhandled: object) -> None:
        super().__init__(f"the compiler does not handle the {kind} {unhandled!r}")


MIN_GROUP_SIZE = 5
"""Diagnostics of one shape from which on they are shown as one."""
MAX_GROUP_FILES = 10
"""Files that are named of the others. Lines of a text are all named, up to `MAX_REPORTED`: each has
to be fixed."""
_VARIABLE = re.compile(r"`[^`]*`|\S*[\d/_.]\S*")
"""What varies between messages of one shape: quoted text, numbers, paths and names."""


@dataclass(frozen=True)
class DiagnosticGroup:
    """One diagnostic, or several of one shape."""

    members: tuple[Diagnostic, ...]

    def __str__(self) -> str:
        """Return the text of the first one, with a note about the others."""
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
    """Return diagnostics in groups, in order of the first one of each group.

    Diagnostics of one shape form a group: they have the same code, and their messages differ only
    in names and numbers. Fewer than `MIN_GROUP_SIZE` are not grouped.
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
    """Return what distinguishes a diagnostic from the first: its location, or names in it."""
    location = f"{member.at.file}:{member.at.line}" if member.at.line else member.at.file
    tokens = _VARIABLE.findall(member.message)
    differing = [token.strip(",.;:") for token in tokens if token not in leader.message]
    if not differing:
        return location
    labels = " ".join(differing)
    same_file = member.at.file == leader.at.file and not member.at.line
    return labels if same_file else f"{labels} ({location})"
