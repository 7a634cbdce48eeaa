"""Convolution patches from windows of their inputs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.data import weights
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Conv
from tcc.compiler.quant.observe.statistics import InputWindows, compute_outputs
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder


@given(
    st.integers(1, 3), st.integers(1, 2), st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 2), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_patches_give_the_convolution_output(groups, depth, kernel, stride, dilation, bias):
    op = Conv(
        2 * groups, kernel, (stride, 1), (1, 0, 2, 1), (dilation, 1), groups=groups, bias=bias
    )
    add = NetBuilder(groups * depth, 7, 8)
    add("conv", op)
    model = Model(graph := add.build(Output("y", "conv")), weights.initialize_random(graph))
    image = weights.sample_uniform(graph.inputs[0].type.shape, 1.0, "image")
    (model_outputs,) = float_program.run(model, [image])

    padded = np.pad(image, ((0, 0), (1, 2), (0, 1)))
    windows = InputWindows(op, padded[None])
    params = [model.weights[name] for name in graph.nodes[0].params]
    patches = windows.extract_patches()
    assert patches.shape[::2] == (groups, params[0][0].size)
    patch_outputs = (
        compute_outputs(op, patches, *params).transpose(0, 2, 1).reshape(model_outputs["y"].shape)
    )
    np.testing.assert_allclose(patch_outputs, model_outputs["y"], atol=1e-5)
