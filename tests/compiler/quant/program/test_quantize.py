"""From a lowered model to integers: function tables and refusals."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.ir.graph import Model
from tcc.compiler.ops import (
    Conv,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Op,
    Relu,
    Relu6,
    Scale,
    Sigmoid,
    Silu,
    Tanh,
)
from tcc.compiler.ops.integer import Table
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.rounding.nearest_rounding import round_nearest, round_weights
from tcc.compiler.quant.scale_groups import compute_scale
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.int8_models import (
    calibrate_on_input,
    create_quantized_type,
    lower_for_int8,
    sample_input,
)
from tcc.testing.nets import NetBuilder, create_span
from tcc.testing.op_cases import sample_weights

signed = st.booleans()


FUNCTIONS: dict[str, tuple[Op, float]] = {
    "relu": (Relu(), 0.0),
    "relu6": (Relu6(), 0.0),
    "leaky_relu": (LeakyRelu(0.2), 0.0),
    "scale": (Scale(-0.7, 0.3), 0.0),
    "sigmoid": (Sigmoid(), 1e-12),
    "silu": (Silu(), 1e-12),
    "tanh": (Tanh(), 1e-12),
    "gelu": (Gelu(), 1e-12),
    "hard_sigmoid": (HardSigmoid(), 1e-12),
    "hard_swish": (HardSwish(), 1e-12),
}


def evaluate_op(op: Op, x: float) -> float:  # noqa: C901, PLR0911
    match op:
        case Relu():
            return max(x, 0.0)
        case Relu6():
            return min(max(x, 0.0), 6.0)
        case LeakyRelu(slope=slope):
            return x if x > 0 else slope * x
        case Scale(factor=factor, offset=offset):
            return factor * x + offset
        case Sigmoid():
            return 1 / (1 + math.exp(-x))
        case Silu():
            return x / (1 + math.exp(-x))
        case Tanh():
            return math.tanh(x)
        case Gelu():
            return x / 2 * (1 + math.erf(x / math.sqrt(2)))
        case HardSigmoid():
            return min(max(x / 6 + 0.5, 0.0), 1.0)
        case HardSwish():
            return x * min(max(x / 6 + 0.5, 0.0), 1.0)
    raise AssertionError(op)


@pytest.mark.parametrize(("op", "slack"), FUNCTIONS.values(), ids=FUNCTIONS)
@given(st.floats(2.0**-13, 4.0, width=32), st.floats(2.0**-13, 1.0, width=32), signed, signed)
def test_a_table_contains_its_function(
    op: Op, slack: float, a: float, b: float, s: bool, t: bool
) -> None:
    x, y = create_quantized_type((1,), a, s), Range(b, t)
    entries = Table(b, t, *y.limits, op).compute_table(x)
    assert (entries.dtype, entries.shape) == (np.uint8, (256,))
    low, high = y.limits
    for position, entry in enumerate(entries):
        expected = min(max(evaluate_op(op, (position + x.limits[0]) * a) / b, low), high)
        assert abs(int(entry) + low - expected) <= 0.5 + slack * max(1.0, abs(expected)) + 1e-9


def build_model() -> Model:
    add = NetBuilder(3, 6, 6)
    add("stem", Conv(4, (3, 3), padding=1), at=create_span(7))
    add("relu", Relu())
    add("head", Conv(2, (1, 1)), at=create_span(9))
    return lower_for_int8(add.build(), sample_weights(add.build()))


def read_refusal(model: Model, calibration: Calibration) -> str:
    with pytest.raises(UserError) as caught:
        quantize(model, calibration)
    return str(caught.value)


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan, 1e-40, -1.0])
def test_an_invalid_scale_is_refused_with_its_layer(scale: float) -> None:
    model = build_model()
    calibration = calibrate_on_input(model, sample_input(model.graph))
    ranges = {**calibration.ranges, "head": replace(calibration.ranges["head"], scale=scale)}
    assert read_refusal(model, Calibration(ranges)) == (
        f"error[E0801]: the scale of `head` is {scale:g}, but it must be finite and at least 8.7e-19\n"
        " --> net.yaml:9:5\n"
        "  |\n"
        "9 |   - conv: {filters: 8}\n"
        "  |     ^^^^ this layer's output\n"
        "   = help: calibrate again with images of the kind that the network is used for"
    )


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan, 1e-40])
def test_an_invalid_weight_scale_is_refused_with_its_layer(scale: float) -> None:
    model = build_model()
    calibration = calibrate_on_input(model, sample_input(model.graph))
    rounded_layer = round_nearest(model, calibration.ranges)["stem"]
    wrong = rounded_layer.scale.copy()
    wrong[2] = scale
    text = read_refusal(
        model, replace(calibration, rounded={"stem": replace(rounded_layer, scale=wrong)})
    )
    assert text.startswith(
        "error[E0801]: a weight scale of `stem` is below 8.7e-19 or not finite\n --> net.yaml:7:5"
    )
    assert "this layer's weights" in text


def test_a_sum_that_could_overflow_is_refused_with_its_layer() -> None:
    model = build_model()
    calibration = calibrate_on_input(model, sample_input(model.graph))
    rounded_layer = round_nearest(model, calibration.ranges)["head"]
    bias = rounded_layer.bias.copy()
    total = np.abs(rounded_layer.weight[1].astype(np.int64)).sum() * 255
    for excess, fits in ((0, False), (-1, True)):
        bias[1] = (1 << 31) - total + excess
        changed = replace(calibration, rounded={"head": replace(rounded_layer, bias=bias)})
        if fits:
            quantize(model, changed)
            continue
        text = read_refusal(model, changed)
        assert text.startswith(
            "error[E0802]: the sums of `head` could overflow 32 bits\n --> net.yaml:9:5"
        )
        assert "they can reach 2,147,483,648, and the limit is 2,147,483,647" in text


@given(
    st.integers(1, 1 << 20),
    st.floats(2.0**-99, 2.0**33, width=32),
    st.floats(0, 2.0**33, width=32),
    st.floats(2.0**-60, 2.0**40, width=32),
    st.floats(2.0**-60, 2.0**40, width=32),
    signed,
)
def test_rounding_never_gives_weights_whose_sums_could_overflow(
    taps: int, weight: float, bias: float, x: float, y: float, s: bool
) -> None:
    values = np.full((2, min(taps, 5000)), weight, np.float32)
    values[1] = 0
    rounded_layer = round_weights(
        values, np.array([bias, -bias], np.float32), Range(x, s), Range(y, True)
    )
    assert np.isfinite(rounded_layer.scale).all()
    assert (rounded_layer.scale > 0).all()
    assert np.abs(rounded_layer.weight.astype(int)).max() <= 127
    total = np.abs(rounded_layer.weight.astype(np.int64)).sum(axis=1) * (128 if s else 255)
    assert (total + np.abs(rounded_layer.bias.astype(np.int64)) < 1 << 31).all()


@given(st.floats(0, 2.0**99, width=32), signed)
def test_the_largest_value_becomes_the_largest_quantized_value(top: float, s: bool) -> None:
    scale = compute_scale(top, s)
    max_quantized = 127 if s else 255
    assert scale == float(np.float32(scale)) > 0
    if top >= 2.0**-50:
        assert abs(top / scale - max_quantized) < 1e-4
    elif scale == 1.0:
        assert top < 1e-15


def test_the_scale_of_an_input_is_checked() -> None:
    model = build_model()
    calibration = calibrate_on_input(model, sample_input(model.graph))
    ranges = {**calibration.ranges, "image": replace(calibration.ranges["image"], scale=math.nan)}
    text = read_refusal(model, Calibration(ranges))
    assert text.startswith("error[E0801]: the scale of `image` is nan, but it must be finite")
    assert "the network's input" in text
