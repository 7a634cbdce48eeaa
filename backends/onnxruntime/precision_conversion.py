"""Conversion of a model to each precision, before it is written."""

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
from tcc.compiler.lower.integer_variants import convert_to_unsigned, pad_channels, replace_tables
from tcc.compiler.lower.onnx import declare_narrow, lower
from tcc.compiler.lower.onnx_constants import merge_constants
from tcc.compiler.lower.qdq import convert_to_qdq
from tcc.compiler.lower.small_weights import convert_float16, quantize_dynamic


def keep_model(model: Model) -> Model:
    """Return the model unchanged."""
    return model


def optimize_model(model: Model) -> Model:
    """Return the integer program in the form that ONNX Runtime runs fastest."""
    return pad_channels(replace_tables(model))


def use_unsigned_weights(model: Model) -> Model:
    """Return the integer program with unsigned weights, for correct products on all processors."""
    return convert_to_unsigned(replace_tables(model))


CONVERSIONS: Mapping[Precision, Callable[[Model], Model]] = {
    FP32: keep_model,
    FP16: convert_float16,
    DYNAMIC: quantize_dynamic,
    INT8: optimize_model,
    INT8_I8: optimize_model,
    INT8_U8U8: use_unsigned_weights,
    INT8_QDQ: convert_to_qdq,
}
# Equal weights are not merged either: other tools look them up by the spec's names.
NAMED_PRECISIONS = frozenset({FP32})
"""Precisions that keep every weight of the spec under its name."""
EXPANDED_PRECISIONS = frozenset({INT8_QDQ})
"""Precisions with scalar constants written out. Tools that quantize float models look for
constants, and ONNX Runtime converts some filled ones to unsigned twice and then fails to load."""
VNNI_NOTE = (
    "On x86-64 processors without VNNI, products of unsigned and signed 8-bit integers saturate: "
    "set ONNX Runtime's session option session.x64quantprecision to 1 there."
)
NOTES = {**dict.fromkeys(CONVERSIONS, ""), INT8: VNNI_NOTE, INT8_I8: VNNI_NOTE, INT8_QDQ: VNNI_NOTE}
"""Note in the file for users who load it without tcc."""


def encode_onnx(model: Model, precision: Precision, opset: int) -> bytes:
    """Return the file of a model at a precision; for int8 precisions, of the integer program."""
    lowered = lower(CONVERSIONS[precision](model), opset)
    declare_narrow(lowered, model.graph)
    if precision not in NAMED_PRECISIONS:
        lowered = merge_constants(lowered, fill=precision not in EXPANDED_PRECISIONS)
    # Stored in the file, because users may have only the file.
    lowered.doc_string = NOTES[precision]
    content: bytes = lowered.SerializeToString(deterministic=True)
    return content
