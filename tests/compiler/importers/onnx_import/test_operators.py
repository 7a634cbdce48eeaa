"""Each operator and each form of it: its imported steps compute what the file computes."""

import numpy as np
import pytest
from onnx_nets import make_random_weights

C = (4, 6, 6)
HALF, SQRT2 = np.float32(0.5), np.float32(np.sqrt(2))


def create_conv_weights(filters=5, channels=4, kernel=(3, 3), bias=True):
    weights = {"w": make_random_weights(filters, channels, *kernel)}
    return weights | ({"b": make_random_weights(filters, seed=1)} if bias else {})


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ("", "conv: {filters: 5, kernel: 3}"),
        ("pads = [1, 1, 1, 1], strides = [2, 1]", "stride: [2, 1], padding: 1}"),
        ("pads = [0, 1, 2, 0]", "padding: [0, 1, 2, 0]}"),
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', "stride: 2, padding: [0, 0, 1, 1]}"),
        ('auto_pad = "SAME_LOWER", strides = [2, 2]', "stride: 2, padding: [1, 1, 0, 0]}"),
        ('auto_pad = "VALID"', "conv: {filters: 5, kernel: 3}"),
        ("dilations = [2, 1]", "dilation: [2, 1]}"),
    ],
)
def test_conv_is_imported(steps, attributes, step):
    inner = f"<{attributes}>" if attributes else ""
    (line,) = steps(f"y = Conv {inner} (x, w, b)", create_conv_weights())
    assert step in line
    assert line.endswith(", id: conv}")


def test_grouped_convolutions_are_imported(steps):
    weights = {
        "w": make_random_weights(4, 1, 3, 3),
        "v": make_random_weights(8, 2, 1, 1),
        "u": make_random_weights(16, 1, 1, 1),
    }
    text = "a = Conv <group = 4> (x, w) b = Conv <group = 2> (a, v) y = Conv <group = 8> (b, u)"
    assert steps(text, weights) == [
        "- {depthwise_conv: {kernel: 3, bias: false}, id: conv}",
        "- {conv: {filters: 8, kernel: 1, groups: 2, bias: false}, id: conv_2}",
        "- {depthwise_conv: {kernel: 1, bias: false, multiplier: 2}, id: conv_3}",
    ]


@pytest.mark.parametrize(
    ("attributes", "step"),
    [
        ("", "{filters: 6, kernel: 3}"),
        ("strides = [2, 2], pads = [1, 1, 1, 1]", "{filters: 6, kernel: 3, stride: 2, padding: 1}"),
        (
            "strides = [2, 2], pads = [1, 1, 0, 0]",
            "{filters: 6, kernel: 3, stride: 2, padding: 1, output_padding: 1}",
        ),
        (
            "strides = [2, 2], output_padding = [1, 0]",
            "{filters: 6, kernel: 3, stride: 2, output_padding: [1, 0]}",
        ),
        ("group = 2", "{filters: 12, kernel: 3, groups: 2}"),
        (
            "dilations = [2, 2], pads = [1, 1, 0, 0]",
            "{filters: 6, kernel: 3, padding: 1, output_padding: 1, dilation: 2}",
        ),
    ],
)
def test_conv_transpose_is_imported(steps, attributes, step):
    weights = {
        "w": make_random_weights(4, 6, 3, 3),
        "b": make_random_weights(12 if "group" in attributes else 6),
    }
    inner = f"<{attributes}>" if attributes else ""
    text = f"y = ConvTranspose {inner} (x, w, b)"
    joined_lines = " ".join(line.strip() for line in steps(text, weights))
    assert f"conv_transpose: {step}" in joined_lines
    assert "id: conv_transpose" in joined_lines


@pytest.mark.parametrize(
    ("text", "extra"),
    [
        ("y = Gemm <transB = 1> (f, w, b)", ""),
        ("y = Gemm (f, v, b)", ""),
        ("y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, w, b)", ""),
        ("y = Gemm <transB = 1> (f, w, c)", ""),
        ("y = Gemm <transB = 1> (f, w)", ", bias: false"),
        ("y = MatMul (f, v)", ", bias: false"),
        ("m = MatMul (f, v) y = Add (m, b)", ""),
        ("m = MatMul (f, v) y = Add (b, m)", ""),
    ],
)
def test_linear_is_imported(steps, text, extra):
    weights = {
        "w": make_random_weights(3, 4),
        "v": make_random_weights(4, 3),
        "b": make_random_weights(3),
        "c": make_random_weights(1, 3),
    }
    lines = steps(f"g = GlobalAveragePool (x) f = Flatten (g) {text}", weights, outputs={"y": 2})
    assert lines[:2] == ["- global_avg_pool", "- flatten"]
    assert lines[2].startswith(f"- {{linear: {{units: 3{extra}}}, id: ")


def test_a_bias_added_later_becomes_the_bias_of_the_layer(steps):
    weights = {"w": make_random_weights(5, 4, 1, 1), "b": make_random_weights(5, 1, 1)}
    (line,) = steps("c = Conv (x, w) y = Add (c, b)", weights)
    assert line == "- {conv: {filters: 5, kernel: 1}, id: conv}"


def test_batch_norm_is_imported(steps):
    weights = {
        "s": make_random_weights(4),
        "b": make_random_weights(4),
        "m": make_random_weights(4),
        "v": np.abs(make_random_weights(4)) + HALF,
    }
    text = "y = BatchNormalization <epsilon = 0.001> (x, s, b, m, v)"
    assert steps(text, weights) == ["- {batch_norm: {eps: 0.001}, id: batch_norm}"]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("y = Relu (x)", "relu"),
        ("y = Sigmoid (x)", "sigmoid"),
        ("y = Tanh (x)", "tanh"),
        ("y = LeakyRelu (x)", "leaky_relu"),
        ("y = LeakyRelu <alpha = 0.2> (x)", "leaky_relu: {slope: 0.2}"),
        ("y = PRelu (x, quarter)", "leaky_relu: {slope: 0.25}"),
        ("y = HardSwish (x)", "hard_swish"),
        ("y = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)", "hard_sigmoid"),
        ("y = Clip (x, zero, six)", "relu6"),
        ("y = Clip (x, zero)", "relu"),
        ("y = Clip (x, zero, huge)", "relu"),
        ("y = Softmax <axis = 1> (x)", "softmax"),
        ("y = Softmax <axis = -3> (x)", "softmax"),
        ("s = Sigmoid (x) y = Mul (x, s)", "silu"),
        ("s = Sigmoid (x) y = Mul (s, x)", "silu"),
        ("s = HardSigmoid <alpha = 0.16666667> (x) y = Mul (x, s)", "hard_swish"),
        ("a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)", "hard_sigmoid"),
        ("a = Add (three, x) c = Clip (a, zero, six) y = Mul (c, sixth)", "hard_sigmoid"),
        ("a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)", "hard_swish"),
        ("a = Add (x, three) c = Clip (a, zero, six) d = Div (c, six) y = Mul (d, x)", "hard_swish"),
        ("d = Div (x, sqrt2) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)", "gelu"),
        ("d = Div (x, sqrt2) e = Erf (d) a = Add (one, e) h = Mul (x, half) y = Mul (h, a)", "gelu"),
        ("d = Mul (x, isqrt2) e = Erf (d) a = Add (e, one) h = Mul (a, half) y = Mul (x, h)", "gelu"),
        ("m = Max (x, zero) y = Min (m, six)", "relu6"),
        ("m = Relu (x) y = Min (six, m)", "relu6"),
        ("m = Relu (x) y = Clip (m, , six)", "relu6"),
        ("m = Max (zero, x) y = Clip (m, zero, huge)", "relu"),
        ("y = Max (x, zero)", "relu"),
        ("y = Pow (x, three)", "mul: [[], [], []]"),
        ("y = Sum (x)", "identity"),
        ("y = Sum (x, x)", "add: [[], []]"),
        ("y = Clip (x)", "identity"),
        ("y = Neg (x)", "scale: {factor: -1.0}"),
        ("y = Pow (x, two)", "mul: [[], []]"),
        ("y = Mul (x, x)", "mul: [[], []]"),
        ("y = Mul (half, x)", "scale: {factor: 0.5}"),
        ("y = Div (x, two)", "scale: {factor: 0.5}"),
        ("y = Add (x, half)", "scale: {offset: 0.5}"),
        ("y = Sub (x, half)", "scale: {offset: -0.5}"),
        ("m = Mul (x, half) y = Sub (m, two)", "scale: {factor: 0.5, offset: -2.0}"),
        ("y = Sub (half, x)", "scale: {factor: -1.0, offset: 0.5}"),
        ("y = Cast <to = 1> (x)", "identity"),
    ],
)  # fmt: skip
def test_activation_functions_are_imported(steps, text, step):
    numbers = {"quarter": 0.25, "zero": 0, "one": 1, "two": 2, "three": 3, "six": 6, "half": 0.5}
    numbers |= {"huge": 3.4028235e38, "sixth": 1 / 6, "sqrt2": np.sqrt(2), "isqrt2": np.sqrt(0.5)}
    weights = {name: np.float32(value).reshape(()) for name, value in numbers.items()}
    relu = " z = Relu (y)" if step == "identity" else ""  # a network needs an op with an effect
    lines = steps(f"{text}{relu}", weights, outputs={"z" if relu else "y": 4})
    assert lines == [f"- {'relu' if relu else step}"]


@pytest.mark.parametrize(
    ("text", "steps_of_it"),
    [
        (
            "y = Clip (x, half, two)",
            ["scale: {factor: 4.0, offset: -2.0}", "relu6", "scale: {factor: 0.25, offset: 0.5}"],
        ),
        ("y = Clip (x, half)", ["scale: {offset: -0.5}", "relu", "scale: {offset: 0.5}"]),
        ("y = Max (x, half)", ["scale: {offset: -0.5}", "relu", "scale: {offset: 0.5}"]),
        (
            "y = Min (x, two)",
            ["scale: {factor: -1.0, offset: 2.0}", "relu", "scale: {factor: -1.0, offset: 2.0}"],
        ),
        ("y = HardSigmoid (x)", ["scale: {factor: 1.2}", "hard_sigmoid"]),
        ("y = HardSigmoid <alpha = 0.5, beta = 0.0> (x)", ["scale: {factor: 3.0, offset: -3.0}", "hard_sigmoid"]),
        (
            "s = Mul (x, two) g = Sigmoid (s) y = Mul (x, g)",
            ["mul: [[], [scale: {factor: 2.0}, sigmoid]]"],
        ),
        ("y = PRelu (x, each)", None),
        ("y = Mean (x, x)", ["add: [[], []]", "scale: {factor: 0.5}"]),
    ],
)  # fmt: skip
def test_composite_functions_are_recognized(steps, text, steps_of_it):
    numbers = {"half": np.float32(0.5).reshape(()), "two": np.float32(2).reshape(())}
    # Scaling loses the last bits of values far beyond the bounds.
    lines = steps(text, numbers | {"each": make_random_weights(4, 1, 1)}, tolerance=1e-5)
    assert steps_of_it is None or lines == [f"- {step}" for step in steps_of_it]


def test_tanh_gelu_is_imported(steps):
    assert len(steps('y = Gelu <approximate = "tanh"> (x)', opset=20)) > 1
    numbers = {"half": 0.5, "one": 1, "three": 3, "b": 0.044715, "a": np.sqrt(2 / np.pi)}
    text = (
        "p = Pow (x, three) q = Mul (p, b) s = Add (x, q) r = Mul (s, a) t = Tanh (r)"
        " u = Add (t, one) h = Mul (x, half) y = Mul (h, u)"
    )
    steps(text, {name: np.float32(n).reshape(()) for name, n in numbers.items()})


@pytest.mark.parametrize(
    "attributes",
    [
        "strides = [2, 2], pads = [0, 0, 1, 1]",
        "strides = [2, 2], pads = [3, 0, 0, 3]",
        "strides = [3, 2], dilations = [2, 1], pads = [0, 1, 3, 0]",
        "strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 0]",
        'strides = [2, 2], auto_pad = "SAME_UPPER"',
        'strides = [2, 3], auto_pad = "SAME_LOWER"',
        'strides = [2, 2], auto_pad = "VALID"',
        "strides = [2, 2], output_shape = [11, 12]",
        'strides = [3, 2], output_shape = [18, 13], auto_pad = "SAME_UPPER"',
    ],
)
def test_cropped_transposed_convolutions_are_imported(steps, attributes):
    weights = {"w": make_random_weights(4, 6, 3, 4), "b": make_random_weights(6)}
    lines = steps(f"y = ConvTranspose <{attributes}> (x, w, b)", weights)
    assert lines[0].startswith("- conv_transpose") or lines[0].startswith("- {conv_transpose")


def test_functions_of_later_opsets_are_imported(steps):
    assert steps("y = Gelu (x)", opset=20) == ["- gelu"]


def test_functions_of_earlier_opsets_are_imported(steps):
    assert steps("y = Clip <min = 0.0, max = 6.0> (x)", opset=10) == ["- relu6"]
    text = "y, m = Dropout <ratio = 0.5> (x) z = Relu (y)"
    assert steps(text, opset=9, outputs={"z": 4}) == ["- relu"]


@pytest.mark.parametrize("constant_first", [True, False])
def test_constants_per_channel_are_imported(steps, constant_first):
    weights = {"s": make_random_weights(4, 1, 1), "t": make_random_weights(1, 4, 1, 1, seed=1)}
    text = "m = Mul (s, x) y = Add (m, t)" if constant_first else "m = Mul (x, s) y = Sub (m, t)"
    assert steps(text, weights) == ["- {scale_shift: {}, id: scale_shift}"]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("kernel_shape = [2, 2], strides = [2, 2]", "{kernel: 2}"),
        ("kernel_shape = [3, 3]", "{kernel: 3, stride: 1}"),
        (
            "kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 0]",
            "{kernel: [3, 2], stride: [2, 1], padding: [1, 0]}",
        ),
        (
            "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1",
            "{kernel: 3, stride: 2, ceil: true}",
        ),
        (
            "kernel_shape = [3, 3], strides = [2, 2], pads = [0, 0, 1, 1]",
            "{kernel: 3, stride: 2, ceil: true}",
        ),
        (
            'kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER"',
            "{kernel: 3, stride: 2, padding: 1}",
        ),
    ],
)
@pytest.mark.parametrize("op_name", ["max_pool", "avg_pool"])
def test_pools_are_imported(steps, text, step, op_name):
    operator = {"max_pool": "MaxPool", "avg_pool": "AveragePool"}[op_name]
    padded = op_name == "avg_pool" and ", padding" in step
    step = step.replace("}", ", count_include_pad: false}") if padded else step
    assert steps(f"y = {operator} <{text}> (x)") == [f"- {op_name}: {step}"]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("strides = [1, 1], pads = [1, 1, 1, 1], count_include_pad = 1", "stride: 1, padding: 1}"),
        (
            "strides = [2, 2], pads = [1, 0, 0, 1], count_include_pad = 1",
            "stride: 2, padding: [1, 0, 0, 1]}",
        ),
        ("strides = [2, 2], count_include_pad = 1", "stride: 2}"),
    ],
)
def test_average_pools_that_count_padding_are_imported(steps, text, step):
    (line,) = steps(f"y = AveragePool <kernel_shape = [3, 3], {text}> (x)")
    assert line == f"- avg_pool: {{kernel: 3, {step}"


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize(
    "border",
    [
        'auto_pad = "SAME_UPPER"',
        'auto_pad = "SAME_LOWER"',
        'auto_pad = "VALID"',
        (0, 0, 1, 1),
        (1, 0, 0, 2),
        (2, 1, 2, 1),
    ],
)
def test_pool_padding_is_imported(steps, operator, ceil, counted, border):
    """Windows of even and odd sizes, with strides that fit or not."""
    count = f", count_include_pad = {counted}" if operator == "AveragePool" else ""
    for kernel, stride, size in (((2, 3), 1, 5), ((3, 2), 2, 6), ((3, 4), 3, 7), ((3, 3), 2, 7)):
        pads = border
        if isinstance(border, tuple):  # at most as wide as the window
            pads = f"pads = {[min(p, k - 1) for p, k in zip(border, kernel * 2, strict=True)]}"
        attributes = (
            f"kernel_shape = {[*kernel]}, strides = {[stride, stride]}, ceil_mode = {ceil}{count}"
        )
        lines = steps(
            f"y = {operator} <{attributes}, {pads}> (x)", shape=(2, size, size + 1), opset=13
        )
        prefix = {"AveragePool": "- avg_pool", "MaxPool": "- max_pool"}[operator]
        assert [line for line in lines if line.startswith("-")] == lines[:1]
        assert lines[0].startswith(prefix)


@pytest.mark.parametrize(
    ("pads", "step"),
    [
        ("pads = [0, 0, 1, 1]", "padding: [0, 0, 1, 1], count_include_pad: false}"),
        ('auto_pad = "SAME_UPPER"', "padding: [0, 0, 1, 1], count_include_pad: false}"),
        ('auto_pad = "SAME_LOWER"', "padding: [1, 1, 0, 0], count_include_pad: false}"),
        ("pads = [0, 0, 1, 1], count_include_pad = 1", "padding: [0, 0, 1, 1]}"),
    ],
)
def test_average_pools_with_uneven_padding_are_imported(steps, pads, step):
    lines = steps(f"y = AveragePool <kernel_shape = [2, 2], {pads}> (x)")
    assert lines == [f"- avg_pool: {{kernel: 2, stride: 1, {step}"]


@pytest.mark.parametrize(
    ("text", "opset", "op_name"),
    [
        ("y = GlobalAveragePool (x)", 17, "global_avg_pool"),
        ("y = GlobalMaxPool (x)", 17, "global_max_pool"),
        ("y = ReduceMean <axes = [2, 3]> (x)", 17, "global_avg_pool"),
        ("y = ReduceMean <axes = [-1, -2], keepdims = 1> (x)", 13, "global_avg_pool"),
        ("y = ReduceMean (x, axes)", 18, "global_avg_pool"),
        ("y = ReduceMax <axes = [2, 3]> (x)", 17, "global_max_pool"),
        (
            "s = ReduceMean <noop_with_empty_axes = 1> (x) y = GlobalMaxPool (s)",
            18,
            "global_max_pool",
        ),
        ("y = ReduceMax (x, axes)", 18, "global_max_pool"),
        (
            "r = Reshape (x, rows) m = ReduceMean <axes = [2]> (r) y = Unsqueeze (m, last)",
            17,
            "global_avg_pool",
        ),
        (
            "t = Transpose <perm = [0, 2, 3, 1]> (x) m = ReduceMean <axes = [1, 2]> (t)"
            " y = Transpose <perm = [0, 3, 1, 2]> (m)",
            17,
            "global_avg_pool",
        ),
    ],
)
def test_global_pools_are_imported(steps, text, opset, op_name):
    weights = {"axes": np.int64([2, 3]), "rows": np.int64([0, 4, -1]), "last": np.int64([3])}
    assert steps(text, weights, opset=opset) == [f"- {op_name}"]


def test_a_sum_over_all_pixels_is_imported(steps):
    lines = steps("y = ReduceSum (x, axes)", {"axes": np.int64([2, 3])})
    assert lines == ["- global_avg_pool", "- scale: {factor: 36.0}"]


@pytest.mark.parametrize(
    "text",
    [
        "f = Flatten (g)",
        "f = Reshape (g, rest)",
        "f = Reshape (g, whole)",
        "f = Squeeze (g, axes)",
        "s = Shape <start = 0, end = 1> (g) t = Concat <axis = 0> (s, minus) f = Reshape (g, t)",
    ],
)
def test_flattening_forms_are_imported(steps, text):
    weights = {
        "rest": np.int64([0, -1]),
        "whole": np.int64([-1, 4]),
        "axes": np.int64([2, 3]),
        "minus": np.int64([-1]),
        "w": make_random_weights(3, 4),
    }
    lines = steps(
        f"g = GlobalAveragePool (x) {text} y = Gemm <transB = 1> (f, w)", weights, outputs={"y": 2}
    )
    assert lines[:2] == ["- global_avg_pool", "- flatten"]


def test_a_map_is_flattened_channel_by_channel(steps):
    weights = {"w": make_random_weights(3, 144)}
    text = "f = Flatten (x) y = Gemm <transB = 1> (f, w)"
    assert steps(text, weights, outputs={"y": 2})[0] == "- flatten"


@pytest.mark.parametrize(
    ("text", "opset", "step"),
    [
        ("y = Slice (x, one, three, one)", 17, "slice: {start: 1, stop: 3}"),
        ("y = Slice (x, minus, huge, one)", 17, "slice: {start: 3}"),
        ("y = Slice (x, zero, huge, one, two)", 17, "slice: {stop: 3, step: 2}"),
        ("y = Slice <axes = [1], starts = [0], ends = [2]> (x)", 9, "slice: {stop: 2}"),
        ("y = Gather <axis = 1> (x, pair)", 17, "slice: {start: 1, stop: 3}"),
        ("a = Gather <axis = 1> (x, two0) y = Unsqueeze (a, one)", 17, "slice: {start: 2, stop: 3}"),
        ("a = Slice (x, one, huge, one) y = Slice (a, one, huge, one)", 17, "slice: {start: 2}"),
    ],
)  # fmt: skip
def test_channel_slices_are_imported(steps, text, opset, step):
    numbers = {"zero": 0, "one": 1, "two": 2, "three": 3, "minus": -1, "huge": 2**62}
    weights = {name: np.int64([n]) for name, n in numbers.items()}
    weights |= {"pair": np.int64([1, 2]), "two0": np.int64(2).reshape(())}
    assert steps(text, weights, opset=opset) == [f"- {step}"]


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("a, b = Split <axis = 1> (x)", 11),
        ("a, b = Split <axis = 1, split = [2, 2]> (x)", 11),
        ("a, b = Split <axis = 1> (x, halves)", 13),
        ("a, b = Split <axis = 1, num_outputs = 2> (x)", 18),
    ],
)
def test_channel_splits_are_imported(steps, text, opset):
    lines = steps(
        f"{text} r = Relu (b) y = Concat <axis = 1> (a, r)",
        {"halves": np.int64([2, 2])},
        opset=opset,
    )
    assert lines == ["- concat: [[slice: {stop: 2}], [slice: {start: 2}, relu]]"]


@pytest.mark.parametrize(
    "text",
    [
        "r = Reshape (x, split) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) y = Reshape (t, joined)",
        "r = Reshape (x, rows) t = Transpose <perm = [0, 2, 1, 3]> (r) y = Reshape (t, joined)",
        "a, b = Split <axis = 1> (x, halves) c = Unsqueeze (a, two) d = Unsqueeze (b, two)"
        " s = Concat <axis = 2> (c, d) y = Reshape (s, joined)",
    ],
)
def test_channel_shuffles_are_imported(steps, text):
    weights = {
        "split": np.int64([0, 2, 2, 6, 6]),
        "rows": np.int64([-1, 2, 2, 36]),
        "joined": np.int64([0, 4, 6, 6]),
        "halves": np.int64([2, 2]),
        "two": np.int64([2]),
    }
    assert steps(text, weights) == ["- channel_shuffle: {groups: 2}"]


def test_a_vector_gate_becomes_convolutions(steps):
    weights = {
        "w": make_random_weights(2, 4),
        "b": make_random_weights(2),
        "v": make_random_weights(4, 2),
        "shape": np.int64([0, 4, 1, 1]),
    }
    text = (
        "g = GlobalAveragePool (x) f = Flatten (g) h = Gemm <transB = 1> (f, w, b) r = Relu (h)"
        " k = Gemm <transB = 1> (r, v) s = Sigmoid (k) u = Reshape (s, shape) y = Mul (x, u)"
    )
    assert steps(text, weights) == [
        "- mul:",
        "    - []",
        "    - - global_avg_pool",
        "      - {conv: {filters: 2, kernel: 1}, id: conv}",
        "      - relu",
        "      - {conv: {filters: 4, kernel: 1, bias: false}, id: conv_2}",
        "      - sigmoid",
    ]


def test_an_expand_before_a_product_is_dropped(steps):
    text = "g = GlobalAveragePool (x) e = Expand (g, shape) y = Mul (x, e)"
    weights = {"shape": np.int64([1, 4, 6, 6])}
    assert steps(text, weights) == ["- mul: [[], [global_avg_pool]]"]


def test_an_expand_before_a_concat_becomes_a_resize(steps):
    text = "g = GlobalAveragePool (x) e = Expand (g, shape) y = Concat <axis = 1> (x, e)"
    weights = {"shape": np.int64([1, 4, 6, 6])}
    assert steps(text, weights) == ["- concat: [[], [global_avg_pool, resize: {size: 6}]]"]


def test_channels_last_sections_are_imported(steps):
    weights = {
        "s": make_random_weights(4),
        "b": make_random_weights(4, seed=1),
        "v": make_random_weights(4, 8),
        "c": make_random_weights(8),
        "u": make_random_weights(8, 4),
        "gamma": make_random_weights(4, seed=2),
    }
    text = (
        "t = Transpose <perm = [0, 2, 3, 1]> (x)"
        " n = LayerNormalization <axis = -1, epsilon = 0.000001> (t, s, b)"
        " m = MatMul (n, v) a = Add (m, c) r = Relu (a) k = MatMul (r, u) g = Mul (k, gamma)"
        " z = Transpose <perm = [0, 3, 1, 2]> (g) y = Add (x, z)"
    )
    assert steps(text, weights) == [
        "- add:",
        "    - []",
        "    - - {layer_norm: {eps: 1e-06}, id: layer_norm}",
        "      - {conv: {filters: 8, kernel: 1}, id: conv}",
        "      - relu",
        "      - {conv: {filters: 4, kernel: 1, bias: false}, id: conv_2}",
        "      - {scale_shift: {}, id: scale_shift}",
    ]


def test_a_channels_last_image_is_imported(steps, imported, write_model):
    weights = {
        "w": make_random_weights(4, 3, 3, 3),
        "v": make_random_weights(4 * 6 * 5, 2),
        "shape": np.int64([-1, 120]),
    }
    weights["half"] = np.float32([0.5, 0.5, 0.25])
    text = (
        "s = Mul (x, half) t = Transpose <perm = [0, 3, 1, 2]> (s) c = Conv <pads = [1, 1, 1, 1]> (t, w)"
        " b = Transpose <perm = [0, 2, 3, 1]> (c) f = Reshape (b, shape) y = MatMul (f, v)"
    )
    assert steps(text, weights, shape=(6, 5, 3), outputs={"y": 2}) == [
        "- {scale_shift: {}, id: scale_shift}",
        "- {conv: {filters: 4, kernel: 3, padding: 1, bias: false}, id: conv}",
        "- flatten",
        "- {linear: {units: 2, bias: false}, id: linear}",
    ]
    model = imported(write_model(text, weights, shape=(6, 5, 3), outputs={"y": 2}))
    assert model.spec.graph.inputs[0].type.shape == (3, 6, 5)


@pytest.mark.parametrize("square", ["Mul (d, d)", "Pow (d, two)"])
@pytest.mark.parametrize("shape", [(4, 6, 6), (4,)])
def test_decomposed_layer_norm_is_recognized(steps, square, shape):
    weights = {
        "two": np.float32(2).reshape(()),
        "eps": np.float32(1e-3).reshape(()),
        "s": make_random_weights(4, *(1 for _ in shape[1:])),
        "b": make_random_weights(4, *(1 for _ in shape[1:]), seed=1),
        "flat": np.int64([0, -1]),
        "axes": np.int64([2, 3]),
    }
    start = "" if len(shape) == 3 else "h = GlobalAveragePool (x) x2 = Squeeze (h, axes)"
    x = "x" if len(shape) == 3 else "x2"
    text = (
        f"{start} m = ReduceMean <axes = [1]> ({x}) d = Sub ({x}, m) q = {square}"
        " v = ReduceMean <axes = [1]> (q) a = Add (v, eps) r = Sqrt (a) n = Div (d, r)"
        " g = Mul (n, s) y = Add (g, b)"
    )
    lines = steps(text, weights, outputs={"y": 1 + len(shape)}, tolerance=1e-4)
    assert lines[-1] == "- {layer_norm: {eps: 0.001}, id: layer_norm}"


def test_pad_is_imported(steps):
    weights = {
        "w": np.int64([0, 0, 1, 2, 0, 0, 3, 0]),
        "v": np.float32(-1.5).reshape(()),
        "two": np.int64([1, 2, 3, 0]),
        "axes": np.int64([2, 3]),
    }
    step = "pad: {padding: [1, 2, 3, 0], value: -1.5}"
    assert steps("y = Pad (x, w, v)", weights) == [f"- {step}"]
    old = "y = Pad <pads = [0, 0, 1, 2, 0, 0, 3, 0], value = -1.5> (x)"
    assert steps(old, opset=10) == [f"- {step}"]
    assert steps("y = Pad (x, two, v, axes)", weights, opset=18) == [f"- {step}"]


@pytest.mark.parametrize(
    ("text", "opset", "step"),
    [
        (
            'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",'
            ' nearest_mode = "floor"> (x, none, scales)',
            13,
            "{size: [12, 18]}",
        ),
        ('y = Resize <mode = "nearest"> (x, none, scales)', 13, "{size: [12, 18]}"),
        ('y = Resize <mode = "nearest"> (x, none, none, sizes)', 13, "{size: [12, 18]}"),
        (
            'y = Resize <mode = "linear"> (x, none, scales)',
            13,
            "{size: [12, 18], mode: bilinear}",
        ),
        (
            'y = Resize <mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel">'
            " (x, none, none, odd)",
            13,
            "{size: [7, 5], mode: bilinear}",
        ),
        ('y = Upsample <mode = "nearest"> (x, scales)', 9, "{size: [12, 18]}"),
    ],
)
def test_resize_is_imported(steps, text, opset, step):
    weights = {
        "none": np.zeros(0, np.float32),
        "scales": np.float32([1, 1, 2, 3]),
        "sizes": np.int64([1, 4, 12, 18]),
        "odd": np.int64([1, 4, 7, 5]),
    }
    assert steps(text, weights, opset=opset, tolerance=1e-5) == [f"- resize: {step}"]


def test_adds_muls_and_concats_are_imported(steps):
    assert steps("r = Relu (x) y = Add (x, r)") == ["- add: [[], [relu]]"]
    assert steps("r = Relu (x) y = Sub (r, x)") == ["- add: [[relu], [scale: {factor: -1.0}]]"]
    text = "a = Relu (x) b = Tanh (x) y = Concat <axis = 1> (a, b, x)"
    assert steps(text) == ["- concat: [[relu], [tanh], []]"]


def test_branches_with_shared_steps_are_joined_by_name(steps):
    text = "a = Relu (x) b = Tanh (a) c = Sigmoid (x) d = Add (b, c) e = Mul (a, d) y = Add (e, c)"
    assert steps(text) == [
        "- {relu: {}, as: relu}",
        "- {sigmoid: {}, as: sigmoid, from: x}",
        "- {tanh: {}, from: relu}",
        "- add: [[], sigmoid]",
        "- mul: [relu, []]",
        "- add: [[], sigmoid]",
    ]


def test_a_dense_block_concatenates_only_new_values(steps):
    """Exporters concatenate every earlier value again."""
    text = (
        "a = Conv (x, u) p = Concat <axis = 1> (x, a) b = Conv (p, v)"
        " q = Concat <axis = 1> (x, a, b) c = Conv (q, w) y = Concat <axis = 1> (x, a, b, c)"
    )
    weights = {
        "u": make_random_weights(2, 4, 1, 1),
        "v": make_random_weights(2, 6, 1, 1),
        "w": make_random_weights(2, 8, 1, 1),
    }
    assert steps(text, weights) == [
        "- concat: [[], [{conv: {filters: 2, kernel: 1, bias: false}, id: conv}]]",
        "- concat: [[], [{conv: {filters: 2, kernel: 1, bias: false}, id: conv_2}]]",
        "- concat: [[], [{conv: {filters: 2, kernel: 1, bias: false}, id: conv_3}]]",
    ]


def test_equal_sequences_become_a_repeat(imported, write_model):
    text = "".join(
        f" c{i} = Conv <pads = [1, 1, 1, 1]> ({'x' if i == 0 else f'a{i - 1}'}, w{i}, b{i})"
        f" r{i} = Relu (c{i}) a{i} = Add ({'x' if i == 0 else f'a{i - 1}'}, r{i})"
        for i in range(3)
    )
    weights = {f"w{i}": make_random_weights(4, 4, 3, 3, seed=i) for i in range(3)}
    weights |= {f"b{i}": make_random_weights(4, seed=9 + i) for i in range(3)}
    path = write_model(text, weights, outputs={"a2": 4})
    model = imported(path)
    assert "- repeat: {times: 3, body: [add: [[], [conv: " in model.text
    assert sorted(model.weights) == sorted(
        f"repeat_{i}/conv.{role}" for i in (1, 2, 3) for role in ("weight", "bias")
    )
    np.testing.assert_array_equal(model.weights["repeat_2/conv.weight"], weights["w1"])
    flat = imported(path, fold=False)
    assert "repeat" not in flat.text
    np.testing.assert_array_equal(flat.weights["conv_2.weight"], weights["w1"])


def test_the_last_activation_becomes_the_output_activation(imported, write_model):
    weights = {"w": make_random_weights(3, 4)}
    text = "g = GlobalAveragePool (x) f = Flatten (g) l = Gemm <transB = 1> (f, w) y ="
    soft = imported(write_model(f"{text} Softmax <axis = 1> (l)", weights, outputs={"y": 2}))
    assert "y: {activation: softmax}" in soft.text
    gate = imported(write_model(f"{text} Sigmoid (l)", weights, outputs={"y": 2}))
    assert "y: {activation: sigmoid}" in gate.text
    assert max(soft.difference, gate.difference) < 1e-6


def test_several_outputs_are_imported(imported, write_model):
    text = "a = Relu (x) y = Tanh (a) z = Sigmoid (a)"
    model = imported(write_model(text, outputs={"a": 4, "y": 4, "z": 4}))
    assert [o.name for o in model.spec.graph.outputs] == ["a", "y", "z"]
    assert model.difference < 1e-6
    line = imported(write_model("a = Relu (x) y = Tanh (a)", outputs={"a": 4, "y": 4}))
    assert "- {relu: {}, as: relu}\n  - tanh\n" in line.text
