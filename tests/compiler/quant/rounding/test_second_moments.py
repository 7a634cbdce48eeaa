"""Moments of quantized values from moments of floats."""

import numpy as np
import pytest

from tcc.compiler.quant.observe.statistics import TapSums
from tcc.compiler.quant.rounding.second_moments import _quantize_sums


@pytest.mark.parametrize("step", [0.5, 1.0])
def test_float_moments_become_moments_of_quantized_values(step):
    factor = np.array([1.0, 0.25], np.float32)
    samples = np.random.default_rng(0).normal(1, 1, (20_000, 2, 4)) * factor[:, None]
    flat = samples.reshape(len(samples), -1)
    sums = TapSums(len(flat), flat.sum(axis=0)[None], ((flat.T @ flat)[None],))
    level_sums = _quantize_sums(sums, factor, step)
    quantized_values = np.rint(flat / (np.repeat(factor, 4) * step))
    expected = quantized_values.T @ quantized_values
    assert level_sums.products[0][0] == pytest.approx(expected, rel=0.02)
    assert level_sums.total[0] == pytest.approx(quantized_values.sum(axis=0), rel=0.02)
    # Without the rounding variance of 1/12, squares would be too small.
    short = np.diag(sums.products[0][0]) / (np.repeat(factor, 4) * step) ** 2
    assert (short < 0.995 * np.diag(expected)).all()
