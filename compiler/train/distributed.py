"""Several processes that train one network: torchrun starts them, each learns from its share.

A batch is cut into equal parts. Gradients are averaged by PyTorch's DistributedDataParallel; batch
norms take their statistics over the whole batch, by sums that gradients flow through, so that the
result is that of one process but for the rounding of sums. SyncBatchNorm does so on GPUs alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from tcc.compiler.lower.torch_layers import RunningStatistics
from tcc.compiler.support.diagnostics import fail, make_file_span

CPU_DEVICE = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many, and where it computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU_DEVICE

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def slice_batch(self, samples: Tensor) -> Tensor:
        """Return this process's part of a batch."""
        count = len(samples) // self.size
        return samples[self.rank * count : (self.rank + 1) * count]

    def reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' values."""
        if self.size > 1:
            tensor = tensor.clone()
            distributed.all_reduce(tensor)
        return tensor

    def broadcast_flag(self, flag: bool) -> bool:
        """Return whether the first process says so."""
        # NCCL sends what lies on a GPU, and nothing else.
        flag_tensor = torch.tensor(float(flag and self.is_main), device=self.device)
        return bool(self.reduce_sum(flag_tensor))

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


SINGLE_PROCESS = World()


@contextmanager
def join_processes(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun has started; without it, this one is alone.

    Args:
        device: Where each computes; of several GPUs, each process takes one.

    Raises:
        UserError: Its settings are no numbers (E1231).
    """
    if "WORLD_SIZE" not in os.environ:
        yield World(device=device)
        return
    try:
        world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device)
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except (KeyError, ValueError):
        help = "start the processes by `torchrun --no-python tcc train ...`"
        at = make_file_span("RANK and WORLD_SIZE")
        raise fail("E1231", "these do not say which process this is", at, help=help) from None
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def wrap_module(module: nn.Module, world: World, *, uses_all_weights: bool = True) -> nn.Module:
    """Return a module whose gradients and statistics are those of all processes together.

    Args:
        module: The network.
        world: The processes.
        uses_all_weights: Whether all of its weights take part in each step.
    """
    if world.size == 1:
        return module
    for child in module.children():
        if isinstance(child, RunningStatistics):
            # The class alone: optimiser and average hold the parameters of this very object.
            child.__class__ = ExactBatchNorm
    # Statistics need no broadcast: every process has computed the same ones.
    return nn.parallel.DistributedDataParallel(
        module, broadcast_buffers=False, find_unused_parameters=not uses_all_weights
    )


class ExactBatchNorm(RunningStatistics):
    """A batch norm over the images of all processes."""

    weight: Tensor
    bias: Tensor
    eps: float
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised: by the statistics of the whole batch, or in evaluation its own."""
        if not self.training:
            statistics = (self.mean, self.var, self.weight, self.bias)
            return functional.batch_norm(x, *statistics, training=False, eps=self.eps)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        # In bfloat16 sums of squares would lose what the variance is the difference of.
        float_input = x.float()
        count = float_input.numel() // float_input.shape[1] * distributed.get_world_size()
        # Sums of values and of squares travel together: one message a layer, not two that wait for
        # each other.
        partial_sums = torch.stack([float_input.sum(axes), (float_input * float_input).sum(axes)])
        sums: Tensor = all_reduce(partial_sums)  # type: ignore[no-untyped-call]
        mean = sums[0] / count
        var = sums[1] / count - mean * mean
        with torch.no_grad():
            # What PyTorch's own batch norm does: it normalises by the biased variance, and keeps
            # the unbiased.
            unbiased = var * (count / max(count - 1, 1))
            self.mean.lerp_(mean, self.momentum)
            self.var.lerp_(unbiased, self.momentum)
        scale = torch.rsqrt(var + self.eps) * self.weight
        y: Tensor = (float_input - mean.reshape(shape)) * scale.reshape(shape) + self.bias.reshape(
            shape
        )
        return y.to(x.dtype)
