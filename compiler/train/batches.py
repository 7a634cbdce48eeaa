"""Which images each step sees: batches of one size, in an order that seed and epoch give."""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from tcc.compiler.train import random_keys


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlan:
    """How `images` are cut into batches; with fewer than a batch, they are repeated to fill one.

    With `classes`, int64 (images,), each class that is there has an equal share of each epoch:
    images of small ones come several times, of large ones some not at all.
    """

    images: int
    batch: int
    last: Literal["drop", "wrap"]
    seed: int
    classes: Tensor | None = None

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
        wanted = self.steps * self.batch
        if self.classes is None:
            return _repeated(torch.arange(self.images), wanted, generator).view(-1, self.batch)
        kinds = self.classes.bincount().nonzero()[:, 0]
        # Shuffled, so that it is not always the first classes that get what the division leaves.
        kinds = kinds[torch.randperm(len(kinds), generator=generator)]
        shares = [wanted // len(kinds) + (n < wanted % len(kinds)) for n in range(len(kinds))]
        drawn = [
            _repeated((self.classes == kind).nonzero()[:, 0], share, generator)
            for kind, share in zip(kinds, shares, strict=True)
        ]
        # Once more, or a batch would be of one class.
        return _repeated(torch.cat(drawn), wanted, generator).view(-1, self.batch)


def _repeated(images: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Return so many of some images, shuffled, each as often as another or once more."""
    shuffled = images[torch.randperm(len(images), generator=generator)]
    return shuffled.repeat(-(-wanted // len(images)))[:wanted]


def fixed(images: int, batch: int) -> Tensor:
    """Return all images in order, int64 (batches, batch); the last batch ends with repeated ones.

    There are as many batches as needed, and the first `images` entries are what counts.
    """
    count = -(-images // batch) * batch
    return torch.arange(count).clamp_max(images - 1).reshape(-1, batch)
