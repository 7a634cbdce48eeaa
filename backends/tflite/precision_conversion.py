"""Precisions of a file: smaller weights of a float file, unsigned inputs and outputs of int8."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite import precisions
from tcc.backends.tflite.description import find_constants
from tcc.backends.tflite.writer import File, FileTensor, Operator, Quantization
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.lower.small_weights import HALF_ERROR, quantize_weight

MIN_FLOAT16_ELEMENTS = 80
"""Minimum number of elements for float16 to be smaller, including its DEQUANTIZE."""
DYNAMIC_VERSIONS: Mapping[str, int] = {"CONV_2D": 5, "FULLY_CONNECTED": 12}
"""Operators with int8 weights and float values, and the first version that supports them.

DEPTHWISE_CONV_2D has such a version too, but XNNPACK does not run it; other kernels are several
times as slow."""
MIN_FILTER_WEIGHTS = 5
"""Minimum number of weights of a filter for int8 to be smaller than float16, with its scale."""
DEQUANTIZE_VERSION = 3
"""The first version that supports float16."""

Array = NDArray[Any]


def keep_precision(file: File) -> File:
    """Return the file unchanged."""
    return file


def convert_to_float16(file: File, excluded: frozenset[str] = frozenset()) -> File:
    """Return a file with float16 constants, which runtimes convert to float32 when they load it.

    Constants that are too small, and those in `excluded`, stay in float32.
    """
    tensors: list[FileTensor] = []
    operators: list[Operator] = []
    for tensor in file.tensors:
        rounded = None if tensor.name in excluded else _round_to_float16(tensor)
        if rounded is None:
            tensors.append(tensor)
            continue
        tensors += [rounded, replace(tensor, data=None)]
        operators.append(
            Operator("DEQUANTIZE", (rounded.name,), (tensor.name,), version=DEQUANTIZE_VERSION)
        )
    return replace(file, tensors=tuple(tensors), operators=(*operators, *file.operators))


def convert_to_dynamic(file: File) -> File:
    """Return a file with int8 weights, one scale per filter; activations are quantized at run time.

    Depthwise, grouped and transposed convolutions and filters with few weights are float16.
    """
    filters = dict(_quantize_filters(file, find_constants(file)))
    tensors = tuple(filters.get(tensor.name, tensor) for tensor in file.tensors)
    operators = tuple(
        replace(op, version=DYNAMIC_VERSIONS[op.code])
        if op.code in DYNAMIC_VERSIONS and op.inputs[1] in filters
        else op
        for op in file.operators
    )
    biases = frozenset(
        op.inputs[2] for op in operators if op.inputs[1:2] and op.inputs[1] in filters
    )
    return convert_to_float16(replace(file, tensors=tensors, operators=operators), biases)


def convert_to_unsigned(file: File) -> File:
    """Return a file with uint8 instead of int8 inputs and outputs, with the same real values."""
    tensors = {tensor.name: tensor for tensor in file.tensors}
    input_operators: list[Operator] = []
    output_operators: list[Operator] = []
    inputs = {
        k: _add_unsigned(tensors, input_operators, v, is_input=True) for k, v in file.inputs.items()
    }
    outputs = {
        k: _add_unsigned(tensors, output_operators, v, is_input=False)
        for k, v in file.outputs.items()
    }
    operators = (*input_operators, *file.operators, *output_operators)
    return replace(
        file, tensors=tuple(tensors.values()), operators=operators, inputs=inputs, outputs=outputs
    )


CONVERSIONS: Mapping[Precision, Callable[[File], File]] = {
    FP32: keep_precision,
    precisions.FP16: convert_to_float16,
    precisions.DYNAMIC: convert_to_dynamic,
    precisions.INT8: keep_precision,
    precisions.INT8_I8: keep_precision,
    precisions.INT8_U8: convert_to_unsigned,
}


def _read_values(tensor: FileTensor) -> Array:
    return np.frombuffer(tensor.data or b"", np.dtype("<f4")).reshape(tensor.shape)


def _round_to_float16(tensor: FileTensor) -> FileTensor | None:
    """Return a constant in float16; None if that is not smaller or not precise enough."""
    if (
        tensor.data is None
        or tensor.dtype != "float32"
        or prod(tensor.shape) < MIN_FLOAT16_ELEMENTS
    ):
        return None
    weights = _read_values(tensor)
    with np.errstate(over="ignore"):
        rounded = weights.astype("<f2")
    error = np.abs(rounded.astype(np.float64) - weights).max(initial=0)
    if not error <= HALF_ERROR * np.abs(weights).max(initial=0):
        return None
    name = f"{tensor.name}/float16"
    return replace(tensor, name=name, dtype="float16", data=rounded.tobytes())


def _quantize_filters(
    file: File, constants_by_name: Mapping[str, FileTensor]
) -> Iterator[tuple[str, FileTensor]]:
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    for op in file.operators:
        if op.code not in DYNAMIC_VERSIONS or op.inputs[1] not in constants_by_name:
            continue
        weight = constants_by_name[op.inputs[1]]
        # A filter that reads only some of the channels belongs to a grouped convolution.
        if op.code == "CONV_2D" and shapes[op.inputs[0]][3] != weight.shape[3]:
            continue
        if prod(weight.shape[1:]) < MIN_FILTER_WEIGHTS:
            continue
        quantized, scale = quantize_weight(_read_values(weight))
        quantization = Quantization(tuple(map(float, scale)), (0,) * len(scale))
        yield (
            weight.name,
            replace(weight, dtype="int8", data=quantized.tobytes(), quantization=quantization),
        )


def _add_unsigned(
    tensors: dict[str, FileTensor], operators: list[Operator], name: str, *, is_input: bool
) -> str:
    """Add a tensor's uint8 form and the operator that converts it; return its name."""
    tensor = tensors[name]
    if tensor.dtype != "int8" or tensor.quantization is None:
        return name
    zeros = tuple(n + 128 for n in tensor.quantization.zeros)
    unsigned_name = f"{name}/uint8"
    # The same scale with zero points 128 apart: values are only shifted, exactly in every runtime.
    unsigned_quantization = Quantization(tensor.quantization.scales, zeros)
    tensors[unsigned_name] = replace(
        tensor, name=unsigned_name, dtype="uint8", quantization=unsigned_quantization
    )
    source, target = (unsigned_name, name) if is_input else (name, unsigned_name)
    operators.append(Operator("QUANTIZE", (source,), (target,), {}, 2))
    return unsigned_name
