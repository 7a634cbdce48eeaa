"""Rules for the AX620E and the AX650, from Pulsar2's documents and from reported builds."""

from dataclasses import replace

from tcc.backends.pulsar.rules import checks
from tcc.backends.pulsar.rules.checks import (
    forbid_attributes,
    reject_always,
    require_attribute,
    require_explicit,
    require_ones,
)
from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.backends.pulsar.rules.qdq_rules import QDQ
from tcc.backends.pulsar.rules.qdq_rules import RULES as QDQ_RULES
from tcc.backends.pulsar.rules.rule import NpuRule, Processor, RuleBook, Severity, Source

DOCUMENT = "pulsar2-docs-en 83fa86a"
AX620E_LIST = Source(DOCUMENT, "appendix/op_support_list_ax620e.md")
AX650_LIST = Source(DOCUMENT, "appendix/op_support_list_ax650.md")
BUILD_REPORTS = Source("onnxsim", "scripts/axera, builds with pulsar2:6.0-lite")
SIN_REPORT = Source("pulsar2-docs", "issue 9")

COMMON_OPERATORS = (
    "Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip",
    "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu",
    "Equal", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "HardSigmoid", "HardSwish",
    "Identity", "InstanceNormalization", "LSTM", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "LpNormalization", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "PRelu",
    "Pad", "Pow", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize",
    "Sigmoid", "Silu", "Sin", "Slice", "Softmax", "Softplus", "SpaceToDepth", "SpatialTransformer",
    "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
AX650_OPERATORS = (
    "And", "Cos", "Floor", "GatherElements", "GatherND", "GroupNormalization", "InverseSigmoid",
    "LogSoftmax", "Not", "RMSNormalization", "ReduceMin", "RoiAlign", "RotaryEmbedding", "Round",
    "ScatterElements", "ScatterND", "Tile", "Xor",
)  # fmt: skip

NEAREST_MODES = (None, "nearest")
"""Values of a resize's mode that mean nearest, the default."""

SLOW, DOUBTFUL = Severity.SLOW, Severity.DOUBTFUL


def _check_border(op: OnnxOperator) -> str | None:
    """Report padding that is not counted; without padding the attribute has no effect."""
    counts = op.attributes.get("count_include_pad", 0) or not any(op.pads)
    return None if counts else f"its padding {list(op.pads)} is not counted in the mean"


def _check_output_padding(op: OnnxOperator) -> str | None:
    """Report output padding that is larger than the padding at the end."""
    down, across, *_ = (*op.get_integers("output_padding"), 0, 0)
    _, _, bottom, right_pad = op.pads
    padding_text = f"its output padding is {down}x{across}, its padding {bottom}x{right_pad}"
    return padding_text if down > bottom or across > right_pad else None


def _check_exponent(op: OnnxOperator) -> str | None:
    exponent = op.get_constant(1)
    return (
        None if exponent is not None and exponent.size == 1 else "its exponent is not one constant"
    )


def _check_indices(op: OnnxOperator) -> str | None:
    dimensions = len(op.get_shape(1))
    return None if dimensions == 1 else f"its indices have {dimensions} dimensions"


def _check_slopes(op: OnnxOperator) -> str | None:
    channels = checks.get_input_channels(op)
    is_valid_shape = op.get_shape(1) in ((channels,), (1, channels, 1, 1), (channels, 1, 1))
    return (
        None
        if is_valid_shape or len(op.get_shape(0)) != 4
        else f"its slopes have the shape {op.get_shape(1)}"
    )


def _check_axes(op: OnnxOperator) -> str | None:
    return "it sets `axes`" if len(op.inputs) > 3 and op.inputs[3] else None


def _check_lstm_inputs(op: OnnxOperator) -> str | None:
    """Report an LSTM with sequence lengths or peepholes: inputs 4 and 7."""
    indices = [index for index in (4, 7) if index < len(op.inputs) and op.inputs[index]]
    return f"it has input {indices[0]}" if indices else None


def _check_sampling_ratio(op: OnnxOperator) -> str | None:
    sampling_ratio = op.attributes.get("sampling_ratio", 0)
    return None if sampling_ratio else "its sampling_ratio is 0"


def _check_nearest_mode(op: OnnxOperator) -> str | None:
    """Report another rounding of nearest pixels; ONNX's default is one."""
    rounding = op.attributes.get("nearest_mode", "round_prefer_floor")
    is_nearest = op.attributes.get("mode") in NEAREST_MODES
    return f"it rounds by {rounding}" if is_nearest and rounding != "round_prefer_ceil" else None


def _check_quantized_matrix(op: OnnxOperator) -> str | None:
    """Report a Gemm or MatMul with a second input from a DequantizeLinear."""
    weight = op.inputs[1] if len(op.inputs) > 1 else None
    is_dequantized = weight is not None and weight.producer == "DequantizeLinear"
    return "its matrix comes from a DequantizeLinear" if is_dequantized else None


def _check_efficiency(op: OnnxOperator) -> str | None:
    return checks.check_depthwise(op) or checks.check_dilation(op)


REDUCE = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
LSTM_ATTRIBUTES = ("activation_alpha", "activation_beta", "activations", "clip", "input_forget")
WINDOWED = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")
CAST_TYPES = (1, 2, 3, 4, 5, 6, 12)
"""ONNX's numbers of float, uint8, int8, uint16, int16, int32 and uint32."""
LIST, OMIT_REMEDY = AX620E_LIST, "leave it out"

LIST_RULES = (
    NpuRule(
        "auto_pad",
        WINDOWED,
        "auto_pad is NOTSET",
        LIST,
        require_attribute("auto_pad", "NOTSET"),
        "set the pads explicitly",
    ),
    NpuRule(
        "arg.last",
        ("ArgMax", "ArgMin"),
        "select_last_index is 0",
        LIST,
        require_attribute("select_last_index", 0),
        OMIT_REMEDY,
    ),
    NpuRule(
        "avg_pool.border",
        ("AveragePool",),
        "count_include_pad is 1",
        LIST,
        _check_border,
        "set `count_include_pad: true`",
    ),
    NpuRule(
        "batch_norm.training",
        ("BatchNormalization",),
        "training_mode is not supported",
        LIST,
        require_attribute("training_mode", 0),
        OMIT_REMEDY,
    ),
    NpuRule(
        "cast.type",
        ("Cast",),
        "types are 8 to 32-bit integers and float32",
        LIST,
        require_attribute("to", *CAST_TYPES),
        "use another type",
    ),
    NpuRule(
        "conv_transpose.dilation",
        ("ConvTranspose",),
        "dilations are 1",
        LIST,
        require_ones("dilations"),
        "use no dilation",
    ),
    NpuRule(
        "conv_transpose.shape",
        ("ConvTranspose",),
        "output_shape is not supported",
        LIST,
        forbid_attributes("output_shape"),
        OMIT_REMEDY,
    ),
    NpuRule(
        "conv_transpose.output_padding",
        ("ConvTranspose",),
        "output_padding is at most the padding",
        LIST,
        _check_output_padding,
        "make `padding` at least `output_padding`",
    ),
    NpuRule(
        "depth_to_space.mode",
        ("DepthToSpace",),
        "the mode is DCR",
        LIST,
        require_attribute("mode", "DCR"),
        "use DCR",
    ),
    NpuRule(
        "gather.indices",
        ("Gather",),
        "indices have one dimension",
        LIST,
        _check_indices,
        "flatten them",
    ),
    NpuRule(
        "gemm.factors", ("Gemm",), "alpha is 1", LIST, require_attribute("alpha", 1.0), OMIT_REMEDY
    ),
    NpuRule(
        "gemm.offset", ("Gemm",), "beta is 1", LIST, require_attribute("beta", 1.0), OMIT_REMEDY
    ),
    NpuRule(
        "layer_norm.axis",
        ("LayerNormalization",),
        "the axis is the last",
        LIST,
        require_attribute("axis", -1),
        "use the last axis",
    ),
    NpuRule(
        "lp_norm.axis",
        ("LpNormalization",),
        "the axis is the last",
        LIST,
        require_attribute("axis", -1),
        "use the last axis",
    ),
    NpuRule(
        "lp_norm.p",
        ("LpNormalization",),
        "p is 1 or 2",
        LIST,
        require_attribute("p", 2, 1),
        "use 1 or 2",
    ),
    NpuRule(
        "lstm.attributes",
        ("LSTM",),
        "these attributes are not supported",
        LIST,
        forbid_attributes(*LSTM_ATTRIBUTES),
        OMIT_REMEDY,
    ),
    NpuRule(
        "lstm.inputs",
        ("LSTM",),
        "sequence_lens and P are not supported",
        LIST,
        _check_lstm_inputs,
        OMIT_REMEDY,
    ),
    NpuRule(
        "lstm.layout",
        ("LSTM",),
        "the layout is 0",
        LIST,
        require_attribute("layout", 0),
        OMIT_REMEDY,
    ),
    NpuRule(
        "max_pool.dilation",
        ("MaxPool",),
        "dilations are 1",
        LIST,
        require_ones("dilations"),
        "use no dilation",
    ),
    NpuRule(
        "max_pool.order",
        ("MaxPool",),
        "storage_order is 0",
        LIST,
        require_attribute("storage_order", 0),
        OMIT_REMEDY,
    ),
    NpuRule(
        "pad.mode",
        ("Pad",),
        "the mode is constant",
        LIST,
        require_attribute("mode", "constant"),
        "use a constant border",
    ),
    NpuRule("pad.axes", ("Pad",), "axes are not supported", LIST, _check_axes, OMIT_REMEDY),
    NpuRule(
        "pow.exponent",
        ("Pow",),
        "the exponent is one constant number",
        LIST,
        _check_exponent,
        "use Mul",
    ),
    NpuRule(
        "prelu.slope",
        ("PRelu",),
        "there is one slope per channel",
        LIST,
        _check_slopes,
        "use `leaky_relu`",
    ),
    NpuRule(
        "reduce.axes",
        REDUCE,
        "noop_with_empty_axes is not supported",
        LIST,
        require_attribute("noop_with_empty_axes", 0),
        OMIT_REMEDY,
    ),
    NpuRule(
        "resize.mode",
        ("Resize",),
        "modes are nearest and linear",
        LIST,
        require_attribute("mode", "nearest", "linear"),
        "use one of them",
    ),
    NpuRule(
        "resize.nearest",
        ("Resize",),
        "nearest_mode is round_prefer_ceil",
        LIST,
        _check_nearest_mode,
        "use round_prefer_ceil",
    ),
    NpuRule(
        "conv.speed",
        ("Conv", "ConvTranspose"),
        "groups and dilation are less efficient",
        LIST,
        _check_efficiency,
        "use neither where speed matters",
        SLOW,
    ),
)
"""The limits in the AX620E's operator list; the AX650's list has the same limits."""


REPORTED_RULES = (
    NpuRule(
        "alpha.given",
        ("Elu", "LeakyRelu"),
        "a missing `alpha` fails the build",
        BUILD_REPORTS,
        require_explicit("alpha"),
        "set `alpha` explicitly",
    ),
    NpuRule(
        "top_k.given",
        ("TopK",),
        "a missing `largest` fails the build",
        BUILD_REPORTS,
        require_explicit("largest"),
        "set `largest` explicitly",
    ),
    NpuRule(
        "top_k.sorted",
        ("TopK",),
        "a missing `sorted` fails the build",
        BUILD_REPORTS,
        require_explicit("sorted"),
        "set `sorted` explicitly",
    ),
    NpuRule(
        "matrix.levels",
        ("MatMul", "Gemm"),
        "quantized matrices fail the build",
        BUILD_REPORTS,
        _check_quantized_matrix,
        "write linear layers as 1x1 convolutions",
    ),
)
"""Rules for both chips, from reported builds."""


def _make_reported_rule(source: Source, *kinds: str) -> NpuRule:
    requirement = "its builds are reported to fail"
    return NpuRule(
        "reported",
        kinds,
        requirement,
        source,
        reject_always,
        "build a network of only this operator first",
        DOUBTFUL,
    )


def _build_rule_book(source: Source, kinds: tuple[str, ...], *extra_rules: NpuRule) -> RuleBook:
    # No list has them, but Pulsar2 reads them since 3.4: QAT.axera 8591549, pulsar2/README.md
    processors = dict.fromkeys((*kinds, *QDQ), Processor.NPU)
    unlisted = "the build fails with `dont support ... opr`"
    list_rules = (replace(npu_rule, source=source) for npu_rule in LIST_RULES)
    rules = (*list_rules, *REPORTED_RULES, *QDQ_RULES, *extra_rules)
    return RuleBook(source, processors, rules, source, 11, None, unlisted)


AX620E_BOOK = _build_rule_book(
    AX620E_LIST, COMMON_OPERATORS, _make_reported_rule(SIN_REPORT, "Sin")
)
"""The rules for the AX620E."""
AX650_BOOK = _build_rule_book(
    AX650_LIST,
    (*COMMON_OPERATORS, *AX650_OPERATORS),
    NpuRule(
        "roi_align.samples",
        ("RoiAlign",),
        "sampling_ratio is not 0",
        AX650_LIST,
        _check_sampling_ratio,
        "set the number of samples",
    ),
    _make_reported_rule(
        BUILD_REPORTS,
        "ConvTranspose",
        "InverseSigmoid",
        "LpNormalization",
        "RotaryEmbedding",
        "Squeeze",
        "Swish",
        "Xor",
    ),
)
"""The rules for the AX650."""
