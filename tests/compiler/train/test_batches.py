"""Which images each step sees. This depends only on seed and epoch; classes can be balanced."""

import pytest
import torch

from tcc.compiler.train.loop import BatchPlan

CLASSES = torch.tensor([0] * 70 + [1] * 20 + [3] * 7)


@pytest.mark.parametrize("last_batch", ["drop", "wrap"])
def test_epoch_contains_each_image_once_except_in_the_last_batch(last_batch):
    indices = BatchPlan(97, 10, last_batch, 0).build_batches(1).flatten()
    assert len(indices) == {"drop": 90, "wrap": 100}[last_batch]
    assert len(indices[:97].unique()) == min(97, len(indices))


def test_balanced_classes_have_equal_shares():
    plan = BatchPlan(97, 16, "drop", 0, CLASSES)
    for epoch in range(5):
        order = plan.build_batches(epoch)
        assert order.shape == (6, 16)
        assert sorted(CLASSES[order.flatten()].bincount().tolist()) == [0, 32, 32, 32]
        times = order.flatten().bincount(minlength=97)
        assert set(times[:70].tolist()) == {0, 1}
        assert set(times[70:90].tolist()) == {1, 2}
        assert set(times[90:].tolist()) == {4, 5}
    drawn_indices = torch.cat([plan.build_batches(epoch).flatten() for epoch in range(40)])
    assert len(drawn_indices.unique()) == 97


def test_uneven_class_counts_differ_by_at_most_one():
    counts = CLASSES[BatchPlan(97, 10, "drop", 0, CLASSES).build_batches(0).flatten()].bincount()
    assert sorted(counts.tolist()) == [0, 30, 30, 30]
    counts = CLASSES[BatchPlan(97, 10, "wrap", 0, CLASSES).build_batches(0).flatten()].bincount()
    assert sorted(counts.tolist()) == [0, 33, 33, 34]


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_batches_depend_on_seed_and_epoch(classes):
    base = BatchPlan(97, 10, "drop", 0, classes).build_batches(0)
    assert torch.equal(base, BatchPlan(97, 10, "drop", 0, classes).build_batches(0))
    assert not torch.equal(base, BatchPlan(97, 10, "drop", 1, classes).build_batches(0))
    assert not torch.equal(base, BatchPlan(97, 10, "drop", 0, classes).build_batches(1))
