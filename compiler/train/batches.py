"""Which images each step sees: batches of one size, in an order that seed and epoch give."""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from tcc.compiler.train import random_keys


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How `images` are cut into batches; with fewer than a batch, they are repeated to fill one."""

    images: int
    batch: int
    last: Literal["drop", "wrap"]
    seed: int

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        match self.last:
            case "drop":
                return max(1, self.images // self.batch)
            case "wrap":
                return -(-self.images // self.batch)
            case _:
                assert_never(self.last)

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch, int64 (steps, batch)."""
        generator = random_keys.generator(self.seed, "order", epoch)
        shuffled = torch.randperm(self.images, generator=generator)
        wanted = self.steps * self.batch
        return shuffled.repeat(-(-wanted // self.images))[:wanted].reshape(self.steps, self.batch)


def fixed(images: int, batch: int) -> Tensor:
    """Return all images in order, int64 (batches, batch); the last batch ends with repeated ones.

    There are as many batches as needed, and the first `images` entries are what counts.
    """
    count = -(-images // batch) * batch
    return torch.arange(count).clamp_max(images - 1).reshape(-1, batch)
