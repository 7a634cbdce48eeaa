"""What the counting plugin wrote: how often each block ran between a program's system calls."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

MOST = 1 << 28
"""Bytes that the plugin may write: more marks than any network has layers."""


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Instructions that run one after another: how many, and their bytes."""

    instructions: int
    code: bytes


@dataclass(frozen=True, slots=True)
class CountedInterval:
    """How often each block ran until the program asked for the time, opened a file or ended."""

    until: str
    runs: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ProgramCounts:
    """Everything that one process ran, and the most memory in bytes that it asked for."""

    intervals: tuple[CountedInterval, ...]
    blocks: Mapping[int, CodeBlock]
    heap: int

    def together(self, intervals: Iterable[CountedInterval]) -> Mapping[int, int]:
        """Return how often each block ran in several intervals."""
        found: dict[int, int] = {}
        for interval in intervals:
            for index, count in interval.runs.items():
                found[index] = found.get(index, 0) + count
        return found

    def instructions(self, runs: Mapping[int, int]) -> int:
        """Return how many instructions that is."""
        return sum(count * self.blocks[index].instructions for index, count in runs.items())


def read(lines: Iterable[str]) -> ProgramCounts:
    """Return what the plugin's file says.

    Raises:
        ValueError: It is cut off.
    """
    intervals: list[CountedInterval] = []
    blocks: dict[int, CodeBlock] = {}
    heap, runs = None, dict[int, int]()
    for line in lines:
        match line.split():
            case ["mark", what]:
                runs = {}
                intervals.append(CountedInterval(what, runs))
            # Blocks are told once, at the end; intervals refer to them by number.
            case ["block", index, count, code]:
                blocks[int(index)] = CodeBlock(int(count), bytes.fromhex(code))
            case ["heap", count]:
                heap = int(count)
            case [index, count]:
                runs[int(index)] = int(count)
            case _:
                raise ValueError("a line is cut off")
    # Told behind the last mark: without it the program, or qemu, was ended before its end.
    if heap is None or not blocks or any(index not in blocks for index in _all(intervals)):
        raise ValueError("its end is missing")
    return ProgramCounts(tuple(intervals), blocks, heap)


def _all(intervals: Iterable[CountedInterval]) -> Iterator[int]:
    return (index for interval in intervals for index in interval.runs)
