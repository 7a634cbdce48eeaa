"""What a model becomes at each precision before it is written."""

from collections.abc import Callable, Mapping

from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.qdq import simulated
from tcc.compiler.lower.small_weights import dynamic, half
from tcc.compiler.lower.unsigned_weights import unsigned


def as_is(model: Model) -> Model:
    """Return the model."""
    return model


FORMS: Mapping[str, Callable[[Model], Model]] = {
    "fp32": as_is,
    "fp16": half,
    "dynamic": dynamic,
    "int8": as_is,
    "int8-u8u8": unsigned,
    "int8-qdq": simulated,
}
NAMED = frozenset({"fp32"})
"""Forms in which every weight of the spec stands under its own name."""
WRITTEN_OUT = frozenset({"int8-qdq"})
"""Forms whose constants of one number are written out: tools that make integers of floats look for
constants, and ONNX Runtime makes some filled ones unsigned twice, and does not load the file."""
NOTE = (
    "On x86-64 processors without VNNI, products of unsigned and signed 8-bit integers saturate: "
    "set ONNX Runtime's session option session.x64quantprecision to 1 there."
)
NOTES = {**dict.fromkeys(FORMS, ""), "int8": NOTE, "int8-qdq": NOTE}
"""What a file says to whoever loads it without tcc."""


def written(model: Model, precision: str, opset: int) -> bytes:
    """Return the file of a model at a precision; an integer one takes the integer program."""
    lowered = lower(FORMS[precision](model), opset)
    if precision not in NAMED:
        lowered = compact(lowered, fill=precision not in WRITTEN_OUT)
    lowered.doc_string = NOTES[precision]
    data: bytes = lowered.SerializeToString(deterministic=True)
    return data
