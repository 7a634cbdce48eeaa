"""Folds of fit and held-out images."""

import hashlib

import numpy as np
import pytest
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.cross_fitting import CrossFitting, make_folds
from tcc.compiler.quant.observe.observer import observe
from tcc.testing.nets import build_dense


def compute_digests(count):
    return tuple(sorted(hashlib.sha256(bytes([i])).hexdigest() for i in range(count)))


@pytest.mark.parametrize("count", [2, 3, 9, 64])
def test_every_image_is_held_out_once(count):
    splits = make_folds(compute_digests(count))
    judge_images = [image for fold in splits for image in fold.held_out_indices]
    assert sorted(judge_images) == list(range(count))
    for fold in splits:
        assert not set(fold.held_out_indices) & set(fold.fit_indices)
        assert len(fold.held_out_indices) + len(fold.fit_indices) == count


def test_equal_images_stay_together():
    names = compute_digests(5)
    splits = make_folds((*names, names[0], names[0]))
    assert sorted(len({0, 5, 6} & set(fold.held_out_indices)) for fold in splits) == [0, 0, 0, 3]
    assert make_folds((names[0],) * 4) == ()


def test_large_networks_have_fewer_held_out_parts():
    (only,) = make_folds(compute_digests(64), max_images=8, parts=1)
    assert len(only.held_out_indices) == 8
    assert len(only.fit_indices) == 48
    assert (
        sum(len(fold.held_out_indices) for fold in make_folds(compute_digests(64), max_images=8))
        == 8
    )


def test_statistics_of_a_subset_equal_a_separate_observation(tmp_path):
    """Bit-exact, so that a fold fits like a separate dataset."""
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 6)
    cross_fitting = CrossFitting(model, data, observe(model, data), 1)
    for fold in cross_fitting.folds:
        part = cross_fitting.statistics.select_images(fold.fit_indices)
        for name, tensor_statistics in part.by_value.items():
            full_statistics = cross_fitting.statistics.by_value[name]
            assert np.array_equal(
                tensor_statistics.highs, full_statistics.highs[list(fold.fit_indices)]
            )
            count = len(full_statistics.sample) // len(full_statistics.sampled)
            rows = full_statistics.sample.reshape(len(full_statistics.sampled), count, -1)
            kept_rows = [
                row
                for row, image in enumerate(full_statistics.sampled)
                if image in fold.fit_indices
            ]
            assert np.array_equal(
                tensor_statistics.sample, rows[kept_rows].reshape(tensor_statistics.sample.shape)
            )
        assert part.images == tuple(data.digests[i] for i in fold.fit_indices)
        for name, windows in part.windows.items():
            windows_per_image = len(windows.parts) // len(windows.sampled)
            assert windows_per_image == len(cross_fitting.statistics.windows[name].parts) // 6
