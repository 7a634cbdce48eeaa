"""Training images changed at random, as a recipe says: `augment:`.

Levels stay 8-bit, as the contract's arithmetic gets them when deployed: a network never learns from
values that no image has. All numbers are drawn by seed, epoch and sample alone, and no operation
lets one image of a batch touch another: order, size of batches, threads and a resume change
nothing. The order is: flips and turns, one warp, blur, colours, curves, noise, erasing.
"""

from typing import TYPE_CHECKING

from tcc.compiler.train import color_changes, counter_random, image_warp, pixel_changes

if TYPE_CHECKING:
    from torch import Tensor

    from tcc.compiler.train.augmentation_record import Augmentation


def augment(
    record: "Augmentation",
    levels: "Tensor",
    samples: "Tensor",
    seed: int,
    epoch: int,
    color: str = "rgb",
) -> "Tensor":
    """Return changed levels, uint8 (N, C, H, W) as they came, on the same device.

    Args:
        record: What may happen.
        levels: The images.
        samples: int64 (N,), what each is called in its data set.
        seed: The run's.
        epoch: Which time they are seen.
        color: The contract's order of channels.
    """
    random = counter_random.draws(samples.to(levels.device), seed, "augment", epoch)
    levels = image_warp.turned(record, levels, random)
    levels = image_warp.warped(record, levels, random)
    levels = pixel_changes.blurred(record, levels, random)
    levels = color_changes.recolored(record, levels, random, color)
    levels = color_changes.curved(record, levels, random)
    levels = pixel_changes.noisy(record, levels, random)
    return pixel_changes.erased(record, levels, random)
