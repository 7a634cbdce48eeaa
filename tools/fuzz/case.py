"""Define the cases of the fuzzer: files, a command, and its allowed outcomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

EXPECTED = (0, 2, 3, 4)
"""Allowed exit codes: success, wrong input, a missing tool, below the accuracy floor."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its exit code (negative: by that signal), streams and resource use.

    `seconds` is the CPU time of the command and its children, `wall` the elapsed time. `peak` is
    the largest resident memory in bytes, less that of the fuzzer itself.
    """

    code: int
    out: str
    err: str
    seconds: float
    wall: float
    peak: int


@dataclass(frozen=True, slots=True)
class Case:
    """Files by path in a new folder, the arguments of a `tcc` command, and further conditions.

    `check` gets the outcome and the folder, and returns what is wrong or an empty string. A front
    uses it to check the result of an accepted input. `meanwhile` is called with the command's
    process identifier while it runs. `expected` are the allowed exit codes.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None
    check: Callable[[Outcome, Path], str] | None = None
    meanwhile: Callable[[int, Path], None] | None = None
    expected: tuple[int, ...] = EXPECTED


@dataclass(frozen=True, slots=True)
class Front:
    """An interface to fuzz: `make` generates a case from random numbers, reproducibly.

    `warm` imports the modules of the front's commands once, before processes fork. `count` is the
    number of cases in a full run.
    """

    name: str
    count: int
    make: Callable[[Random], Case]
    warm: Callable[[], None] = lambda: None
