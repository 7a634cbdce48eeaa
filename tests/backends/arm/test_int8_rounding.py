"""Rounding of quantized values where a fused multiply or a reciprocal would differ."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from arm_calls import call_program

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, verify
from tcc.compiler.ir.op import Array, ExactIntegerOp, Op
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Conv
from tcc.compiler.ops.integer import (
    QAdd,
    QConv,
    QGlobalAvgPool,
    QMul,
    Quantize,
    QuantizedOp,
    RealConv,
)
from tcc.testing.int8_models import create_quantized_type, sample_quantized

Case = tuple[Op, tuple[TensorType, ...], tuple[Array, ...], tuple[Array, ...]]
"""An op, the types of its inputs, the inputs, and its weights."""
BY_NAME = {m.target.name: m for m in MACHINES}
CASES = 4000


slow_targets = (
    pytest.param(name, marks=pytest.mark.slow) for name in ("host", "arm-a53", "arm-a76")
)


@pytest.fixture(params=["arm-a7", *slow_targets])
def machine(request: pytest.FixtureRequest) -> Machine:
    selected = BY_NAME[request.param]
    if not selected.native and shutil.which(selected.qemu) is None:
        pytest.skip(f"needs {selected.qemu}: apt-get install qemu-user")
    return selected


def make_halves(rng: np.random.Generator, low: int, high: int) -> Array:
    """Return numbers halfway between two quantized values, some beyond the bounds."""
    return rng.integers(low - 2, high + 2, CASES) + 0.5


def make_near_ties() -> tuple[Array, Array]:
    """Return sums and factors whose float32 products are mostly ties, but rarely exact ties."""
    rng = np.random.default_rng(0)
    ties = make_halves(rng, -128, 127)
    sums = rng.integers(1, 2 ** rng.integers(1, 31, CASES)) * np.where(ties < 0, -1, 1)
    return sums.astype(np.int32), np.abs(ties / sums).astype(np.float32)


def make_requantized_case(op: type[QConv] | type[RealConv]) -> Case:
    """Return a convolution whose sums equal its biases. Each filter has one sum next to a tie."""
    sums, factors = make_near_ties()
    x = create_quantized_type((1, 1, 3), 1.0, signed=False)
    conv = Conv(CASES, (1, 1))
    quantized_op = QConv(1.0, True, -128, 127, conv) if op is QConv else RealConv(conv)
    weight = np.zeros((CASES, 1, 1, 1), np.int8)
    return quantized_op, (x,), (sample_quantized(x, 1),), (weight, factors, sums)


def make_extreme_case() -> Case:
    """Return a convolution with sums and factors of all magnitudes and a relu6 clamp."""
    rng = np.random.default_rng(1)
    x = create_quantized_type((4, 2, 9), 1.0, signed=True)
    weight = rng.integers(-127, 128, (CASES, 4, 1, 1)).astype(np.int8)
    factors = (2.0 ** rng.uniform(-60, 60, CASES)).astype(np.float32)
    factors[::3] = 2.0 ** rng.integers(-30, 10, len(factors[::3]))
    magnitudes = 2 ** rng.integers(1, 31, CASES)
    bias = (rng.integers(-magnitudes, magnitudes)).astype(np.int32)
    bias[:2] = (2**31 - 2**17, -(2**31) + 2**17)
    op = QConv(1.0, False, 3, 250, Conv(CASES, (1, 1)))
    return op, (x,), (sample_quantized(x, 1),), (weight, factors, bias)


def make_divided_case() -> Case:
    """Return numbers whose quotients by the scale are ties or close to ties."""
    rng = np.random.default_rng(2)
    scale = float(np.float32(0.0123))
    x = (make_halves(rng, -128, 127) * np.float64(np.float32(scale))).astype(np.float32)
    x[:4] = (1e30, -1e30, -0.0, 1e-42)
    kind = TensorType((1, 8, CASES // 8))
    return Quantize(scale, True, -128, 127), (kind,), (x.reshape(1, *kind.shape),), ()


def make_joined_case(op: type[QAdd] | type[QMul], seed: int) -> Case:
    """Return an add or mul of quantized values with scales of all ratios."""
    rng = np.random.default_rng(seed)
    shapes = [(5, 7, 9), (5, 7, 9) if seed % 2 else (5, 1, 1), (5, 7, 9)]
    shapes = shapes[: 2 + (op is QAdd and seed % 3 == 0)]
    output_scale, *input_scales = (float(s) for s in 2.0 ** rng.uniform(-12, 6, 4))
    kinds = tuple(
        create_quantized_type(s, n, bool(rng.integers(2)))
        for s, n in zip(shapes, input_scales, strict=False)
    )
    signed = bool(rng.integers(2))
    joining_op = op(float(np.float32(output_scale)), signed, -100 if signed else 2, 120)
    return (
        joining_op,
        kinds,
        tuple(sample_quantized(kind, 1, seed + i) for i, kind in enumerate(kinds)),
        (),
    )


def make_mean_case() -> Case:
    """Return a mean of many quantized values."""
    x = create_quantized_type((9, 33, 31), 0.37, signed=False)
    return QGlobalAvgPool(0.0021, False, 0, 255), (x,), (sample_quantized(x, 1),), ()


ALL: dict[str, Case] = {
    "beside ties": make_requantized_case(QConv),
    "real": make_requantized_case(RealConv),
    "extreme": make_extreme_case(),
    "divided": make_divided_case(),
    "mean": make_mean_case(),
    **{f"sum {seed}": make_joined_case(QAdd, seed) for seed in range(6)},
    **{f"product {seed}": make_joined_case(QMul, seed) for seed in range(4)},
}


def compute_expected(case: Case) -> Array:
    op, kinds, xs, params = case
    assert isinstance(op, ExactIntegerOp)
    output: Array = op.compute(kinds, xs, params)[0]
    return output


def make_model(case: Case) -> Model:
    op, kinds, _, params = case
    inputs = tuple(Input(f"x{i}", kind) for i, kind in enumerate(kinds))
    names = tuple(f"y.{i}" for i in range(len(params)))
    node = Node("y", op, tuple(i.name for i in inputs), names, op.infer(*kinds))
    graph = verify(Graph("one", inputs, (node,), (Output("out", "y"),)))
    return Model(graph, dict(zip(names, params, strict=True)))


def test_rounding_matches_the_reference(machine: Machine, tmp_path: Path) -> None:
    calls, plans = call_program([make_model(case) for case in ALL.values()], machine, tmp_path)
    for (name, case), plan in zip(ALL.items(), plans, strict=True):
        values = {f"x{i}": x[0] for i, x in enumerate(case[2])}
        assert calls.results(plan, values)["y"].tobytes() == compute_expected(case).tobytes(), name


def test_wrong_rounding_is_detected() -> None:
    sums, factors = make_near_ties()
    expected = compute_expected(ALL["beside ties"])[:, 0, 0]
    fused = np.clip(np.rint(sums.astype(np.float32) * factors.astype(np.float64)), -128, 127)
    assert (fused != expected).mean() > 0.05
    op, _, (x,), _ = ALL["divided"]
    assert isinstance(op, QuantizedOp)
    inverse = np.clip(np.rint(x * (np.float32(1) / np.float32(op.scale))), -128, 127)
    assert (inverse != compute_expected(ALL["divided"])).mean() > 0.05
