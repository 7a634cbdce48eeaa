"""Every spec round-trips through ONNX with equal outputs."""

import numpy as np
import onnx
import pytest
from zoo_nets import shrink_network

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.reference.float_program import run
from tcc.compiler.zoo import shipped
from tcc.testing.op_cases import sample_weights

QUICK = ("ddsnet", "fastnet", "shufflenet_v2")
MARKS = {**dict.fromkeys(QUICK, ()), "resnet34": pytest.mark.nightly}
"""resnet34 has the layers of resnet18."""
SPECS = [
    pytest.param(path, id=name, marks=MARKS.get(name, pytest.mark.slow))
    for name, path in shipped.list_specs().items()
    if name != "vgg11"  # same steps as vgg16_bn_gap; its weights take a minute
]


@pytest.mark.parametrize("path", SPECS)
def test_specs_round_trip_through_onnx(path, tmp_path, imported):
    graph = shrink_network(load(path).graph)
    model = Model(graph, sample_weights(graph))
    file = tmp_path / "network.onnx"
    onnx.save(lower(model), file)
    imported_model = imported(file)
    assert format_spec(imported_model.text, "network.yaml") == imported_model.text
    x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.shape, np.float32)
    (expected,), (actual,) = (
        run(model, [x]),
        run(Model(imported_model.spec.graph, imported_model.weights), [x]),
    )
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value)
