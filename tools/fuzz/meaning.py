"""What a program of the spec language means, by a second and simpler definition.

It knows one size of maps, and the few forms that `programs` writes: names, loops and blocks are
what it is about. Every scope is a copy of all names.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

Step = Mapping[str, Any]
MOST, PIXELS = 2**31 - 1, 4
"""The most elements of a tensor; those of one channel."""
LARGEST = 2**63
"""The largest number."""
UNARY = ("relu", "tanh", "sigmoid", "silu", "gelu")


class Wrong(Exception):  # noqa: N818 - what is wrong is the program
    """The program has no meaning: a list has no such entry, or a join no branch."""


@dataclass(eq=False)
class Node:
    """A node of the graph."""

    op: str
    inputs: tuple["Node", ...]
    channels: int


@dataclass
class Names:
    """What is in scope: values, lists of values, numbers."""

    values: dict[str, Node]
    lists: dict[str, list[Node]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def __copy__(self) -> "Names":
        """The same, to be changed by itself."""
        return Names(dict(self.values), dict(self.lists), dict(self.numbers))


class Program:
    """The blocks of one spec."""

    def __init__(self, blocks: Mapping[str, Mapping[str, Any]]) -> None:
        self.blocks = blocks

    def sequence(self, steps: Sequence[Step], value: Node, names: Names) -> Node:
        """Return the last value; what the steps name is named in `names`."""
        for step in steps:
            value = self.step(step, value, names)
        return value

    def step(self, step: Step, value: Node, names: Names) -> Node:
        """Return what one step gives."""
        given = step.get("from", ())
        read = [given] if isinstance(given, str) else list(given)
        inputs = [v for name in read for v in values(name, value, names)] if read else [value]
        if not inputs:
            raise Wrong
        word = next(key for key in step if key not in ("as", "from"))
        made = self.word(word, step[word], inputs, names)
        if "as" in step:
            names.values[step["as"]] = made
        return made

    def word(  # noqa: C901, PLR0911 - one a form
        self, word: str, args: Any, inputs: list[Node], names: Names
    ) -> Node:
        """Return what a word gives."""
        value = inputs[0]
        match word:
            case "conv":
                text = str(args["filters"]).removeprefix("(").removesuffix(") % 7 + 1")
                filters = total(text, value, names) % 7 + 1
                if filters * value.channels > MOST:
                    raise Wrong
                return Node(word, (value,), filters)
            case "seq":
                return self.sequence(args, value, copy(names))
            case "side":
                names.values[args["as"]] = self.sequence(args["body"], value, copy(names))
                return value
            case "let":
                for name, text in args.items():
                    names.numbers[name] = total(str(text), value, names)
                return value
            case "when":
                chosen = args["then"] if holds(args["if"], names) else args.get("else", ())
                return self.sequence(chosen, value, names)
            case "repeat" | "each":
                return self.loop(args, value, names)
            case "concat":
                return self.concat(args, inputs, names)
            case block if block in self.blocks:
                return self.call(self.blocks[block], args or {}, inputs, names)
            case unary if unary in UNARY:
                return Node(unary, (value,), value.channels)
        raise AssertionError(word)

    def loop(self, args: Mapping[str, Any], value: Node, names: Names) -> Node:
        """Return the value after a loop; names from before it are the last turn's."""
        turns = args["of"] if "of" in args else range(total(str(args["times"]), value, names))
        own = {"i", args.get("as")}
        ends = []
        for index, item in enumerate(turns):
            turn = copy(names)
            turn.numbers |= {"i": index} | ({args["as"]: item} if "of" in args else {})
            value = self.sequence(args["body"], value, turn)
            ends.append(value)
            names.values |= {name: turn.values[name] for name in names.values}
            names.lists |= {name: turn.lists[name] for name in names.lists}
            names.numbers |= {n: turn.numbers[n] for n in names.numbers if n not in own}
        if "collect" in args:
            names.lists[args["collect"]] = ends
        return value

    def concat(self, args: Any, inputs: list[Node], names: Names) -> Node:
        """Return the join of branches, each of which names things for itself."""
        read, value = inputs, inputs[0]
        if isinstance(args, Mapping):
            read = []
            for index in range(args["times"]):
                inner = copy(names)
                inner.numbers["i"] = index
                read.append(self.sequence(args["branch"], value, inner))
        elif args is not None:
            read = []
            for branch in args:
                if isinstance(branch, str):
                    read += values(branch, value, names)
                else:
                    read.append(self.sequence(branch, value, copy(names)))
        if not read:
            raise Wrong
        channels = sum(node.channels for node in read)
        if channels * PIXELS > MOST:
            raise Wrong
        return Node("concat", tuple(read), channels)

    def call(
        self,
        block: Mapping[str, Any],
        args: Mapping[str, Any],
        inputs: list[Node],
        names: Names,
    ) -> Node:
        """Return what a block gives: it sees its own names alone."""
        if len(inputs) != len(block["inputs"]):
            raise Wrong
        own = Names(dict(zip(block["inputs"], inputs, strict=True)))
        for name, default in block["params"].items():
            own.numbers[name] = (
                total(str(args[name]), inputs[0], names) if name in args else default
            )
        return self.sequence(block["body"], inputs[0], own)


def values(name: str, value: Node, names: Names) -> list[Node]:
    """Return the values that a name, an entry or a part of a list stands for."""
    word, _, rest = name.removesuffix("]").partition("[")
    if not rest:
        return [names.values[word]] if word in names.values else list(names.lists[word])
    listed = names.lists[word]
    start, colon, stop = rest.partition(":")
    ends = [total(end, value, names) if end else None for end in (start, stop)]
    if any(end is not None and not -len(listed) <= end <= len(listed) for end in ends):
        raise Wrong
    if colon:
        return listed[slice(*ends)]
    if not -len(listed) <= (place := ends[0] or 0) < len(listed):
        raise Wrong
    return [listed[place]]


def total(text: str, value: Node, names: Names) -> int:
    """Return a sum of numbers, names and sizes."""
    found = sum(_term(term, value, names) for term in text.split(" + "))
    if found > LARGEST:
        raise Wrong
    return found


def _term(term: str, value: Node, names: Names) -> int:
    if term.lstrip("-").isdecimal():
        return int(term)
    if term == "C":
        return value.channels
    word, _, inner = term.removesuffix(")").partition("(")
    if word == "len" and inner:
        return len(names.lists[inner])
    if word == "channels":
        return names.values[inner].channels
    return names.numbers[term]


def holds(text: str, names: Names) -> bool:
    """Return whether `name % 2 == 1`."""
    return names.numbers[text.partition(" ")[0]] % 2 == 1


def live(ends: Sequence[Node]) -> list[Node]:
    """Return the nodes that lead to some others, and these."""
    found: dict[int, Node] = {}
    pending = list(ends)
    while pending:
        node = pending.pop()
        if id(node) not in found:
            found[id(node)] = node
            pending += node.inputs
    return list(found.values())
