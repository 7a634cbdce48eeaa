"""The supported chips, the AXERA toolchain of each, and the precisions of each toolchain."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tcc.compiler.ir.precision import Arithmetic, Precision


class Toolchain(Enum):
    """The vendor compiler that turns an ONNX model into a chip's file."""

    PULSAR = "Pulsar"
    """`pulsar build`, for the first chips: compiles a float model to a `.joint` file."""
    PULSAR2 = "Pulsar2"
    """`pulsar2 build`: compiles a float or QDQ model to an `.axmodel` file."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A target, with its names and file versions in the toolchain."""

    target: str
    title: str
    hardware: str
    """The value of `--target_hardware`."""
    toolchain: Toolchain
    opset: int = 13
    """The opset of the operator lists. Files with it have IR version 7, as in Pulsar's logs.
    Pulsar2 reads opset 11 and later."""


AX620 = Chip("ax620", "AXERA AX620A NPU, compiled by Pulsar", "AX620", Toolchain.PULSAR)
AX620E = Chip(
    "ax620e",
    "AXERA AX620E (AX630C, AX620Q) NPU, compiled by Pulsar2",
    "AX620E",
    Toolchain.PULSAR2,
)
AX650 = Chip("ax650", "AXERA AX650 NPU, compiled by Pulsar2", "AX650", Toolchain.PULSAR2)
CHIPS: Sequence[Chip] = (AX620, AX620E, AX650)
"""Every supported chip."""


def get_chip(target: str) -> Chip:
    """Return the chip of a target."""
    return next(candidate for candidate in CHIPS if candidate.target == target)


VENDOR_INT8 = Precision(
    "int8", "8-bit integers; the vendor toolchain sets the scales", Arithmetic.VENDOR
)
ROUNDED_INT8 = Precision(
    "int8-rounded",
    "experimental: as int8, but the weights are first rounded to 8 bits per filter",
    Arithmetic.VENDOR,
)
QDQ_INT8 = Precision(
    "int8",
    "8-bit integers; the vendor toolchain keeps the int8 model's scales",
    Arithmetic.SIMULATED,
)
PRECISIONS = {Toolchain.PULSAR: (VENDOR_INT8, ROUNDED_INT8), Toolchain.PULSAR2: (QDQ_INT8,)}
"""The first precision is the default. No toolchain builds floats."""
