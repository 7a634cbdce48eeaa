"""The network's file in a page."""

from collections.abc import Callable, Mapping

from tcc.backends.web.precisions import FP16, INT8, INT8_I8
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.small_weights import half

OPSET = 17


def as_is(model: Model) -> Model:
    """Return the model."""
    return model


FORMS: Mapping[Precision, Callable[[Model], Model]] = {
    FP32: as_is,
    FP16: half,
    INT8: as_is,
    INT8_I8: as_is,
}


def written(model: Model, precision: Precision) -> bytes:
    """Return the ONNX file of a model at a precision; an integer one takes the integer program."""
    lowered = compact(lower(FORMS[precision](model), OPSET), fill=True)
    data: bytes = lowered.SerializeToString(deterministic=True)
    return data
