"""Why an operator is not supported, in terms of the network, and what to do instead."""

from collections.abc import Iterator, Mapping

from tcc.compiler.ops import ACTIVATIONS, OPS

ATTENTION = "this is self-attention, which multiplies two computed values"
MISSING_FEATURE = "tcc does not support {what}"
CUT_HELP = "import only the part before it: --until {value}"

_ATTENTION = ("attention", "use a convolutional network, or " + CUT_HELP)
_RECURRENT = ("recurrent layers; its inputs are images, not sequences", "use another network")
_CONTROL = (
    "branches and loops with computed conditions",
    "export the network by tracing, with one fixed size",
)
_INTEGER = (
    "quantized ONNX files",
    "import the float network that was quantized, then quantize it with `tcc calibrate`",
)
*_LEADING_NAMES, _FINAL_NAME = (op.keyword for op in ACTIVATIONS)
_FUNCTION = (
    "this function",
    f"train the network with a supported one: {', '.join(_LEADING_NAMES)} or {_FINAL_NAME}",
)
_CHOICE = (
    "element-wise selection between values",
    "export thresholds as relu, relu6 or Clip",
)
_EINSUM = (
    "sums of products over named axes",
    "export them as linear layers or 1x1 convolutions",
)
_REDUCED = (
    "this reduction, only the mean, sum and maximum over all pixels",
    "train the network with one of these, or " + CUT_HELP,
)
_CUSTOM_OPERATORS = (
    "custom operators from outside ONNX",
    "export the network without them, or " + CUT_HELP,
)
_POSTPROCESSING = ("postprocessing of outputs", CUT_HELP)
_NORM = (
    "this normalization, only batch_norm and layer_norm over the channels",
    "train the network with one of these",
)
_SHAPE = (
    "shapes computed at run time",
    "export the network with one fixed size, or give the size with --shape",
)
_PIXELS = ("this rearrangement of pixels", "use strided convolutions or resize instead")
_POOL = (
    "this kind of pooling",
    "use the mean or the maximum of windows or of all pixels",
)
_SIGNAL = ("signal processing, because inputs are images", CUT_HELP)

_GROUPS: Mapping[tuple[str, str], str] = {
    _ATTENTION: "Attention RotaryEmbedding",
    _RECURRENT: "GRU LSTM RNN",
    _CONTROL: "If Loop Scan SequenceAt SequenceConstruct SequenceEmpty SplitToSequence",
    _INTEGER: (
        "BitShift ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv"
        " QLinearMatMul QuantizeLinear"
    ),
    _FUNCTION: (
        "Abs Acos Asin Atan Ceil Celu Cos Elu Exp Floor Log Mish Reciprocal Round Selu Sign Sin"
        " Softplus Softsign Sqrt Tan ThresholdedRelu Erf"
    ),
    _POSTPROCESSING: "ArgMax ArgMin Hardmax LogSoftmax NonMaxSuppression OneHot TopK",
    _NORM: (
        "GroupNormalization InstanceNormalization LRN LpNormalization MeanVarianceNormalization"
        " RMSNormalization"
    ),
    _SHAPE: (
        "ConstantOfShape CumSum GatherElements GatherND NonZero Range ScatterElements ScatterND"
        " Shape Size Tile"
    ),
    _CHOICE: "And Equal Greater GreaterOrEqual Less LessOrEqual Mod Not Or Where Xor",
    _EINSUM: "Einsum",
    _REDUCED: (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin ReduceProd ReduceSumSquare"
    ),
    _PIXELS: "AffineGrid CenterCropPad Col2Im DepthToSpace GridSample SpaceToDepth",
    _POOL: "LpPool GlobalLpPool MaxRoiPool MaxUnpool RoiAlign",
    _SIGNAL: "Bernoulli DFT MelWeightMatrix RandomNormal RandomNormalLike RandomUniform STFT",
}  # fmt: skip


def _iterate_causes() -> Iterator[tuple[str, tuple[str, str]]]:
    supported = {op.onnx_operator for op in OPS}
    for refusal_cause, operators in _GROUPS.items():
        yield from (
            (operator, refusal_cause) for operator in operators.split() if operator not in supported
        )


CAUSES: Mapping[str, tuple[str, str]] = dict(_iterate_causes())
"""Missing feature and suggestion, by operator; `{value}` is the operator's input."""


def find_cause(operator: str, domain: str, value: str) -> tuple[str, str]:
    """Return why an operator is not supported, and what to do; empty if unknown.

    Args:
        operator: The operator's name.
        domain: The operator's domain; empty for ONNX.
        value: Name of its first input in the file, before which the file can be cut.
    """
    if not domain and operator not in CAUSES:
        return "", ""
    feature, help = _CUSTOM_OPERATORS if domain else CAUSES[operator]
    return MISSING_FEATURE.format(what=feature), help.format(value=value)


def explain_attention(value: str) -> str:
    """Return the suggestion for a matrix product of two computed values."""
    return f"{MISSING_FEATURE.format(what='attention')}: {_ATTENTION[1].format(value=value)}"
