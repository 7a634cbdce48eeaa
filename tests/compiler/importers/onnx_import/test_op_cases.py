"""Every op case round-trips through ONNX."""

from dataclasses import replace

import numpy as np
import onnx
from tables import looped

from tcc.compiler.ir.graph import Graph, Input, Model, Output, make_node, verify
from tcc.compiler.ir.types import TensorType
from tcc.compiler.lower.onnx import MAX_OPSET, lower
from tcc.compiler.ops import Flatten, Tanh
from tcc.compiler.reference.float_program import run
from tcc.testing.op_cases import CASES, Case, build_one_input_model, build_op_model, sample_inputs

OPSETS = {f"opset {opset}": opset for opset in (11, 17, MAX_OPSET)}


def convert_to_image_model(case: Case) -> Model:
    """Return the model of a case with an image input and a final tanh. Vectors come from the image."""
    model = build_op_model(case) if len(case.shapes[0]) == 1 else build_one_input_model(case)
    graph = model.graph
    sources = [replace(s, type=TensorType((*s.type.shape, 1, 1)[:3])) for s in graph.inputs]
    flat = [
        make_node(f"flat{i}", Flatten(), (s.name,), (s.type,))
        for i, s in enumerate(sources)
        if s.type != graph.inputs[i].type
    ]
    flat_names = {s.name: f"flat{i}" for i, s in enumerate(sources)} if flat else {}
    nodes = [replace(n, inputs=tuple(flat_names.get(v, v) for v in n.inputs)) for n in graph.nodes]
    output_value = graph.outputs[0].value
    end = make_node("end", Tanh(), (output_value,), (graph.types[output_value],))
    body = Graph("case", tuple(sources), (*flat, *nodes, end), (Output("y", "end"),))
    return Model(verify(body), model.weights)


def has_one_vector(case: Case) -> bool:
    return len(case.shapes[0]) == 3 or len(case.shapes) == 1


IMPORTABLE_CASES = {name: case for name, case in CASES.items() if has_one_vector(case)}


@looped(IMPORTABLE_CASES, rotated=True, one_in=3, opset=OPSETS)
def test_op_cases_round_trip_through_onnx(case, opset, tmp_path, imported):
    model = convert_to_image_model(case)
    path = tmp_path / "case.onnx"
    onnx.save(lower(model, opset), path)
    imported_model = imported(path)
    assert isinstance(imported_model.spec.graph.inputs[0], Input)
    (x,) = (tensor[0] for tensor in sample_inputs(model))
    (expected,), (actual,) = (
        run(Model(graph, weights), [x])[0].values()
        for graph, weights in (
            (model.graph, model.weights),
            (imported_model.spec.graph, imported_model.weights),
        )
    )
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
