"""The 8-bit product types that suit a processor's features."""

from pathlib import Path

import pytest

from tcc.compiler.support.cpu import read_features, select_product_types

CPUS = {
    "Haswell": ("fpu sse2 avx avx2 fma", "u8u8"),
    "Skylake-X": ("sse2 avx2 avx512f avx512bw", "u8u8"),
    "Nehalem": ("sse2 sse4_1 sse4_2", "u8u8"),
    "Ice Lake": ("sse2 avx2 avx512f avx512_vnni", "u8s8"),
    "Alder Lake": ("sse2 avx2 avx_vnni", "u8s8"),
    "Cortex-A76": ("fp asimd asimddp", "u8s8"),
    "Cortex-A7": ("half thumb neon vfpv4", "u8s8"),
    "unknown": ("", "u8u8"),
    "RISC-V": ("rv64imafdc", "u8u8"),
}


@pytest.mark.parametrize(("flags", "form"), CPUS.values(), ids=CPUS)
def test_product_types_suit_the_processor(tmp_path: Path, flags: str, form: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\nflags\t\t: {flags}\nbugs : spectre_v1\n")
    int8_products = select_product_types(read_features(file))
    assert int8_products.form == form
    assert int8_products.why


def test_unknown_processor_gets_the_safe_product_types(tmp_path: Path) -> None:
    assert read_features(tmp_path / "none") == frozenset()
    (tmp_path / "odd").write_bytes(b"\xff\xfe\x00")
    assert read_features(tmp_path / "odd") == frozenset()
    assert select_product_types(frozenset()).form == "u8u8"
