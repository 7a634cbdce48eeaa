"""Passes over weights compute the same on tensors, and propagate gradients."""

import numpy as np
import pytest
import torch

from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.rewrite import extract_inference_graph
from tcc.compiler.ops import Add, BatchNorm, Conv, DepthwiseConv
from tcc.compiler.passes import INT8, run
from tcc.compiler.support.diagnostics import UnhandledError
from tcc.compiler.train.traced_arrays import TracedArray
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights


def build_branches() -> Graph:
    """Build branches that are summed and become one convolution."""
    add = NetBuilder(6, 7, 7, name="branches")
    add("wide", Conv(6, (3, 3), padding=1, groups=2, bias=False), "image")
    add("wide_bn", BatchNorm())
    add("deep", DepthwiseConv((1, 1)), "image")
    add("norm", BatchNorm(), "image")
    add("sum", Add(), "wide_bn", "deep", "norm", "image")
    return add.build()


@pytest.mark.parametrize(
    "graph", [build_dense(), build_gated(), build_branches()], ids=lambda g: g.name
)
def test_passes_give_equal_weights_on_tensors(graph):
    lean = extract_inference_graph(graph)
    weights = {name: value for name, value in sample_weights(graph).items() if name in lean.params}
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    expected = run(Model(lean, weights), INT8)
    traced = run(Model(lean, {n: TracedArray(t) for n, t in tensors.items()}), INT8)
    assert traced.graph == expected.graph
    for name, value in traced.weights.items():
        tensor = value.tensor if isinstance(value, TracedArray) else torch.tensor(value)
        assert tensor.dtype is torch.float32
        np.testing.assert_allclose(tensor.detach().numpy(), expected.weights[name], rtol=1e-6)
    sum(v.tensor.sum() for v in traced.weights.values() if isinstance(v, TracedArray)).backward()
    assert all(tensor.grad is not None for tensor in tensors.values())


@pytest.mark.parametrize(
    "use", [np.exp, np.asarray, np.concatenate, np.add.reduce], ids=lambda f: f.__name__
)
def test_operations_that_lose_gradients_are_refused(use):
    with pytest.raises(UnhandledError):
        use(TracedArray(torch.ones(3)))
