"""Mixup and cutmix: the shares of images and of classes are equal."""

import pytest
import torch

from tcc.compiler.train import augmentation
from tcc.compiler.train.recipe_records import Mixup

CLASSES = torch.eye(8)
IMAGES = torch.arange(8.0)[:, None, None, None].repeat(1, 3, 16, 20)
"""Each pixel of image i is i, and its class is i."""


def mix(record, step=0, seed=0, epoch=0):
    return augmentation.apply_mixup(record, IMAGES, CLASSES, seed, epoch, step)


@pytest.mark.parametrize("record", [Mixup(0.4), Mixup(0, 1.0), Mixup(1.0, 1.0)])
def test_class_shares_equal_image_shares(record):
    mix_kinds = set()
    for step in range(16):
        original_images = IMAGES.clone()
        images, classes = mix(record, step)
        assert torch.equal(IMAGES, original_images)
        assert torch.allclose(images.mean((1, 2, 3)), classes @ torch.arange(8.0), atol=1e-5)
        assert torch.allclose(classes.sum(1), torch.ones(8))
        is_uncut = all(value in range(8) for value in images.unique().tolist())
        mix_kinds.add("cut" if is_uncut else "blend")
        repeated = mix(record, step)
        assert torch.equal(repeated[0], images)
    assert mix_kinds == {"blend"} if not record.cutmix else "cut" in mix_kinds
    assert mix_kinds == {"cut", "blend"} or not (record.alpha and record.cutmix)


def test_mixup_depends_on_seed_epoch_and_step():
    base = mix(Mixup(1.0))[0]
    assert all(not torch.equal(base, mix(Mixup(1.0), *w)[0]) for w in ((1,), (0, 1), (0, 0, 1)))


def test_batches_are_mixed_with_the_probability():
    mixed_count = sum(
        mix(Mixup(1.0, probability=0.3), step)[0] is not IMAGES for step in range(200)
    )
    assert 40 < mixed_count < 80
    assert mix(Mixup(0.0))[0] is IMAGES
