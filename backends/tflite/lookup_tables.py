"""Functions of one level: through floats where that is sure to be exact, else by a table."""

import numpy as np

from tcc.backends.tflite.float_operators import FLOAT
from tcc.backends.tflite.integer_draft import Array, IntegerDraft
from tcc.compiler.ir.graph import Node
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import HardSigmoid, HardSwish, Op, Sigmoid, Silu, Tanh
from tcc.compiler.ops.integer import Table

SMOOTH: dict[type[Op], float] = {Sigmoid: 0, Silu: 0, Tanh: 0, HardSwish: 1, HardSigmoid: 1}
"""Functions that runtimes compute within `ERROR` of their magnitude and of this number."""
ERROR = 2.0**-20
ROUNDING = 1e-4
"""Levels that the step from real numbers to levels may be off."""


def table(draft: IntegerDraft, node: Node) -> None:
    """Add the function in float32 between levels, or GATHER from the table.

    XNNPACK has no table of 256 levels; its floats are eight times as fast as GATHER.
    """
    op, (x,), (entries,) = node.op, draft.types(node), draft.weights(node)
    assert isinstance(op, Table)
    # Proved over all 256 levels: floats are used only where no error that a runtime may make
    # changes an entry.
    if sure(op, x, entries):
        _in_floats(draft, node, op)
    else:
        _gathered(draft, node, entries)


def sure(op: Table, x: TensorType, entries: Array) -> bool:
    """Whether float32 arithmetic rounds to the table's entry from every level of the input."""
    least_size = SMOOTH.get(type(op.function))
    if least_size is None or type(op.function) not in FLOAT:
        return False
    real = (np.arange(256) + x.limits[0]) * np.float64(x.scale or 0)
    scale, least = np.float64(op.scale), op.typed(()).limits[0]
    y = op.function.float64(real)
    steps = np.clip(y / scale, op.low, op.high)
    # How far each result lies from the tie at which rounding turns.
    apart = np.abs(steps - np.floor(steps) - 0.5)
    off = ROUNDING + ERROR * (least_size + np.abs(y)) / scale
    found = np.rint(steps) - least == entries
    return bool(np.abs(real).max() < 2.0**60 and found.all() and (apart > off).all())


def _in_floats(draft: IntegerDraft, node: Node, op: Table) -> None:
    net, name = draft.net, node.name
    source = draft.value(f"{name}:given", TensorType(draft.types(node)[0].shape))
    draft.run("DEQUANTIZE", net.inputs(node), source, {}, 2)
    apart = Node(f"{name}:float", op.function, (f"{name}:given",), (), TensorType(node.type.shape))
    result = FLOAT[type(op.function)](net, apart, op.function)
    draft.run("QUANTIZE", (result,), draft.value(name, node.type))


def _gathered(draft: IntegerDraft, node: Node, entries: Array) -> None:
    """Add GATHER from the table by what is stored, counted from its least."""
    name, (source,) = node.name, draft.net.inputs(node)
    shape = draft.tensors[source].shape
    wide, index = (draft.tensor(f"{name}:{what}", shape, "int32") for what in ("wide", "index"))
    draft.run("CAST", (source,), wide)
    # Indices count from 0, levels from -128.
    draft.run("ADD", (wide, draft.number(f"{name}/128", 128, "int32")), index)
    output = draft.value(name, node.type)
    stored = (entries.astype(np.int16) - 128).astype(np.int8)
    found = draft.constant(node.params[0], stored, draft.tensors[output].quantization)
    draft.run("GATHER", (found, index), output, {"axis": 0}, 2)
