"""How values appear in an interactive session: a few lines of text, and HTML in notebooks.

A value summarizes itself. The package that users import sets the function that renders HTML, so
that the compiler contains none.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

MAX_LINES, MAX_LINE_CHARS = 5, 120
"""Limits of a `repr`: lines, and characters of each."""
MAX_NAMES = 6
"""Names of a list that a summary prints."""

Renderer = Callable[[object], str]


class ValueView:
    """A value whose `repr` is a summary, and which notebooks show as HTML."""

    __slots__ = ()
    _render: ClassVar[Renderer]

    @abstractmethod
    def _summarize(self) -> Iterator[str]:
        """Yield the lines of the summary, the most important first."""

    def __repr__(self) -> str:
        """Return at most `MAX_LINES` lines."""
        lines = [clip_line(line) for line in self._summarize()]
        hidden = len(lines) - MAX_LINES
        if hidden > 0:
            lines[MAX_LINES - 1 :] = [f"and {hidden + 1} more lines"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook, without scripts or external resources."""
        return ValueView._render(self)


def set_renderer(render: Renderer) -> None:
    """Set the function that renders the HTML of all values."""
    ValueView._render = staticmethod(render)


def clip_line(text: str) -> str:
    """Return a text as one line of printable characters, clipped if it is too long."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_LINE_CHARS else f"{line[: MAX_LINE_CHARS - 3]}..."


def list_names(names: Iterable[object]) -> str:
    """Return names separated by commas; beyond `MAX_NAMES`, the number of the others."""
    shown_names = list(map(str, names))
    omitted_text = (
        f" and {len(shown_names) - MAX_NAMES} more" if len(shown_names) > MAX_NAMES else ""
    )
    return ", ".join(shown_names[:MAX_NAMES]) + omitted_text


def count(number: int, noun: str) -> str:
    """Return a number with its noun, with an s for the plural: `1 image`, `24 images`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
