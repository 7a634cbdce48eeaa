"""The cycle model on basic blocks small enough to count by hand."""

import sys

import pytest

from tcc.backends.arm.measure import instructions
from tcc.backends.arm.measure.instructions import InstructionKind, decode
from tcc.compiler.support.external_tools import MissingTool

ADD, MOV, LOAD = 0xE2800001, 0xE1A01002, 0xE5912000  # add r0,r0,#1; mov r1,r2; ldr r2,[r1]
MLA_Q0, MLA_Q3 = 0xF2020D54, 0xF2026D54  # vmla.f32 q0,q1,q2 and q3,q1,q2
MLA_D0 = 0xF2010D12  # vmla.f32 d0,d1,d2
MULL, MLAL = 0xF2C10C02, 0xF2810802  # vmull.s8 q8,d1,d2 with other registers; vmlal.s8 q0,d1,d2
LOAD_4 = 0xF420028D  # vld1.32 {d0-d3},[r0]!
TO_VECTOR = 0xEE000B10  # vmov.32 d0[0],r0

BLOCKS = {
    "two instructions are issued per cycle": ([ADD, MOV], 1),
    "pairs, not triples": ([ADD, MOV, 0xE1A03004], 2),
    "waits for the loaded value": ([LOAD, 0xE1A03002], 4),
    "a quadword of floats takes the 32-bit data path four times": ([MLA_Q0], 4),
    "sums follow each other without a gap": ([MLA_Q0, MLA_Q0], 8),
    "independent sums too": ([MLA_Q0, MLA_Q3], 8),
    "half a vector takes half the time, but waits for the sum": ([MLA_D0, MLA_D0], 6),
    "one register per cycle": ([LOAD_4], 4),
    "loaded values are available after the last register": ([LOAD_4, MLA_Q0], 10),
    "from core to vector registers": ([TO_VECTOR], 2),
}


def encode_block(codes: list[int]) -> bytes:
    return b"".join(code.to_bytes(4, "little") for code in codes)


@pytest.mark.parametrize(("instruction_words", "expected"), BLOCKS.values(), ids=BLOCKS)
def test_cycles_of_basic_blocks(instruction_words: list[int], expected: float) -> None:
    assert (
        instructions.estimate_cycles(encode_block(instruction_words), len(instruction_words))
        == expected
    )


def test_thumb_and_arm_code_are_distinguished() -> None:
    assert [instruction.kind for instruction in decode(bytes.fromhex("0130") * 3, 3)] == [
        InstructionKind.ALU
    ] * 3
    assert instructions.estimate_cycles(bytes.fromhex("0130"), 1) == 1


def test_unknown_instructions_take_one_cycle_each() -> None:
    assert instructions.estimate_cycles(b"\xff" * 8, 2) == 2


def test_a_missing_disassembler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    instructions.create_disassemblers.cache_clear()
    with pytest.raises(MissingTool, match=r"capstone is needed to model cycles.*\[arm\]"):
        instructions.estimate_cycles(bytes.fromhex("deadbeef"), 1)
