"""Compilation of a spec file to its graph."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tcc.compiler.frontend.accuracy_bounds import Accuracy, read_accuracy
from tcc.compiler.frontend.argument_values import MAX_PROBLEMS, bind_arguments
from tcc.compiler.frontend.block_library import Library, collect_blocks, read_library
from tcc.compiler.frontend.expansion import Expansion, ExpansionLimit, check_unreached
from tcc.compiler.frontend.expr import UNKNOWN, ExpressionScope
from tcc.compiler.frontend.expr.operators import Budget, GraphValue
from tcc.compiler.frontend.inputs_outputs import read_input, read_outputs
from tcc.compiler.frontend.parameter_declarations import find_default_problems, read_parameters
from tcc.compiler.frontend.schema_errors import check_structure, find_enclosing_step
from tcc.compiler.frontend.size_limits import raise_recursion_limit
from tcc.compiler.frontend.step_dispatch import dispatch_step
from tcc.compiler.frontend.step_scope import ERROR_VALUE, Bindings, PathNode, StepScope
from tcc.compiler.frontend.step_syntax import check_step, iterate_sequences
from tcc.compiler.frontend.undefined_names import explain_undefined_names
from tcc.compiler.frontend.warnings.all_warnings import ExpandedSpec, collect_warnings
from tcc.compiler.frontend.warnings.graph_warnings import find_live_values
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree, parse
from tcc.compiler.ir.argument_declarations import Required
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Graph, Node, Output, verify
from tcc.compiler.ir.types import Shape
from tcc.compiler.support.diagnostics import (
    NOWHERE,
    Diagnostic,
    Mistakes,
    Span,
    UserError,
    fail,
    find_nearest_name,
    join_names,
)
from tcc.compiler.support.value_views import ValueView, count, list_names


@dataclass(frozen=True, repr=False)
class Spec(ValueView):
    """A spec compiled with given settings.

    The graph contains only what its outputs need; `warnings` name what was removed. `shapes` are
    the result shapes of all nodes, block calls and loop iterations by path. `digest` is the SHA-256
    of the text and the settings. `recompile` compiles the same text with other settings and raises
    as `load` does. `choices` are the values of enum parameters.
    """

    name: str
    doc: str
    graph: Graph
    params: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    accuracy: Accuracy
    tests: Tree | None
    path: Path
    digest: str
    recompile: "Callable[[Mapping[str, str]], Spec]" = field(repr=False, compare=False)
    warnings: tuple[Diagnostic, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def _summarize(self) -> Iterator[str]:
        settings = list_names(f"{name}={value}" for name, value in self.params.items())
        costs = compute_cost(self.graph)
        yield (
            f"Spec {self.name}{f' ({settings})' if settings else ''}: "
            f"{count(len(self.graph.nodes), 'layer')}, {costs.params:,} parameters, "
            f"{costs.macs:,} multiply-accumulates"
        )
        if self.warnings:
            codes = list_names(f"{warning.code} {warning.message}" for warning in self.warnings)
            yield f"{count(len(self.warnings), 'warning')}: {codes}"
        yield from self.graph.describe_io()


def load(path: Path, settings: Mapping[str, str] | None = None) -> Spec:
    """Compile a spec file; `settings` are parameter values as text, as for `--set`.

    Raises:
        UserError: All errors in the file, each with its location.
    """
    with raise_recursion_limit():
        # Read and checked once; `recompile` uses them with other settings.
        library = read_library(path)
        rejected = _check_library(library)
    return _compile(path, library, rejected, settings or {})


def _compile(
    path: Path, library: Library, rejected: "_RejectedSteps", settings: Mapping[str, str]
) -> Spec:
    with raise_recursion_limit():
        return _Builder(path, library, rejected, dict(settings)).build_spec()


@dataclass
class _RejectedSteps:
    """Steps to leave out, and their errors."""

    steps: set[int]
    mistakes: Mistakes


def _check_library(library: Library) -> _RejectedSteps:
    """Check the structure, keywords and argument names of all files.

    Raises:
        UserError: There is an error outside the steps, so nothing can be expanded.
    """
    rejected = _RejectedSteps(set(), Mistakes())
    fatal = Mistakes()
    for tree in library.files.values():
        for fault in check_structure(tree, "spec" if tree is library.root else "library"):
            step = find_enclosing_step(tree, fault.path)
            # An error inside a step only rejects that step; one outside prevents the expansion.
            (fatal if step is None else rejected.mistakes).explain(fault.explain)
            rejected.steps |= set() if step is None else {id(step)}
    if fatal:
        raise fatal.make_error(rejected.mistakes)
    collect_blocks(library)
    for tree in library.files.values():
        step_trees = [step for steps in iterate_sequences(tree) for step in steps.items]
        # In the order of the text, for the order of the errors.
        for step in sorted(step_trees, key=lambda step: (step.span.line, step.span.column)):
            if id(step) not in rejected.steps:
                _check_step_names(step, library, rejected)
    return rejected


def _check_step_names(step: Tree, library: Library, rejected: _RejectedSteps) -> None:
    try:
        for explain in check_step(step, library.blocks):
            rejected.steps.add(id(step))
            rejected.mistakes.explain(explain)
    except UserError as error:
        rejected.steps.add(id(step))
        rejected.mistakes.add(error.diagnostics)


class _Builder:
    """One compilation: parameters, input, steps, outputs, names."""

    def __init__(
        self, path: Path, library: Library, rejected: _RejectedSteps, settings: dict[str, str]
    ) -> None:
        self.path, self.library, self.rejected, self.settings = path, library, rejected, settings
        self.mistakes = Mistakes()
        self.mistakes.merge(rejected.mistakes)
        self.root = library.root
        self.root_node = PathNode("")
        self.params: Mapping[str, Any] = {}
        self.choices: Mapping[str, tuple[str, ...]] = {}
        self.accuracy = Accuracy()
        self.budget = Budget()
        self.is_truncated = False  # ids are not compared after a truncated expansion

    def build_spec(self) -> Spec:
        """Return the compiled spec.

        Raises:
            UserError: There is an error, here or in the earlier checks.
        """
        self.params = self._bind_parameters()
        env = StepScope(self.root_node, Bindings(self.params), budget=self.budget)
        try:
            source = read_input(self.root.get("input"), env)
            scope = ExpressionScope(self.params, budget=self.budget)
            self.accuracy = read_accuracy(self.root.get("accuracy"), scope)
        except UserError as error:
            self.mistakes.add(error.diagnostics)
            raise self.mistakes.make_error() from None
        expansion = Expansion(self.library.blocks, self.rejected.steps, dispatch_step)
        start = GraphValue(source.name, source.type)
        final, outputs = self._expand_graph(expansion, start, env.name_value(source.name, start))
        self.mistakes.add(explain_undefined_names(expansion.collect_diagnostics(), self.library))
        self.mistakes.is_truncated |= expansion.cut
        if not self.is_truncated:
            self.mistakes.add(_find_clashes(self.root_node, source.name))
        if self.mistakes:
            raise self.mistakes.make_error()
        assert final.type is not None
        return self._finish(expansion, (source,), outputs)

    def _bind_parameters(self) -> dict[str, Any]:
        """Return the values of the spec's parameters, from settings or else from defaults."""
        declared = read_parameters(self.root.get("params"))
        self.choices = {p.name: p.choices for p in declared if p.choices}
        settings = read_settings(self.settings, tuple(p.name for p in declared))
        make_scope = partial(ExpressionScope, budget=self.budget)
        bound, problems = bind_arguments(declared, settings, make_scope(), make_scope)
        self.mistakes.is_truncated |= len(problems) >= MAX_PROBLEMS
        for p in declared:
            if isinstance(p.default, Required) and p.name not in self.settings:
                problems.append(_describe_unset_parameter(self.root, p.name))
        # Defaults that were evaluated already have their errors reported. A parameter with an
        # invalid setting still needs a check of its default.
        tried = {p.name for p in declared if bound[p.name] is UNKNOWN} - self.settings.keys()
        self.mistakes.add(
            [*problems, *find_default_problems(declared, Budget(), sizes=False, tried=tried)]
        )
        return bound

    def _expand_graph(
        self, ex: Expansion, start: GraphValue, env: StepScope
    ) -> tuple[GraphValue, list[Output]]:
        graph = self.root.get("graph")
        assert isinstance(graph, Sequence)
        try:
            final, env = ex.expand_sequence(graph, start, env)
        except ExpansionLimit:
            self.is_truncated = True
            return ERROR_VALUE, []
        outputs, problems = read_outputs(self.root.get("output"), final, env)
        # After an earlier error, a missing value may be a follow-on error.
        if not ex.diagnostics and not self.rejected.mistakes:
            self.mistakes.add(problems)
        with suppress(ExpansionLimit):
            check_unreached(ex, graph)
        return final, outputs

    def _finish(self, ex: Expansion, inputs: tuple[Any, ...], outputs: list[Output]) -> Spec:
        path_by_id = compute_paths(self.root_node)
        path_nodes = _list_nodes(self.root_node)
        names = {p.node: path_by_id[id(p)] for p in path_nodes if p.node is not None}
        name, doc = self.root.get("name"), self.root.get("doc")
        assert isinstance(name, Scalar)
        # Dead nodes are removed here and not by a pass, so that costs, figures and weights are
        # those of the build. Warnings name the removed nodes.
        live = find_live_values(ex.nodes, outputs)
        nodes = tuple(_rename_node(n, names) for n in ex.nodes if n.name in live)
        graph_outputs = tuple(replace(o, value=names.get(o.value, o.value)) for o in outputs)
        graph = verify(Graph(str(name.value), inputs, nodes, graph_outputs))
        shapes = {
            path_by_id[id(p)]: p.output.type.shape for p in path_nodes if p.output and p.output.type
        }
        settings = "\n".join(f"{k}={v}" for k, v in sorted(self.settings.items()))
        # Of the text, not of the graph, so that a person can check what a manifest refers to.
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
            partial(_compile, self.path, self.library, self.rejected),
            self._collect_warnings(ex, live, graph),
            self.choices,
        )

    def _collect_warnings(
        self, ex: Expansion, live: set[str], graph: Graph
    ) -> tuple[Diagnostic, ...]:
        nodes = {node.name: node for node in ex.nodes}
        expanded = ExpandedSpec(
            nodes, live, self.root_node, ex.values_by_span, tuple(ex.warnings.values())
        )
        return collect_warnings(self.library, expanded, graph)


def _describe_unset_parameter(root: MappingTree, name: str) -> Diagnostic:
    params = root.get("params")
    assert isinstance(params, MappingTree)
    key = params.get_key(name)
    assert key is not None
    help = f"write --set {name}=..., or add a default"
    return Diagnostic("E0215", f"parameter `{name}` has no value", key.span, help=help)


def _find_clashes(root: PathNode, source: str) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each pair of steps or inputs of the same name."""
    for first_node, second_node in find_id_clashes(root):
        assert second_node.at is not None
        label = f"the first is at {first_node.at}"
        yield Diagnostic(
            "E0210",
            f"two steps have the id `{second_node.base}`",
            second_node.at,
            label=label,
            help="change one `id`",
        )
    path_by_id = compute_paths(root)
    for path_node in root.children:
        if path_by_id[id(path_node)] == source and path_node.at is not None:
            help = "change the `id` of the step, or the name of the input"
            yield Diagnostic(
                "E0210", f"a step and the input are both `{source}`", path_node.at, help=help
            )


def _list_nodes(root: PathNode) -> list[PathNode]:
    path_nodes: list[PathNode] = []
    pending = list(reversed(root.children))
    while pending:
        path_node = pending.pop()
        path_nodes.append(path_node)
        pending += reversed(path_node.children)
    return path_nodes


def _rename_node(node: Node, names: Mapping[str, str]) -> Node:
    path = names[node.name]
    return replace(
        node,
        name=path,
        inputs=tuple(names.get(i, i) for i in node.inputs),
        # Checkpoints and files name weights by the path of their step.
        params=tuple(path + p.removeprefix(node.name) for p in node.params),
    )


def read_settings(settings: Mapping[str, str], known_names: tuple[str, ...]) -> MappingTree:
    """Return `--set` values as the tree of a file with `name: value` lines.

    Raises:
        UserError: A name is not a parameter, or a value is not well formed.
    """
    items: list[tuple[Scalar, Tree]] = []
    for name, text in settings.items():
        # Parsed as YAML, so that a value means the same on the command line and in a file.
        line = f"{name}: {text}"
        at = Span("--set", 1, 1, line, len(name))
        if name not in known_names:
            nearest_name = find_nearest_name(name, known_names)
            there = f"parameters are {join_names(known_names)}" if known_names else "it has none"
            help = f"did you mean `{nearest_name}`?" if nearest_name else there
            raise fail("E0601", f"the spec has no parameter `{name}`", at, help=help)
        tree = parse(line, "--set")
        if not isinstance(tree, MappingTree) or len(tree.items) != 1:
            help = f"write one number, word or list, such as `--set {name}=5`"
            raise fail("E0626", f"`{name}` must be set to one value", at, help=help)
        items += tree.items
    return MappingTree(tuple(items), NOWHERE)


def compute_paths(root: PathNode) -> dict[int, str]:
    """Return the path of each node below a root, by the identity of the node.

    A name that is unique among its siblings is used as it is. Others are numbered from 1,
    skipping numbers that an id uses. An id stays as written.
    """
    path_by_id: dict[int, str] = {}
    # A list instead of recursion, because nodes nest as deep as steps. Names are counted only
    # among siblings.
    pending = [(root, "")]
    while pending:
        path_node, prefix = pending.pop()
        for child, name in zip(path_node.children, _name_siblings(path_node.children), strict=True):
            path_by_id[id(child)] = prefix + name
            pending.append((child, f"{prefix}{name}/"))
    return path_by_id


def _name_siblings(children: list[PathNode]) -> list[str]:
    count = Counter(c.base for c in children)
    fixed = {c.base for c in children if c.fixed and count[c.base] == 1}
    used: Counter[str] = Counter()
    names = []
    for c in children:
        is_single = count[c.base] == 1 and not c.numbered
        # Unique names have no number, so most paths have none. Iterations of a loop are always
        # numbered, because their count may change.
        if c.base in fixed or is_single:
            names.append(c.base)
            continue
        used[c.base] += 1
        while f"{c.base}_{used[c.base]}" in fixed:
            used[c.base] += 1
        names.append(f"{c.base}_{used[c.base]}")
    return names


def find_id_clashes(root: PathNode) -> Iterator[tuple[PathNode, PathNode]]:
    """Yield pairs of steps from different lines that have the same id under one parent."""
    pending = [root]
    while pending:
        path_node = pending.pop()
        pending += path_node.children
        children_by_id: dict[str, PathNode] = {}
        for child in path_node.children:
            earlier = children_by_id.setdefault(child.base, child) if child.fixed else child
            # Two calls of a block repeat its ids from the same lines; the paths of the calls
            # distinguish them.
            if earlier.at != child.at:
                yield earlier, child
