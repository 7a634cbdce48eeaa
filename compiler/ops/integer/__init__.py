"""Operations on 8-bit integers: what the integer program is made of, beside what only moves.

Each has one defined result (`Exact.integer`), which every exact target gives to the bit.
"""

from tcc.compiler.ir.op import Op
from tcc.compiler.ops.integer.base import Quantized
from tcc.compiler.ops.integer.border import QPad
from tcc.compiler.ops.integer.conv import QConv, UnsignedQConv
from tcc.compiler.ops.integer.edge import Dequantize, Quantize
from tcc.compiler.ops.integer.join import QAdd, QMul
from tcc.compiler.ops.integer.mean import QGlobalAvgPool, RealGlobalAvgPool
from tcc.compiler.ops.integer.pool import QAvgPool
from tcc.compiler.ops.integer.sums import RealConv
from tcc.compiler.ops.integer.table import Table

__all__ = [
    "Dequantize", "QAdd", "QAvgPool", "QConv", "QGlobalAvgPool", "QMul", "QPad", "Quantize",
    "Quantized", "RealConv", "RealGlobalAvgPool", "Table", "UnsignedQConv",
]  # fmt: skip

INTEGERS: tuple[type[Op], ...] = (
    Dequantize, QAdd, QAvgPool, QConv, QGlobalAvgPool, QMul, QPad, Quantize, RealConv,
    RealGlobalAvgPool, Table, UnsignedQConv,
)  # fmt: skip
"""Every one of them."""
