"""The chips, each a record, and which of AXERA's two toolchains compiles for it, at what."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tcc.compiler.ir.precision import Arithmetic, Precision


class Toolchain(Enum):
    """What makes a chip's file of an ONNX model."""

    PULSAR = "Pulsar"
    """`pulsar build`, of the first chips: makes a `.joint` of a float model."""
    PULSAR2 = "Pulsar2"
    """`pulsar2 build`: makes an `.axmodel`, of a float model or one with quantise operators."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A target, and what its toolchain calls it and reads."""

    target: str
    title: str
    hardware: str
    """The word after `--target_hardware`."""
    toolchain: Toolchain
    opset: int = 13
    """The one that the operator lists name, and with which IR version 7 is written, which
    Pulsar's logs show. Pulsar2 reads 11 and later."""


AX620 = Chip("ax620", "AXERA AX620A, an NPU, by Pulsar", "AX620", Toolchain.PULSAR)
AX620E = Chip(
    "ax620e", "AXERA AX620E (AX630C, AX620Q), an NPU, by Pulsar2", "AX620E", Toolchain.PULSAR2
)
AX650 = Chip("ax650", "AXERA AX650, an NPU, by Pulsar2", "AX650", Toolchain.PULSAR2)
CHIPS: Sequence[Chip] = (AX620, AX620E, AX650)
"""Every chip that is built for."""


def get_chip(target: str) -> Chip:
    """Return the chip of a target's name."""
    return next(candidate for candidate in CHIPS if candidate.target == target)


VENDOR_INT8 = Precision("int8", "8-bit integers of the NPU tool's own choosing", Arithmetic.VENDOR)
ROUNDED_INT8 = Precision(
    "int8-rounded",
    "experimental: the same, of weights that are rounded to 8 bits a filter beforehand",
    Arithmetic.VENDOR,
)
QDQ_INT8 = Precision(
    "int8", "the integer program's scales, which the NPU tool keeps", Arithmetic.SIMULATED
)
PRECISIONS = {Toolchain.PULSAR: (VENDOR_INT8, ROUNDED_INT8), Toolchain.PULSAR2: (QDQ_INT8,)}
"""The first is what is built unless another is asked for: none has floats."""
