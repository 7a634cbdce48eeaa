"""The arithmetic of the integer program against its definition in exact numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import AvgPool, integer_arithmetic
from tcc.compiler.ops.integer import QAdd, QAvgPool, QMul
from tcc.compiler.support.diagnostics import UnhandledError
from tcc.testing.int8_models import create_quantized_type

sums = st.integers(-(1 << 31), (1 << 31) - 1)
scales = st.floats(2.0**-40, 2.0**20, width=32)
signed = st.booleans()


def round_to_float32(x: Fraction) -> Fraction:
    """Return the float32 nearest to a number, with ties to even."""
    if x == 0:
        return x
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    step = Fraction(2) ** (max(exponent, -126) - 23)
    return round(x / step) * step  # Python rounds ties of fractions to even


def requantize(total: int, factor: float, low: int, high: int) -> int:
    scaled = round_to_float32(round_to_float32(Fraction(total)) * Fraction(factor))
    return min(max(round(scaled), low), high)


@given(st.lists(sums, min_size=1, max_size=30), st.floats(2.0**-32, 4.0, width=32), signed)
def test_requantization_is_two_roundings_and_a_clamp(
    totals: list[int], factor: float, s: bool
) -> None:
    y = create_quantized_type((1,), 0.1, s)
    low, high = y.limits
    got = integer_arithmetic.requantize(
        np.array(totals, np.int32), np.float32(factor), y, low, high
    )
    assert got.dtype == np.dtype(y.dtype.value)
    assert got.tolist() == [requantize(n, factor, low, high) for n in totals]


def test_ties_round_to_even() -> None:
    halves = [n + 0.5 for n in range(-129, 129)]
    totals = np.array([int(2 * half) for half in halves], np.int32)
    got = integer_arithmetic.requantize(
        totals, np.float32(0.5), create_quantized_type((len(halves),), 0.1, True), -128, 127
    )
    assert got.tolist() == [min(max(round(half), -128), 127) for half in halves]


@given(scales, scales, scales)
def test_the_multiplier_is_computed_in_float32_in_a_fixed_order(
    x: float, w: float, y: float
) -> None:
    exact = round_to_float32(round_to_float32(Fraction(x) * Fraction(w)) / Fraction(y))
    got = integer_arithmetic.compute_multiplier(
        create_quantized_type((1,), x, True), np.float32(w), create_quantized_type((1,), y, True)
    )
    assert (got.dtype, Fraction(float(got))) == (np.float32, exact)


@given(st.data(), signed, st.integers(1, 3), st.integers(1, 4), st.integers(1, 2))
def test_convolution_sums_equal_those_of_loops(
    data: st.DataObject, s: bool, groups: int, depth: int, stride: int
) -> None:
    seed = data.draw(st.integers(0, 1 << 20))
    random = np.random.default_rng(seed)
    kernel, dilation = random.integers(1, 4, 2), random.integers(1, 3, 2)
    size = [
        d * (k - 1) + 1 + int(random.integers(0, 4)) for d, k in zip(dilation, kernel, strict=True)
    ]
    low, high = create_quantized_type((1,), 1, s).limits
    x = random.choice([low, high, 0, 1, low + 1], (2, groups * depth, *size))
    w = random.choice([-127, 127, 0, 1, -1, 63], (groups * 2, depth, *kernel))
    step, dilations = (stride, stride), (int(dilation[0]), int(dilation[1]))
    got = integer_arithmetic.compute_convolution(
        x.astype(np.int8 if s else np.uint8), w.astype(np.int8), step, dilations, groups
    )
    for n, f, i, j in np.ndindex(got.shape):
        first_channel = f // 2 * depth
        rows = slice(i * stride, i * stride + dilations[0] * (kernel[0] - 1) + 1, dilations[0])
        columns = slice(j * stride, j * stride + dilations[1] * (kernel[1] - 1) + 1, dilations[1])
        part = x[n, first_channel : first_channel + depth, rows, columns].astype(np.int64)
        assert got[n, f, i, j] == int((part * w[f].astype(np.int64)).sum())


@pytest.mark.parametrize("depth", [511, 512, 513, 1024, 1025, 4000])
@pytest.mark.parametrize(("level", "kind"), [(255, np.uint8), (-128, np.int8)])
@pytest.mark.parametrize("weight", [127, -127])
def test_the_largest_sums_are_exact(depth: int, level: int, kind: type, weight: int) -> None:
    x = np.full((1, depth, 1, 1), level, kind)
    x[0, -1] = 1  # the sum is odd, so that rounding would change it
    w = np.full((1, depth, 1, 1), weight, np.int8)
    got = integer_arithmetic.compute_convolution(x, w, (1, 1), (1, 1), 1)
    assert got.item() == ((depth - 1) * level + 1) * weight


kinds = st.tuples(st.floats(2.0**-60, 2.0**30, width=32), signed)


@given(st.lists(kinds, min_size=2, max_size=9), kinds, st.integers(0, 1 << 20))
def test_a_sum_follows_its_definition_and_never_overflows(
    inputs: list[tuple[float, bool]], out: tuple[float, bool], seed: int
) -> None:
    types = tuple(create_quantized_type((4,), *kind) for kind in inputs)
    y = create_quantized_type((4,), *out)
    op = QAdd(float(y.scale or 0), out[1], *y.limits)
    factors, shift = op.compute_fixed_point(*types)
    random = np.random.default_rng(seed)
    extremes = [random.choice([*x.limits, *random.integers(*x.limits, 2)], (1, 4)) for x in types]
    extremes = [
        np.concatenate([e, np.full((1, 4), x.limits[seed % 2])])
        for e, x in zip(extremes, types, strict=True)
    ]
    xs = tuple(e.astype(x.dtype.value) for e, x in zip(extremes, types, strict=True))
    got = op.compute(types, xs, ())
    for index in np.ndindex(got.shape):
        terms = [int(x[index]) * m for x, m in zip(xs, factors, strict=True)]
        assert sum(abs(term) for term in terms) + (1 << shift) < 1 << 31
        total = (sum(terms) + (1 << (shift - 1))) >> shift
        assert got[index] == min(max(total, op.low), op.high)


@given(st.lists(kinds, min_size=2, max_size=4), kinds, st.integers(0, 1 << 20))
def test_a_sum_is_within_its_error_bound(
    inputs: list[tuple[float, bool]], out: tuple[float, bool], seed: int
) -> None:
    types = tuple(create_quantized_type((9,), *kind) for kind in inputs)
    y = create_quantized_type((9,), *out)
    op = QAdd(float(y.scale or 0), out[1], *y.limits)
    _, shift = op.compute_fixed_point(*types)
    random = np.random.default_rng(seed)
    xs = tuple(random.integers(*x.limits, (1, 9)).astype(x.dtype.value) for x in types)
    ratios = [Fraction(x.scale) / Fraction(y.scale) for x in types]
    if max(ratios) > 2**15:
        return
    got = op.compute(types, xs, ())
    for index in np.ndindex(got.shape):
        real = sum(int(x[index]) * r for x, r in zip(xs, ratios, strict=True))
        clamped = min(max(real, op.low), op.high)
        # Half a step, half a unit of each multiplier, and the float32 quotient of the scales.
        off = sum(
            abs(int(x[index])) * (Fraction(1, 1 << (shift + 1)) + r / 2**24)
            for x, r in zip(xs, ratios, strict=True)
        )
        assert abs(int(got[index]) - clamped) <= Fraction(1, 2) + off


@given(st.integers(2, 6), st.integers(-3, 3), st.integers(0, 1 << 20))
def test_a_sum_of_equal_scales_is_exact(count: int, exponent: int, seed: int) -> None:
    scale = 0.0173
    x = create_quantized_type((50,), scale, True)
    y = create_quantized_type((50,), float(np.float32(scale)) * 2.0**exponent, True)
    random = np.random.default_rng(seed)
    xs = tuple(random.integers(-128, 128, (1, 50)).astype(np.int8) for _ in range(count))
    got = QAdd(float(y.scale or 0), True, -128, 127).compute((x,) * count, xs, ())
    real = sum(x.astype(np.float64) for x in xs) / 2.0**exponent
    np.testing.assert_array_equal(got, np.clip(np.floor(real + 0.5), -128, 127))


@given(scales, scales, st.floats(0.001, 0.1), signed, signed)
def test_a_product_follows_its_definition(
    a: float, b: float, part: float, s: bool, t: bool
) -> None:
    left_type, right_type = create_quantized_type((256,), a, s), create_quantized_type((256,), b, t)
    y = create_quantized_type((256,), float(np.float32(a * b / part)), s or t)
    xs = tuple(
        np.arange(256).astype(np.uint8).view(x.dtype.value)[None] for x in (left_type, right_type)
    )
    got = QMul(float(y.scale or 0), s or t, *y.limits).compute(
        (left_type, right_type), (xs[0], xs[1][:, ::-1]), ()
    )
    factor = float(
        integer_arithmetic.compute_multiplier(left_type, float(right_type.scale or 0), y)
    )
    for left_level, right_level, actual in zip(xs[0][0], xs[1][0, ::-1], got[0], strict=True):
        assert actual == requantize(int(left_level) * int(right_level), factor, *y.limits)


@pytest.mark.parametrize("inside", [False, True])
def test_a_mean_divides_by_the_size_of_its_window(inside: bool) -> None:
    pool = AvgPool((3, 3), (2, 2), 1, ceil=True, count_include_pad=not inside)
    x = create_quantized_type((1, 6, 6), 0.5, False)
    op = QAvgPool(0.5, False, 0, 255, pool)
    ones = np.ones((1, 1, 3, 3), np.int8)
    factor = (
        integer_arithmetic.compute_multiplier(x, 1.0, op.infer(x)) / op.count_elements(x)
    ).astype(np.float32)
    got = op.compute((x,), (np.full((1, 1, 6, 6), 180, np.uint8),), (ones, factor))
    if inside:
        np.testing.assert_array_equal(got, 180)
    else:
        np.testing.assert_array_equal(got[0, 0, 0], [80, 120, 120, 60])


def test_types_have_their_integer_limits() -> None:
    assert create_quantized_type((1,), 1, False).limits == (0, 255)
    assert create_quantized_type((1,), 1, True).limits == (-128, 127)
    with pytest.raises(UnhandledError, match="float32"):
        TensorType((1,)).limits  # noqa: B018 - a property that raises
