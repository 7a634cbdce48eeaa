"""What a front of the fuzzer makes: files and command lines, and how each may end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

EXPECTED = (0, 2, 3, 4)
"""Exit codes that are an answer: done, the user's mistake, a missing tool, below the floor."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its code (negative: by that signal), streams, and what it took.

    `seconds` is the time of processor that it and its children took, `wall` that of the clock;
    `peak` is the largest resident memory, in bytes, beyond what the fuzzer itself holds.
    """

    code: int
    out: str
    err: str
    seconds: float
    wall: float
    peak: int


@dataclass(frozen=True, slots=True)
class Case:
    """Files by path inside a new folder, the words of a `tcc` command, and what else must hold.

    `check` gets the outcome and the folder, and returns what is wrong or an empty string: it is
    how a front says that an accepted input must also be right. `meanwhile` is called with the
    number of the command's process while it runs; `expected` are the exit codes that are an answer.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    check: Callable[[Outcome, Path], str] | None = None
    meanwhile: Callable[[int, Path], None] | None = None
    expected: tuple[int, ...] = EXPECTED


@dataclass(frozen=True, slots=True)
class Front:
    """A way in: `make` draws a case from random numbers, the same case from the same numbers.

    `warm` imports what the front's commands need, once, before processes fork; `count` is how many
    cases a full run tries.
    """

    name: str
    count: int
    make: Callable[[Random], Case]
    warm: Callable[[], None] = lambda: None
