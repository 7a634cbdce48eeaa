"""Why an operator has no step, in words of what the network does, and what helps."""

from collections.abc import Iterator, Mapping

from tcc.compiler.ops import ACTIVATIONS, OPS

ATTENTION = "this is self-attention: it multiplies two computed values"
MISSING_FEATURE = "the language has no {what}"
CUT_HELP = "cut the file before it: --until {value}"

_ATTENTION = ("attention", "choose a network of convolutions, or " + CUT_HELP)
_RECURRENT = ("recurrent layers: it takes images, not sequences", "choose another network")
_CONTROL = ("branches and loops that depend on values", "export it for one fixed size, by tracing")
_INTEGER = (
    "integers as files have them",
    "import the float network that was quantised, and let `tcc calibrate` find the scales",
)
*_LEADING_NAMES, _FINAL_NAME = (op.keyword for op in ACTIVATIONS)
_FUNCTION = (
    "such function",
    f"train it with one that is known: {', '.join(_LEADING_NAMES)} or {_FINAL_NAME}",
)
_CHOICE = (
    "choice between values, element by element",
    "thresholds are written with relu, relu6 or Clip",
)
_EINSUM = (
    "sums of products over named axes",
    "export them as linear layers or convolutions of one pixel",
)
_REDUCED = (
    "such reduction: the mean, the sum and the largest value over the whole image are known",
    "train it with one of them, or " + CUT_HELP,
)
_CUSTOM_OPERATORS = (
    "operators of other makers than ONNX",
    "export it without them, or " + CUT_HELP,
)
_POSTPROCESSING = ("step for what comes after the outputs", CUT_HELP)
_NORM = (
    "such normalisation: batch_norm and layer_norm over the channels are known",
    "train it with one of them",
)
_SHAPE = (
    "shapes that are computed while it runs",
    "export it for one fixed size, or give that with --shape",
)
_PIXELS = ("step that rearranges pixels in this way", "use strided convolutions or resize instead")
_POOL = (
    "pooling of this kind",
    "use the mean or the largest value of windows, or of the whole image",
)
_SIGNAL = ("signal processing: the input is an image", CUT_HELP)

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
"""What the language lacks and what helps, by operator; `{value}` is what the operator reads."""


def find_cause(operator: str, domain: str, value: str) -> tuple[str, str]:
    """Return why an operator has no step, and what to do; empty where nothing is known.

    Args:
        operator: Its name.
        domain: Who defines it; empty for ONNX.
        value: What the file calls its first input, before which it can be cut.
    """
    if not domain and operator not in CAUSES:
        return "", ""
    feature, help = _CUSTOM_OPERATORS if domain else CAUSES[operator]
    return MISSING_FEATURE.format(what=feature), help.format(value=value)


def explain_attention(value: str) -> str:
    """Return what helps where two computed values are multiplied as matrices."""
    return f"{MISSING_FEATURE.format(what='attention')}: {_ATTENTION[1].format(value=value)}"
