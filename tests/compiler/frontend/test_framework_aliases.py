"""Names of other frameworks suggest the op in tcc, or are reported as unsupported.

The lists here are independent of the table. They come from the documentation of PyTorch, Keras and
ONNX.
"""

import re
from pathlib import Path

import pytest

from tcc.compiler.frontend.block_library import OPS_BY_NAME, RESERVED_NAMES
from tcc.compiler.frontend.framework_aliases import list_aliases, normalize_name
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.argument_declarations import list_parameters
from tcc.compiler.support.diagnostics import Diagnostic, UserError, find_nearest_name

HEAD = "tcc: 1\nname: foreign\ninput: {image: {shape: [3, 32, 32]}}\noutput: {logits: {}}\n"

THERE = {
    "conv": "Conv2d Conv2D nn.Conv2d tf.keras.layers.Conv2D Convolution conv2d torch.nn.Conv2d conv3x3",
    "depthwise_conv": "DepthwiseConv2D dwconv SeparableConv2D",
    "conv_transpose": "ConvTranspose2d Conv2DTranspose deconv ConvTranspose",
    "linear": "Dense dense fc Linear Gemm fully_connected",
    "batch_norm": "bn BatchNorm2d BatchNormalization batchnorm",
    "layer_norm": "LayerNorm LayerNormalization",
    "dropout": "Dropout Dropout2d dropout2d SpatialDropout2D",
    "stochastic_depth": "DropPath drop_path StochasticDepth",
    "identity": "Identity noop",
    "relu": "ReLU F.relu",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU lrelu",
    "sigmoid": "Sigmoid logistic",
    "tanh": "Tanh",
    "silu": "swish Swish SiLU",
    "gelu": "GELU",
    "hard_sigmoid": "Hardsigmoid HardSigmoid h_sigmoid",
    "hard_swish": "Hardswish HardSwish h_swish",
    "softmax": "Softmax",
    "max_pool": "maxpool MaxPool2d MaxPooling2D MaxPool",
    "avg_pool": "avgpool AvgPool2d AveragePooling2D AveragePool",
    "global_avg_pool": "gap GlobalAveragePooling2D GlobalAveragePool ReduceMean",
    "global_max_pool": "GlobalMaxPooling2D GlobalMaxPool",
    "adaptive_avg_pool": "AdaptiveAvgPool2d",
    "concat": "concatenate Concatenate cat Concat torch.cat",
    "add": "Add eltwise residual Subtract",
    "mul": "Multiply Mul squeeze_excite SqueezeExcitation",
    "flatten": "Flatten",
    "slice": "split chunk",
    "channel_shuffle": "ChannelShuffle",
    "pad": "ZeroPadding2D ZeroPad2d",
    "resize": "upsample Upsample UpSampling2D interpolate",
}
MISSING = tuple(name for name in ["matmul", "bmm", "MatMul", "einsum", "group_norm", "GroupNorm", "GroupNormalization", "instance_norm", "InstanceNorm2d", "prelu", "PReLU", "elu", "ELU", "selu", "SELU", "celu", "CELU", "softplus", "Softplus", "mish", "Mish", "softsign", "hardtanh", "Hardtanh", "rrelu", "glu", "log_softmax", "LRN", "LocalResponseNorm", "lstm", "LSTM", "gru", "GRU", "rnn", "attention", "MultiheadAttention", "self_attention", "Transformer", "Embedding", "PixelShuffle", "pixel_shuffle", "DepthToSpace", "SpaceToDepth", "permute", "transpose", "reshape", "view", "clip", "clamp", "sqrt", "div", "maximum", "argmax", "ReflectionPad2d", "Conv1d", "Conv3d", "MaxPool3d", "AdaptiveMaxPool2d", "MaxUnpool2d", "RMSNorm", "quick_gelu", "Threshold", "CrossEntropyLoss", "Lambda"] if normalize_name(name) not in set(map(normalize_name, OPS_BY_NAME)))  # fmt: skip
"""Ops of other frameworks that tcc lacks, unless they were added since."""
TARGET = re.compile(r"(?:write|did you mean) `(?:- )?(\w+)")


def read_diagnostics(tmp_path: Path, text: str, head: str = HEAD) -> tuple[Diagnostic, ...]:
    path = tmp_path / "foreign.yaml"
    path.write_text(head + text)
    with pytest.raises(UserError) as caught:
        load(path)
    return caught.value.diagnostics


@pytest.mark.parametrize("tcc_name", THERE)
def test_names_of_other_frameworks_suggest_the_op(tmp_path: Path, tcc_name: str) -> None:
    names = THERE[tcc_name].split()
    diagnostics = read_diagnostics(
        tmp_path, "graph:\n" + "".join(f"  - {name}\n" for name in names)
    )
    assert [(d.code, d.at.line, d.at.column) for d in diagnostics] == [
        ("E0201", 6 + index, 5) for index in range(len(names))
    ]
    for name, diagnostic in zip(names, diagnostics, strict=True):
        target = TARGET.match(diagnostic.help)
        assert target is not None, diagnostic
        assert target[1] == tcc_name, name


def test_unsupported_operations_are_reported_as_such(tmp_path: Path) -> None:
    diagnostics = read_diagnostics(
        tmp_path, "graph:\n" + "".join(f"  - {name}\n" for name in MISSING[:50])
    )
    diagnostics += read_diagnostics(
        tmp_path, "graph:\n" + "".join(f"  - {name}\n" for name in MISSING[50:])
    )
    assert len(diagnostics) == len(MISSING)
    for diagnostic in diagnostics:
        assert diagnostic.help.startswith("not supported: "), diagnostic
        assert "did you mean" not in diagnostic.help


def test_help_for_common_names_of_other_frameworks(tmp_path: Path) -> None:
    diagnostics = read_diagnostics(tmp_path, "graph: [matmul, group_norm, prelu, swish]\n")
    assert [d.help for d in diagnostics] == [
        "not supported: `linear` multiplies by learned weights, and `mul` is element by element; "
        "two computed values cannot be multiplied as matrices",
        "not supported: `batch_norm` normalises each channel over the images, `layer_norm` each "
        "pixel over its channels; neither is a group norm",
        "not supported: a learned slope; `leaky_relu` has a fixed one",
        "write `silu`",
    ]


ARGUMENTS = (
    ("conv: {out_channels: 8, kernel_size: 3}", {"out_channels": "filters", "kernel_size": "kernel"}),
    ("conv: {filters: 8, kernel: 3, strides: 2}", {"strides": "stride"}),
    ("conv: {filters: 8, kernel: 3, use_bias: false}", {"use_bias": "bias"}),
    ("conv: {filters: 8, kernel: 3, dilation_rate: 2}", {"dilation_rate": "dilation"}),
    ("conv: {filters: 8, kernel: 3, in_channels: 3}", {"in_channels": ""}),
    ("conv: {filters: 8, kernel: 3, activation: relu}", {"activation": ""}),
    ("conv: {filters: 8, kernel: 3, padding_mode: zeros}", {"padding_mode": ""}),
    ("conv: {filters: 8, kernel: 3, name: stem}", {"name": ""}),
    ("depthwise_conv: {kernel: 3, depth_multiplier: 2}", {"depth_multiplier": "multiplier"}),
    ("leaky_relu: {alpha: 0.1}", {"alpha": "slope"}),
    ("leaky_relu: {negative_slope: 0.1}", {"negative_slope": "slope"}),
    ("batch_norm: {epsilon: 0.001}", {"epsilon": "eps"}),
    ("batch_norm: {num_features: 3}", {"num_features": ""}),
    ("dropout: {p: 0.1}", {"p": "rate"}),
    ("relu: {inplace: true}", {"inplace": ""}),
    ("max_pool: {pool_size: 2}", {"pool_size": "kernel"}),
    ("avg_pool: {kernel: 2, ceil_mode: true}", {"ceil_mode": "ceil"}),
    ("linear: {out_features: 8}", {"out_features": "units"}),
    ("resize: {scale_factor: 2}", {"scale_factor": "scale"}),
    ("adaptive_avg_pool: {output_size: 2}", {"output_size": "size"}),
    ("softmax: {dim: 1}", {"dim": ""}),
)  # fmt: skip


@pytest.mark.parametrize(("step", "wrong"), ARGUMENTS, ids=[step for step, _ in ARGUMENTS])
def test_arguments_of_other_frameworks_suggest_the_argument(
    tmp_path: Path, step: str, wrong: dict[str, str]
) -> None:
    diagnostics = read_diagnostics(tmp_path, f"graph:\n  - {step}\n")
    op_name = step.partition(":")[0]
    assert [d.message for d in diagnostics] == [
        f"`{op_name}` has no argument `{key}`" for key in wrong
    ]
    for diagnostic, (key, expected_name) in zip(diagnostics, wrong.items(), strict=True):
        assert (diagnostic.at.line, diagnostic.at.column) == (6, 5 + step.index(f"{key}:"))
        target = TARGET.match(diagnostic.help)
        assert (target[1] if target else "") == expected_name, diagnostic
        assert not diagnostic.help.startswith("it takes")


KEYS = {
    "layers": "graph", "inputs": "input", "outputs": "output", "classes": "params", "model": "graph",
    "parameters": "params", "modules": "blocks", "include": "use", "description": "doc",
    "labels": "output", "preprocessing": "input", "optimizer": "", "weights": "",
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_other_formats_suggest_the_key(tmp_path: Path, key: str) -> None:
    (diagnostic,) = read_diagnostics(tmp_path, f"graph: [relu]\n{key}: [x]\n")
    assert (diagnostic.message, diagnostic.at.line, diagnostic.at.column) == (
        f"a spec has no key `{key}`",
        6,
        1,
    )
    target = TARGET.match(diagnostic.help)
    assert (target[1] if target else "") == KEYS[key], diagnostic
    assert not diagnostic.help.startswith("keys are")


VALUES = (
    ("conv: {filters: 8, kernel: 3, padding: valid}", "write `0`: `valid` is no padding"),
    ("conv: {filters: 8, kernel: 3, padding: SAME}", "write `same`"),
    ("activation: {kind: swish}", "write `silu`"),
    ("activation: {kind: ReLU}", "write `relu`"),
    ("activation: {kind: elu}", "not supported: exp(x) - 1 below zero"),
    ("resize: {scale: 2, mode: bicubic}", "not supported: the modes are `nearest` and `bilinear`"),
)


@pytest.mark.parametrize(("step", "help"), VALUES, ids=[step for step, _ in VALUES])
def test_values_of_other_frameworks_suggest_the_value(tmp_path: Path, step: str, help: str) -> None:
    (diagnostic,) = read_diagnostics(tmp_path, f"graph:\n  - {step}\n")
    assert (diagnostic.code, diagnostic.at.line) == ("E0213", 6)
    assert diagnostic.at.column == 5 + step.rindex(": ") + 2
    assert diagnostic.help.startswith(help), diagnostic


def test_every_alias_leads_to_an_existing_keyword() -> None:
    arguments = {p.name for op in OPS_BY_NAME.values() for p in list_parameters(op)}
    keys = {
        "graph",
        "input",
        "output",
        "params",
        "blocks",
        "use",
        "doc",
        "tcc",
        "tests",
        "accuracy",
    }
    control = {"times", "of", "if", "body"}
    for entry in list_aliases("op"):
        assert not entry.ours or entry.ours in RESERVED_NAMES, entry
        assert entry.ours or entry.note, entry
    for entry in list_aliases("argument"):
        assert entry.ours in arguments | control | {""}, entry
    for entry in list_aliases("key"):
        assert entry.ours in keys | {""}, entry
    names = [
        n for entry in list_aliases("op") for n in {normalize_name(name) for name in entry.names}
    ]
    assert len(names) == len(set(names)), "a name is in two entries"


def test_no_alias_is_taken_for_a_misspelling(tmp_path: Path) -> None:
    """Every name of the table gives the help of its entry, even if it resembles another name."""
    for entry in list_aliases("op"):
        for name in entry.names:
            if name in RESERVED_NAMES:
                continue
            (diagnostic,) = read_diagnostics(tmp_path, f"graph: [{{'{name}': null}}]\n")
            assert diagnostic.help == entry.help, name


@pytest.mark.parametrize(
    ("misspelling", "known_names", "nearest"),
    [
        ("rellu", ("relu", "gelu"), "relu"),
        ("conv_tranpose", ("conv", "conv_transpose"), "conv_transpose"),
        ("adn", ("add", "and"), "and"),
        ("mae", ("mse", "minmax"), None),
        ("resnet50", ("resnet34", "resnet18"), None),
        ("mobilenet_v3", ("mobilenet_v2",), None),
        ("ax62", ("ax620",), "ax620"),
        ("FilterS", ("filters",), "filters"),
        ("int4", ("int8",), None),
        ("x", ("y", "z"), None),
        ("lables", ("labels",), "labels"),
        ("depth", ("width",), None),
    ],
)
def test_only_slips_are_misspellings(
    misspelling: str, known_names: tuple[str, ...], nearest: str | None
) -> None:
    assert find_nearest_name(misspelling, known_names) == nearest
