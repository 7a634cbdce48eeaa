"""Names that a text binds and reads, block by block."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

from tcc.compiler.frontend.block_library import JOIN_NAMES
from tcc.compiler.frontend.step_scope import LOOP_NAMES
from tcc.compiler.frontend.step_syntax import Step, parse_step
from tcc.compiler.frontend.warnings.step_warnings import find_step_warnings
from tcc.compiler.frontend.warnings.warning_kinds import create_warning
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree
from tcc.compiler.support.diagnostics import Diagnostic, Span

Key = tuple[str, bool]
"""A name, and whether it is the name of a graph value."""


@dataclass(eq=False, slots=True)
class BindingSite:
    """A location that binds a name; `kind` is the warning to give if nothing reads it.

    `subject` describes what is bound. `is_reported` is set if another warning covers it.
    """

    name: str
    kind: str
    subject: str
    at: Span
    is_read: bool = False
    is_reported: bool = False

    @property
    def is_list(self) -> bool:
        """Whether the name is bound to a list of values."""
        return self.subject == "list"

    def create_unused_warning(self) -> Diagnostic:
        """Return the warning for a name that nothing reads."""
        message = f"nothing reads the {self.subject} `{self.name}`"
        return create_warning(self.kind, message, self.at, help=_REMEDY.get(self.subject, ""))


_REMEDY = {
    "value": "read it with `from` or in a branch, or remove `as`",
    "side": "read it with `from`, in a branch or as an output, or remove it",
    "parameter": "read it in an expression, or remove it",
}


class SequenceRole(Enum):
    """Role of a sequence in the enclosing one."""

    ISOLATED = auto()
    """Its names are local."""
    ITERATION = auto()
    """An iteration of a loop: names from before it carry over."""
    CHOICE = auto()
    """A branch of a condition: it binds names of the enclosing sequence."""


@dataclass(frozen=True, slots=True)
class _Binding:
    sites: tuple[BindingSite, ...]
    level: int


class ScopeStack:
    """The names in scope during a walk; leaving a sequence undoes its bindings."""

    def __init__(self) -> None:
        self.sites: list[BindingSite] = []
        self.diagnostics: list[Diagnostic] = []
        self.reads: list[Key] = []
        self._bound: dict[Key, _Binding] = {}
        self._undo: list[tuple[Key, _Binding | None]] = []
        self._levels: list[tuple[int, SequenceRole]] = [(0, SequenceRole.ISOLATED)]
        self._opened = 0

    def record_read(self, key: Key) -> None:
        """Record that a name is read."""
        self.reads.append(key)
        for site in self.find_sites(key):
            site.is_read = True

    def find_sites(self, key: Key) -> tuple[BindingSite, ...]:
        """Return the sites that may have bound the current value of a name."""
        bound = self._bound.get(key)
        return bound.sites if bound else ()

    def bind(self, key: Key, site: BindingSite, first_read: int | None = None) -> None:
        """Bind a name; `first_read` is the index in `reads` of the binding step's first read."""
        self.sites.append(site)
        previous = self._bound.get(key)
        updates = first_read is not None and key in self.reads[first_read:]
        if previous and not updates:
            self._check_rebinding(previous, site)
        self._set(key, (site,))

    def bind_loop_names(self, keys: tuple[Key, ...]) -> None:
        """Bind the names that each iteration of a loop binds."""
        for key in keys:
            self._set(key, ())

    def bind_local(self, key: Key, site: BindingSite) -> None:
        """Bind a loop variable or a parameter; it hides other bindings of the name."""
        self.sites.append(site)
        previous = self._bound.get(key)
        if previous and previous.sites:
            self._warn_of_shadowing(previous, site)
        self._set(key, (site,))

    @contextmanager
    def enter_sequence(self, role: SequenceRole) -> Iterator[dict[Key, tuple[BindingSite, ...]]]:
        """Walk a sequence; at the end, its bindings are in the yielded mapping and undone."""
        mark, changed = len(self._undo), dict[Key, tuple[BindingSite, ...]]()
        self._opened += 1
        # A branch of a condition binds names of the enclosing sequence.
        level = self._levels[-1][0] if role is SequenceRole.CHOICE else self._opened
        self._levels.append((level, role))
        yield changed
        self._levels.pop()
        # An undo log instead of copies of all names: leaving a sequence takes time in proportion
        # to its bindings.
        changed.update((key, self._bound[key].sites) for key, _ in self._undo[mark:])
        for key, previous in reversed(self._undo[mark:]):
            if previous is None:
                del self._bound[key]
            else:
                self._bound[key] = previous
        del self._undo[mark:]

    def merge_loop(
        self, changed: Mapping[Key, tuple[BindingSite, ...]], first_read: int, local_keys: set[Key]
    ) -> None:
        """Add the bindings of a loop body to those from before the loop."""
        read_keys = set(self.reads[first_read:])
        for key, sites in changed.items():
            previous = self._bound.get(key)
            if previous is None or key in local_keys:
                continue
            # A name bound at the end of the body and read at its start is read by the next
            # iteration.
            if key in read_keys:
                for site in sites:
                    site.is_read = True
            self._set(key, tuple(dict.fromkeys((*previous.sites, *sites))), previous.level)

    def merge_choices(self, *changes: Mapping[Key, tuple[BindingSite, ...]]) -> None:
        """Bind each name to the bindings of all branches of a choice."""
        for key in dict.fromkeys(key for changed in changes for key in changed):
            previous_sites = self.find_sites(key)
            sites = [site for changed in changes for site in changed.get(key, previous_sites)]
            self._set(key, tuple(dict.fromkeys(sites)))

    def _set(self, key: Key, sites: tuple[BindingSite, ...], level: int | None = None) -> None:
        self._undo.append((key, self._bound.get(key)))
        self._bound[key] = _Binding(sites, self._levels[-1][0] if level is None else level)

    def _check_rebinding(self, previous: _Binding, site: BindingSite) -> None:
        """Warn about a name that is bound again, except by a loop or condition."""
        level, role = self._levels[-1]
        if role is SequenceRole.ISOLATED and previous.level != level:
            self._warn_of_shadowing(previous, site)
        elif role is not SequenceRole.CHOICE and previous.level == level:
            unread = not any(previous_site.is_read for previous_site in previous.sites)
            unread_note = " before anything reads it" if unread and previous.sites else ""
            label = (
                f"bound before at {previous.sites[0].at}"
                if previous.sites
                else "bound before by the loop"
            )
            message = f"the {site.subject} `{site.name}` is bound again{unread_note}"
            help = "use two different names"
            self.diagnostics.append(
                create_warning("rebound-name", message, site.at, label=label, help=help)
            )
            for previous_site in previous.sites:
                previous_site.is_reported = True

    def _warn_of_shadowing(self, previous: _Binding, site: BindingSite) -> None:
        label = (
            f"the other is bound at {previous.sites[0].at}"
            if previous.sites
            else "the other is bound by a loop"
        )
        message = f"the {site.subject} `{site.name}` hides another one, which does not change"
        help = "use two different names"
        self.diagnostics.append(
            create_warning("shadowed-name", message, site.at, label=label, help=help)
        )
        site.is_reported = True


_NAME_PATTERN = re.compile(r"'[^']*'|\"[^\"]*\"|([A-Za-z_][A-Za-z0-9_]*)")
"""Quoted text, or a name in an expression."""
_LOOP_KEYS = tuple((name, False) for name in sorted(LOOP_NAMES))


class NameUsage:
    """Names bound and read by the text of one block or of the graph."""

    def __init__(self) -> None:
        self.scopes = ScopeStack()
        self.calls: set[str] = set()
        self.diagnostics: list[Diagnostic] = []

    def collect_warnings(self) -> Iterator[Diagnostic]:
        """Yield the warnings, including those for names that nothing reads."""
        yield from self.diagnostics
        yield from self.scopes.diagnostics
        yield from (
            s.create_unused_warning()
            for s in self.scopes.sites
            if not s.is_read and not s.is_reported
        )

    # -- what is read -------------------------------------------------------------------------

    def record_expressions(self, tree: Tree | None) -> None:
        """Record all names in the expressions of a tree as read."""
        match tree:
            case Scalar(value=str(text)):
                for name in _NAME_PATTERN.findall(text):
                    if name:
                        # A name in an expression can be that of a number, or of a value as in
                        # `channels(...)`. Record both, so that no warning is wrong.
                        self.scopes.record_read((name, False))
                        self.scopes.record_read((name, True))
            case Sequence(items=items):
                for element in items:
                    self.record_expressions(element)
            case MappingTree(items=pairs):
                for _, value in pairs:
                    self.record_expressions(value)
            case _:
                pass

    def record_value(self, tree: Scalar) -> None:
        """Record that a named value, or an entry of a named list, is read."""
        name, _, index = str(tree.value).partition("[")
        self.scopes.record_read((name.strip(), True))
        for index_name in _NAME_PATTERN.findall(index):
            self.scopes.record_read((index_name, False))
            self.scopes.record_read((index_name, True))

    # -- what is bound ------------------------------------------------------------------------

    def bind_parameters(self, tree: Tree | None) -> None:
        """Bind the parameters of a block or a spec."""
        for key, body in tree.items if isinstance(tree, MappingTree) else ():
            default = body.get("default") if isinstance(body, MappingTree) else body
            self.record_expressions(default)
            name = str(key.value)
            site = BindingSite(name, "unused-parameter", "parameter", key.span)
            self.scopes.bind_local((name, False), site)

    def bind_inputs(self, names: list[Scalar]) -> None:
        """Bind the named inputs of a block; the first is the current value of its first step."""
        for index, input_name in enumerate(names):
            name = str(input_name.value)
            # The first step of the body reads the first input without its name.
            site = BindingSite(name, "unused-value", "input", input_name.span, is_read=index == 0)
            self.scopes.bind_local((name, True), site)

    def _bind_value(
        self, name: Tree | None, subject: str, first_read: int, kind: str = "unused-value"
    ) -> None:
        if isinstance(name, Scalar):
            site = BindingSite(str(name.value), kind, subject, name.span)
            self.scopes.bind((site.name, True), site, first_read)

    # -- steps --------------------------------------------------------------------------------

    def visit_sequence(self, tree: Tree | None) -> None:
        """Visit a sequence of steps."""
        for step in tree.items if isinstance(tree, Sequence) else ():
            self.visit_step(parse_step(step))

    def visit_step(self, step: Step) -> None:
        """Visit one step."""
        # A step that reads the name it binds updates it (`from: x, as: x`); that is not shadowing.
        first_read = len(self.scopes.reads)
        for source in step.sources:
            self.record_value(source)
        self.calls.add(step.keyword)
        self.diagnostics += find_step_warnings(step, self._is_list)
        self._visit_arguments(step, first_read)
        tree = step.tree
        self._bind_value(
            tree.get("as") if isinstance(tree, MappingTree) else None, "value", first_read
        )

    def _is_list(self, name: Scalar) -> bool:
        text = str(name.value)
        return "[" in text or any(site.is_list for site in self.scopes.find_sites((text, True)))

    def _visit_arguments(self, step: Step, first_read: int) -> None:
        """Record what a step's arguments read and bind; `first_read` is as for `bind`."""
        match step.keyword, step.args:
            case (("repeat" | "each"), MappingTree() as args):
                self._visit_loop(args, step.at, first_read)
            case "when", MappingTree() as args:
                self._visit_when(args)
            case "let", MappingTree() as args:
                self._visit_let(args)
            case "side", MappingTree() as args:
                self._visit_isolated(args.get("body"))
                self._bind_value(args.get("as"), "side", first_read, "unused-branch")
            case "seq", body:
                self._visit_isolated(body)
            case keyword, args if keyword in JOIN_NAMES:
                self._visit_join(args)
            case _, args:
                self.record_expressions(args)

    def _visit_isolated(self, body: Tree | None) -> None:
        with self.scopes.enter_sequence(SequenceRole.ISOLATED):
            self.visit_sequence(body)

    def _visit_loop(self, args: MappingTree, at: Span, first_read: int) -> None:
        self.record_expressions(args.get("times"))
        self.record_expressions(args.get("of"))
        start, local_keys = len(self.scopes.reads), set(_LOOP_KEYS)
        hidden = {key: sites for key in _LOOP_KEYS if (sites := self.scopes.find_sites(key))}
        with self.scopes.enter_sequence(SequenceRole.ITERATION) as changed:
            local_keys |= self._bind_iteration(args)
            self.visit_sequence(args.get("body"))
        self.scopes.merge_loop(changed, start, local_keys)
        for key in hidden.keys() & set(self.scopes.reads[start:]):
            self.diagnostics.append(_create_loop_name_warning(key[0], hidden[key][0], at))
        self._bind_value(args.get("collect"), "list", first_read)

    def _bind_iteration(self, args: MappingTree) -> set[Key]:
        """Bind the names of an iteration of a loop or of computed branches."""
        self.scopes.bind_loop_names(_LOOP_KEYS)
        name = args.get("as")
        if not isinstance(name, Scalar):
            return set()
        site = BindingSite(str(name.value), "unused-name", "loop variable", name.span)
        self.scopes.bind_local((site.name, False), site)
        return {(site.name, False)}

    def _visit_when(self, args: MappingTree) -> None:
        self.record_expressions(args.get("if"))
        # Both branches count, regardless of the current parameters.
        with self.scopes.enter_sequence(SequenceRole.CHOICE) as then:
            self.visit_sequence(args.get("then"))
        with self.scopes.enter_sequence(SequenceRole.CHOICE) as otherwise:
            self.visit_sequence(args.get("else"))
        self.scopes.merge_choices(then, otherwise)

    def _visit_let(self, args: MappingTree) -> None:
        for key, body in args.items:
            first_read = len(self.scopes.reads)
            self.record_expressions(body)
            site = BindingSite(str(key.value), "unused-name", "name", key.span)
            self.scopes.bind((site.name, False), site, first_read)

    def _visit_join(self, args: Tree | None) -> None:
        match args:
            case Sequence(items=items):
                for branch in items:
                    if isinstance(branch, Scalar):
                        self.record_value(branch)
                    else:
                        self._visit_isolated(branch)
            case MappingTree():
                self.record_expressions(args.get("times"))
                self.record_expressions(args.get("of"))
                with self.scopes.enter_sequence(SequenceRole.ISOLATED):
                    self._bind_iteration(args)
                    self.visit_sequence(args.get("branch"))
            case _:
                pass


def _create_loop_name_warning(name: str, outer_site: BindingSite, at: Span) -> Diagnostic:
    message = f"in this loop `{name}` is a new name, not the {outer_site.subject} of that name"
    help = f"rename the {outer_site.subject}"
    label = f"the other one is bound at {outer_site.at}"
    return create_warning("shadowed-name", message, at, label=label, help=help)


def visit_block(body: MappingTree) -> NameUsage:
    """Return the names bound and read by a block."""
    usage = NameUsage()
    usage.bind_parameters(body.get("params"))
    inputs = body.get("inputs")
    input_trees = inputs.items if isinstance(inputs, Sequence) else ()
    usage.bind_inputs([item for item in input_trees if isinstance(item, Scalar)])
    usage.record_expressions(body.get("require"))
    usage.visit_sequence(body.get("body"))
    return usage


def visit_spec(root: MappingTree) -> NameUsage:
    """Return the names bound and read by a spec: its parameters, graph and outputs."""
    usage = NameUsage()
    usage.bind_parameters(root.get("params"))
    source = root.get("input")
    if isinstance(source, MappingTree):
        usage.bind_inputs([key for key, _ in source.items])
    usage.record_expressions(source)
    usage.record_expressions(root.get("accuracy"))
    usage.visit_sequence(root.get("graph"))
    outputs = root.get("output")
    for key, body in outputs.items if isinstance(outputs, MappingTree) else ():
        source_tree = body.get("from") if isinstance(body, MappingTree) else None
        usage.record_value(source_tree if isinstance(source_tree, Scalar) else key)
        usage.record_expressions(body)
    return usage


def find_unused_blocks(root: MappingTree, calls: dict[str, set[str]]) -> Iterator[Diagnostic]:
    """Yield the blocks of a spec that its graph does not reach.

    `calls` are the called names by caller; the caller of the graph's calls is the empty name.
    """
    reached = find_reachable_blocks(calls)
    blocks = root.get("blocks")
    for key, _ in blocks.items if isinstance(blocks, MappingTree) else ():
        if key.value not in reached:
            message = f"nothing uses the block `{key.value}`"
            yield create_warning("unused-block", message, key.span, help="use it, or remove it")


def find_reachable_blocks(calls: dict[str, set[str]]) -> set[str]:
    """Return the blocks that the graph uses, directly or indirectly."""
    reached: set[str] = set()
    pending = [""]
    while pending:
        new = [n for n in calls.get(pending.pop(), ()) if n in calls and n not in reached]
        reached.update(new)
        pending += new
    return reached
