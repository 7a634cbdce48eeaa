"""Rules for QDQ files, from the vendor's own check of files for Pulsar2."""

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
MIN_OPSET = 13
"""The first opset with per-axis scales."""
FILTER_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""The filter axis of the weights, by op type."""


def _check_types(op: OnnxOperator) -> str | None:
    """Report an integer type that activations, weights or biases cannot have."""
    quantized = op.inputs[0] if op.kind == DEQUANTIZE else op.outputs[0]
    if quantized is None or not quantized.dtype:
        return None
    name = TensorProto.DataType.Name(quantized.dtype).lower()
    if not quantized.is_initializer:
        return None if quantized.dtype in ACTIVATIONS else f"activations are {name}"
    if quantized.dtype == TensorProto.INT32 and len(quantized.shape or ()) < 2:
        return None
    return None if quantized.dtype in WEIGHTS else f"constants are {name}"


def _check_pairing(op: OnnxOperator) -> str | None:
    """Report quantized values that another operator than DequantizeLinear reads."""
    other_readers = sorted(op.outputs[0].readers - {DEQUANTIZE})
    if other_readers:
        return f"{other_readers[0]} reads its quantized values"
    return None if op.outputs[0].readers else "nothing reads its quantized values"


def _check_tensor_parameters(op: OnnxOperator) -> str | None:
    """Report activations with more than one scale or zero point."""
    if op.kind == DEQUANTIZE and _has_initializer(op):
        return None
    many = [
        parameter
        for parameter in _iterate_parameters(op)
        if parameter.shape is not None and _count_elements(parameter) != 1
    ]
    return f"it has {_count_elements(many[0])} scales or zero points" if many else None


def _check_filter_axis(op: OnnxOperator) -> str | None:
    """Report weights with scales along another axis than the filters."""
    if (
        op.kind != DEQUANTIZE
        or not _has_initializer(op)
        or len(op.get_shape(0)) < 2
        or _count_input_elements(op, 1) < 2
    ):
        return None
    axis = op.attributes.get("axis", 1) % len(op.get_shape(0))
    readers = sorted(op.outputs[0].readers & FILTER_AXIS.keys())
    wrong = [kind for kind in readers if FILTER_AXIS[kind] != axis]
    if wrong or op.get_shape(1) != (op.get_shape(0)[axis],):
        axis_text = f"along axis {axis}, {_count_input_elements(op, 1)} of them"
        return (
            f"scales of {wrong[0]}'s weights are {axis_text}"
            if wrong
            else f"scales are {axis_text}"
        )
    return None


def _check_zero_point(op: OnnxOperator) -> str | None:
    """Report constants with a zero point other than 0."""
    zero = op.get_constant(2)
    if zero is None or not _has_initializer(op):
        return None
    nonzero = [number for number in _iterate_numbers(zero) if number != 0]
    return f"a zero point is {nonzero[0]:g}" if nonzero else None


def _check_scale(op: OnnxOperator) -> str | None:
    """Report scales and zero points that are not constant, and scales that are not positive."""
    if any(not parameter.is_initializer for parameter in _iterate_parameters(op)):
        return "its scale or zero point is not constant"
    scale = op.inputs[1]
    if scale is not None and scale.dtype != TensorProto.FLOAT:
        return "a scale is not float32"
    numbers = op.get_constant(1)
    invalid_scales = (
        []
        if numbers is None
        else [number for number in _iterate_numbers(numbers) if not (0 < number < np.inf)]
    )
    return f"a scale is {invalid_scales[0]:g}" if invalid_scales else None


def _check_opset(op: OnnxOperator) -> str | None:
    return f"its opset is {op.opset}" if op.opset < MIN_OPSET else None


def _check_float_weights(op: OnnxOperator) -> str | None:
    """Report float weights of a layer whose input was quantized."""
    image, weight = (*op.inputs, None, None)[:2]
    is_dequantized = image is not None and image.producer == DEQUANTIZE
    mixed = is_dequantized and weight is not None and weight.is_initializer
    return "its weights are floats" if mixed else None


def _has_initializer(op: OnnxOperator) -> bool:
    return op.inputs[0] is not None and op.inputs[0].is_initializer


def _iterate_parameters(op: OnnxOperator) -> Iterator[OnnxValue]:
    yield from (operand for operand in op.inputs[1:3] if operand is not None)


def _count_elements(parameter: OnnxValue) -> int:
    return int(np.prod(parameter.shape or ()))


def _count_input_elements(op: OnnxOperator, index: int) -> int:
    return int(np.prod(op.get_shape(index)))


def _iterate_numbers(array: NDArray[Any]) -> Iterator[float]:
    return (float(number) for number in array.reshape(-1))


RULES = (
    NpuRule(
        "qdq.levels",
        QDQ,
        "activations are uint8 (uint4, 16 bits), weights int8 (int4), biases floats or int32",
        QUANTIZER,
        _check_types,
        "quantize to these types",
    ),
    NpuRule(
        "qdq.pair",
        (QUANTIZE,),
        "only DequantizeLinear reads quantized values",
        CHECKER,
        _check_pairing,
        "dequantize them first",
    ),
    NpuRule(
        "qdq.tensor",
        QDQ,
        "activations have one scale and zero point",
        CHECKER,
        _check_tensor_parameters,
        "use one scale and one zero point per tensor",
    ),
    NpuRule(
        "qdq.filters",
        (DEQUANTIZE,),
        "weights have one scale, or one per filter",
        QUANTIZER,
        _check_filter_axis,
        "set `axis` to the filter axis",
    ),
    NpuRule(
        "qdq.zero",
        (DEQUANTIZE,),
        "weights and biases have zero points of 0",
        CHECKER,
        _check_zero_point,
        "quantize them symmetrically",
    ),
    NpuRule(
        "qdq.scale",
        QDQ,
        "scales are constant float32 above 0",
        CHECKER,
        _check_scale,
        "calibrate again",
    ),
    NpuRule(
        "qdq.opset",
        QDQ,
        "the opset is 13 or later",
        VERSIONS,
        _check_opset,
        "write the file with opset 13",
    ),
    NpuRule(
        "qdq.weights",
        ("Conv", "ConvTranspose"),
        "a layer with quantized input has quantized weights",
        CHECKER,
        _check_float_weights,
        "quantize them, or expect a float layer there",
        Severity.DOUBTFUL,
    ),
)
"""Rules of Pulsar2 since 3.4. The vendor's check notes that a float convolution may be wanted."""
