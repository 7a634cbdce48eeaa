"""The instruction sets that x86-64 processors may have, and which of them a kernel is compiled for.

All of them are in a library; `c/isa.h` chooses among them when it is loaded.
"""

from dataclasses import dataclass

from tcc.backends.arm.micro.records import MicroKernel


@dataclass(frozen=True, slots=True)
class Isa:
    """A level of x86-64-ABI by its name, with instructions for products of bytes or without.

    `cpu` is zig's word for it, `plain` the level's own name.
    """

    name: str
    cpu: str
    plain: str


# LLVM would keep vectors of 64 bytes out of what it vectorises by itself.
_WIDE = "-prefer_256_bit"
ISAS = (
    Isa("x86-64-v2", "x86_64_v2", "x86-64-v2"),
    Isa("x86-64-v3", "x86_64_v3", "x86-64-v3"),
    Isa("x86-64-v3-vnni", "x86_64_v3+avxvnni", "x86-64-v3"),
    Isa("x86-64-v4", f"x86_64_v4{_WIDE}", "x86-64-v4"),
    Isa("x86-64-v4-vnni", f"x86_64_v4+avx512vnni{_WIDE}", "x86-64-v4"),
)
"""In order of preference, the best last: as in `c/isa.h`."""


def forms(kernel: MicroKernel) -> tuple[Isa, ...]:
    """Return, for each of `ISAS`, for which of them a kernel is compiled to run there."""
    plain = {isa.name: isa for isa in ISAS}
    return ISAS if kernel.multiplies_bytes else tuple(plain[isa.plain] for isa in ISAS)
