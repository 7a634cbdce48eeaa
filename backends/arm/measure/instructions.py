"""Modelled cycles of an in-order Cortex-A7: what each instruction does, with which registers.

Each block of instructions is modelled by itself, without misses. There is no board here, and no
simulator of this processor that is free. Latencies are those of GCC's `cortex-a7.md`; issue cycles
are those of a 64-bit data path for integers and a 32-bit one for floats. docs/measuring.md says how
far published times of a real Cortex-A7 are from this.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from tcc.compiler.support.external_tools import MissingTool, Tool


class InstructionKind(Enum):
    """What an instruction keeps busy."""

    ALU = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    MEMORY = auto()
    MANY_MEMORY = auto()
    MOVE = auto()  # between core and vector registers
    FLOAT = auto()
    FLOAT_ACCUMULATE = auto()
    FLOAT_DIVIDE = auto()
    INTEGER = auto()
    INTEGER_MULTIPLY = auto()
    LONG_MULTIPLY = auto()
    VECTOR_MEMORY = auto()


@dataclass(frozen=True, slots=True)
class DecodedInstruction:
    """One instruction: `width` is that of its vector registers, 16, 8 or 4 bytes.

    `units` is how many registers it moves, doublewords of vectors; registers are core registers and
    the doublewords of vector registers.
    """

    kind: InstructionKind
    width: int
    units: float
    reads: tuple[str, ...]
    writes: tuple[str, ...]


_FLOAT_ACCUMULATE = (
    "vfma.f", "vfms.f", "vmla.f", "vmls.f", "vfnma", "vfnms", "vnmla", "vnmls",
)  # fmt: skip
_FLOAT = (
    "vadd.f", "vsub.f", "vmul.f", "vmax.f", "vmin.f", "vcvt", "vneg.f", "vabs.f", "vpadd.f",
    "vpmax.f", "vpmin.f", "vcge.f", "vcgt.f", "vceq.f", "vcmp", "vabd.f", "vacge", "vacgt",
    "vrecp", "vrsqrt", "vnmul", "vrint", "vclt.f", "vcle.f",
)  # fmt: skip
_VECTOR: tuple[tuple[tuple[str, ...], InstructionKind], ...] = (
    (_FLOAT_ACCUMULATE, InstructionKind.FLOAT_ACCUMULATE),
    (_FLOAT, InstructionKind.FLOAT),
    (("vdiv", "vsqrt"), InstructionKind.FLOAT_DIVIDE),
    (("vmull", "vmlal", "vmlsl", "vqdml", "vqdmull"), InstructionKind.LONG_MULTIPLY),
    (("vmla", "vmls", "vmul", "vqdmulh", "vqrdmulh"), InstructionKind.INTEGER_MULTIPLY),
    (("vld", "vst", "vpush", "vpop"), InstructionKind.VECTOR_MEMORY),
    (("vmrs", "vmsr"), InstructionKind.MOVE),
)
_CORE: tuple[tuple[tuple[str, ...], InstructionKind], ...] = (
    (("ldm", "stm", "push", "pop"), InstructionKind.MANY_MEMORY),
    (("ldr", "str"), InstructionKind.MEMORY),
    (("mul", "mla", "smul", "umul", "smla", "umla", "mls", "smm"), InstructionKind.MULTIPLY),
    (("sdiv", "udiv"), InstructionKind.DIVIDE),
)
"""Kinds by how mnemonics begin; the first that fits is taken."""
_CORE_REGISTER = re.compile(r"\b(r\d+|lr|ip|sp|fp|sl|sb)\b")
_LISTED = re.compile(r"[dsq](\d+)(?:\[.*\])?\s*-\s*[dsq](\d+)")
_DOUBLEWORDS: Mapping[str, float] = {"q": 2, "s": 0.5}


@lru_cache(maxsize=1 << 16)
def decoded(code: bytes, count: int) -> tuple[DecodedInstruction, ...]:
    """Return the instructions of a block; those that are not known are left out.

    Args:
        code: Its bytes, ARM or Thumb; which of them is found out.
        count: How many instructions it has.

    Raises:
        MissingTool: What disassembles is not here.
    """
    arm, thumb = disassemblers()
    chosen = thumb if _is_thumb(code, count) else arm
    return tuple(_instruction(found) for found in chosen.disasm(code, 0x1000))


@lru_cache(maxsize=1)
def disassemblers() -> tuple[Any, Any]:
    """Return what reads ARM instructions, and what reads Thumb."""
    try:
        from capstone import CS_ARCH_ARM, CS_MODE_ARM, CS_MODE_THUMB, Cs
    except ImportError:
        raise MissingTool(Tool("capstone", "model cycles", None, builds=False)) from None

    found = Cs(CS_ARCH_ARM, CS_MODE_ARM), Cs(CS_ARCH_ARM, CS_MODE_THUMB)
    for each in found:
        each.detail = True
    return found


def _is_thumb(code: bytes, count: int) -> bool:
    """Whether a block is Thumb: it has short instructions, or makes sense as Thumb alone.

    Where both make sense, a word of Thumb begins with 0xE8 or more, one of ARM mostly with the
    conditions "always" or, for NEON, "never".
    """
    if len(code) != 4 * count:
        return True
    arm, thumb = (
        sum(1 for _ in each.disasm_lite(code, 0x1000)) == count for each in disassemblers()
    )
    if arm != thumb:
        return thumb
    as_thumb = sum(code[i + 1] >= 0xE8 for i in range(0, len(code), 4))
    return as_thumb > sum(code[i + 3] >> 4 in {14, 15} for i in range(0, len(code), 4))


def _instruction(found: Any) -> DecodedInstruction:
    word, operands = found.mnemonic, found.op_str
    kind = _kind(word, operands)
    reads, writes = _registers(found)
    return DecodedInstruction(kind, _width(operands), _units(kind, word, operands), reads, writes)


def _kind(word: str, operands: str) -> InstructionKind:
    vector = word.startswith("v")
    for beginnings, kind in _VECTOR if vector else _CORE:
        if word.startswith(beginnings):
            return kind
    if not vector:
        return InstructionKind.ALU
    moves = word.startswith(("vmov", "vdup")) and _CORE_REGISTER.search(operands)
    return InstructionKind.MOVE if moves else InstructionKind.INTEGER


def _width(operands: str) -> int:
    if re.search(r"\bq\d", operands):
        return 16
    return 8 if re.search(r"\bd\d", operands) else 4


def _units(kind: InstructionKind, word: str, operands: str) -> float:
    match kind:
        case InstructionKind.MANY_MEMORY:
            return max(1, operands.count(",") // 2 + 1)  # two registers a cycle
        case InstructionKind.VECTOR_MEMORY if not word.startswith(("vldr", "vstr")):
            inner = re.search(r"\{([^}]*)\}", operands)
            return max(1, sum(map(_doublewords, (inner[1] if inner else operands).split(","))))
        case InstructionKind.MOVE if word.startswith(("vmrs", "vmsr")):
            return 2
        case _:
            return 1


def _doublewords(listed: str) -> float:
    """Return how many doublewords a register, or a range of them, is."""
    listed = listed.strip()
    span = _LISTED.match(listed)
    count = int(span[2]) - int(span[1]) + 1 if span else 1
    return count * _DOUBLEWORDS.get(listed[:1], 1)


def _registers(found: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from capstone import CsError

    try:
        reads, writes = found.regs_access()
    except CsError:
        return (), ()
    return _named(found, reads), _named(found, writes)


def _named(found: Any, registers: Any) -> tuple[str, ...]:
    """Return registers by name, vector registers as the doublewords that they are."""
    names: dict[str, None] = {}
    for number in registers:
        name = found.reg_name(number) or ""
        kind, index = name[:1], name[1:]
        if kind == "q" and index.isdigit():
            names |= dict.fromkeys((f"d{2 * int(index)}", f"d{2 * int(index) + 1}"))
        elif kind == "s" and index.isdigit():
            names[f"d{int(index) // 2}"] = None
        elif name:
            names[name] = None
    return tuple(names)


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
