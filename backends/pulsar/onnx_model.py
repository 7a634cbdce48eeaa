"""The ONNX model that a chip's toolchain is given."""

from typing import TYPE_CHECKING

from tcc.backends.pulsar.chips import Chip
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower

if TYPE_CHECKING:
    import onnx


def npu_onnx(model: Model, chip: Chip) -> "onnx.ModelProto":
    """Return a model after the chip's passes as its toolchain reads it: a batch of one image.

    Raises:
        UserError: The weights exceed what an ONNX file holds (E0450).
    """
    return lower(model, chip.opset, batch=1)
