"""Bounds of values for any image."""

from dataclasses import replace
from math import inf

import pytest

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ops import Add, Concat, Conv, GlobalAvgPool, MaxPool, Pad, Relu, Relu6, Sigmoid
from tcc.compiler.quant.unseen_extremes import infer_value_bounds
from tcc.testing.nets import NetBuilder


def test_bounds_pass_through_moves_and_means():
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (1, 1)))
    add("relu", Relu())
    add("clamp", Relu6(), "conv")
    add("pool", MaxPool((2, 2), (2, 2)), "clamp")
    add("both", Concat(), "clamp", "relu")
    add("gate", Sigmoid(), "conv")
    add("mean", GlobalAvgPool(), "gate")
    add("edge", Pad(1, -3.0), "clamp")
    add("sum", Add(), "clamp", "gate")
    value_ranges = infer_value_bounds(Model(add.build(), {}))
    assert value_ranges["conv"] == value_ranges["sum"] == (-inf, inf)
    assert value_ranges["relu"] == value_ranges["both"] == (0.0, inf)
    assert value_ranges["clamp"] == value_ranges["pool"] == (0.0, 6.0)
    assert value_ranges["gate"] == value_ranges["mean"] == pytest.approx((0.0, 1.0))
    assert value_ranges["edge"] == (-3.0, 6.0)


@pytest.mark.parametrize(
    ("contract", "bounds"),
    [
        (None, (-inf, inf)),
        (Preprocess(), (0.0, 1.0)),
        (Preprocess(mean=(0.5,), std=(0.25, 0.5, 0.1)), (-5.0, 5.0)),
        (Preprocess(raw=True), (0.0, 255.0)),
    ],
)
def test_an_image_contains_grey_levels(contract, bounds):
    add = NetBuilder(3, 8, 8)
    add.inputs = (replace(add.inputs[0], preprocess=contract),)
    add("mean", GlobalAvgPool())
    value_ranges = infer_value_bounds(Model(add.build(), {}))
    assert value_ranges["image"] == bounds
    assert value_ranges["mean"] == bounds
