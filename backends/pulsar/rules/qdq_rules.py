"""What the maker's own check asks of files with levels between floats, which Pulsar2 is given."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tcc.backends.pulsar.rules.operator import OnnxOperator, OnnxValue
from tcc.backends.pulsar.rules.rule import NpuRule, Severity, Source

CHECKER = Source("QAT.axera 00debca", "env_check/check_onnx_structure.py, R3 to R6")
QUANTIZER = Source("QAT.axera b197375", "axquant/ax_quantizer.py")
VERSIONS = Source("ONNX", "Operators.md, DequantizeLinear 10 and 13")

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QDQ = (QUANTIZE, DEQUANTIZE)
ACTIVATIONS = {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT4, TensorProto.INT16}
WEIGHTS = {TensorProto.INT8, TensorProto.INT4}
OPSET = 13
"""The first in which a tensor has scales by an axis."""
FILTER_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Which axis of weights is that of the filters."""


def _levels(one: OnnxOperator) -> str | None:
    """Say whether the integers are none of those that activations, weights or biases have."""
    held = one.inputs[0] if one.kind == DEQUANTIZE else one.outputs[0]
    if held is None or not held.dtype:
        return None
    name = TensorProto.DataType.Name(held.dtype).lower()
    if not held.stored:
        return None if held.dtype in ACTIVATIONS else f"activations are {name}"
    if held.dtype == TensorProto.INT32 and len(held.shape or ()) < 2:
        return None
    return None if held.dtype in WEIGHTS else f"constants are {name}"


def _unpaired(one: OnnxOperator) -> str | None:
    """Say whether levels are read by something that does not make floats of them."""
    others = sorted(one.outputs[0].readers - {DEQUANTIZE})
    if others:
        return f"its levels go to {others[0]}"
    return None if one.outputs[0].readers else "nothing reads its levels"


def _of_a_tensor(one: OnnxOperator) -> str | None:
    """Say whether activations have more than one scale or zero point."""
    if one.kind == DEQUANTIZE and _stored(one):
        return None
    many = [each for each in _parameters(one) if each.shape is not None and _size(each) != 1]
    return f"it has {_size(many[0])} of them" if many else None


def _of_filters(one: OnnxOperator) -> str | None:
    """Say whether weights have scales by another axis than that of their filters."""
    if one.kind != DEQUANTIZE or not _stored(one) or len(one.shape(0)) < 2 or _size_of(one, 1) < 2:
        return None
    axis = one.attributes.get("axis", 1) % len(one.shape(0))
    readers = sorted(one.outputs[0].readers & FILTER_AXIS.keys())
    wrong = [kind for kind in readers if FILTER_AXIS[kind] != axis]
    if wrong or one.shape(1) != (one.shape(0)[axis],):
        shown = f"of axis {axis}, {_size_of(one, 1)} in number"
        return f"scales of {wrong[0]}'s weights are {shown}" if wrong else f"scales are {shown}"
    return None


def _offset(one: OnnxOperator) -> str | None:
    """Say whether constants have a zero point that is not 0."""
    zero = one.constant(2)
    if zero is None or not _stored(one):
        return None
    odd = [each for each in _numbers(zero) if each != 0]
    return f"a zero point is {odd[0]:g}" if odd else None


def _scale(one: OnnxOperator) -> str | None:
    """Say whether scales or zero points are no constants, or scales none that divide."""
    if any(not each.stored for each in _parameters(one)):
        return "they are computed"
    scale = one.inputs[1]
    if scale is not None and scale.dtype != TensorProto.FLOAT:
        return "a scale is no float32"
    numbers = one.constant(1)
    odd = [] if numbers is None else [x for x in _numbers(numbers) if not (0 < x < np.inf)]
    return f"a scale is {odd[0]:g}" if odd else None


def _opset(one: OnnxOperator) -> str | None:
    return f"it is that of opset {one.opset}" if one.opset < OPSET else None


def _float_weights(one: OnnxOperator) -> str | None:
    """Say whether weights in floats meet what was levels before."""
    image, weight = (*one.inputs, None, None)[:2]
    levels = image is not None and image.maker == DEQUANTIZE
    mixed = levels and weight is not None and weight.stored
    return "its weights are floats" if mixed else None


def _stored(one: OnnxOperator) -> bool:
    return one.inputs[0] is not None and one.inputs[0].stored


def _parameters(one: OnnxOperator) -> Iterator[OnnxValue]:
    yield from (each for each in one.inputs[1:3] if each is not None)


def _size(value: OnnxValue) -> int:
    return int(np.prod(value.shape or ()))


def _size_of(one: OnnxOperator, place: int) -> int:
    return int(np.prod(one.shape(place)))


def _numbers(values: NDArray[Any]) -> Iterator[float]:
    return (float(each) for each in values.reshape(-1))


RULES = (
    NpuRule("qdq.levels", QDQ, "activations are uint8 (uint4, 16 bits), weights int8 (int4), biases"
            " floats or int32", QUANTIZER, _levels, "quantise to these"),
    NpuRule("qdq.pair", (QUANTIZE,), "levels go to DequantizeLinear alone", CHECKER, _unpaired,
            "make floats of them first"),
    NpuRule("qdq.tensor", QDQ, "activations have one scale and zero point", CHECKER, _of_a_tensor,
            "quantise the whole tensor alike"),
    NpuRule("qdq.filters", (DEQUANTIZE,), "weights have a scale, or one a filter", QUANTIZER,
            _of_filters, "let `axis` be that of the filters"),
    NpuRule("qdq.zero", (DEQUANTIZE,), "weights and biases have zero points of 0", CHECKER,
            _offset, "quantise them symmetrically"),
    NpuRule("qdq.scale", QDQ, "scales are constant float32 above 0", CHECKER, _scale,
            "calibrate again"),
    NpuRule("qdq.opset", QDQ, "they are those of opset 13 or later", VERSIONS, _opset,
            "write the file with opset 13"),
    NpuRule("qdq.weights", ("Conv", "ConvTranspose"), "weights behind levels are levels", CHECKER,
            _float_weights, "quantise them, or expect floats there", Severity.DOUBTFUL),
)  # fmt: skip
"""Rules of Pulsar2 from 3.4 on. A convolution in floats may be meant, as the check itself says."""
