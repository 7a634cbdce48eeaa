"""Evaluate a program of the spec language by a second, simpler definition.

It supports one size of feature maps, and the few forms that `programs` writes. It tests names,
loops and blocks. Every scope is a copy of all names.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

Step = Mapping[str, Any]
MAX_ELEMENTS, PIXELS = 2**31 - 1, 4
"""The maximum number of elements of a tensor, and the number in one channel."""
LARGEST = 2**63
"""The largest number."""
UNARY = ("relu", "tanh", "sigmoid", "silu", "gelu")


class InvalidProgramError(Exception):
    """The program is invalid: an index is out of range, or a concat has no branch, for example."""


@dataclass(eq=False)
class Node:
    """A node of the graph."""

    op: str
    inputs: tuple["Node", ...]
    channels: int


@dataclass
class Scope:
    """The names in scope: values, lists of values and numbers."""

    nodes: dict[str, Node]
    lists: dict[str, list[Node]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def __copy__(self) -> "Scope":
        """Return a copy that can be changed independently."""
        return Scope(dict(self.nodes), dict(self.lists), dict(self.numbers))


class Program:
    """The blocks of one spec."""

    def __init__(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        self.blocks = blocks

    def run_steps(self, steps: Sequence[Step], current: Node, scope: Scope) -> Node:
        """Return the last value, and add the names of the steps to `scope`."""
        for step in steps:
            current = self.run_step(step, current, scope)
        return current

    def run_step(self, step: Step, current: Node, scope: Scope) -> Node:
        """Return the output of one step."""
        sources = step.get("from", ())
        input_names = [sources] if isinstance(sources, str) else list(sources)
        inputs = (
            [v for name in input_names for v in resolve_nodes(name, current, scope)]
            if input_names
            else [current]
        )
        if not inputs:
            raise InvalidProgramError
        op_name = next(key for key in step if key not in ("as", "from"))
        output = self.run_op(op_name, step[op_name], inputs, scope)
        if "as" in step:
            scope.nodes[step["as"]] = output
        return output

    def run_op(  # noqa: C901, PLR0911 - one a form
        self, op_name: str, args: Any, inputs: list[Node], scope: Scope
    ) -> Node:
        """Return the output of an op, a loop or a block."""
        current = inputs[0]
        match op_name:
            case "conv":
                text = str(args["filters"]).removeprefix("(").removesuffix(") % 7 + 1")
                filters = evaluate_sum(text, current, scope) % 7 + 1
                if filters * current.channels > MAX_ELEMENTS:
                    raise InvalidProgramError
                return Node(op_name, (current,), filters)
            case "seq":
                return self.run_steps(args, current, copy(scope))
            case "side":
                scope.nodes[args["as"]] = self.run_steps(args["body"], current, copy(scope))
                return current
            case "let":
                for name, text in args.items():
                    scope.numbers[name] = evaluate_sum(str(text), current, scope)
                return current
            case "when":
                branch = (
                    args["then"] if evaluate_condition(args["if"], scope) else args.get("else", ())
                )
                return self.run_steps(branch, current, scope)
            case "repeat" | "each":
                return self.run_loop(args, current, scope)
            case "concat":
                return self.run_concat(args, inputs, scope)
            case block if block in self.blocks:
                return self.call_block(self.blocks[block], args or {}, inputs, scope)
            case unary if unary in UNARY:
                return Node(unary, (current,), current.channels)
        raise AssertionError(op_name)

    def run_loop(self, args: Mapping[str, Any], current: Node, scope: Scope) -> Node:
        """Return the output of a loop; earlier names get their values of the last iteration."""
        elements = (
            args["of"] if "of" in args else range(evaluate_sum(str(args["times"]), current, scope))
        )
        loop_names = {"i", args.get("as")}
        iteration_outputs = []
        for index, element in enumerate(elements):
            iteration_scope = copy(scope)
            iteration_scope.numbers |= {"i": index} | (
                {args["as"]: element} if "of" in args else {}
            )
            current = self.run_steps(args["body"], current, iteration_scope)
            iteration_outputs.append(current)
            scope.nodes |= {name: iteration_scope.nodes[name] for name in scope.nodes}
            scope.lists |= {name: iteration_scope.lists[name] for name in scope.lists}
            scope.numbers |= {
                n: iteration_scope.numbers[n] for n in scope.numbers if n not in loop_names
            }
        if "collect" in args:
            scope.lists[args["collect"]] = iteration_outputs
        return current

    def run_concat(self, args: Any, inputs: list[Node], scope: Scope) -> Node:
        """Return the concatenation of branches; each branch has its own names."""
        branch_outputs, current = inputs, inputs[0]
        if isinstance(args, Mapping):
            branch_outputs = []
            for index in range(args["times"]):
                branch_scope = copy(scope)
                branch_scope.numbers["i"] = index
                branch_outputs.append(self.run_steps(args["branch"], current, branch_scope))
        elif args is not None:
            branch_outputs = []
            for branch in args:
                if isinstance(branch, str):
                    branch_outputs += resolve_nodes(branch, current, scope)
                else:
                    branch_outputs.append(self.run_steps(branch, current, copy(scope)))
        if not branch_outputs:
            raise InvalidProgramError
        channels = sum(node.channels for node in branch_outputs)
        if channels * PIXELS > MAX_ELEMENTS:
            raise InvalidProgramError
        return Node("concat", tuple(branch_outputs), channels)

    def call_block(
        self,
        block: Mapping[str, Any],
        args: Mapping[str, Any],
        inputs: list[Node],
        scope: Scope,
    ) -> Node:
        """Return the output of a block, which sees only its own names."""
        if len(inputs) != len(block["inputs"]):
            raise InvalidProgramError
        block_scope = Scope(dict(zip(block["inputs"], inputs, strict=True)))
        for name, default in block["params"].items():
            block_scope.numbers[name] = (
                evaluate_sum(str(args[name]), inputs[0], scope) if name in args else default
            )
        return self.run_steps(block["body"], inputs[0], block_scope)


def resolve_nodes(name: str, current: Node, scope: Scope) -> list[Node]:
    """Return the values of a name, a list entry or a slice of a list."""
    list_name, _, index_text = name.removesuffix("]").partition("[")
    if not index_text:
        return (
            [scope.nodes[list_name]] if list_name in scope.nodes else list(scope.lists[list_name])
        )
    nodes = scope.lists[list_name]
    start, colon, stop = index_text.partition(":")
    bounds = [evaluate_sum(end, current, scope) if end else None for end in (start, stop)]
    if any(end is not None and not -len(nodes) <= end <= len(nodes) for end in bounds):
        raise InvalidProgramError
    if colon:
        return nodes[slice(*bounds)]
    if not -len(nodes) <= (position := bounds[0] or 0) < len(nodes):
        raise InvalidProgramError
    return [nodes[position]]


def evaluate_sum(text: str, current: Node, scope: Scope) -> int:
    """Return a sum of numbers, names and sizes."""
    amount = sum(_evaluate_term(term, current, scope) for term in text.split(" + "))
    if amount > LARGEST:
        raise InvalidProgramError
    return amount


def _evaluate_term(term: str, current: Node, scope: Scope) -> int:
    if term.lstrip("-").isdecimal():
        return int(term)
    if term == "C":
        return current.channels
    function_name, _, inner = term.removesuffix(")").partition("(")
    if function_name == "len" and inner:
        return len(scope.lists[inner])
    if function_name == "channels":
        return scope.nodes[inner].channels
    return scope.numbers[term]


def evaluate_condition(text: str, scope: Scope) -> bool:
    """Return the value of a condition `name % 2 == 1`."""
    return scope.numbers[text.partition(" ")[0]] % 2 == 1


def list_reachable(output_nodes: Sequence[Node]) -> list[Node]:
    """Return some nodes and all nodes that they depend on."""
    reachable: dict[int, Node] = {}
    pending = list(output_nodes)
    while pending:
        node = pending.pop()
        if id(node) not in reachable:
            reachable[id(node)] = node
            pending += node.inputs
    return list(reachable.values())
