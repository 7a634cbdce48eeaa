"""Cycle model of an in-order Cortex-A7: the kind of each instruction, and its registers.

Each block of instructions is modelled alone, without cache misses. There was no board to measure,
and there is no free simulator of this processor. Latencies come from GCC's `cortex-a7.md`. Issue
cycles assume a 64-bit data path for integers and a 32-bit one for floats. docs/measuring.md
compares the model with published times of a real Cortex-A7.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from tcc.compiler.support.external_tools import MissingTool, Tool


class InstructionKind(Enum):
    """The kind of an instruction, by the unit that executes it."""

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
    """One instruction: `width` is the size of its vector registers, 16, 8 or 4 bytes.

    `units` is the number of registers that it moves, for vectors in doublewords. `reads` and
    `writes` have core registers and the doublewords of vector registers.
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
"""Instruction kinds by prefix of the mnemonic; the first match counts."""
_CORE_REGISTER = re.compile(r"\b(r\d+|lr|ip|sp|fp|sl|sb)\b")
_REGISTER_RANGE = re.compile(r"[dsq](\d+)(?:\[.*\])?\s*-\s*[dsq](\d+)")
_DOUBLEWORDS: Mapping[str, float] = {"q": 2, "s": 0.5}


@lru_cache(maxsize=1 << 16)
def decode(code: bytes, count: int) -> tuple[DecodedInstruction, ...]:
    """Return the instructions of a block, without unknown ones.

    Args:
        code: Its bytes, ARM or Thumb, which is detected.
        count: The number of its instructions.

    Raises:
        MissingTool: The disassembler is not installed.
    """
    arm, thumb = create_disassemblers()
    disassembler = thumb if _is_thumb(code, count) else arm
    return tuple(_decode_instruction(insn) for insn in disassembler.disasm(code, 0x1000))


@lru_cache(maxsize=1)
def create_disassemblers() -> tuple[Any, Any]:
    """Return the disassemblers for ARM and for Thumb."""
    try:
        from capstone import CS_ARCH_ARM, CS_MODE_ARM, CS_MODE_THUMB, Cs
    except ImportError:
        raise MissingTool(Tool("capstone", "model cycles", None, builds=False)) from None

    arm_and_thumb = Cs(CS_ARCH_ARM, CS_MODE_ARM), Cs(CS_ARCH_ARM, CS_MODE_THUMB)
    for disassembler in arm_and_thumb:
        disassembler.detail = True
    return arm_and_thumb


def _is_thumb(code: bytes, count: int) -> bool:
    """Whether a block is Thumb: it has short instructions, or is valid only as Thumb.

    If it is valid as both, the leading bits decide: a 32-bit Thumb instruction begins with 0xE8 or
    more, an ARM instruction mostly with the conditions "always" or, for NEON, "never".
    """
    if len(code) != 4 * count:
        return True
    arm, thumb = (
        sum(1 for _ in disassembler.disasm_lite(code, 0x1000)) == count
        for disassembler in create_disassemblers()
    )
    if arm != thumb:
        return thumb
    as_thumb = sum(code[i + 1] >= 0xE8 for i in range(0, len(code), 4))
    return as_thumb > sum(code[i + 3] >> 4 in {14, 15} for i in range(0, len(code), 4))


def _decode_instruction(insn: Any) -> DecodedInstruction:
    mnemonic, operands = insn.mnemonic, insn.op_str
    kind = _classify(mnemonic, operands)
    reads, writes = _get_registers(insn)
    return DecodedInstruction(
        kind, _get_width(operands), _count_units(kind, mnemonic, operands), reads, writes
    )


def _classify(mnemonic: str, operands: str) -> InstructionKind:
    vector = mnemonic.startswith("v")
    for beginnings, kind in _VECTOR if vector else _CORE:
        if mnemonic.startswith(beginnings):
            return kind
    if not vector:
        return InstructionKind.ALU
    moves = mnemonic.startswith(("vmov", "vdup")) and _CORE_REGISTER.search(operands)
    return InstructionKind.MOVE if moves else InstructionKind.INTEGER


def _get_width(operands: str) -> int:
    if re.search(r"\bq\d", operands):
        return 16
    return 8 if re.search(r"\bd\d", operands) else 4


def _count_units(kind: InstructionKind, mnemonic: str, operands: str) -> float:
    match kind:
        case InstructionKind.MANY_MEMORY:
            return max(1, operands.count(",") // 2 + 1)  # two registers per cycle
        case InstructionKind.VECTOR_MEMORY if not mnemonic.startswith(("vldr", "vstr")):
            register_list = re.search(r"\{([^}]*)\}", operands)
            return max(
                1,
                sum(
                    map(
                        _count_doublewords,
                        (register_list[1] if register_list else operands).split(","),
                    )
                ),
            )
        case InstructionKind.MOVE if mnemonic.startswith(("vmrs", "vmsr")):
            return 2
        case _:
            return 1


def _count_doublewords(operand: str) -> float:
    """Return the number of doublewords in a register or a register range."""
    operand = operand.strip()
    register_range = _REGISTER_RANGE.match(operand)
    count = int(register_range[2]) - int(register_range[1]) + 1 if register_range else 1
    return count * _DOUBLEWORDS.get(operand[:1], 1)


def _get_registers(insn: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from capstone import CsError

    try:
        reads, writes = insn.regs_access()
    except CsError:
        return (), ()
    return _list_register_names(insn, reads), _list_register_names(insn, writes)


def _list_register_names(insn: Any, registers: Any) -> tuple[str, ...]:
    """Return the names of registers, with vector registers as doublewords."""
    names: dict[str, None] = {}
    for number in registers:
        name = insn.reg_name(number) or ""
        kind, index = name[:1], name[1:]
        if kind == "q" and index.isdigit():
            names |= dict.fromkeys((f"d{2 * int(index)}", f"d{2 * int(index) + 1}"))
        elif kind == "s" and index.isdigit():
            names[f"d{int(index) // 2}"] = None
        elif name:
            names[name] = None
    return tuple(names)


ACCUMULATOR_CYCLES = 4
"""Cycles between two multiply-accumulates on the same accumulator."""
MEASURED_FACTOR, MEASURED_SCATTER = 1.49, 0.11
"""Ratio of published Cortex-A7 times to the model, and the scatter of that ratio."""
_BY_16, _BY_8, _BY_4 = 16, 8, 4


@dataclass(frozen=True, slots=True)
class InstructionTiming:
    """Cycles until the next instruction can start, by vector width, and until the result."""

    issue: Mapping[int, int]
    latency: int


def _create_timing(issue: int, latency: int) -> InstructionTiming:
    return InstructionTiming({_BY_16: issue, _BY_8: issue, _BY_4: issue}, latency)


TIMINGS: Mapping[InstructionKind, InstructionTiming] = {
    InstructionKind.ALU: _create_timing(1, 1),
    InstructionKind.MULTIPLY: _create_timing(1, 3),
    InstructionKind.DIVIDE: _create_timing(10, 12),
    InstructionKind.MEMORY: _create_timing(1, 3),
    InstructionKind.MANY_MEMORY: _create_timing(1, 3),
    InstructionKind.MOVE: _create_timing(2, 3),
    # Four floats need four issue cycles on the A7's 32-bit float path, two floats two.
    InstructionKind.FLOAT: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 4),
    InstructionKind.FLOAT_ACCUMULATE: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 8),
    InstructionKind.FLOAT_DIVIDE: _create_timing(15, 18),
    InstructionKind.INTEGER: InstructionTiming({_BY_16: 2, _BY_8: 1, _BY_4: 1}, 3),
    InstructionKind.INTEGER_MULTIPLY: InstructionTiming({_BY_16: 4, _BY_8: 2, _BY_4: 1}, 3),
    InstructionKind.LONG_MULTIPLY: _create_timing(2, 4),
    InstructionKind.VECTOR_MEMORY: _create_timing(1, 3),
}
"""Issue cycles are per unit of an instruction."""


@lru_cache(maxsize=1 << 16)
def estimate_cycles(code: bytes, count: int) -> float:
    """Return the cycles of one run of a block; unknown instructions count as one cycle."""
    instructions = decode(code, count)
    return max(1.0, simulate_cycles(instructions) + max(0, count - len(instructions)))


def simulate_cycles(instructions: Sequence[DecodedInstruction]) -> float:
    """Return the cycles of instructions in order; each waits for its operands.

    A simple operation can start together with the one before it, unless that one already did.
    """
    ready_at: dict[str, float] = {}
    sum_ready_at: dict[str, float] = {}
    now, is_single_issue = 0.0, False
    for instruction in instructions:
        timing = TIMINGS[instruction.kind]
        issue = timing.issue[instruction.width] * instruction.units
        is_accumulate = instruction.kind in {
            InstructionKind.FLOAT_ACCUMULATE,
            InstructionKind.LONG_MULTIPLY,
        }
        start = now
        # A multiply-accumulate forwards its sum early: a chain of them waits for half of the
        # latency.
        for register in instruction.reads:
            operand_ready_at = (
                sum_ready_at if is_accumulate and register in instruction.writes else ready_at
            )
            start = max(start, operand_ready_at.get(register, 0.0))
        # This core has partial dual issue: an ALU operation can pair with the instruction before.
        if instruction.kind is InstructionKind.ALU and is_single_issue and start <= now:
            start, step, is_single_issue = now - 1, 1.0, False
        else:
            step, is_single_issue = issue, True
        for register in instruction.writes:
            ready_at[register] = start + timing.latency + issue - 1
            sum_ready_at[register] = (
                start + ACCUMULATOR_CYCLES if is_accumulate else ready_at[register]
            )
        now = max(now, start + step)
    return now
