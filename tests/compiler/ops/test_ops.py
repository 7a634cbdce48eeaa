"""Every op case: inferred shapes and computed values agree between the op, torch and ONNX."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tables import looped
from torch.nn import functional

from tcc.compiler.ir.graph import Model, make_node, verify
from tcc.compiler.ir.op import Alias
from tcc.compiler.ir.types import Pair, TensorType
from tcc.compiler.lower.onnx import MAX_OPSET, lower
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import (
    OPS,
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Linear,
    MaxPool,
    Mul,
    Op,
)
from tcc.testing.op_cases import (
    CASES,
    INTERNAL_CASES,
    Case,
    build_one_input_model,
    build_op_model,
    sample_inputs,
)

OPSETS = (11, 13, 17, MAX_OPSET)
EVERY = {**CASES, **INTERNAL_CASES}
BY_OPSET = {f"opset {opset}": opset for opset in OPSETS}
FORMS = {**{name: (opset, None) for name, opset in BY_OPSET.items()}, "batch 2": (17, 2)}


def run_torch(model: Model, *inputs: np.ndarray) -> np.ndarray:
    network = create_module(model.graph, model.weights).eval()
    with torch.no_grad():
        return network(*map(torch.from_numpy, inputs))["y"].numpy()


def run_onnx(lowered: onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(lowered.SerializeToString(), options)
    names = [i.name for i in session.get_inputs()]
    return session.run(["y"], dict(zip(names, inputs, strict=True)))[0]


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    bound = 1e-5 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=bound)


@looped(EVERY)
def test_torch_computes_the_inferred_shape(case: Case) -> None:
    model = build_op_model(case)
    got = run_torch(model, *sample_inputs(model))
    assert got.shape == (2, *model.graph.nodes[-1].type.shape)


@looped(EVERY)
def test_an_op_infers_the_same_before_and_after_resolving(case: Case) -> None:
    model = build_op_model(case)
    node = model.graph.nodes[-1]
    if not isinstance(case.op, Alias):
        assert case.op.infer(*model.graph.get_input_types(node)) == node.type
    assert node.op.resolve(*model.graph.get_input_types(node)) == node.op


@looped(EVERY, rotated=True, opset=BY_OPSET)
def test_onnx_runtime_agrees_with_torch(case: Case, opset: int) -> None:
    model = build_op_model(case)
    inputs = sample_inputs(model)
    assert_close(run_onnx(lower(model, opset), *inputs), run_torch(model, *inputs))


@looped(EVERY, rotated=True, form=FORMS)
def test_onnx_infers_the_same_shapes(case: Case, form: tuple[int, int | None]) -> None:
    opset, batch = form
    model = build_op_model(case)
    lowered = lower(model, opset, batch)
    onnx.checker.check_model(lowered, full_check=True)
    del lowered.graph.value_info[:]
    lowered.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(lowered, strict_mode=True, data_prop=True)
    batch_dim, *other_dims = inferred.graph.output[0].type.tensor_type.shape.dim
    assert tuple(d.dim_value for d in other_dims) == model.graph.nodes[-1].type.shape
    assert batch_dim.dim_value == (batch or 0)
    if all(n.op_type != "Resize" for n in lowered.graph.node):  # shape inference drops the name
        assert batch_dim.dim_param == ("" if batch else "N")


@looped(EVERY)
def test_gradients_reach_every_weight_and_input(case: Case) -> None:
    model = build_op_model(case)
    network = create_module(model.graph, model.weights).train()
    inputs = [torch.from_numpy(x).requires_grad_() for x in sample_inputs(model)]
    # Batch norm refuses a batch of one value per channel. Two images of one pixel suffice.
    network(*inputs)["y"].square().sum().backward()
    for tensor in (*network.parameters(), *inputs):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@looped(EVERY)
def test_an_op_with_split_inputs_gives_the_same(case: Case) -> None:
    model = build_one_input_model(case)
    assert len(verify(model.graph).inputs) == 1
    (x,) = sample_inputs(model)
    cut = build_op_model(case)
    pieces = np.split(x, np.cumsum([s[0] for s in case.shapes])[:-1], axis=1)
    inputs = [
        p.mean((2, 3), keepdims=True) if p.shape[1:] != s else p
        for p, s in zip(pieces, case.shapes, strict=True)
    ]
    assert_close(run_torch(model, x), run_torch(cut, *inputs))


def test_every_op_has_a_case() -> None:
    covered_ops = {type(case.op) for case in CASES.values()}
    lacking = sorted(op.keyword for op in OPS if op not in covered_ops)
    assert not lacking, f"src/tcc/testing/op_cases.py has no case of: {', '.join(lacking)}"
    assert covered_ops <= set(OPS)


sizes = st.integers(1, 9)
steps = st.integers(1, 4)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.tuples(sizes, sizes), ceil=st.booleans())
def test_pools_match_torch(data: st.DataObject, size: Pair, ceil: bool) -> None:
    kernel = data.draw(st.tuples(steps, steps), label="kernel")
    stride = data.draw(st.tuples(steps, steps), label="stride")
    padding = tuple(data.draw(st.integers(0, k // 2), label="padding") for k in kernel)
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, kernel, strict=True)))
    counted = data.draw(st.booleans(), label="count_include_pad")
    x = np.random.default_rng(0).standard_normal((1, 2, *size), np.float32)
    shape = (2, *size)
    pool_options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    largest = build_op_model(Case(MaxPool(kernel, stride, padding, ceil), (shape,)))
    mean = build_op_model(Case(AvgPool(kernel, stride, padding, ceil, counted), (shape,)))
    expected = [
        (largest, functional.max_pool2d(torch.from_numpy(x), **pool_options)),
        (
            mean,
            functional.avg_pool2d(torch.from_numpy(x), count_include_pad=counted, **pool_options),
        ),
    ]
    for model, y in expected:
        assert_close(run_torch(model, x), y.numpy())
        assert_close(run_onnx(lower(model), x), y.numpy())


@settings(max_examples=50, deadline=None)
@given(
    size=st.tuples(sizes, sizes),
    kernel=st.tuples(steps, steps),
    stride=st.tuples(steps, steps),
    ceil=st.booleans(),
    data=st.data(),
)
def test_unevenly_padded_pools_match(
    size: Pair, kernel: Pair, stride: Pair, ceil: bool, data: st.DataObject
) -> None:
    padding = tuple(data.draw(st.integers(0, k - 1), label="padding") for k in (*kernel, *kernel))
    room = (n + a + b - k for n, a, b, k in zip(size, padding, padding[2:], kernel, strict=False))
    assume(all(r >= 0 for r in room))
    for op in (
        MaxPool(kernel, stride, padding, ceil),
        AvgPool(kernel, stride, padding, ceil),
        AvgPool(kernel, stride, padding, ceil, count_include_pad=False),
    ):
        model = build_op_model(Case(op, ((2, *size),)))
        (x,) = sample_inputs(model)
        assert_close(run_onnx(lower(model), x), run_torch(model, x))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 7), s=st.integers(1, 5), d=st.integers(1, 3))
def test_same_padding_gives_one_output_per_step(n: int, k: int, s: int, d: int) -> None:
    op = Conv(1, (k, k), (s, s), "same", (d, d))
    x = TensorType((1, n, n))
    assert op.infer(x).shape == (1, -(-n // s), -(-n // s))
    resolved = op.resolve(x)
    assert resolved.infer(x) == op.infer(x)
    top_pad, left_pad, bottom, _ = resolved.pads
    assert (top_pad, left_pad) == (left_pad, top_pad)
    assert 0 <= bottom - top_pad <= 1


@pytest.mark.parametrize(
    ("op", "shape", "macs"),
    [
        (Conv(8, (3, 3), padding=1), (4, 5, 6), 8 * 5 * 6 * 4 * 9),
        (Conv(8, (3, 3), (2, 2), 1, groups=4), (4, 5, 6), 8 * 3 * 3 * 9),
        (Linear(7), (12,), 84),
        (BatchNorm(), (4, 5, 6), 0),
    ],
)
def test_mac_counts(op: Op, shape: tuple[int, ...], macs: int) -> None:
    assert op.macs(TensorType(shape)) == macs


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Activation("none"), [(3, 4, 5)]),
        (AdaptiveAvgPool((4, 5)), [(3, 4, 5)]),
        (Add(), [(3, 4, 5)]),
        (Mul(), [(3,)]),
    ],
)
def test_ops_without_effect_make_no_node(op: Op, shapes: list[tuple[int, ...]]) -> None:
    assert make_node("op", op, ("x",), tuple(map(TensorType, shapes))) is None
