"""Which names a text binds and reads, block by block."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

from tcc.compiler.frontend.block_library import JOIN_WORDS
from tcc.compiler.frontend.step_scope import LOOP_NAMES
from tcc.compiler.frontend.step_syntax import Step, take_apart
from tcc.compiler.frontend.warnings.step_warnings import doubtful
from tcc.compiler.frontend.warnings.warning_kinds import warning
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
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


_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|([A-Za-z_][A-Za-z0-9_]*)")
"""Quoted text, or a name of an expression."""
_LOOP = tuple((name, False) for name in sorted(LOOP_NAMES))


class NameUsage:
    """The walk through one block's text, or the graph's."""

    def __init__(self) -> None:
        self.scopes = ScopeStack()
        self.calls: set[str] = set()
        self.found: list[Diagnostic] = []

    def warnings(self) -> Iterator[Diagnostic]:
        """Yield what was found, and the names that nothing reads."""
        yield from self.found
        yield from self.scopes.found
        yield from (s.unused() for s in self.scopes.sites if not s.read and not s.said)

    # -- what is read -------------------------------------------------------------------------

    def expressions(self, tree: Tree | None) -> None:
        """Hear of every name in the expressions of a tree."""
        match tree:
            case Scalar(value=str(text)):
                for word in _WORD.findall(text):
                    if word:
                        # In an expression a name may be a number's or, inside `channels(...)`, a
                        # value's: read as both, so that no warning is wrong.
                        self.scopes.read((word, False))
                        self.scopes.read((word, True))
            case Sequence(items=items):
                for item in items:
                    self.expressions(item)
            case MappingTree(items=pairs):
                for _, value in pairs:
                    self.expressions(value)
            case _:
                pass

    def value(self, tree: Scalar) -> None:
        """Hear that the value of a name, or an entry of a list, is read."""
        name, _, index = str(tree.value).partition("[")
        self.scopes.read((name.strip(), True))
        for word in _WORD.findall(index):
            self.scopes.read((word, False))
            self.scopes.read((word, True))

    # -- what is bound ------------------------------------------------------------------------

    def parameters(self, tree: Tree | None) -> None:
        """Bind the parameters of a block or a spec."""
        for key, body in tree.items if isinstance(tree, MappingTree) else ():
            default = body.get("default") if isinstance(body, MappingTree) else body
            self.expressions(default)
            name = str(key.value)
            site = BindingSite(name, "unused-parameter", "parameter", key.span)
            self.scopes.bind_own((name, False), site)

    def inputs(self, names: list[Scalar]) -> None:
        """Bind the named inputs of a block; the first is the current value of its first step."""
        for index, item in enumerate(names):
            name = str(item.value)
            # The first input is read by the first step of the body without being named.
            site = BindingSite(name, "unused-value", "input", item.span, read=index == 0)
            self.scopes.bind_own((name, True), site)

    def _named(self, name: Tree | None, what: str, since: int, kind: str = "unused-value") -> None:
        if isinstance(name, Scalar):
            site = BindingSite(str(name.value), kind, what, name.span)
            self.scopes.bind((site.name, True), site, since)

    # -- steps --------------------------------------------------------------------------------

    def sequence(self, tree: Tree | None) -> None:
        """Walk through steps."""
        for step in tree.items if isinstance(tree, Sequence) else ():
            self.step(take_apart(step))

    def step(self, step: Step) -> None:
        """Walk through one step."""
        # What the step itself reads of the name that it binds is an update (`from: x, as: x`), and
        # no shadowing.
        since = len(self.scopes.reads)
        for source in step.sources:
            self.value(source)
        self.calls.add(step.word)
        self.found += doubtful(step, self._is_list)
        self._arguments(step, since)
        tree = step.tree
        self._named(tree.get("as") if isinstance(tree, MappingTree) else None, "value", since)

    def _is_list(self, name: Scalar) -> bool:
        text = str(name.value)
        return "[" in text or any(site.listed for site in self.scopes.sites_of((text, True)))

    def _arguments(self, step: Step, since: int) -> None:
        match step.word, step.args:
            case (("repeat" | "each"), MappingTree() as args):
                self._loop(args, step.at, since)
            case "when", MappingTree() as args:
                self._when(args)
            case "let", MappingTree() as args:
                self._let(args)
            case "side", MappingTree() as args:
                self._alone(args.get("body"))
                self._named(args.get("as"), "side", since, "unused-branch")
            case "seq", body:
                self._alone(body)
            case word, args if word in JOIN_WORDS:
                self._join(args)
            case _, args:
                self.expressions(args)

    def _alone(self, body: Tree | None) -> None:
        with self.scopes.inner(SequenceRole.OWN):
            self.sequence(body)

    def _loop(self, args: MappingTree, at: Span, since: int) -> None:
        self.expressions(args.get("times"))
        self.expressions(args.get("of"))
        start, own = len(self.scopes.reads), set(_LOOP)
        hidden = {key: sites for key in _LOOP if (sites := self.scopes.sites_of(key))}
        with self.scopes.inner(SequenceRole.TURN) as changed:
            own |= self._turn(args)
            self.sequence(args.get("body"))
        self.scopes.carry(changed, start, own)
        for key in hidden.keys() & set(self.scopes.reads[start:]):
            self.found.append(_own(key[0], hidden[key][0], at))
        self._named(args.get("collect"), "list", since)

    def _turn(self, args: MappingTree) -> set[Key]:
        """Bind what a loop, or computed branches, give each turn."""
        self.scopes.bind_turn(_LOOP)
        name = args.get("as")
        if not isinstance(name, Scalar):
            return set()
        site = BindingSite(str(name.value), "unused-name", "loop variable", name.span)
        self.scopes.bind_own((site.name, False), site)
        return {(site.name, False)}

    def _when(self, args: MappingTree) -> None:
        self.expressions(args.get("if"))
        # Both sides count, whichever the parameters choose now.
        with self.scopes.inner(SequenceRole.CHOICE) as then:
            self.sequence(args.get("then"))
        with self.scopes.inner(SequenceRole.CHOICE) as other:
            self.sequence(args.get("else"))
        self.scopes.choose(then, other)

    def _let(self, args: MappingTree) -> None:
        for key, body in args.items:
            since = len(self.scopes.reads)
            self.expressions(body)
            site = BindingSite(str(key.value), "unused-name", "name", key.span)
            self.scopes.bind((site.name, False), site, since)

    def _join(self, args: Tree | None) -> None:
        match args:
            case Sequence(items=items):
                for branch in items:
                    if isinstance(branch, Scalar):
                        self.value(branch)
                    else:
                        self._alone(branch)
            case MappingTree():
                self.expressions(args.get("times"))
                self.expressions(args.get("of"))
                with self.scopes.inner(SequenceRole.OWN):
                    self._turn(args)
                    self.sequence(args.get("branch"))
            case _:
                pass


def _own(name: str, other: BindingSite, at: Span) -> Diagnostic:
    message = f"in this loop `{name}` is the loop's own, not the {other.what} of that name"
    help = f"give the {other.what} another name"
    label = f"which is bound at {other.at}"
    return warning("shadowed-name", message, at, label=label, help=help)


def of_block(body: MappingTree) -> NameUsage:
    """Return the walk through a block."""
    names = NameUsage()
    names.parameters(body.get("params"))
    inputs = body.get("inputs")
    listed = inputs.items if isinstance(inputs, Sequence) else ()
    names.inputs([item for item in listed if isinstance(item, Scalar)])
    names.expressions(body.get("require"))
    names.sequence(body.get("body"))
    return names


def of_spec(root: MappingTree) -> NameUsage:
    """Return the walk through a spec's parameters, graph and outputs."""
    names = NameUsage()
    names.parameters(root.get("params"))
    source = root.get("input")
    if isinstance(source, MappingTree):
        names.inputs([key for key, _ in source.items])
    names.expressions(source)
    names.expressions(root.get("accuracy"))
    names.sequence(root.get("graph"))
    outputs = root.get("output")
    for key, body in outputs.items if isinstance(outputs, MappingTree) else ():
        given = body.get("from") if isinstance(body, MappingTree) else None
        names.value(given if isinstance(given, Scalar) else key)
        names.expressions(body)
    return names


def unused_blocks(root: MappingTree, calls: dict[str, set[str]]) -> Iterator[Diagnostic]:
    """Yield the blocks of a spec that its graph does not reach; `calls` says who calls which.

    The graph's own are those of the empty name.
    """
    reached = reach(calls)
    blocks = root.get("blocks")
    for key, _ in blocks.items if isinstance(blocks, MappingTree) else ():
        if key.value not in reached:
            message = f"nothing uses the block `{key.value}`"
            yield warning("unused-block", message, key.span, help="use it, or leave it away")


def reach(calls: dict[str, set[str]]) -> set[str]:
    """Return the blocks that the graph uses, directly or through others."""
    reached: set[str] = set()
    pending = [""]
    while pending:
        new = [n for n in calls.get(pending.pop(), ()) if n in calls and n not in reached]
        reached.update(new)
        pending += new
    return reached
