"""The forms of a file: smaller weights of a float one, unsigned ends of an integer one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.tflite import precisions
from tcc.backends.tflite.description import constants
from tcc.backends.tflite.writer import File, FileTensor, Operator, Quantization
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.lower.small_weights import HALF_ERROR, levels

WORTH = 80
"""Elements of a constant from which on float16 is smaller, with what makes float32 of it."""
DYNAMIC: Mapping[str, int] = {"CONV_2D": 5, "FULLY_CONNECTED": 12}
"""The operators whose weights become int8 beside float values, and the version that takes them.

DEPTHWISE_CONV_2D has one as well, which XNNPACK leaves to kernels several times as slow."""
LEAST = 5
"""Weights of a filter from which on int8 is smaller than float16: there is a scale as well."""
DEQUANTIZE_VERSION = 3
"""The first that takes float16."""

Array = NDArray[Any]


def single(file: File) -> File:
    """Return the file."""
    return file


def half(file: File, kept: frozenset[str] = frozenset()) -> File:
    """Return a file with its constants in float16, of which runtimes make float32 as they load it.

    Those too small to be worth an operator stay, and those `kept`.
    """
    tensors: list[FileTensor] = []
    operators: list[Operator] = []
    for tensor in file.tensors:
        small = None if tensor.name in kept else _halved(tensor)
        if small is None:
            tensors.append(tensor)
            continue
        tensors += [small, replace(tensor, data=None)]
        operators.append(
            Operator("DEQUANTIZE", (small.name,), (tensor.name,), version=DEQUANTIZE_VERSION)
        )
    return replace(file, tensors=tuple(tensors), operators=(*operators, *file.operators))


def dynamic(file: File) -> File:
    """Return a file with its weights in int8, a scale a filter; the runtime scales what they meet.

    Others are float16: depthwise and grouped convolutions, transposed ones, filters of few weights.
    """
    filters = dict(_dynamic_filters(file, constants(file)))
    tensors = tuple(filters.get(tensor.name, tensor) for tensor in file.tensors)
    operators = tuple(
        replace(op, version=DYNAMIC[op.code])
        if op.code in DYNAMIC and op.inputs[1] in filters
        else op
        for op in file.operators
    )
    biases = frozenset(
        op.inputs[2] for op in operators if op.inputs[1:2] and op.inputs[1] in filters
    )
    return half(replace(file, tensors=tensors, operators=operators), biases)


def unsigned(file: File) -> File:
    """Return a file whose 8-bit inputs and outputs are uint8, each of the same meaning."""
    tensors = {tensor.name: tensor for tensor in file.tensors}
    first: list[Operator] = []
    last: list[Operator] = []
    inputs = {k: _raised(tensors, first, v, enters=True) for k, v in file.inputs.items()}
    outputs = {k: _raised(tensors, last, v, enters=False) for k, v in file.outputs.items()}
    operators = (*first, *file.operators, *last)
    return replace(
        file, tensors=tuple(tensors.values()), operators=operators, inputs=inputs, outputs=outputs
    )


FORMS: Mapping[Precision, Callable[[File], File]] = {
    FP32: single,
    precisions.FP16: half,
    precisions.DYNAMIC: dynamic,
    precisions.INT8: single,
    precisions.INT8_I8: single,
    precisions.INT8_U8: unsigned,
}


def _values(tensor: FileTensor) -> Array:
    return np.frombuffer(tensor.data or b"", np.dtype("<f4")).reshape(tensor.shape)


def _halved(tensor: FileTensor) -> FileTensor | None:
    """Return a constant in float16; none where that is not smaller, or too far from it."""
    if tensor.data is None or tensor.dtype != "float32" or prod(tensor.shape) < WORTH:
        return None
    values = _values(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype("<f2")
    error = np.abs(rounded.astype(np.float64) - values).max(initial=0)
    if not error <= HALF_ERROR * np.abs(values).max(initial=0):
        return None
    name = f"{tensor.name}/float16"
    return replace(tensor, name=name, dtype="float16", data=rounded.tobytes())


def _dynamic_filters(
    file: File, known: Mapping[str, FileTensor]
) -> Iterator[tuple[str, FileTensor]]:
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    for op in file.operators:
        if op.code not in DYNAMIC or op.inputs[1] not in known:
            continue
        weight = known[op.inputs[1]]
        # A filter that reads only some of the channels is one of groups.
        if op.code == "CONV_2D" and shapes[op.inputs[0]][3] != weight.shape[3]:
            continue
        if prod(weight.shape[1:]) < LEAST:
            continue
        stored, scale = levels(_values(weight))
        means = Quantization(tuple(map(float, scale)), (0,) * len(scale))
        yield (
            weight.name,
            replace(weight, dtype="int8", data=stored.tobytes(), quantization=means),
        )


def _raised(
    tensors: dict[str, FileTensor], operators: list[Operator], name: str, *, enters: bool
) -> str:
    """Add a tensor's uint8 form, and the operator from one to the other; return its name."""
    tensor = tensors[name]
    if tensor.dtype != "int8" or tensor.quantization is None:
        return name
    zeros = tuple(n + 128 for n in tensor.quantization.zeros)
    made = f"{name}/uint8"
    # The same scale with zero points 128 apart: levels only move, which is exact in every runtime.
    kept = Quantization(tensor.quantization.scales, zeros)
    tensors[made] = replace(tensor, name=made, dtype="uint8", quantization=kept)
    source, result = (made, name) if enters else (name, made)
    operators.append(Operator("QUANTIZE", (source,), (result,), {}, 2))
    return made
