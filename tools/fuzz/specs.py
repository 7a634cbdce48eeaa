"""Specs that were damaged: lines dropped, doubled, moved, cut and filled with what does not fit."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from case import Case, Front

from tcc.compiler.known import specs

PIECES = (
    *"[]{}:,-'\"#&*!|>%@ \t\0é",
    *("-1", "0", "1e9", "1e308", "null", "[]", "{}", "true", "9" * 20, ".nan", ".inf"),
    *("conv", "relu", "repeat", "body", "as: x", "from: x", "C", "layers", "- []", "each: {}"),
)


def _drop(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at] + lines[at + 1 :]


def _double(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at], *lines[at:]]


def _indent(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], "  " + lines[at], *lines[at + 1 :]]


def _cut(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at]


def _insert(lines: list[str], at: int, piece: str) -> list[str]:
    middle = len(lines[at]) // 2
    return [*lines[:at], lines[at][:middle] + piece + lines[at][middle:], *lines[at + 1 :]]


def _replace(lines: list[str], at: int, piece: str) -> list[str]:
    head, colon, _ = lines[at].rpartition(":")
    return [*lines[:at], f"{head}{colon} {piece}", *lines[at + 1 :]]


CHANGES: tuple[Callable[[list[str], int, str], list[str]], ...] = (
    _drop, _double, _indent, _cut, _insert, _replace,
)  # fmt: skip


def _damaged(numbers: Random) -> Case:
    path = numbers.choice(sorted(specs().values()))
    lines = Path(path).read_text().split("\n")
    for _ in range(numbers.randint(1, 4)):
        change, piece = numbers.choice(CHANGES), numbers.choice(PIECES)
        lines = change(lines, numbers.randrange(len(lines)), piece) or [""]
    return Case(("check", "spec.yaml"), {"spec.yaml": "\n".join(lines).encode()})


def _warm() -> None:
    import tcc.compiler.cli
    import tcc.compiler.cost
    import tcc.compiler.frontend.facts  # noqa: F401


SPECS = Front("specs", 5000, _damaged, _warm)
