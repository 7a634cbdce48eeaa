"""Activations: declared properties match float64 values of torch."""

import numpy as np
import pytest
import torch

from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import ACTIVATIONS, Scale
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.testing.op_cases import Case, build_op_model

FUNCTIONS = {op.keyword: op() for op in ACTIVATIONS} | {"scale": Scale(-0.7, 0.3)}
every = pytest.mark.parametrize("op", FUNCTIONS.values(), ids=FUNCTIONS)
WIDE = np.concatenate(
    [np.linspace(-9, 9, 1801), np.geomspace(1e-6, 1e6, 601), -np.geomspace(1e-6, 1e6, 601)]
)


@every
def test_float64_values_match_torch(op: ScalarFunction) -> None:
    network = create_module(build_op_model(Case(op, (WIDE.shape,))).graph, {}).double()
    expected = network(torch.from_numpy(WIDE)[None])["y"].numpy()[0]
    with np.errstate(all="raise", under="ignore"):
        got = op.evaluate(WIDE)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    assert got.dtype == np.float64


@every
def test_declared_bounds_are_tight(op: ScalarFunction) -> None:
    low, high = op.bounds
    outputs = op.evaluate(WIDE)
    assert low <= outputs.min()
    assert outputs.max() <= high
    assert low == -np.inf or outputs.min() - low < 1e-6
    assert high == np.inf or high - outputs.max() < 1e-6


@every
def test_activations_work_on_any_shape(op: ScalarFunction) -> None:
    cube = WIDE[:24].reshape(2, 3, 4)
    assert np.array_equal(op.evaluate(cube).ravel(), op.evaluate(WIDE[:24]))
