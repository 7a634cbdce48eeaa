"""Ops on 8-bit integers: those of an int8 model, without the ones that only move elements.

Each op has one defined result (`ExactIntegerOp.compute`); all exact targets match it bit for bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tcc.compiler.ir.op import Op
from tcc.compiler.ops.elementwise import ScalarFunction
from tcc.compiler.ops.integer.base import IntegerSite, OpWithWeights, QuantizedOp
from tcc.compiler.ops.integer.border import QPad
from tcc.compiler.ops.integer.conv import QConv, RealConv, UnsignedQConv, WideQConv
from tcc.compiler.ops.integer.join import QAdd, QMul
from tcc.compiler.ops.integer.mean import QGlobalAvgPool, RealGlobalAvgPool
from tcc.compiler.ops.integer.pool import QAvgPool
from tcc.compiler.ops.integer.quantize_dequantize import Dequantize, Quantize
from tcc.compiler.ops.integer.table import ComputedTable, Table

__all__ = [
    "ComputedTable", "Dequantize", "IntegerSite", "QAdd", "QAvgPool", "QConv", "QGlobalAvgPool",
    "QMul", "QPad", "Quantize", "QuantizedOp", "RealConv", "RealGlobalAvgPool", "Table",
    "UnsignedQConv", "WideQConv", "quantize_op",
]  # fmt: skip

INTEGER_OPS: tuple[type[Op], ...] = (
    ComputedTable, Dequantize, QAdd, QAvgPool, QConv, QGlobalAvgPool, QMul, QPad, Quantize,
    RealConv, RealGlobalAvgPool, Table, UnsignedQConv, WideQConv,
)  # fmt: skip
"""All of these ops."""

QUANTIZERS: Mapping[type[Op], Callable[[Any, IntegerSite], OpWithWeights | None]] = {
    op: integer_op.from_float_op
    for integer_op in (QAdd, QAvgPool, QConv, QGlobalAvgPool, QMul, QPad)
    for op in integer_op.float_ops
}  # fmt: skip
"""Creates the integer form of each float op with a separate one."""


def quantize_op(op: Op, site: IntegerSite) -> OpWithWeights | None:
    """Return the integer form of a float op; None if it stays float.

    Args:
        op: The op.
        site: Its inputs and its output.
    """
    quantizer = QUANTIZERS.get(type(op))
    if quantizer:
        return quantizer(op, site)
    if isinstance(op, ScalarFunction):
        return Table.from_float_op(op, site)
    # An op that moves elements does not change quantized values: its output keeps the input scale.
    return (op, ()) if op.moves else None
