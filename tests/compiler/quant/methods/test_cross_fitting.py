"""Who judges whom."""

import hashlib

import numpy as np
import pytest
from quant_sets import ready, tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.cross_fitting import CrossFitting, make_folds
from tcc.compiler.quant.observe.observer import observe
from tcc.testing.nets import build_dense


def digests(count):
    return tuple(sorted(hashlib.sha256(bytes([i])).hexdigest() for i in range(count)))


@pytest.mark.parametrize("count", [2, 3, 9, 64])
def test_every_image_judges_once_and_none_what_it_taught(count):
    found = make_folds(digests(count))
    judges = [place for fold in found for place in fold.held_out_indices]
    assert sorted(judges) == list(range(count))
    for fold in found:
        assert not set(fold.held_out_indices) & set(fold.fit_indices)
        assert len(fold.held_out_indices) + len(fold.fit_indices) == count


def test_equal_images_stay_together():
    names = digests(5)
    found = make_folds((*names, names[0], names[0]))
    assert sorted(len({0, 5, 6} & set(fold.held_out_indices)) for fold in found) == [0, 0, 0, 3]
    assert make_folds((names[0],) * 4) == ()


def test_large_networks_have_fewer_judges():
    (only,) = make_folds(digests(64), max_images=8, parts=1)
    assert len(only.held_out_indices) == 8
    assert len(only.fit_indices) == 48
    assert sum(len(fold.held_out_indices) for fold in make_folds(digests(64), max_images=8)) == 8


def test_what_some_images_show_is_what_they_show_alone(tmp_path):
    """To the bit, so that a part teaches as a set of its own would."""
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 6)
    crossed = CrossFitting(model, data, observe(model, data), 1)
    for fold in crossed.folds:
        part = crossed.statistics.select_images(fold.fit_indices)
        for name, seen in part.by_value.items():
            whole = crossed.statistics.by_value[name]
            assert np.array_equal(seen.highs, whole.highs[list(fold.fit_indices)])
            count = len(whole.sample) // len(whole.sampled)
            rows = whole.sample.reshape(len(whole.sampled), count, -1)
            kept = [row for row, image in enumerate(whole.sampled) if image in fold.fit_indices]
            assert np.array_equal(seen.sample, rows[kept].reshape(seen.sample.shape))
        assert part.images == tuple(data.digests[i] for i in fold.fit_indices)
        for name, windows in part.windows.items():
            each = len(windows.parts) // len(windows.sampled)
            assert each == len(crossed.statistics.windows[name].parts) // 6
