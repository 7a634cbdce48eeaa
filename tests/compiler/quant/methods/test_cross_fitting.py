"""Who judges whom."""

import hashlib

import numpy as np
import pytest
from quant_sets import ready, tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods.cross_fitting import CrossFitting, folds
from tcc.compiler.quant.observe.observer import observe
from tcc.testing.nets import dense


def digests(count):
    return tuple(sorted(hashlib.sha256(bytes([i])).hexdigest() for i in range(count)))


@pytest.mark.parametrize("count", [2, 3, 9, 64])
def test_every_image_judges_once_and_none_what_it_taught(count):
    found = folds(digests(count))
    judges = [place for fold in found for place in fold.judge]
    assert sorted(judges) == list(range(count))
    for fold in found:
        assert not set(fold.judge) & set(fold.learn)
        assert len(fold.judge) + len(fold.learn) == count


def test_equal_images_stay_together():
    names = digests(5)
    found = folds((*names, names[0], names[0]))
    assert sorted(len({0, 5, 6} & set(fold.judge)) for fold in found) == [0, 0, 0, 3]
    assert folds((names[0],) * 4) == ()


def test_large_networks_have_fewer_judges():
    (only,) = folds(digests(64), most=8, parts=1)
    assert len(only.judge) == 8
    assert len(only.learn) == 48
    assert sum(len(fold.judge) for fold in folds(digests(64), most=8)) == 8


def test_what_some_images_show_is_what_they_show_alone(tmp_path):
    """To the bit, so that a part teaches as a set of its own would."""
    model = ready(dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 6)
    crossed = CrossFitting(model, data, observe(model, data), 1)
    for fold in crossed.folds:
        part = crossed.seen.of(fold.learn)
        for name, seen in part.seen.items():
            whole = crossed.seen.seen[name]
            assert np.array_equal(seen.highs, whole.highs[list(fold.learn)])
            count = len(whole.sample) // len(whole.sampled)
            rows = whole.sample.reshape(len(whole.sampled), count, -1)
            kept = [row for row, image in enumerate(whole.sampled) if image in fold.learn]
            assert np.array_equal(seen.sample, rows[kept].reshape(seen.sample.shape))
        assert part.images == tuple(data.digests[i] for i in fold.learn)
        for name, windows in part.windows.items():
            each = len(windows.parts) // len(windows.sampled)
            assert each == len(crossed.seen.windows[name].parts) // 6
