"""What Pulsar2's documents say of the AX620E and the AX650, and what others saw of its builds."""

from dataclasses import replace

from tcc.backends.pulsar.rules import checks
from tcc.backends.pulsar.rules.checks import absent, given, never, ones, only
from tcc.backends.pulsar.rules.operator import OnnxOperator
from tcc.backends.pulsar.rules.qdq_rules import QDQ
from tcc.backends.pulsar.rules.qdq_rules import RULES as QDQ_RULES
from tcc.backends.pulsar.rules.rule import NpuRule, Processor, RuleBook, Severity, Source

DOCUMENT = "pulsar2-docs-en 83fa86a"
AX620E_LIST = Source(DOCUMENT, "appendix/op_support_list_ax620e.md")
AX650_LIST = Source(DOCUMENT, "appendix/op_support_list_ax650.md")
BUILDS = Source("onnxsim", "scripts/axera, builds with pulsar2:6.0-lite")
SINES = Source("pulsar2-docs", "issue 9")

BOTH = (
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
AX650_ALONE = (
    "And", "Cos", "Floor", "GatherElements", "GatherND", "GroupNormalization", "InverseSigmoid",
    "LogSoftmax", "Not", "RMSNormalization", "ReduceMin", "RoiAlign", "RotaryEmbedding", "Round",
    "ScatterElements", "ScatterND", "Tile", "Xor",
)  # fmt: skip

NEAREST = (None, "nearest")
"""A resizing's mode where it is nearest, which is the default."""

SLOW, DOUBTFUL = Severity.SLOW, Severity.DOUBTFUL


def _border_counted(one: OnnxOperator) -> str | None:
    """Say whether a border does not count; without one, the attribute means nothing."""
    counts = one.attributes.get("count_include_pad", 0) or not any(one.pads)
    return None if counts else f"its border of {list(one.pads)} does not count"


def _output_padding(one: OnnxOperator) -> str | None:
    """Say whether more is added at the end than is cut off there."""
    down, across, *_ = (*one.numbers("output_padding"), 0, 0)
    _, _, bottom, right = one.pads
    shown = f"it adds {down}x{across} to pads of {bottom}x{right}"
    return shown if down > bottom or across > right else None


def _one_number(one: OnnxOperator) -> str | None:
    exponent = one.constant(1)
    return None if exponent is not None and exponent.size == 1 else "its exponent is no number"


def _flat_indices(one: OnnxOperator) -> str | None:
    found = len(one.shape(1))
    return None if found == 1 else f"its indices have {found} dimensions"


def _slopes(one: OnnxOperator) -> str | None:
    channels = checks.channels(one)
    fits = one.shape(1) in ((channels,), (1, channels, 1, 1), (channels, 1, 1))
    return None if fits or len(one.shape(0)) != 4 else f"its slopes have the shape {one.shape(1)}"


def _axes_given(one: OnnxOperator) -> str | None:
    return "`axes` are given" if len(one.inputs) > 3 and one.inputs[3] else None


def _lstm_inputs(one: OnnxOperator) -> str | None:
    """Say whether an LSTM has lengths of its sequences, or peepholes: inputs 4 and 7."""
    given = [place for place in (4, 7) if place < len(one.inputs) and one.inputs[place]]
    return f"input {given[0]} is given" if given else None


def _samples(one: OnnxOperator) -> str | None:
    found = one.attributes.get("sampling_ratio", 0)
    return None if found else "its sampling_ratio is 0"


def _nearest(one: OnnxOperator) -> str | None:
    """Say whether nearest pixels are found another way; ONNX's default is one."""
    found = one.attributes.get("nearest_mode", "round_prefer_floor")
    nearest = one.attributes.get("mode") in NEAREST
    return f"it rounds by {found}" if nearest and found != "round_prefer_ceil" else None


def _stored_levels(one: OnnxOperator) -> str | None:
    """Say whether a matrix comes out of a DequantizeLinear; that of a Gemm or MatMul is second."""
    weight = one.inputs[1] if len(one.inputs) > 1 else None
    levels = weight is not None and weight.maker == "DequantizeLinear"
    return "its matrix comes out of a DequantizeLinear" if levels else None


def _less_efficient(one: OnnxOperator) -> str | None:
    return checks.depthwise(one) or checks.holes(one)


REDUCE = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
LSTM = ("activation_alpha", "activation_beta", "activations", "clip", "input_forget")
WINDOWED = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")
TYPES = (1, 2, 3, 4, 5, 6, 12)
"""float, uint8, int8, uint16, int16, int32 and uint32, as ONNX numbers them."""
LIST, LEAVE = AX620E_LIST, "leave it out"

LISTED = (
    NpuRule("auto_pad", WINDOWED, "auto_pad is NOTSET", LIST, only("auto_pad", "NOTSET"),
         "write the pads out"),
    NpuRule("arg.last", ("ArgMax", "ArgMin"), "select_last_index is 0", LIST,
         only("select_last_index", 0), LEAVE),
    NpuRule("avg_pool.border", ("AveragePool",), "count_include_pad is 1", LIST,
         _border_counted, "say `count_include_pad: true`"),
    NpuRule("batch_norm.training", ("BatchNormalization",), "training_mode is not taken",
         LIST,
         only("training_mode", 0), LEAVE),
    NpuRule("cast.type", ("Cast",), "types are 8 to 32-bit integers and float32", LIST,
         only("to", *TYPES), "use another type"),
    NpuRule("conv_transpose.dilation", ("ConvTranspose",), "dilations are 1", LIST,
         ones("dilations"), "use no dilation"),
    NpuRule("conv_transpose.shape", ("ConvTranspose",), "output_shape is not taken", LIST,
         absent("output_shape"), LEAVE),
    NpuRule("conv_transpose.output_padding", ("ConvTranspose",),
         "output_padding is at most the padding", LIST, _output_padding,
         "make `padding` at least `output_padding`"),
    NpuRule("depth_to_space.mode", ("DepthToSpace",), "the mode is DCR", LIST,
         only("mode", "DCR"), "use DCR"),
    NpuRule("gather.indices", ("Gather",), "indices have one dimension", LIST, _flat_indices,
         "flatten them"),
    NpuRule("gemm.factors", ("Gemm",), "alpha is 1", LIST, only("alpha", 1.0), LEAVE),
    NpuRule("gemm.offset", ("Gemm",), "beta is 1", LIST, only("beta", 1.0), LEAVE),
    NpuRule("layer_norm.axis", ("LayerNormalization",), "the axis is the last", LIST,
         only("axis", -1), "use the last axis"),
    NpuRule("lp_norm.axis", ("LpNormalization",), "the axis is the last", LIST,
         only("axis", -1), "use the last axis"),
    NpuRule("lp_norm.p", ("LpNormalization",), "p is 1 or 2", LIST, only("p", 2, 1),
         "use 1 or 2"),
    NpuRule("lstm.attributes", ("LSTM",), "these attributes are not taken", LIST,
         absent(*LSTM), LEAVE),
    NpuRule("lstm.inputs", ("LSTM",), "sequence_lens and P are not taken", LIST,
         _lstm_inputs, LEAVE),
    NpuRule("lstm.layout", ("LSTM",), "the layout is 0", LIST, only("layout", 0), LEAVE),
    NpuRule("max_pool.dilation", ("MaxPool",), "dilations are 1", LIST, ones("dilations"),
         "use no dilation"),
    NpuRule("max_pool.order", ("MaxPool",), "storage_order is 0", LIST,
         only("storage_order", 0), LEAVE),
    NpuRule("pad.mode", ("Pad",), "the mode is constant", LIST, only("mode", "constant"),
         "use a constant border"),
    NpuRule("pad.axes", ("Pad",), "axes are not taken", LIST, _axes_given, LEAVE),
    NpuRule("pow.exponent", ("Pow",), "the exponent is one constant number", LIST,
         _one_number,
         "use Mul"),
    NpuRule("prelu.slope", ("PRelu",), "there is a slope a channel", LIST, _slopes,
         "use `leaky_relu`"),
    NpuRule("reduce.axes", REDUCE, "noop_with_empty_axes is not taken", LIST,
         only("noop_with_empty_axes", 0), LEAVE),
    NpuRule("resize.mode", ("Resize",), "modes are nearest and linear", LIST,
         only("mode", "nearest", "linear"), "use one of them"),
    NpuRule("resize.nearest", ("Resize",), "nearest_mode is round_prefer_ceil", LIST,
         _nearest, "round so"),
    NpuRule("conv.speed", ("Conv", "ConvTranspose"), "groups and dilation are less efficient",
         LIST, _less_efficient, "use none where time matters", SLOW),
)  # fmt: skip
"""What the list of the AX620E limits; that of the AX650 says the same."""


SEEN = (
    NpuRule("alpha.given", ("Elu", "LeakyRelu"), "alpha left out ends the build", BUILDS,
         given("alpha"), "write it out"),
    NpuRule("top_k.given", ("TopK",), "`largest` left out ends the build", BUILDS, given("largest"),
         "write it out"),
    NpuRule("top_k.sorted", ("TopK",), "`sorted` left out ends the build", BUILDS, given("sorted"),
         "write it out"),
    NpuRule("matrix.levels", ("MatMul", "Gemm"), "quantised matrices end the build", BUILDS,
         _stored_levels, "write linear layers as 1x1 convolutions"),
)  # fmt: skip
"""Of both chips, by builds that others report."""


def _reported(source: Source, *kinds: str) -> NpuRule:
    says = "its builds are reported to fail"
    return NpuRule("reported", kinds, says, source, never, "build it alone first", DOUBTFUL)


def _book(source: Source, kinds: tuple[str, ...], *more: NpuRule) -> RuleBook:
    # no list has them; Pulsar2 reads them from 3.4 on: QAT.axera 8591549, pulsar2/README.md
    places = dict.fromkeys((*kinds, *QDQ), Processor.NPU)
    unlisted = "the build ends with `dont support ... opr`"
    own = (replace(each, source=source) for each in LISTED)
    rules = (*own, *SEEN, *QDQ_RULES, *more)
    return RuleBook(source, places, rules, source, 11, None, unlisted)


AX620E_BOOK = _book(AX620E_LIST, BOTH, _reported(SINES, "Sin"))
"""All that is known of the AX620E."""
AX650_BOOK = _book(
    AX650_LIST, (*BOTH, *AX650_ALONE),
    NpuRule("roi_align.samples", ("RoiAlign",), "sampling_ratio is not 0", AX650_LIST, _samples,
            "give the number of samples"),
    _reported(
        BUILDS, "ConvTranspose", "InverseSigmoid", "LpNormalization", "RotaryEmbedding", "Squeeze",
        "Swish", "Xor",
    ),
)  # fmt: skip
"""All that is known of the AX650."""
