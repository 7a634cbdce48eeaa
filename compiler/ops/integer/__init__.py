"""Operations on 8-bit integers: what the integer program is made of, beside what only moves.

Each has one defined result (`Exact.integer`), which every exact target gives to the bit.
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
"""Every one of them."""

QUANTIZERS: Mapping[type[Op], Callable[[Any, IntegerSite], OpWithWeights | None]] = {
    op: one.from_float_op for one in (QAdd, QAvgPool, QConv, QGlobalAvgPool, QMul, QPad)
    for op in one.float_ops
}  # fmt: skip
"""What makes the integer form of each float op that has one of its own."""


def quantize_op(op: Op, site: IntegerSite) -> OpWithWeights | None:
    """Return what a float op is on integers; None where it stays a float.

    Args:
        op: The op.
        site: What is before and behind it.
    """
    quantizer = QUANTIZERS.get(type(op))
    if quantizer:
        return quantizer(op, site)
    if isinstance(op, ScalarFunction):
        return Table.from_float_op(op, site)
    # What moves numbers moves levels as they are: its output has the scale of its inputs.
    return (op, ()) if op.moves else None
