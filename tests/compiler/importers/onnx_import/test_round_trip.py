"""Every spec goes to ONNX and comes back, with equal outputs."""

import numpy as np
import onnx
import pytest
from zoo_nets import small

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.reference.float_program import run
from tcc.compiler.zoo import shipped
from tcc.testing.op_cases import sample_weights

QUICK = ("ddsnet", "fastnet", "shufflenet_v2")
MARKS = {**dict.fromkeys(QUICK, ()), "resnet34": pytest.mark.nightly}
"""resnet34 has resnet18's layers."""
SPECS = [
    pytest.param(path, id=name, marks=MARKS.get(name, pytest.mark.slow))
    for name, path in shipped.list_specs().items()
    if name != "vgg11"  # the steps of vgg16_bn_gap, with weights that take a minute
]


@pytest.mark.parametrize("path", SPECS)
def test_comes_back(path, tmp_path, imported):
    graph = small(load(path).graph)
    model = Model(graph, sample_weights(graph))
    file = tmp_path / "network.onnx"
    onnx.save(lower(model), file)
    found = imported(file)
    assert format_spec(found.text, "network.yaml") == found.text
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    (before,), (after,) = run(model, [x]), run(Model(found.spec.graph, found.weights), [x])
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
