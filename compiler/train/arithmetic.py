"""Make PyTorch's arithmetic repeatable during training, and select the device."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tcc.compiler.support import cpu
from tcc.compiler.support.diagnostics import Span, fail
from tcc.compiler.version import __version__

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
"""CPU features that affect PyTorch's summation order and rounding."""
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""CPU features that multiply bfloat16. Without one, PyTorch converts to float32, which is slow."""


@contextmanager
def use_repeatable_arithmetic(threads: int, device: torch.device) -> Iterator[None]:
    """Make PyTorch use `threads` threads and, on a CPU, bit-exact repeatable algorithms."""
    previous_settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fills_memory = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # On CUDA, gradients of adaptive pooling and interpolation have no deterministic implementation,
    # so PyTorch would reject the training (see the documentation of this function).
    torch.use_deterministic_algorithms(device.type == "cpu")
    memory.fill_uninitialized_memory = False  # training does not read uninitialized memory
    try:
        yield
    finally:
        torch.set_num_threads(previous_settings[0])
        torch.use_deterministic_algorithms(previous_settings[1])
        memory.fill_uninitialized_memory = fills_memory


def get_thread_count() -> int:
    """Return PyTorch's default number of threads."""
    return torch.get_num_threads()


def select_device(device_name: str, at: Span) -> torch.device:
    """Return the training device for `cpu`, `cuda` or `auto` (the first GPU, or else the CPU).

    Raises:
        UserError: The name is unknown (E0601), or PyTorch finds no GPU (E1234).
    """
    has_gpu = torch.cuda.is_available()
    match device_name:
        case "auto":
            return torch.device("cuda" if has_gpu else "cpu")
        case "cpu":
            return torch.device("cpu")
        case "cuda" if has_gpu:
            return torch.device("cuda")
        case "cuda":
            has_cuda = torch.version.cuda is not None
            label = f"PyTorch {torch.__version__} " + (
                "finds no GPU" if has_cuda else "is built for CPUs only"
            )
            help = (
                "remove `--device` to train on the CPU, or install PyTorch with CUDA (pytorch.org)"
            )
            raise fail("E1234", "there is no GPU to train on", at, label=label, help=help)
    raise fail("E0601", "`--device` must be auto, cpu or cuda", at)


def describe_environment(device: torch.device) -> Mapping[str, str]:
    """Return the versions and the device that affect the bytes of trained weights."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _list_instructions()
    return {"tcc": __version__, "torch": torch.__version__, device.type: name}


def _list_instructions() -> str:
    supported = cpu.read_features()
    return " ".join(feature for feature in CPU_FEATURES if feature in supported)


def is_bf16_slow(device: torch.device) -> bool:
    """Whether the device has no bfloat16 instructions."""
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    return not cpu.read_features() & set(BF16_FEATURES)
