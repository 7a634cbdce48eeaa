"""Modelled cycles of an in-order Cortex-A7: each block of instructions by itself, no misses.

There is no board here, and no simulator of this processor that is free. Latencies are those of
GCC's `cortex-a7.md`; issue cycles are those of a 64-bit data path for integers and a 32-bit one for
floats. docs/measuring.md says how far published times of a real Cortex-A7 are from this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tcc.backends.arm.measure.instructions import DecodedInstruction, InstructionKind, decoded

ACCUMULATOR = 4
"""Cycles from one multiply-accumulate to the next of the same accumulator."""
FACTOR, SCATTER = 1.49, 0.11
"""How much longer published times of a Cortex-A7 are, and how far they scatter about that."""
_BY_16, _BY_8, _BY_4 = 16, 8, 4


@dataclass(frozen=True, slots=True)
class InstructionTiming:
    """Cycles until the next instruction starts, by vector width, and until the result is there."""

    issue: Mapping[int, int]
    latency: int


def _any(issue: int, latency: int) -> InstructionTiming:
    return InstructionTiming({_BY_16: issue, _BY_8: issue, _BY_4: issue}, latency)


TIMINGS: Mapping[InstructionKind, InstructionTiming] = {
    InstructionKind.ALU: _any(1, 1),
    InstructionKind.MULTIPLY: _any(1, 3),
    InstructionKind.DIVIDE: _any(10, 12),
    InstructionKind.MEMORY: _any(1, 3),
    InstructionKind.MANY_MEMORY: _any(1, 3),
    InstructionKind.MOVE: _any(2, 3),
    # A quad of floats takes four issues on the A7's 32-bit float path, a double two.
    InstructionKind.FLOAT: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 4),
    InstructionKind.FLOAT_ACCUMULATE: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 8),
    InstructionKind.FLOAT_DIVIDE: _any(15, 18),
    InstructionKind.INTEGER: InstructionTiming({_BY_16: 2, _BY_8: 1, _BY_4: 1}, 3),
    InstructionKind.INTEGER_MULTIPLY: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 3),
    InstructionKind.LONG_MULTIPLY: _any(2, 4),
    InstructionKind.VECTOR_MEMORY: _any(1, 3),
}
"""Issue cycles are for each of an instruction's units."""


@lru_cache(maxsize=1 << 16)
def of_block(code: bytes, count: int) -> float:
    """Return the cycles of one run of a block of `count` instructions; one for each unknown."""
    known = decoded(code, count)
    return max(1.0, scheduled(known) + max(0, count - len(known)))


def scheduled(instructions: Sequence[DecodedInstruction]) -> float:
    """Return the cycles of instructions in order, each of which waits for what it reads.

    A simple operation may start with the one before it, if that did not so itself.
    """
    ready: dict[str, float] = {}
    summed: dict[str, float] = {}
    now, alone = 0.0, False
    for each in instructions:
        timing = TIMINGS[each.kind]
        issue = timing.issue[each.width] * each.units
        adds = each.kind in {InstructionKind.FLOAT_ACCUMULATE, InstructionKind.LONG_MULTIPLY}
        start = now
        # A multiply-accumulate hands its sum to the next one early: a chain of them waits for half
        # of a result's latency.
        for register in each.reads:
            known = summed if adds and register in each.writes else ready
            start = max(start, known.get(register, 0.0))
        # Dual issue is partial on this core: an ALU operation may go with the instruction before
        # it.
        if each.kind is InstructionKind.ALU and alone and start <= now:
            start, step, alone = now - 1, 1.0, False
        else:
            step, alone = issue, True
        for register in each.writes:
            ready[register] = start + timing.latency + issue - 1
            summed[register] = start + ACCUMULATOR if adds else ready[register]
        now = max(now, start + step)
    return now
