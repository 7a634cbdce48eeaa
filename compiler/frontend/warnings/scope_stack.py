"""What each name in a text may stand for: the places that bind it, and whether anything reads them.

This follows the text, not the graph: both sides of a condition count, and so do loops that
happen not to turn, so that what is said does not depend on the parameters' values.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

from tcc.compiler.frontend.warnings.warning_kinds import warning
from tcc.compiler.support.diagnostics import Diagnostic, Span

Key = tuple[str, bool]
"""A name, and whether it is that of a value of the graph."""


@dataclass(eq=False, slots=True)
class BindingSite:
    """A place that binds a name; `kind` is the warning that it is if nothing reads it.

    `what` says what is bound there; `said` is set where another warning tells enough.
    """

    name: str
    kind: str
    what: str
    at: Span
    read: bool = False
    said: bool = False

    @property
    def listed(self) -> bool:
        """Whether it is a list of values."""
        return self.what == "list"

    def unused(self) -> Diagnostic:
        """Return the warning of a name that nothing reads."""
        message = f"nothing reads the {self.what} `{self.name}`"
        return warning(self.kind, message, self.at, help=_REMEDY.get(self.what, ""))


_REMEDY = {
    "value": "read it with `from` or in a branch, or leave `as` away",
    "side": "read it with `from`, in a branch or as an output, or leave it away",
    "parameter": "read it in an expression, or leave it away",
}


class SequenceRole(Enum):
    """What a sequence is to the one around it."""

    OWN = auto()
    """Its names are its own."""
    TURN = auto()
    """A turn of a loop: names from before carry."""
    CHOICE = auto()
    """It stands in place of a condition."""


@dataclass(frozen=True, slots=True)
class _Bound:
    sites: tuple[BindingSite, ...]
    level: int


class ScopeStack:
    """The names in scope while a text is walked through; what is bound is undone at the end."""

    def __init__(self) -> None:
        self.sites: list[BindingSite] = []
        self.found: list[Diagnostic] = []
        self.reads: list[Key] = []
        self._bound: dict[Key, _Bound] = {}
        self._undo: list[tuple[Key, _Bound | None]] = []
        self._levels: list[tuple[int, SequenceRole]] = [(0, SequenceRole.OWN)]
        self._opened = 0

    def read(self, key: Key) -> None:
        """Hear that something reads a name."""
        self.reads.append(key)
        for site in self.sites_of(key):
            site.read = True

    def sites_of(self, key: Key) -> tuple[BindingSite, ...]:
        """Return the places that may have bound what a name stands for here."""
        bound = self._bound.get(key)
        return bound.sites if bound else ()

    def bind(self, key: Key, site: BindingSite, since: int | None = None) -> None:
        """Bind a name; `since` is the number of reads before the step that does."""
        self.sites.append(site)
        before = self._bound.get(key)
        updates = since is not None and key in self.reads[since:]
        if before and not updates:
            self._judge(before, site)
        self._set(key, (site,))

    def bind_turn(self, keys: tuple[Key, ...]) -> None:
        """Bind what every turn of a loop has in scope."""
        for key in keys:
            self._set(key, ())

    def bind_own(self, key: Key, site: BindingSite) -> None:
        """Bind the variable of a loop, or a parameter: another of that name is hidden."""
        self.sites.append(site)
        before = self._bound.get(key)
        if before and before.sites:
            self._shadow(before, site)
        self._set(key, (site,))

    @contextmanager
    def inner(self, form: SequenceRole) -> Iterator[dict[Key, tuple[BindingSite, ...]]]:
        """Walk through a sequence; afterwards, what it changed is in the mapping, and undone."""
        mark, changed = len(self._undo), dict[Key, tuple[BindingSite, ...]]()
        self._opened += 1
        # Steps of a condition bind names of the sequence that it stands in.
        level = self._levels[-1][0] if form is SequenceRole.CHOICE else self._opened
        self._levels.append((level, form))
        yield changed
        self._levels.pop()
        # An undo log in place of copies of all names: leaving a sequence takes as long as what it
        # bound.
        changed.update((key, self._bound[key].sites) for key, _ in self._undo[mark:])
        for key, before in reversed(self._undo[mark:]):
            if before is None:
                del self._bound[key]
            else:
                self._bound[key] = before
        del self._undo[mark:]

    def carry(
        self, changed: Mapping[Key, tuple[BindingSite, ...]], since: int, own: set[Key]
    ) -> None:
        """Let what a loop's body bound stand for what the name stood for before it, too."""
        read = set(self.reads[since:])
        for key, sites in changed.items():
            before = self._bound.get(key)
            if before is None or key in own:
                continue
            # A name that the body binds at its end and reads at its start is read, one turn later.
            if key in read:  # by the next turn
                for site in sites:
                    site.read = True
            self._set(key, tuple(dict.fromkeys((*before.sites, *sites))), before.level)

    def choose(self, *changes: Mapping[Key, tuple[BindingSite, ...]]) -> None:
        """Let names stand for what any of several choices bound."""
        for key in dict.fromkeys(key for each in changes for key in each):
            before = self.sites_of(key)
            sites = [site for each in changes for site in each.get(key, before)]
            self._set(key, tuple(dict.fromkeys(sites)))

    def _set(self, key: Key, sites: tuple[BindingSite, ...], level: int | None = None) -> None:
        self._undo.append((key, self._bound.get(key)))
        self._bound[key] = _Bound(sites, self._levels[-1][0] if level is None else level)

    def _judge(self, before: _Bound, site: BindingSite) -> None:
        """Warn of a name that is bound again, unless that is what loops and conditions do."""
        level, form = self._levels[-1]
        if form is SequenceRole.OWN and before.level != level:
            self._shadow(before, site)
        elif form is not SequenceRole.CHOICE and before.level == level:
            unread = not any(first.read for first in before.sites)
            again = " before anything reads it" if unread and before.sites else ""
            label = f"bound before at {before.sites[0].at}" if before.sites else "by the loop, too"
            message = f"the {site.what} `{site.name}` is bound again{again}"
            help = "give the two different names"
            self.found.append(warning("rebound-name", message, site.at, label=label, help=help))
            for first in before.sites:
                first.said = True

    def _shadow(self, before: _Bound, site: BindingSite) -> None:
        label = f"the other is bound at {before.sites[0].at}" if before.sites else "a loop's own"
        message = f"the {site.what} `{site.name}` hides another of that name, which stays as it is"
        help = "give the two different names"
        self.found.append(warning("shadowed-name", message, site.at, label=label, help=help))
        site.said = True
