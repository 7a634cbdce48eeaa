"""Right specs full of names: bound, bound again, carried by loops, collected, hidden in blocks.

What the compiler makes of each is compared with a second definition of the language.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from case import Case, Front, Outcome
from meaning import UNARY, Names, Node, Program, Wrong, live

VALUES, LISTS, NUMBERS = ("a", "b", "c"), ("ys", "zs"), ("n", "m", "k")
CHANNELS = 3
DEEP = 4


@dataclass
class Writer:
    """Writes random steps, as data; whatever it names stands at the beginning of its block."""

    numbers: Random
    blocks: tuple[str, ...] = ()
    loops: int = 0

    def steps(self, depth: int = 0) -> list[dict[str, Any]]:
        """Return a few steps."""
        return [self.step(depth) for _ in range(self.numbers.randint(1, 4 if depth else 7))]

    def step(self, depth: int) -> dict[str, Any]:
        """Return one step."""
        pick = self.numbers
        form = pick.choice(FORMS if depth < DEEP else FORMS[:3])
        step: dict[str, Any] = form(self, depth)
        if pick.random() < 0.4 and not {"let", "side"} & step.keys():
            step["as"] = pick.choice(VALUES)
        return step

    def total(self) -> str:
        """Return an expression."""
        pick = self.numbers
        terms = [*NUMBERS, "C", "1", "2", "5", "len(ys)", f"channels({pick.choice(VALUES)})"]
        if self.loops:
            terms += ["i", "i"]
        return " + ".join(pick.choice(terms) for _ in range(pick.randint(1, 3)))

    def reference(self) -> str:
        """Return the name of a value or a list, or of a part of one."""
        pick, name = self.numbers, self.numbers.choice(LISTS)
        if pick.random() < 0.6:
            return pick.choice(VALUES)
        return pick.choice((name, f"{name}[0]", f"{name}[-1]", f"{name}[1:]", f"{name}[:2]"))

    def plain(self, depth: int) -> dict[str, Any]:  # noqa: ARG002 - forms are alike
        """Return a layer without weights."""
        step: dict[str, Any] = {self.numbers.choice(UNARY): None}
        if self.numbers.random() < 0.3:
            step["from"] = self.numbers.choice((*VALUES, "ys[0]", "zs[-1]"))
        return step

    def conv(self, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Return a convolution."""
        return {"conv": {"filters": f"({self.total()}) % 7 + 1", "kernel": 1}}

    def let(self, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Return names of numbers."""
        names = self.numbers.sample(NUMBERS, self.numbers.randint(1, 2))
        return {"let": {name: self.total() for name in names}}

    def inner(self, depth: int) -> list[dict[str, Any]]:
        """Return the steps of a turn."""
        self.loops += 1
        steps = self.steps(depth + 1)
        self.loops -= 1
        return steps

    def loop(self, depth: int) -> dict[str, Any]:
        """Return a loop."""
        pick = self.numbers
        body: dict[str, Any] = {"body": self.inner(depth)}
        if pick.random() < 0.5:
            body["collect"] = pick.choice(LISTS)
        if pick.random() < 0.5:
            return {"repeat": {"times": pick.choice((0, 1, 2, 2, 3)), **body}}
        turns = [pick.randint(0, 5) for _ in range(pick.randint(0, 3))]
        return {"each": {"of": turns, "as": pick.choice(NUMBERS), **body}}

    def when(self, depth: int) -> dict[str, Any]:
        """Return a condition."""
        name = self.numbers.choice((*NUMBERS, "i") if self.loops else NUMBERS)
        sides: dict[str, Any] = {"then": self.steps(depth + 1)}
        if self.numbers.random() < 0.5:
            sides["else"] = self.steps(depth + 1)
        return {"when": {"if": f"{name} % 2 == 1", **sides}}

    def seq(self, depth: int) -> dict[str, Any]:
        """Return steps of their own."""
        return {"seq": self.steps(depth + 1)}

    def side(self, depth: int) -> dict[str, Any]:
        """Return a value beside the main line."""
        return {"side": {"as": self.numbers.choice(VALUES), "body": self.steps(depth + 1)}}

    def concat(self, depth: int) -> dict[str, Any]:
        """Return a join."""
        pick = self.numbers
        if pick.random() < 0.25:
            times = pick.randint(1, 3)
            return {"concat": {"times": times, "branch": self.inner(depth)}}
        if pick.random() < 0.3:
            return {"concat": None, "from": [self.reference() for _ in range(pick.randint(1, 3))]}
        branches: list[Any] = [[], self.reference(), self.steps(depth + 1)]
        return {"concat": [pick.choice(branches) for _ in range(pick.randint(1, 3))]}

    def call(self, depth: int) -> dict[str, Any]:
        """Return the call of a block, if there are any."""
        if not self.blocks:
            return self.seq(depth)
        args = {name: self.total() for name in NUMBERS if self.numbers.random() < 0.5}
        read = self.numbers.choice(
            (list(VALUES), ["a", "a", "b"], ["b", "ys[0]", "c"], ["a", "ys"])
        )
        return {self.numbers.choice(self.blocks): args or None, "from": read}


FORMS = (
    Writer.plain, Writer.conv, Writer.let, Writer.conv, Writer.loop, Writer.loop, Writer.when,
    Writer.when, Writer.seq, Writer.side, Writer.concat, Writer.concat, Writer.call,
)  # fmt: skip
LIST = {"collect": "ys", "body": [{"conv": {"filters": "(i) % 7 + 1", "kernel": 1}}]}
START = [
    {"relu": None, "as": "a"},
    {"tanh": None, "as": "b"},
    {"silu": None, "as": "c"},
    {"let": {"n": 1, "m": 2, "k": 3}},
    {"repeat": {"times": 2, **LIST}},
    {"repeat": {"times": 3, **LIST, "collect": "zs"}},
]


def _spec(numbers: Random) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    for name in ("first_block", "second_block")[: numbers.randint(0, 2)]:
        body = [*START[4:], *Writer(numbers, tuple(blocks)).steps(DEEP - 2)]
        params = {"n": 1, "m": 4, "k": 2}
        blocks[name] = {"inputs": list(VALUES), "params": params, "body": body}
    graph = [*START, *Writer(numbers, tuple(blocks)).steps()]
    return {
        "tcc": 1,
        "name": "program",
        "input": {"image": {"shape": [CHANNELS, 2, 2]}},
        **({"blocks": blocks} if blocks else {}),
        "graph": graph,
        "output": {"y": {}, "z": {"from": "a"}},
    }


def _meaning(spec: Mapping[str, Any]) -> tuple[Node, Node] | None:
    """Return the two outputs; None for a program without a meaning."""
    source = Node("image", (), CHANNELS)
    names = Names({"image": source})
    try:
        last = Program(spec.get("blocks", {})).sequence(spec["graph"], source, names)
    except Wrong:
        return None
    return last, names.values["a"]


def _check(spec: Mapping[str, Any], outcome: Outcome) -> str:
    expected = _meaning(spec)
    if (outcome.code == 2) != (expected is None):
        return f"exit {outcome.code}, but {'no ' if expected is None else 'a '}meaning"
    return _same(expected, json.loads(outcome.out)) if expected else ""


def _same(expected: tuple[Node, Node], document: Mapping[str, Any]) -> str:
    """Return whether the compiler's graph is the expected one, but for its names."""
    signs: dict[tuple[Any, ...], int] = {}

    def sign(op: str, channels: int, inputs: tuple[int, ...]) -> int:
        return signs.setdefault((op, channels, inputs), len(signs))

    known = {"image": sign("image", CHANNELS, ())}
    for node in document["nodes"]:
        inputs = tuple(known[name] for name in node["inputs"])
        known[node["name"]] = sign(node["op"], node["shape"][0], inputs)
    found = [known[output["value"]] for output in document["outputs"]]
    mine: dict[int, int] = {}
    for node in _ordered(expected):
        inputs = tuple(mine[id(read)] for read in node.inputs)
        mine[id(node)] = sign(node.op, node.channels, inputs)
    if found != [mine[id(node)] for node in expected]:
        return "another graph"
    count = len(live(expected)) - 1
    return "" if len(document["nodes"]) == count else f"{count} nodes are needed"


def _ordered(ends: tuple[Node, ...]) -> list[Node]:
    """Return the nodes that lead to some, each after its inputs."""
    done: dict[int, Node] = {}
    pending = list(ends)
    while pending:
        node = pending[-1]
        missing = [read for read in node.inputs if id(read) not in done]
        if not missing:
            done.setdefault(id(node), pending.pop())
        pending += missing
    return list(done.values())


def _program(numbers: Random) -> Case:
    spec = _spec(numbers)

    def check(outcome: Outcome, _: Path) -> str:
        return _check(spec, outcome)

    text = json.dumps(spec, indent=1)
    return Case(("show", "spec.json", "--json"), {"spec.json": text.encode()}, check=check)


def _warm() -> None:
    pass


PROGRAMS = Front("programs", 1000, _program, _warm)
