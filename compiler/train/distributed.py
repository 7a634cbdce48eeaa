"""Train one network in several processes that torchrun starts.

Each batch is cut into equal parts. PyTorch's DistributedDataParallel averages the gradients. Batch
norms compute their statistics over the complete batch, with differentiable sums, so that the result
equals that of one process except for rounding. PyTorch's SyncBatchNorm supports only GPUs.
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
    """The rank of this process, the number of processes, and the device."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU_DEVICE

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def slice_batch(self, samples: Tensor) -> Tensor:
        """Return this process's part of a batch."""
        count = len(samples) // self.size
        return samples[self.rank * count : (self.rank + 1) * count]

    def reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the values of all processes."""
        if self.size > 1:
            tensor = tensor.clone()
            distributed.all_reduce(tensor)
        return tensor

    def broadcast_flag(self, flag: bool) -> bool:
        """Return the first process's flag."""
        # The tensor must be on the device, because NCCL supports only GPU tensors.
        flag_tensor = torch.tensor(float(flag and self.is_main), device=self.device)
        return bool(self.reduce_sum(flag_tensor))

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()


SINGLE_PROCESS = World()


@contextmanager
def join_processes(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun, yield a single process.

    Args:
        device: The device of each process; each process takes one of several GPUs.

    Raises:
        UserError: torchrun's environment variables are missing or not numbers (E1231).
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
        raise fail("E1231", "these variables are missing or not numbers", at, help=help) from None
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield world
    finally:
        distributed.destroy_process_group()


def wrap_module(module: nn.Module, world: World, *, uses_all_weights: bool = True) -> nn.Module:
    """Return a module that combines the gradients and statistics of all processes.

    Args:
        module: The network.
        world: The processes.
        uses_all_weights: Whether each step uses all of its weights.
    """
    if world.size == 1:
        return module
    for child in module.children():
        if isinstance(child, RunningStatistics):
            # Change only the class: optimiser and average refer to this object's parameters.
            child.__class__ = ExactBatchNorm
    # Statistics need no broadcast, because they are equal in all processes.
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
        """Return x normalised by the complete batch's statistics; in evaluation by running ones."""
        if not self.training:
            statistics = (self.mean, self.var, self.weight, self.bias)
            return functional.batch_norm(x, *statistics, training=False, eps=self.eps)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        # In float32: the variance is a small difference of sums, which bfloat16 would lose.
        float_input = x.float()
        count = float_input.numel() // float_input.shape[1] * distributed.get_world_size()
        # Send the sums of values and of squares in one message per layer, to avoid a second wait.
        partial_sums = torch.stack([float_input.sum(axes), (float_input * float_input).sum(axes)])
        sums: Tensor = all_reduce(partial_sums)  # type: ignore[no-untyped-call]
        mean = sums[0] / count
        var = sums[1] / count - mean * mean
        with torch.no_grad():
            # As in PyTorch's batch norm: normalise by the biased variance, and store the unbiased.
            unbiased = var * (count / max(count - 1, 1))
            self.mean.lerp_(mean, self.momentum)
            self.var.lerp_(unbiased, self.momentum)
        scale = torch.rsqrt(var + self.eps) * self.weight
        y: Tensor = (float_input - mean.reshape(shape)) * scale.reshape(shape) + self.bias.reshape(
            shape
        )
        return y.to(x.dtype)
