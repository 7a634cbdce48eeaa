"""The supported processors, and their precisions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import CoreCosts
from tcc.compiler.ir.precision import FP32, Arithmetic, Precision
from tcc.compiler.ir.target import Target
from tcc.compiler.ir.types import Pair
from tcc.compiler.support.diagnostics import UnhandledError

FP32_DIRECT = Precision("fp32-direct", "fp32 without Winograd's method, which rounds more often")
INT8 = Precision("int8", "int8 model with float outputs", Arithmetic.INTEGER)
INT8_I8 = Precision(
    "int8-i8",
    "the same with 8-bit inputs and outputs; a last step dequantizes the outputs",
    Arithmetic.INTEGER,
    float_io=False,
)
INT8_COUNTED = Precision(
    "int8-counted",
    "int8 that counts the saturated values of each layer",
    Arithmetic.INTEGER,
)
PRECISIONS = (FP32, INT8, INT8_I8, INT8_COUNTED)
WITH_DIRECT = (FP32, FP32_DIRECT, *PRECISIONS[1:])
"""The precisions of processors with kernels for Winograd's method."""


GLIBC = "2.28"
"""The oldest glibc that the shared library works with: Debian 10, RHEL 8, Ubuntu 18.10."""
PROGRAM_SUFFIX = "-run"
"""The suffix of the runner program's name."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One processor, with its names in TVM, zig and qemu; `core` is its name in kernel tables."""

    target: Target
    llvm: Mapping[str, object] = field(compare=False, hash=False)
    arch: str
    abi: str
    cpu: str
    qemu: str
    qemu_cpu: str
    core: str
    has_cycle_model: bool = False
    """Whether there is a cycle model of this processor."""
    has_isa_variants: bool = False
    """Whether programs choose variants of micro-kernels when they are loaded."""
    isa: str | None = None
    """The instruction set that programs are asked to use, if they have a choice."""
    direct: bool = False
    """Whether floats are summed product by product, never with Winograd's method."""
    signer: bytes | None = None
    """The public key that programs check their signature with when they start, if they do."""
    cost_override: CoreCosts | None = field(default=None, compare=False, hash=False)
    """Kernel costs to use instead of the core's measured ones."""

    @property
    def costs(self) -> CoreCosts:
        """The costs of kernels on this processor's core."""
        return self.cost_override or core_costs.get_core_costs(self.core, self.target.name)

    @property
    def tile(self) -> Pair:
        """The register tile of plain loops: output channels by pixels.

        A vector has four floats everywhere. A tile of c by p needs c * p / 4 vector registers for
        sums, p / 4 for pixels, and a weight in every lane.
        """
        return self.costs.tile

    def get_zig_target(self, libc: str) -> tuple[str, ...]:
        """Return zig's target option for this architecture and the C library `gnu` or `musl`."""
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
        """Whether this computer runs such programs without an emulator."""
        return platform.system() == "Linux" and platform.machine() in _NATIVE_MACHINES[self.arch]


_NATIVE_MACHINES = {
    "arm": {"armv7l", "armv8l"},
    "aarch64": {"aarch64"},
    "x86_64": {"x86_64"},
}
"""The output of `uname -m` on the machines that run each architecture."""


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
            # Without -slowfpvfmx, LLVM splits every fused multiply-add. vmlx-hazards would
            # separate consecutive ones, which stall other cores.
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
    """Return the baseline of this machine's family, so that any machine builds the same bytes.

    Other families than these have none.
    """
    match platform.machine():
        case "aarch64" | "arm64":
            # Every 64-bit ARM processor has the features of a Cortex-A53.
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
