"""The same sums in the same order: threads and algorithms of PyTorch for the time of a training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tcc.compiler.support import cpu
from tcc.compiler.support.diagnostics import Span, fail
from tcc.compiler.version import __version__

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
"""Instructions that decide in which order PyTorch adds up, and how it rounds."""
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""Those that multiply bfloat16: without one, PyTorch goes by way of float32, and is slow."""


@contextmanager
def use_repeatable_arithmetic(threads: int, device: torch.device) -> Iterator[None]:
    """Have PyTorch compute with so many threads, and the same bits each time on a CPU."""
    previous_settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fills_memory = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # On CUDA the gradients of adaptive pooling and interpolation have no deterministic form, and
    # PyTorch would refuse the whole training (its documentation of this function lists them).
    torch.use_deterministic_algorithms(device.type == "cpu")
    memory.fill_uninitialized_memory = False  # nothing reads such memory here
    try:
        yield
    finally:
        torch.set_num_threads(previous_settings[0])
        torch.use_deterministic_algorithms(previous_settings[1])
        memory.fill_uninitialized_memory = fills_memory


def get_thread_count() -> int:
    """Return how many threads PyTorch takes of itself."""
    return torch.get_num_threads()


def select_device(device_name: str, at: Span) -> torch.device:
    """Return where to train: `cpu`, `cuda`, or by `auto` the first GPU, or else the CPU.

    Raises:
        UserError: It is another word (E0601), or PyTorch sees no GPU (E1234).
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
                "finds none" if has_cuda else "is for CPUs alone"
            )
            help = "leave it out to train on the CPU, or see pytorch.org for a PyTorch with CUDA"
            raise fail("E1234", "there is no GPU to train on", at, label=label, help=help)
    raise fail("E0601", "say auto, cpu or cuda", at)


def describe_environment(device: torch.device) -> Mapping[str, str]:
    """Return what the bytes of trained weights depend on, beside the training itself."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _list_instructions()
    return {"tcc": __version__, "torch": torch.__version__, device.type: name}


def _list_instructions() -> str:
    supported = cpu.read_features()
    return " ".join(feature for feature in CPU_FEATURES if feature in supported)


def is_bf16_slow(device: torch.device) -> bool:
    """Whether this is a device that has no instructions for bfloat16."""
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    return not cpu.read_features() & set(BF16_FEATURES)
