"""The processors that this backend builds for, and at what precisions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import CoreCosts
from tcc.compiler.ir.precision import FP32, Arithmetic, Precision
from tcc.compiler.ir.target import Target
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError

FP32_DIRECT = Precision("fp32-direct", "fp32 without Winograd's method, which rounds in more steps")
INT8 = Precision("int8", "the integer program, real numbers going out", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit levels at its ends, whose real numbers come last",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_COUNTED = Precision(
    "int8-counted",
    "int8, counting how many values of each layer are saturated",
    Arithmetic.INTEGER,
)
PRECISIONS = (FP32, INT8, INT8_I8, INT8_COUNTED)
WITH_DIRECT = (FP32, FP32_DIRECT, *PRECISIONS[1:])
"""Those of a processor that has kernels by Winograd's method."""


GLIBC = "2.28"
"""Oldest C library that the shared library runs with: Debian 10, RHEL 8, Ubuntu 18.10."""
PROGRAM_SUFFIX = "-run"
"""What the runner program's name ends in."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One processor, in the words of TVM, zig and qemu; `core` is its name in tables of kernels."""

    target: Target
    llvm: Mapping[str, object] = field(compare=False, hash=False)
    arch: str
    abi: str
    cpu: str
    qemu: str
    qemu_cpu: str
    core: str
    has_cycle_model: bool = False
    """Whether there is a model of its cycles."""
    has_isa_variants: bool = False
    """Whether programs choose, when they are loaded, among forms of micro-kernels."""
    isa: str | None = None
    """The instruction set that programs are told to use where they choose one."""
    direct: bool = False
    """Whether floats are summed product by product, and never by Winograd's method."""
    signer: bytes | None = None
    """The public key whose signature programs ask for when they start, if they ask for one."""
    cost_override: CoreCosts | None = field(default=None, compare=False, hash=False)
    """Costs by which kernels are chosen in place of what is known of the core."""

    @property
    def costs(self) -> CoreCosts:
        """What kernels cost on its core."""
        return self.cost_override or core_costs.get_core_costs(self.core, self.target.name)

    @property
    def tile(self) -> Pair:
        """The register tile of plain loops: output channels by pixels.

        A vector holds four floats everywhere. A tile of c by p keeps c * p / 4 sums in vector
        registers, besides p / 4 vectors of pixels and a weight in every lane.
        """
        return self.costs.tile

    def get_zig_target(self, libc: str) -> tuple[str, ...]:
        """Return zig's option for this architecture and `gnu` or `musl`."""
        match libc:
            case "gnu":
                version = f".{GLIBC}"
            case "musl":
                version = ""
            case _:
                raise UnhandledError("C library", libc)
        return ("-target", f"{self.arch}-linux-{libc}{self.abi}{version}")

    @property
    def native(self) -> bool:
        """Whether this machine runs such programs itself."""
        return platform.system() == "Linux" and platform.machine() in _NATIVE_MACHINES[self.arch]


_NATIVE_MACHINES = {
    "arm": {"armv7l", "armv8l"},
    "aarch64": {"aarch64"},
    "x86_64": {"x86_64"},
}
"""What `uname -m` says of the machines that run each architecture."""


def _create_target(name: str, title: str, precisions: tuple[Precision, ...] = PRECISIONS) -> Target:
    return Target(name, title, precisions, calibrates=True, runs=True)


def _create_cortex_a7() -> Machine:
    return Machine(
        target=_create_target(
            "arm-a7", "Linux on ARM Cortex-A7 (32 bits, NEON, VFPv4)", WITH_DIRECT
        ),
        llvm={
            "mtriple": "armv7a-linux-gnueabihf",
            "mcpu": "cortex-a7",
            # without slowfpvfmx off, LLVM splits every fused multiply-add in two; vmlx-hazards
            # would keep them from following each other, which other cores stall on
            "mattr": ["+neon", "+vfp4", "-slowfpvfmx", "-vmlx-hazards"],
            "mfloat-abi": "hard",
        },
        arch="arm",
        abi="eabihf",
        cpu="cortex_a7",
        qemu="qemu-arm",
        qemu_cpu="cortex-a7",
        core="cortex_a7",
        has_cycle_model=True,
    )


def _create_aarch64(name: str, title: str, cpu: str, core: str | None = None) -> Machine:
    return Machine(
        target=_create_target(name, title, WITH_DIRECT),
        llvm={"mtriple": "aarch64-linux-gnu", "mcpu": cpu, "mattr": ["+neon"]},
        arch="aarch64",
        abi="",
        cpu=cpu.replace("-", "_"),
        qemu="qemu-aarch64",
        qemu_cpu=cpu,
        core=core or cpu.replace("-", "_"),
    )


def _create_x86_64(name: str, title: str) -> Machine:
    return Machine(
        target=_create_target(name, title, WITH_DIRECT),
        llvm={"mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v2"},
        arch="x86_64",
        abi="",
        cpu="x86_64_v2",
        qemu="qemu-x86_64",
        qemu_cpu="max",
        core="x86_64_v2",
        has_isa_variants=True,
    )


def _create_host() -> tuple[Machine, ...]:
    """Return a baseline of this machine's family, so that its bytes are those of any other.

    There is none for other families than these.
    """
    match platform.machine():
        case "aarch64" | "arm64":
            # Any of them has what a Cortex-A53 has.
            return (
                _create_aarch64("host", "this machine (any 64-bit ARM)", "generic", "cortex_a53"),
            )
        case "x86_64" | "AMD64":
            return (
                _create_x86_64(
                    "host",
                    "this machine (any x86-64 since 2009, x86-64-v2 to v4)",
                ),
            )
        case _:
            return ()


MACHINES: tuple[Machine, ...] = (
    _create_cortex_a7(),
    _create_aarch64("arm-a53", "Linux on ARM Cortex-A53 (64 bits)", "cortex-a53"),
    _create_aarch64("arm-a72", "Linux on ARM Cortex-A72 (64 bits)", "cortex-a72"),
    _create_aarch64("arm-a76", "Linux on ARM Cortex-A76 (64 bits)", "cortex-a76"),
    *_create_host(),
)


def get_machine(target: Target) -> Machine:
    """Return the machine of one of this backend's targets."""
    return next(m for m in MACHINES if m.target.name == target.name)
