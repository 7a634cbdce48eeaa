"""The integer program as Pulsar2 reads one: floats between quantise and dequantise operators."""

from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import npu_onnx
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx_constants import compact
from tcc.compiler.lower.qdq import simulated


def qdq_onnx(program: Model, chip: Chip) -> bytes:
    """Return an ONNX file of an integer program: activations in uint8, weights in int8.

    It is the documented grid: activations of a tensor have one scale and a zero point of 0 or 128,
    weights a scale a filter and levels from -127 to 127. Linear layers are convolutions already:
    the tool fails where the weights of a MatMul come from a dequantise operator.
    """
    made = compact(npu_onnx(simulated(program, plain=False), chip), fill=False)
    data: bytes = made.SerializeToString(deterministic=True)
    return data
