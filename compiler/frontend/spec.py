"""From a spec file to its graph."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tcc.compiler.frontend.accuracy_bounds import Accuracy, read_accuracy
from tcc.compiler.frontend.argument_values import MAX_PROBLEMS, bind
from tcc.compiler.frontend.block_library import Library, collect_blocks, read_library
from tcc.compiler.frontend.expansion import Expansion, ExpansionLimit, check_unreached
from tcc.compiler.frontend.expr import UNKNOWN, ExpressionScope
from tcc.compiler.frontend.expr.operators import Budget, GraphValue
from tcc.compiler.frontend.inputs_outputs import read_input, read_outputs
from tcc.compiler.frontend.parameter_declarations import declare, default_problems
from tcc.compiler.frontend.schema_errors import check_structure, enclosing_step
from tcc.compiler.frontend.size_limits import room_for_nesting
from tcc.compiler.frontend.step_dispatch import dispatch
from tcc.compiler.frontend.step_scope import ERROR_VALUE, Bindings, PathNode, StepScope
from tcc.compiler.frontend.step_syntax import check_step, sequences
from tcc.compiler.frontend.undefined_names import explained
from tcc.compiler.frontend.warnings.all_warnings import ExpandedSpec, warnings
from tcc.compiler.frontend.warnings.graph_warnings import needed
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree, parse
from tcc.compiler.ir.argument_declarations import Required
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph, Node, Output, verify
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import (
    NOWHERE,
    Diagnostic,
    Mistakes,
    Span,
    UserError,
    fail,
    listed,
    nearest,
)
from tcc.compiler.support.value_views import ValueView, count, list_names


@dataclass(frozen=True, repr=False)
class Spec(ValueView):
    """A spec as compiled with given settings.

    Its graph holds what its outputs need and nothing else: what is left out, `warnings` name.
    `places` holds the result shape of every node, block call and loop turn by path;
    `digest` is the SHA-256 of all the text and settings that it was made from; `again` compiles
    the same text with other settings, and raises as `load` does; `choices` are the values of enums.
    """

    name: str
    doc: str
    graph: Graph
    params: Mapping[str, Any]
    places: Mapping[str, Shape]
    accuracy: Accuracy
    tests: Tree | None
    path: Path
    digest: str
    again: "Callable[[Mapping[str, str]], Spec]" = field(repr=False, compare=False)
    warnings: tuple[Diagnostic, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def _summary(self) -> Iterator[str]:
        settings = list_names(f"{name}={value}" for name, value in self.params.items())
        costs = cost(self.graph)
        yield (
            f"Spec {self.name}{f' ({settings})' if settings else ''}: "
            f"{count(len(self.graph.nodes), 'layer')}, {costs.params:,} parameters, "
            f"{costs.macs:,} multiply-accumulates"
        )
        if self.warnings:
            codes = list_names(f"{each.code} {each.message}" for each in self.warnings)
            yield f"{count(len(self.warnings), 'warning')}: {codes}"
        yield from self.graph.describe_ends()


def load(path: Path, settings: Mapping[str, str] | None = None) -> Spec:
    """Compile a spec file. `settings` are parameter values as text, as `--set` gives them.

    Raises:
        UserError: Everything that is wrong with the file, each located.
    """
    with room_for_nesting():
        # Read and checked once: `again` compiles the same text with other settings.
        library = read_library(path)
        bad = _check(library)
    return _compiled(path, library, bad, settings or {})


def _compiled(path: Path, library: Library, bad: "_Bad", settings: Mapping[str, str]) -> Spec:
    with room_for_nesting():
        return _Builder(path, library, bad, dict(settings)).spec()


@dataclass
class _Bad:
    """Steps to leave out, and what was wrong with them."""

    steps: set[int]
    found: Mistakes


def _check(library: Library) -> _Bad:
    """Check structure, words and argument names of all files.

    Raises:
        UserError: Something outside the steps is wrong, so that there is nothing to expand.
    """
    bad = _Bad(set(), Mistakes())
    fatal = Mistakes()
    for tree in library.files.values():
        for fault in check_structure(tree, "spec" if tree is library.root else "library"):
            step = enclosing_step(tree, fault.path)
            # A fault inside a step costs that step alone; one outside leaves nothing to expand.
            (fatal if step is None else bad.found).explain(fault.explain)
            bad.steps |= set() if step is None else {id(step)}
    if fatal:
        raise fatal.error(bad.found)
    collect_blocks(library)
    for tree in library.files.values():
        every = [step for steps in sequences(tree) for step in steps.items]
        # In the order of the text, in which mistakes are to be read.
        for step in sorted(every, key=lambda step: (step.span.line, step.span.column)):
            if id(step) not in bad.steps:
                _check_words(step, library, bad)
    return bad


def _check_words(step: Tree, library: Library, bad: _Bad) -> None:
    try:
        for explain in check_step(step, library.blocks):
            bad.steps.add(id(step))
            bad.found.explain(explain)
    except UserError as error:
        bad.steps.add(id(step))
        bad.found.add(error.diagnostics)


class _Builder:
    """One compilation: parameters, input, steps, outputs, names."""

    def __init__(self, path: Path, library: Library, bad: _Bad, settings: dict[str, str]) -> None:
        self.path, self.library, self.bad, self.settings = path, library, bad, settings
        self.found = Mistakes()
        self.found.take(bad.found)
        self.root = library.root
        self.place = PathNode("")
        self.params: Mapping[str, Any] = {}
        self.choices: Mapping[str, tuple[str, ...]] = {}
        self.accuracy = Accuracy()
        self.budget = Budget()
        self.cut = False  # where expansion ended early, ids are not compared

    def spec(self) -> Spec:
        """Return the compiled spec.

        Raises:
            UserError: Anything was wrong, here or in the checks before.
        """
        self.params = self._params()
        env = StepScope(self.place, Bindings(self.params), budget=self.budget)
        try:
            source = read_input(self.root.get("input"), env)
            scope = ExpressionScope(self.params, budget=self.budget)
            self.accuracy = read_accuracy(self.root.get("accuracy"), scope)
        except UserError as error:
            self.found.add(error.diagnostics)
            raise self.found.error() from None
        expansion = Expansion(self.library.blocks, self.bad.steps, dispatch)
        start = GraphValue(source.name, source.type)
        final, outputs = self._expand(expansion, start, env.name_value(source.name, start))
        self.found.add(explained(expansion.reported(), self.library))
        self.found.cut |= expansion.cut
        if not self.cut:
            self.found.add(_clashes(self.place, source.name))
        if self.found:
            raise self.found.error()
        assert final.type is not None
        return self._finish(expansion, (source,), outputs)

    def _params(self) -> dict[str, Any]:
        """Return the values of the spec's parameters, settings first, then defaults."""
        declared = declare(self.root.get("params"))
        self.choices = {p.name: p.choices for p in declared if p.choices}
        settings = read_settings(self.settings, tuple(p.name for p in declared))
        own = partial(ExpressionScope, budget=self.budget)
        bound, problems = bind(declared, settings, own(), own)
        self.found.cut |= len(problems) >= MAX_PROBLEMS
        for p in declared:
            if isinstance(p.default, Required) and p.name not in self.settings:
                problems.append(_unset(self.root, p.name))
        # Defaults that were tried and found wrong are not judged again. Where a setting is what was
        # wrong, the default was not tried.
        tried = {p.name for p in declared if bound[p.name] is UNKNOWN} - self.settings.keys()
        self.found.add([*problems, *default_problems(declared, Budget(), sizes=False, tried=tried)])
        return bound

    def _expand(
        self, ex: Expansion, start: GraphValue, env: StepScope
    ) -> tuple[GraphValue, list[Output]]:
        graph = self.root.get("graph")
        assert isinstance(graph, Sequence)
        try:
            final, env = ex.sequence(graph, start, env)
        except ExpansionLimit:
            self.cut = True
            return ERROR_VALUE, []
        outputs, problems = read_outputs(self.root.get("output"), final, env)
        # a value that is missing because of an earlier error is no error of its own
        if not ex.diagnostics and not self.bad.found:
            self.found.add(problems)
        with suppress(ExpansionLimit):
            check_unreached(ex, graph)
        return final, outputs

    def _finish(self, ex: Expansion, inputs: tuple[Any, ...], outputs: list[Output]) -> Spec:
        by_place = paths(self.place)
        places = _all(self.place)
        names = {p.node: by_place[id(p)] for p in places if p.node is not None}
        name, doc = self.root.get("name"), self.root.get("doc")
        assert isinstance(name, Scalar)
        # Dead nodes are dropped here and not by a pass: costs, figures and weights are those of
        # what is built, and what was left out is warned of.
        live = needed(ex.nodes, outputs)
        nodes = tuple(_renamed(n, names) for n in ex.nodes if n.name in live)
        ends = tuple(replace(o, value=names.get(o.value, o.value)) for o in outputs)
        graph = verify(Graph(str(name.value), inputs, nodes, ends))
        shapes = {
            by_place[id(p)]: p.result.type.shape for p in places if p.result and p.result.type
        }
        settings = "\n".join(f"{k}={v}" for k, v in sorted(self.settings.items()))
        # Of the text, not of the graph: what a manifest names is what a person can look at.
        digest = hashlib.sha256(f"{self.library.digest}\n{settings}".encode()).hexdigest()
        return Spec(
            graph.name,
            str(doc.value) if isinstance(doc, Scalar) else "",
            graph,
            self.params,
            shapes,
            self.accuracy,
            self.root.get("tests"),
            self.path,
            digest,
            partial(_compiled, self.path, self.library, self.bad),
            self._warnings(ex, live, graph),
            self.choices,
        )

    def _warnings(self, ex: Expansion, live: set[str], graph: Graph) -> tuple[Diagnostic, ...]:
        nodes = {node.name: node for node in ex.nodes}
        made = ExpandedSpec(nodes, live, self.place, ex.named, tuple(ex.doubts.values()))
        return warnings(self.library, made, graph)


def _unset(root: MappingTree, name: str) -> Diagnostic:
    params = root.get("params")
    assert isinstance(params, MappingTree)
    key = params.key(name)
    assert key is not None
    help = f"give --set {name}=..., or a default"
    return Diagnostic("E0215", f"parameter `{name}` has no value", key.span, help=help)


def _clashes(root: PathNode, source: str) -> Iterator[Diagnostic]:
    """Yield a diagnostic for every two things of one name."""
    for first, second in id_clashes(root):
        assert second.at is not None
        label = f"the first is at {first.at}"
        yield Diagnostic("E0210", f"two steps have the id `{second.base}`", second.at, label=label)
    by_place = paths(root)
    for place in root.children:
        if by_place[id(place)] == source and place.at is not None:
            help = "give the step another `id`, or the input another name"
            yield Diagnostic(
                "E0210", f"a step and the input are both `{source}`", place.at, help=help
            )


def _all(root: PathNode) -> list[PathNode]:
    found: list[PathNode] = []
    pending = list(reversed(root.children))
    while pending:
        place = pending.pop()
        found.append(place)
        pending += reversed(place.children)
    return found


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    name = names[node.name]
    return replace(
        node,
        name=name,
        inputs=tuple(names.get(i, i) for i in node.inputs),
        # Weights are called after the path of their step, in checkpoints and files alike.
        params=tuple(name + p.removeprefix(node.name) for p in node.params),
    )


def read_settings(settings: Mapping[str, str], known: tuple[str, ...]) -> MappingTree:
    """Return `--set` values as the tree of a file that would hold `name: value` lines.

    Raises:
        UserError: A name is not a parameter, or a value is not well formed.
    """
    found: list[tuple[Scalar, Tree]] = []
    for name, text in settings.items():
        # Read as YAML, so that a value means the same on the command line as in the file.
        line = f"{name}: {text}"
        at = Span("--set", 1, 1, line, len(name))
        if name not in known:
            close = nearest(name, known)
            there = f"parameters are {listed(known)}" if known else "it has none"
            help = f"did you mean `{close}`?" if close else there
            raise fail("E0601", f"the spec has no parameter `{name}`", at, help=help)
        tree = parse(line, "--set")
        if not isinstance(tree, MappingTree) or len(tree.items) != 1:
            raise fail("E0626", f"`{name}` must be set to one value", at)
        found += tree.items
    return MappingTree(tuple(found), NOWHERE)


def paths(root: PathNode) -> dict[int, str]:
    """Return the path of every place below a root, by the place's identity.

    A word that occurs once among its siblings stands alone, else its occurrences are numbered
    from 1; an id stays as written. A number that an id took is skipped.
    """
    found: dict[int, str] = {}
    # A list and not recursion: places nest as deep as steps do. Each place is met once; names are
    # counted among siblings alone.
    pending = [(root, "")]
    while pending:
        place, prefix = pending.pop()
        for child, name in zip(place.children, _local(place.children), strict=True):
            found[id(child)] = prefix + name
            pending.append((child, f"{prefix}{name}/"))
    return found


def _local(children: list[PathNode]) -> list[str]:
    count = Counter(c.base for c in children)
    fixed = {c.base for c in children if c.fixed and count[c.base] == 1}
    used: Counter[str] = Counter()
    names = []
    for c in children:
        alone = count[c.base] == 1 and not c.numbered
        # A word stands alone as long as it is alone, so that most paths have no numbers. A loop's
        # turns are numbered even where there is one, as its count may change.
        if c.base in fixed or alone:
            names.append(c.base)
            continue
        used[c.base] += 1
        while f"{c.base}_{used[c.base]}" in fixed:
            used[c.base] += 1
        names.append(f"{c.base}_{used[c.base]}")
    return names


def id_clashes(root: PathNode) -> Iterator[tuple[PathNode, PathNode]]:
    """Yield pairs of steps, written in two places, whose ids are equal in one part of the tree."""
    pending = [root]
    while pending:
        place = pending.pop()
        pending += place.children
        first: dict[str, PathNode] = {}
        for child in place.children:
            known = first.setdefault(child.base, child) if child.fixed else child
            # A block that is called twice has the ids of its steps twice, from one place in the
            # text: paths of the calls tell them apart.
            if known.at != child.at:
                yield known, child
