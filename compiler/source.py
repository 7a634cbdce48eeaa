"""Places in a user's text, and the diagnostics that point at them."""

from dataclasses import dataclass, field, replace

MAX_LINE = 160
"""Longest stretch of a source line that a diagnostic shows, in characters."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line of a file; line and column count from 1."""

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
    block calls comes this way); `help` says what to do.
    """

    code: str
    message: str
    at: Span
    label: str = ""
    notes: tuple[str, ...] = ()
    help: str = ""
    severity: str = "error"

    def noted(self, *notes: str) -> "Diagnostic":
        """Return the diagnostic with notes added."""
        return replace(self, notes=(*self.notes, *notes))

    def __str__(self) -> str:
        """Several lines of text: header, place, source line with caret, notes, help."""
        head = f"{self.severity}[{self.code}]: {self.message}"
        lines = [head, *_excerpt(self.at, self.label)]
        lines += [f"   = {note}" for note in self.notes]
        if self.help:
            lines.append(f"   = help: {self.help}")
        return "\n".join(map(_printable, lines))

    def as_json(self) -> dict[str, object]:
        """Return the diagnostic as plain data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": self.at.file,
            "line": self.at.line,
            "column": self.at.column,
            "label": self.label,
            "notes": list(self.notes),
            "help": self.help,
        }


def _excerpt(at: Span, label: str) -> list[str]:
    if at.line == 0:
        return [f"  --> {at.file}", *([f"   = {label}"] if label else [])]
    gutter = len(str(at.line))
    blank = " " * gutter + " |"
    start = max(0, at.column - 1 - MAX_LINE // 2) if len(at.text) > MAX_LINE else 0
    shown = _printable(at.text[start : start + MAX_LINE])
    offset = at.column - 1 - start
    width = max(1, min(at.width, len(shown) - offset))
    caret = " " * offset + "^" * width + (f" {label}" if label else "")
    return [
        f"{' ' * gutter}--> {at}",
        blank,
        f"{at.line} | {shown}",
        f"{blank} {caret}",
    ]


def _printable(text: str) -> str:
    """Replace what would move a terminal's cursor; keeps one character a column."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


@dataclass
class UserError(Exception):
    """The user's input is wrong; the command line exits with 2.

    Carries one or more diagnostics, all of which are shown.
    """

    diagnostics: tuple[Diagnostic, ...] = field(default=())

    def __str__(self) -> str:
        """All diagnostics, a blank line between."""
        return "\n\n".join(map(str, self.diagnostics))


def fail(code: str, message: str, at: Span, *, label: str = "", help: str = "") -> UserError:
    """Return the error of a single diagnostic, to be raised."""
    return UserError((Diagnostic(code, message, at, label=label, help=help),))


def whole_file(path: str) -> Span:
    """Return the place that stands for a file as a whole."""
    return Span(path, 0, 0)


def nearest(word: str, known: "tuple[str, ...] | list[str] | set[str]") -> str | None:
    """Return the known name closest to a misspelt word, if any is close; case does not count."""
    from difflib import get_close_matches

    as_written = {k.lower(): k for k in sorted(known, reverse=True)}
    found = get_close_matches(word[:64].lower(), sorted(as_written), n=1, cutoff=0.6)
    return as_written[found[0]] if found else None
