"""The instruction sets of x86-64, each as if this machine had no other."""

from dataclasses import replace

import pytest

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.support.cpu import read_features

HOST = next(m for m in MACHINES if m.target.name == "host")
NAMES = tuple(isa.name for isa in ISAS)
HAVE = {
    "x86-64-v2": {"sse4_2"},
    "x86-64-v3": {"avx2", "fma", "bmi2"},
    "x86-64-v3-vnni": {"avx2", "avx_vnni"},
    "x86-64-v4": {"avx512bw", "avx512dq", "avx512vl"},
    "x86-64-v4-vnni": {"avx512bw", "avx512vl", "avx512_vnni"},
}


def select_isa(name: str) -> Machine:
    """Return this machine with kernels of one instruction set. Skip if it lacks the set."""
    (isa,) = (isa for isa in ISAS if isa.name == name)
    if not HOST.has_isa_variants or not read_features() >= HAVE[name]:
        pytest.skip(f"this machine has no {name}: its kernels are not run")
    return replace(HOST, cpu=isa.cpu, has_isa_variants=False)
