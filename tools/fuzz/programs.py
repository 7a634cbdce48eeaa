"""Fuzz valid specs with many names: rebound, carried by loops, collected, local to blocks.

The compiler's graph of each is compared with a second definition of the language.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from case import Case, Front, Outcome
from meaning import UNARY, InvalidProgramError, Node, Program, Scope, list_reachable

VALUE_NAMES, LIST_NAMES, NUMBER_NAMES = ("a", "b", "c"), ("ys", "zs"), ("n", "m", "k")
CHANNELS = 3
DEEP = 4


@dataclass
class Writer:
    """Writes random steps as data; each block starts with steps that define every name."""

    numbers: Random
    blocks: tuple[str, ...] = ()
    loops: int = 0

    def make_steps(self, depth: int = 0) -> list[dict[str, Any]]:
        """Return a few steps."""
        return [self.make_step(depth) for _ in range(self.numbers.randint(1, 4 if depth else 7))]

    def make_step(self, depth: int) -> dict[str, Any]:
        """Return one step."""
        pick = self.numbers
        form = pick.choice(FORMS if depth < DEEP else FORMS[:3])
        step: dict[str, Any] = form(self, depth)
        if pick.random() < 0.4 and not {"let", "side"} & step.keys():
            step["as"] = pick.choice(VALUE_NAMES)
        return step

    def make_sum(self) -> str:
        """Return an expression."""
        pick = self.numbers
        terms = [
            *NUMBER_NAMES,
            "C",
            "1",
            "2",
            "5",
            "len(ys)",
            f"channels({pick.choice(VALUE_NAMES)})",
        ]
        if self.loops:
            terms += ["i", "i"]
        return " + ".join(pick.choice(terms) for _ in range(pick.randint(1, 3)))

    def choose_reference(self) -> str:
        """Return the name of a value or a list, or a part of a list."""
        pick, name = self.numbers, self.numbers.choice(LIST_NAMES)
        if pick.random() < 0.6:
            return pick.choice(VALUE_NAMES)
        return pick.choice((name, f"{name}[0]", f"{name}[-1]", f"{name}[1:]", f"{name}[:2]"))

    def make_layer(self, depth: int) -> dict[str, Any]:  # noqa: ARG002 - forms are alike
        """Return a layer without weights."""
        step: dict[str, Any] = {self.numbers.choice(UNARY): None}
        if self.numbers.random() < 0.3:
            step["from"] = self.numbers.choice((*VALUE_NAMES, "ys[0]", "zs[-1]"))
        return step

    def make_conv(self, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Return a convolution."""
        return {"conv": {"filters": f"({self.make_sum()}) % 7 + 1", "kernel": 1}}

    def make_let(self, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Return a step that names numbers."""
        names = self.numbers.sample(NUMBER_NAMES, self.numbers.randint(1, 2))
        return {"let": {name: self.make_sum() for name in names}}

    def make_body(self, depth: int) -> list[dict[str, Any]]:
        """Return the steps of an iteration."""
        self.loops += 1
        steps = self.make_steps(depth + 1)
        self.loops -= 1
        return steps

    def make_loop(self, depth: int) -> dict[str, Any]:
        """Return a loop."""
        pick = self.numbers
        body: dict[str, Any] = {"body": self.make_body(depth)}
        if pick.random() < 0.5:
            body["collect"] = pick.choice(LIST_NAMES)
        if pick.random() < 0.5:
            return {"repeat": {"times": pick.choice((0, 1, 2, 2, 3)), **body}}
        elements = [pick.randint(0, 5) for _ in range(pick.randint(0, 3))]
        return {"each": {"of": elements, "as": pick.choice(NUMBER_NAMES), **body}}

    def make_when(self, depth: int) -> dict[str, Any]:
        """Return a condition."""
        name = self.numbers.choice((*NUMBER_NAMES, "i") if self.loops else NUMBER_NAMES)
        branches: dict[str, Any] = {"then": self.make_steps(depth + 1)}
        if self.numbers.random() < 0.5:
            branches["else"] = self.make_steps(depth + 1)
        return {"when": {"if": f"{name} % 2 == 1", **branches}}

    def make_seq(self, depth: int) -> dict[str, Any]:
        """Return a nested sequence of steps."""
        return {"seq": self.make_steps(depth + 1)}

    def make_side(self, depth: int) -> dict[str, Any]:
        """Return a step that computes a value outside the main path."""
        return {
            "side": {"as": self.numbers.choice(VALUE_NAMES), "body": self.make_steps(depth + 1)}
        }

    def make_concat(self, depth: int) -> dict[str, Any]:
        """Return a concat."""
        pick = self.numbers
        if pick.random() < 0.25:
            times = pick.randint(1, 3)
            return {"concat": {"times": times, "branch": self.make_body(depth)}}
        if pick.random() < 0.3:
            return {
                "concat": None,
                "from": [self.choose_reference() for _ in range(pick.randint(1, 3))],
            }
        branches: list[Any] = [[], self.choose_reference(), self.make_steps(depth + 1)]
        return {"concat": [pick.choice(branches) for _ in range(pick.randint(1, 3))]}

    def make_call(self, depth: int) -> dict[str, Any]:
        """Return the call of a block, if there is one."""
        if not self.blocks:
            return self.make_seq(depth)
        args = {name: self.make_sum() for name in NUMBER_NAMES if self.numbers.random() < 0.5}
        input_names = self.numbers.choice(
            (list(VALUE_NAMES), ["a", "a", "b"], ["b", "ys[0]", "c"], ["a", "ys"])
        )
        return {self.numbers.choice(self.blocks): args or None, "from": input_names}


FORMS = (
    Writer.make_layer,
    Writer.make_conv,
    Writer.make_let,
    Writer.make_conv,
    Writer.make_loop,
    Writer.make_loop,
    Writer.make_when,
    Writer.make_when,
    Writer.make_seq,
    Writer.make_side,
    Writer.make_concat,
    Writer.make_concat,
    Writer.make_call,
)
LIST = {"collect": "ys", "body": [{"conv": {"filters": "(i) % 7 + 1", "kernel": 1}}]}
START = [
    {"relu": None, "as": "a"},
    {"tanh": None, "as": "b"},
    {"silu": None, "as": "c"},
    {"let": {"n": 1, "m": 2, "k": 3}},
    {"repeat": {"times": 2, **LIST}},
    {"repeat": {"times": 3, **LIST, "collect": "zs"}},
]


def _make_spec(numbers: Random) -> dict[str, Any]:
    blocks: dict[str, Any] = {}
    for name in ("first_block", "second_block")[: numbers.randint(0, 2)]:
        body = [*START[4:], *Writer(numbers, tuple(blocks)).make_steps(DEEP - 2)]
        params = {"n": 1, "m": 4, "k": 2}
        blocks[name] = {"inputs": list(VALUE_NAMES), "params": params, "body": body}
    graph = [*START, *Writer(numbers, tuple(blocks)).make_steps()]
    return {
        "tcc": 1,
        "name": "program",
        "input": {"image": {"shape": [CHANNELS, 2, 2]}},
        **({"blocks": blocks} if blocks else {}),
        "graph": graph,
        "output": {"y": {}, "z": {"from": "a"}},
    }


def _evaluate_spec(spec: Mapping[str, Any]) -> tuple[Node, Node] | None:
    """Return the two outputs, or None for an invalid program."""
    source = Node("image", (), CHANNELS)
    names = Scope({"image": source})
    try:
        output = Program(spec.get("blocks", {})).run_steps(spec["graph"], source, names)
    except InvalidProgramError:
        return None
    return output, names.nodes["a"]


def _check(spec: Mapping[str, Any], outcome: Outcome) -> str:
    expected = _evaluate_spec(spec)
    if (outcome.code == 2) != (expected is None):
        return (
            f"exit {outcome.code}, but the program is {'invalid' if expected is None else 'valid'}"
        )
    return _compare_graphs(expected, json.loads(outcome.out)) if expected else ""


def _compare_graphs(expected: tuple[Node, Node], document: Mapping[str, Any]) -> str:
    """Return how the compiler's graph differs from the expected one, ignoring names."""
    signs: dict[tuple[Any, ...], int] = {}

    def sign(op: str, channels: int, inputs: tuple[int, ...]) -> int:
        return signs.setdefault((op, channels, inputs), len(signs))

    node_signs = {"image": sign("image", CHANNELS, ())}
    for node in document["nodes"]:
        inputs = tuple(node_signs[name] for name in node["inputs"])
        node_signs[node["name"]] = sign(node["op"], node["shape"][0], inputs)
    output_signs = [node_signs[output["value"]] for output in document["outputs"]]
    expected_signs: dict[int, int] = {}
    for node in _sort_nodes(expected):
        inputs = tuple(expected_signs[id(operand)] for operand in node.inputs)
        expected_signs[id(node)] = sign(node.op, node.channels, inputs)
    if output_signs != [expected_signs[id(node)] for node in expected]:
        return "the compiler's graph differs"
    count = len(list_reachable(expected)) - 1
    return "" if len(document["nodes"]) == count else f"expected {count} nodes"


def _sort_nodes(output_nodes: tuple[Node, ...]) -> list[Node]:
    """Return some nodes and those that they depend on, each after its inputs."""
    visited: dict[int, Node] = {}
    pending = list(output_nodes)
    while pending:
        node = pending[-1]
        missing = [operand for operand in node.inputs if id(operand) not in visited]
        if not missing:
            visited.setdefault(id(node), pending.pop())
        pending += missing
    return list(visited.values())


def _make_case(numbers: Random) -> Case:
    spec = _make_spec(numbers)

    def check(outcome: Outcome, _: Path) -> str:
        return _check(spec, outcome)

    text = json.dumps(spec, indent=1)
    return Case(("show", "spec.json", "--json"), {"spec.json": text.encode()}, check=check)


def _prepare() -> None:
    pass


PROGRAMS = Front("programs", 1000, _make_case, _prepare)
