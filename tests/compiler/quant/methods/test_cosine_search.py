"""The fine search against equation 10, computed one number at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ops import Conv
from tcc.compiler.quant.methods import cosine_search
from tcc.compiler.quant.observe.statistics import InputWindows

LIMITS = {True: (-128, 127), False: (0, 255)}


def compute_cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(sum(x * x for x in a)), math.sqrt(sum(y * y for y in b))
    if lengths == (0, 0):
        return 1.0
    return dot / lengths[0] / lengths[1] if all(lengths) else 0.0


def round_to_scale(value, scale, limits):
    return scale * min(
        max(round(float(np.float32(value) / np.float32(scale))), limits[0]), limits[1]
    )


def compute_product(patches, weight, bias):
    """Return all outputs of a convolution without groups."""
    return [
        sum(x * w for x, w in zip(patch, row, strict=True)) + b
        for patch in patches
        for row, b in zip(weight, bias, strict=True)
    ]


def search_slowly(numbers, scales, limits):
    """Search input and weight scales in turn, with the cosine of each candidate by the equation."""
    patches, weight, bias = numbers
    real = compute_product(patches, weight, bias)
    tops = [max(abs(w) for w in row) / 127 or 1.0 for row in weight]
    factors = [float(f) for f in cosine_search.generate_candidates(1.0, 1.0)]
    factor, best = 1.0, None
    for _ in range(cosine_search.ITERATIONS):
        by_scale = [compute_score(numbers, s, factor, tops, real, limits) for s in scales]
        previous, best = best, find_largest_scale(scales, by_scale)
        cosine = by_scale[list(scales).index(best)]
        if previous == best:
            break
        by_factor = [compute_score(numbers, best, f, tops, real, limits) for f in factors]
        factor = find_largest_scale(factors, by_factor)
    return best, cosine


def find_largest_scale(scales, cosines):
    """Return the largest scale whose cosine equals the best one."""
    good = [
        s for s, c in zip(scales, cosines, strict=True) if c >= max(cosines) - cosine_search.TIE
    ]
    return max(good)


def compute_score(numbers, scale, factor, tops, real, limits):
    patches, weight, bias = numbers
    x = [[round_to_scale(v, scale, limits) for v in patch] for patch in patches]
    w = [
        [round_to_scale(v, np.float32(top) * np.float32(factor), (-127, 127)) for v in row]
        for row, top in zip(weight, tops, strict=True)
    ]
    return compute_cosine(real, compute_product(x, w, bias))


@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 4), st.integers(1, 3))
def test_the_search_matches_the_equation(seed, signed, taps, filters):
    rng = np.random.default_rng(seed)
    patches = rng.normal(size=(12, taps)).astype(np.float32)
    patches = patches if signed else np.abs(patches)
    weight = rng.normal(size=(filters, taps)).astype(np.float32)
    bias = rng.normal(size=filters).astype(np.float32)
    top = float(np.abs(patches).max()) / LIMITS[signed][1]
    scales = cosine_search.generate_candidates(top * 0.6, top)

    windows = InputWindows(Conv(filters, (1, 1)), patches[:, :, None, None])
    layer = cosine_search.sample_conv(windows, weight[:, :, None, None], bias)
    scale, best, (scaled_layer,) = cosine_search.search((layer,), patches, scales, LIMITS[signed])
    numbers = (patches.tolist(), weight.tolist(), bias.tolist())
    expected, cosine = search_slowly(numbers, scales, LIMITS[signed])
    assert best == pytest.approx(cosine, abs=1e-5)
    if scale != expected:  # two candidates closer than float precision
        tops = [max(abs(w) for w in row) / 127 for row in numbers[1]]
        own_cosine = compute_score(
            numbers, scale, scaled_layer.factor, tops, compute_product(*numbers), LIMITS[signed]
        )
        assert own_cosine == pytest.approx(cosine, abs=1e-5)


@given(st.integers(0, 1000))
def test_gram_products_give_the_output_cosine(seed):
    """Gram products, which avoid the patches, give the cosine of the outputs."""
    rng = np.random.default_rng(seed)
    op = Conv(4, (2, 2), groups=2)
    windows = InputWindows(op, rng.normal(size=(3, 4, 4, 4)).astype(np.float32))
    weight = rng.normal(size=(4, 2, 2, 2)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    layer = cosine_search.sample_conv(windows, weight, bias)
    scaled_layer = cosine_search._search_weight_scale(layer, np.float32(0.03), (-128, 127))
    x = cosine_search.quantize_dequantize(layer.patches, np.float32(0.03), (-128, 127))
    best_cosine = compute_layer_cosine(layer, scaled_layer, x)
    for factor in cosine_search.generate_candidates(1.0, 1.0):
        other_layer = cosine_search.replace(layer, factor=float(factor))
        assert compute_layer_cosine(layer, other_layer, x) <= best_cosine + 2 * cosine_search.TIE
    factors = cosine_search.generate_candidates(1.0, 1.0)
    by_gram, by_outputs = (
        f(layer, x, factors)
        for f in (cosine_search._compare_by_gram, cosine_search._compare_by_outputs)
    )
    np.testing.assert_allclose(by_gram, by_outputs, atol=1e-6)


def compute_layer_cosine(layer, other_layer, x):
    return cosine_search.compute_cosine(
        layer.real,
        x @ other_layer.quantize_weights(other_layer.factor).transpose(0, 2, 1) + layer.bias,
    )


def test_candidates_include_the_start_and_end_at_the_largest():
    scales = cosine_search.generate_candidates(1.0, 1.5)
    assert np.float32(1.0) in scales
    assert scales.min() == pytest.approx(0.5)
    assert scales.max() <= 1.5
    assert np.all(np.diff(scales) > 0)
    assert cosine_search.generate_candidates(1.0, 1.0).max() == 1.0


def test_equal_cosines_take_the_larger_scale():
    scales = cosine_search.generate_candidates(1.0, 2.0)
    scale, cosine, layers = cosine_search.search((), np.zeros(9, np.float32), scales, LIMITS[True])
    assert (scale, cosine, layers) == (2.0, 1.0, ())


def test_a_layer_of_zeros_keeps_normal_scales():
    windows = InputWindows(Conv(2, (1, 1)), np.zeros((5, 3, 1, 1), np.float32))
    layer = cosine_search.sample_conv(
        windows, np.zeros((2, 3, 1, 1), np.float32), np.zeros(2, np.float32)
    )
    scale, cosine, (scaled_layer,) = cosine_search.search(
        (layer,), np.zeros(5, np.float32), np.array([1.0], np.float32), LIMITS[False]
    )
    assert (scale, cosine) == (1.0, 1.0)
    assert np.array_equal(scaled_layer.scales.reshape(-1), [1.0, 1.0])
    assert scaled_layer.factor == 1.0


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
def test_the_number_of_patches_is_bounded(kernel):
    op = Conv(4, kernel)
    size = (1, 1) if kernel == (1, 1) else (10, 10)
    windows = InputWindows(op, np.ones((2000, 64, *size), np.float32))
    layer = cosine_search.sample_conv(
        windows, np.ones((4, 64, *kernel), np.float32), np.zeros(4, np.float32)
    )
    assert (
        cosine_search.MAX_PATCH_NUMBERS / 2
        < layer.patches.size
        <= 2 * cosine_search.MAX_PATCH_NUMBERS
    )


def test_a_large_layer_is_sampled_by_filters():
    windows = InputWindows(Conv(4096, (1, 1)), np.ones((4, 1024, 1, 1), np.float32))
    weight = np.ones((4096, 1024, 1, 1), np.float32)
    layer = cosine_search.sample_conv(windows, weight, np.arange(4096, dtype=np.float32))
    assert layer.weight.size <= cosine_search.MAX_WEIGHTS
    assert layer.bias.reshape(-1)[-1] > 4000
    assert layer.real.shape == (1, 4, layer.weight.shape[1])
