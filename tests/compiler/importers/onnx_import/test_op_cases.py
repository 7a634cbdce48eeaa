"""Every op case comes back from ONNX as it was."""

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


def of_an_image(case: Case) -> Model:
    """The case's model with an image as input, which a vector is made of, and tanh at its end."""
    model = build_op_model(case) if len(case.shapes[0]) == 1 else build_one_input_model(case)
    graph = model.graph
    sources = [replace(s, type=TensorType((*s.type.shape, 1, 1)[:3])) for s in graph.inputs]
    flat = [
        make_node(f"flat{i}", Flatten(), (s.name,), (s.type,))
        for i, s in enumerate(sources)
        if s.type != graph.inputs[i].type
    ]
    named = {s.name: f"flat{i}" for i, s in enumerate(sources)} if flat else {}
    nodes = [replace(n, inputs=tuple(named.get(v, v) for v in n.inputs)) for n in graph.nodes]
    last = graph.outputs[0].value
    end = make_node("end", Tanh(), (last,), (graph.types[last],))
    body = Graph("case", tuple(sources), (*flat, *nodes, end), (Output("y", "end"),))
    return Model(verify(body), model.weights)


def one_vector(case: Case) -> bool:
    return len(case.shapes[0]) == 3 or len(case.shapes) == 1


KEPT = {name: case for name, case in CASES.items() if one_vector(case)}


@looped(KEPT, rotated=True, one_in=3, opset=OPSETS)
def test_comes_back(case, opset, tmp_path, imported):
    model = of_an_image(case)
    path = tmp_path / "case.onnx"
    onnx.save(lower(model, opset), path)
    found = imported(path)
    assert isinstance(found.spec.graph.inputs[0], Input)
    (x,) = (tensor[0] for tensor in sample_inputs(model))
    (before,), (after,) = (
        run(Model(graph, weights), [x])[0].values()
        for graph, weights in (
            (model.graph, model.weights),
            (found.spec.graph, found.weights),
        )
    )
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
