"""Which names a text binds and reads, block by block."""

import re
from collections.abc import Iterator

from tcc.compiler.frontend.block_library import JOIN_WORDS
from tcc.compiler.frontend.step_scope import LOOP_NAMES
from tcc.compiler.frontend.step_syntax import Step, take_apart
from tcc.compiler.frontend.warnings.scope_stack import (
    BindingSite,
    Key,
    ScopeStack,
    SequenceRole,
)
from tcc.compiler.frontend.warnings.step_warnings import doubtful
from tcc.compiler.frontend.warnings.warning_kinds import warning
from tcc.compiler.frontend.yaml import Mapping, Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Diagnostic, Span

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
            case Mapping(items=pairs):
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
        for key, body in tree.items if isinstance(tree, Mapping) else ():
            default = body.get("default") if isinstance(body, Mapping) else body
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
        self._named(tree.get("as") if isinstance(tree, Mapping) else None, "value", since)

    def _is_list(self, name: Scalar) -> bool:
        text = str(name.value)
        return "[" in text or any(site.listed for site in self.scopes.sites_of((text, True)))

    def _arguments(self, step: Step, since: int) -> None:
        match step.word, step.args:
            case (("repeat" | "each"), Mapping() as args):
                self._loop(args, step.at, since)
            case "when", Mapping() as args:
                self._when(args)
            case "let", Mapping() as args:
                self._let(args)
            case "side", Mapping() as args:
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

    def _loop(self, args: Mapping, at: Span, since: int) -> None:
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

    def _turn(self, args: Mapping) -> set[Key]:
        """Bind what a loop, or computed branches, give each turn."""
        self.scopes.bind_turn(_LOOP)
        name = args.get("as")
        if not isinstance(name, Scalar):
            return set()
        site = BindingSite(str(name.value), "unused-name", "loop variable", name.span)
        self.scopes.bind_own((site.name, False), site)
        return {(site.name, False)}

    def _when(self, args: Mapping) -> None:
        self.expressions(args.get("if"))
        # Both sides count, whichever the parameters choose now.
        with self.scopes.inner(SequenceRole.CHOICE) as then:
            self.sequence(args.get("then"))
        with self.scopes.inner(SequenceRole.CHOICE) as other:
            self.sequence(args.get("else"))
        self.scopes.choose(then, other)

    def _let(self, args: Mapping) -> None:
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
            case Mapping():
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


def of_block(body: Mapping) -> NameUsage:
    """Return the walk through a block."""
    names = NameUsage()
    names.parameters(body.get("params"))
    inputs = body.get("inputs")
    listed = inputs.items if isinstance(inputs, Sequence) else ()
    names.inputs([item for item in listed if isinstance(item, Scalar)])
    names.expressions(body.get("require"))
    names.sequence(body.get("body"))
    return names


def of_spec(root: Mapping) -> NameUsage:
    """Return the walk through a spec's parameters, graph and outputs."""
    names = NameUsage()
    names.parameters(root.get("params"))
    source = root.get("input")
    if isinstance(source, Mapping):
        names.inputs([key for key, _ in source.items])
    names.expressions(source)
    names.expressions(root.get("accuracy"))
    names.sequence(root.get("graph"))
    outputs = root.get("output")
    for key, body in outputs.items if isinstance(outputs, Mapping) else ():
        given = body.get("from") if isinstance(body, Mapping) else None
        names.value(given if isinstance(given, Scalar) else key)
        names.expressions(body)
    return names


def unused_blocks(root: Mapping, calls: dict[str, set[str]]) -> Iterator[Diagnostic]:
    """Yield the blocks of a spec that its graph does not reach; `calls` says who calls which.

    The graph's own are those of the empty name.
    """
    reached = reach(calls)
    blocks = root.get("blocks")
    for key, _ in blocks.items if isinstance(blocks, Mapping) else ():
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
