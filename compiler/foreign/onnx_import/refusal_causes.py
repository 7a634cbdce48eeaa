"""Why an operator has no step, in words of what the network does, and what helps."""

from collections.abc import Iterator, Mapping

from tcc.compiler.ops import ACTIVATIONS, OPS

ATTENTION = "this is self-attention: it multiplies two computed values"
LEFT_OUT = "the language has no {what}"
CUT = "cut the file before it: --until {value}"

_ATTENTION = ("attention", "choose a network of convolutions, or " + CUT)
_RECURRENT = ("recurrent layers: it takes images, not sequences", "choose another network")
_CONTROL = ("branches and loops that depend on values", "export it for one fixed size, by tracing")
_INTEGER = (
    "integers as files have them",
    "import the float network that was quantised, and let `tcc calibrate` find the scales",
)
*_FIRST, _LAST = (op.word for op in ACTIVATIONS)
_FUNCTION = (
    "such function",
    f"train it with one that is known: {', '.join(_FIRST)} or {_LAST}",
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
    "train it with one of them, or " + CUT,
)
_FOREIGN = ("operators of other makers than ONNX", "export it without them, or " + CUT)
_AFTER = ("step for what comes after the outputs", CUT)
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
_SIGNAL = ("signal processing: the input is an image", CUT)

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
    _AFTER: "ArgMax ArgMin Hardmax LogSoftmax NonMaxSuppression OneHot TopK",
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


def _table() -> Iterator[tuple[str, tuple[str, str]]]:
    there = {op.onnx_operator for op in OPS}
    for cause, words in _GROUPS.items():
        yield from ((word, cause) for word in words.split() if word not in there)


CAUSES: Mapping[str, tuple[str, str]] = dict(_table())
"""What the language lacks and what helps, by operator; `{value}` is what the operator reads."""


def cause(operator: str, domain: str, value: str) -> tuple[str, str]:
    """Return why an operator has no step, and what to do; empty where nothing is known.

    Args:
        operator: Its name.
        domain: Who defines it; empty for ONNX.
        value: What the file calls its first input, before which it can be cut.
    """
    if not domain and operator not in CAUSES:
        return "", ""
    what, help = _FOREIGN if domain else CAUSES[operator]
    return LEFT_OUT.format(what=what), help.format(value=value)


def attention(value: str) -> str:
    """Return what helps where two computed values are multiplied as matrices."""
    return f"{LEFT_OUT.format(what='attention')}: {_ATTENTION[1].format(value=value)}"
