"""Images of a batch blended (mixup) or pasted into each other (cutmix), with their classes.

Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899. One share and one pairing serve a
batch; both belong to seed, epoch and step, whatever was drawn before.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tcc.compiler.train import counter_random

if TYPE_CHECKING:
    from torch import Tensor


def _shape(text: str) -> dict[str, Any]:
    return {"minimum": 0, "maximum": 100, "description": text}


@dataclass(frozen=True, slots=True)
class Mixup:
    """How batches are mixed; where both numbers are above 0, each batch is mixed in one way."""

    alpha: float = field(
        default=0.2, metadata=_shape("Shape of mixup's Beta distribution; 0: none.")
    )
    cutmix: float = field(
        default=0.0, metadata=_shape("Shape of cutmix's Beta distribution; 0: none.")
    )
    probability: float = field(
        default=1.0,
        metadata={"minimum": 0, "maximum": 1, "description": "The share of batches."},
    )


def mixed(
    record: Mixup, tensors: "Tensor", targets: "Tensor", seed: int, epoch: int, step: int
) -> "tuple[Tensor, Tensor]":
    """Return a batch mixed with itself in another order, new or, where nothing is mixed, as given.

    Args:
        record: How.
        tensors: What the network takes, float32 (N, ...); cutmix needs (N, C, H, W).
        targets: The share of each class, float32 (N, K).
        seed: The run's.
        epoch: Which it is.
        step: Which of its batches.
    """
    import numpy as np
    import torch

    # A generator of its own for each step, by its place in the run: a training that is resumed
    # draws the same.
    random = np.random.default_rng(
        np.random.Philox(counter_random.word(seed, "mixup", epoch, step))
    )
    holds, cut = random.random() < record.probability, random.random()
    # Half of the batches each, where both are asked for.
    cutmix = record.cutmix > 0 and (record.alpha == 0 or cut < 0.5)
    shape = record.cutmix if cutmix else record.alpha
    if not holds or not shape:
        return tensors, targets
    share = float(random.beta(shape, shape))
    others = torch.from_numpy(random.permutation(len(tensors))).to(tensors.device)
    if not cutmix:
        return _blend(tensors, tensors[others], share), _blend(targets, targets[others], share)
    height, width = tensors.shape[2:]
    top, bottom = _stretch(height, share, random.random())
    left, right = _stretch(width, share, random.random())
    result = tensors.clone()
    result[:, :, top:bottom, left:right] = tensors[others, :, top:bottom, left:right]
    # By the pixels that were really pasted: a rectangle is cut to whole pixels.
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return result, _blend(targets, targets[others], kept)


def _blend(one: "Tensor", other: "Tensor", share: float) -> "Tensor":
    return one * share + other * (1 - share)


def _stretch(side: int, share: float, place: float) -> tuple[int, int]:
    """Return a stretch of a side, of length sqrt(1 - share), that lies within it."""
    length = min(side, round((1 - share) ** 0.5 * side))
    first = int(place * (side - length + 1))
    return first, first + length
