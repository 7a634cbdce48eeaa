"""What a model becomes at each precision before it is written."""

from collections.abc import Callable, Mapping

from tcc.backends.onnxruntime.precisions import (
    DYNAMIC,
    FP16,
    INT8,
    INT8_I8,
    INT8_QDQ,
    INT8_U8U8,
)
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.lower.integer_variants import computed, unsigned, wide
from tcc.compiler.lower.onnx import declare_narrow, lower
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.qdq import simulated
from tcc.compiler.lower.small_weights import dynamic, half


def as_is(model: Model) -> Model:
    """Return the model."""
    return model


def fast(model: Model) -> Model:
    """Return the integer program as ONNX Runtime runs it fastest."""
    return wide(computed(model))


def without_saturation(model: Model) -> Model:
    """Return the same with weights whose products no processor gets wrong."""
    return unsigned(computed(model))


FORMS: Mapping[Precision, Callable[[Model], Model]] = {
    FP32: as_is,
    FP16: half,
    DYNAMIC: dynamic,
    INT8: fast,
    INT8_I8: fast,
    INT8_U8U8: without_saturation,
    INT8_QDQ: simulated,
}
# Whose equal weights are not made one either: other tools look them up by the spec's names.
NAMED = frozenset({FP32})
"""Forms in which every weight of the spec stands under its own name."""
WRITTEN_OUT = frozenset({INT8_QDQ})
"""Forms whose constants of one number are written out: tools that make integers of floats look for
constants, and ONNX Runtime makes some filled ones unsigned twice, and does not load the file."""
NOTE = (
    "On x86-64 processors without VNNI, products of unsigned and signed 8-bit integers saturate: "
    "set ONNX Runtime's session option session.x64quantprecision to 1 there."
)
NOTES = {**dict.fromkeys(FORMS, ""), INT8: NOTE, INT8_I8: NOTE, INT8_QDQ: NOTE}
"""What a file says to whoever loads it without tcc."""


def written(model: Model, precision: Precision, opset: int) -> bytes:
    """Return the file of a model at a precision; an integer one takes the integer program."""
    lowered = lower(FORMS[precision](model), opset)
    declare_narrow(lowered, model.graph)
    if precision not in NAMED:
        lowered = compact(lowered, fill=precision not in WRITTEN_OUT)
    # In the file itself, as whoever has only that cannot know it.
    lowered.doc_string = NOTES[precision]
    data: bytes = lowered.SerializeToString(deterministic=True)
    return data
