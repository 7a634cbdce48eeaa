"""The guard's integers against the definition in compiler/guard/__init__.py, written out anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.guard import forms, stream
from tcc.compiler.guard.guard_document import LayerForm, PictureForm
from tcc.compiler.guard.integer_log import compute_log2q8
from tcc.compiler.guard.picture_features import FEATURES, compute_features
from tcc.compiler.guard.pixel_sums import ROW_STEPS, compute_sums

int16 = st.integers(-(1 << 15), (1 << 15) - 1)


def log2q8(x):
    x = max(x, 1)
    exponent = x.bit_length() - 1
    y = x >> (exponent - 24) if exponent > 24 else x << (24 - exponent)
    fraction = 0
    for _ in range(8):
        y = (y * y) >> 24
        bit = int(y >= 1 << 25)
        fraction = 2 * fraction + bit
        y >>= bit
    return 256 * exponent + fraction


def clip(value, limit):
    return max(-limit, min(value, limit))


def write_sums(image, step):
    """Return the 17 sums pixel by pixel."""
    sums = [0] * 17
    for row in image[:: 2 * step]:
        for r, g, b in row:
            terms = (r, g, b, r * r, g * g, b * b, r * g, g * b, r * b)
            for index, term in enumerate(terms):
                sums[index] += term
            sums[15] += abs(r - g)
            sums[16] += abs(g - b)
    light = [[r + 2 * g + b for r, g, b in row] for row in image]
    for y in range(0, len(image), step):
        for x in range(len(image[0])):
            add_texture(sums, light, y, x)
    return sums


def add_texture(sums, light, y, x):
    here, width = light[y][x], len(light[0])
    for gap, index in ((1, 9), (4, 11), (16, 12)):
        across = [abs(light[y][x + gap] - here)] if x + gap < width else []
        down = [abs(here - light[y - gap][x])] if y >= gap else []
        sums[index] += sum(across + down)
        if gap == 1:
            sums[14] += (across + down).count(0)
            sums[13] += sum(across) * (x % 8 == 7) + sum(down) * (y % 8 == 0)
    if y >= 2 and 0 < x < width - 1:
        above = light[y - 1]
        neighbours = light[y - 2][x] + here + above[x - 1] + above[x + 1]
        sums[10] += abs(4 * above[x] - neighbours)


def write_features(s, height, width, step):
    n, c = width * -(-height // step), width * -(-height // (2 * step))

    def mean(total):
        return 256 * total // c

    def variance(squares, total):
        return log2q8(max(65536 * squares // c - mean(total) ** 2, 0) + 4096)

    detail = log2q8(16 * s[9] + n)
    return [
        *(log2q8(16 * s[index] + n) - detail for index in (10, 11, 12, 13)),
        log2q8(s[14] + n // 64 + 1),
        detail,
        *(variance(s[3 + index], s[index]) for index in range(3)),
        *(mean(s[index]) // 8 for index in range(3)),
        variance(s[3] + s[4] - 2 * s[6], s[0] - s[1]),
        variance(s[4] + s[5] - 2 * s[7], s[1] - s[2]),
        variance(s[3] + s[5] - 2 * s[8], s[0] - s[2]),
        log2q8(s[15] + c),
        log2q8(s[16] + c),
        mean(s[0] - s[1]) // 4,
        mean(s[1] - s[2]) // 4,
    ]


@given(st.integers(-5, (1 << 53) - 1))
@settings(max_examples=500)
def test_the_logarithm_is_exact_in_integers(number):
    assert compute_log2q8([number])[0] == log2q8(number)


def test_the_logarithm_is_near_the_real_one_and_never_above():
    numbers = np.unique(np.geomspace(1, 2**52, 5000).astype(np.int64))
    errors = 256 * np.log2(numbers.astype(float)) - compute_log2q8(numbers)
    assert errors.min() > -1e-6
    assert errors.max() < 1.01


@pytest.mark.parametrize("step", ROW_STEPS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 20), (40, 21), (33, 16)])
def test_sums_and_features_are_those_of_the_definition(step, size):
    random = np.random.default_rng(sum(size) + step)
    # Few grey values, so that equal neighbours occur.
    pixels = (random.integers(0, 6, (*size, 3)) * 51).astype(np.uint8)
    sums = compute_sums(pixels, step)
    assert sums.tolist() == write_sums(pixels.tolist(), step)
    features = compute_features(sums[None], *size, step)[0]
    assert features.tolist() == write_features(sums.tolist(), *size, step)


def test_one_channel_counts_as_three_equal_ones():
    grey = np.random.default_rng(0).integers(0, 256, (24, 24, 1)).astype(np.uint8)
    assert (compute_sums(grey, 1) == compute_sums(grey.repeat(3, axis=2), 1)).all()


def test_no_intermediate_of_the_largest_image_passes_53_bits():
    # A white image of 2^20 sampled pixels has the largest squares.
    white = np.full((1 << 10, 1 << 10, 3), 255, np.uint8)
    sums = compute_sums(white, 1)
    assert 65536 * int(sums[3]) < 1 << 53
    features = compute_features(sums[None], 1 << 10, 1 << 10, 1)[0]
    assert features[9:12].tolist() == [256 * 255 // 8] * 3


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_deviations_and_picture_scores_equal_exact_integers(data):
    count = len(FEATURES)
    center = data.draw(st.lists(int16, min_size=count, max_size=count))
    rows = data.draw(st.lists(int16, min_size=190, max_size=190))
    shifts = data.draw(st.lists(st.integers(4, 30), min_size=count, max_size=count))
    features = data.draw(st.lists(st.integers(-(10**5), 10**5), min_size=count, max_size=count))
    form = PictureForm(tuple(center), tuple(rows), tuple(shifts))
    expected, position = [], 0
    for k in range(count):
        total = 0
        for j in range(k + 1):
            total += rows[position] * clip(features[j] - center[j], 32767)
            position += 1
        expected.append(clip(total >> (shifts[k] - 4), 1 << 22))
    deviations = forms.compute_deviations(form, np.array([features]))
    assert deviations[0].tolist() == expected
    score = log2q8(16 + sum(deviation**2 for deviation in expected))
    assert forms.compute_picture_scores(deviations).tolist() == [score]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_layer_scores_equal_exact_integers(data):
    channels, directions = data.draw(st.integers(4, 20)), data.draw(st.integers(1, 4))

    def draw(strategy, size):
        return tuple(data.draw(st.lists(strategy, min_size=size, max_size=size)))

    large = st.integers(-(1 << 28), 1 << 28)
    shifts = st.integers(0, 30)
    form = LayerForm(
        "layer",
        (channels, 8, 8),
        1,
        center=draw(large, channels),
        factors=draw(st.integers(0, (1 << 16) - 1), channels),
        factor_shift=data.draw(shifts),
        directions=draw(int16, channels * directions),
        weights=draw(int16, directions + 1),
        weight_shifts=draw(shifts, directions + 1),
    )
    sums = draw(large, channels)
    z = [
        clip(((s - c) * a) >> form.factor_shift, 2047)
        for s, c, a in zip(sums, form.center, form.factors, strict=True)
    ]
    rows = [form.directions[k * channels : (k + 1) * channels] for k in range(directions)]
    p = [clip(sum(v * x for v, x in zip(row, z, strict=True)) >> 8, 1 << 22) for row in rows]
    energies = [sum(x * x for x in z), *((x * x) >> 8 for x in p)]
    terms = [
        (w * e) >> shift
        for w, e, shift in zip(form.weights, energies, form.weight_shifts, strict=True)
    ]
    assert all(abs(w * e) < 1 << 53 for w, e in zip(form.weights, energies, strict=True))
    expected = log2q8(16 + max(sum(terms), 0))
    assert forms.compute_layer_scores(form, np.array([sums])).tolist() == [expected]


def test_channel_sums_are_of_codes_with_their_sign():
    codes = np.full((4, 2, 2), -100, np.int8)
    codes[2] = 100
    assert forms.compute_channel_sums(codes, 2).tolist() == [-400, 400]


def test_products_of_evidence_stay_below_53_bits():
    from tcc.compiler.guard.guard_document import MAX_STEP

    assert (stream.EVIDENCE_LIMIT + 256) * MAX_STEP < 1 << 53
