"""This machine's processor: its features, and how it must multiply 8-bit integers."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

CPUINFO = Path("/proc/cpuinfo")
VNNI_FLAGS = ("avx512_vnni", "avx_vnni")
X86_FLAGS = ("sse2", "avx2", "avx512f")
ARM_FLAGS = ("asimd", "neon")
INTEGER_FLAGS = ("avx2", "avx512f", *VNNI_FLAGS, "neon", "asimd", "asimddp", "i8mm")
"""Features that decide the speed of integer products, and in some runtimes their exactness."""

IDENTITY_KEYS = frozenset(
    ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features",
     "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision")
)  # fmt: skip
"""The keys that identify the processor, on x86 and on ARM."""


@dataclass(frozen=True, slots=True)
class ProductTypes:
    """The types of activations and weights whose products are exact here, and why.

    `u8s8` are those of an `int8` file as written. For `u8u8`, ONNX Runtime makes the weights
    unsigned when it loads the file, if told to; `tcc run` does so. That takes about twice as long.
    """

    form: Literal["u8s8", "u8u8"]
    why: str

    @property
    def unsigned(self) -> bool:
        """Whether weights must be unsigned."""
        match self.form:
            case "u8u8":
                return True
            case "u8s8":
                return False
            case _:
                assert_never(self.form)


def read_features(file: Path | None = None) -> frozenset[str]:
    """Return all features that the system lists; none if it lists none."""
    try:
        # x86 lists features under `flags`, ARM under `Features`: any word may be one.
        return frozenset((file or CPUINFO).read_text().split())
    except (OSError, UnicodeDecodeError):
        return frozenset()


def read_identity(file: Path | None = None) -> tuple[str, ...]:
    """Return the lines that identify the processor; none if the system has none.

    Values that change over time, such as the frequency, are left out.
    """
    try:
        first_processor, _, _ = (file or CPUINFO).read_text().partition("\n\n")
    except (OSError, UnicodeDecodeError):
        return ()
    lines = (" ".join(line.split()) for line in first_processor.splitlines())
    return tuple(line for line in lines if line.partition(" :")[0] in IDENTITY_KEYS)


def explain_slow_integers(cpu_features: Collection[str]) -> str:
    """Return why 8-bit integers may be slower than floats on a processor; empty if not."""
    if not any(flag in cpu_features for flag in X86_FLAGS) or any(
        flag in cpu_features for flag in VNNI_FLAGS
    ):
        return ""
    return (
        "this processor has no VNNI: the int8 model may be slower than the fp32 model here; "
        "compare both with `tcc bench`"
    )


def select_product_types(cpu_features: Collection[str]) -> ProductTypes:
    """Return how ONNX Runtime must multiply on a processor with the given features."""
    vnni_flag = next((flag for flag in VNNI_FLAGS if flag in cpu_features), None)
    if vnni_flag:
        return ProductTypes(
            "u8s8", f"{vnni_flag} adds products of 8-bit integers without saturation"
        )
    if any(flag in cpu_features for flag in X86_FLAGS):
        reason = "without VNNI, sums of two products of unsigned and signed integers saturate"
        return ProductTypes("u8u8", reason)
    if any(flag in cpu_features for flag in ARM_FLAGS):
        return ProductTypes("u8s8", "the processor's products of 8-bit integers do not saturate")
    return ProductTypes(
        "u8u8", "the processor's features are unknown; unsigned weights are exact on all"
    )
