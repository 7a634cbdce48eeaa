"""Any graph is written as steps that give the same graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcc.compiler.importers.onnx_import import ImportOptions
from tcc.compiler.importers.onnx_import.spec_rebuild import build_spec
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ops import Add, BatchNorm, Concat, Conv, Mul, Relu, Sigmoid, Slice
from tcc.compiler.reference.float_program import run
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

SINGLE = (Relu(), Sigmoid(), BatchNorm(), Conv(4, (3, 3), padding=1), Conv(4, (1, 1), bias=False))


@st.composite
def draw_graph(draw):
    """Return a graph of maps of 4 channels. Any later node may read any value."""
    add = NetBuilder(4, 3, 3)
    values = ["image"]
    for i in range(draw(st.integers(1, 12))):
        recent_values = st.sampled_from(values[-3:]) | st.sampled_from(values)
        kind = draw(st.integers(0, 3))
        if kind < 2:
            values.append(add(f"n{i}", draw(st.sampled_from(SINGLE)), draw(recent_values)))
            continue
        parts = [draw(recent_values) for _ in range(draw(st.integers(2, 3)))]
        if kind == 2:
            values.append(add(f"n{i}", draw(st.sampled_from((Add(), Mul()))), *parts))
        else:
            add(f"c{i}", Concat(), *parts)
            values.append(add(f"n{i}", Slice(2, 6), f"c{i}"))
    names = draw(st.lists(st.sampled_from(values[1:]), min_size=0, max_size=2, unique=True))
    output_values = [values[-1], *(name for name in names if name != values[-1])]
    return add.build(*(Output(f"y{i}", value) for i, value in enumerate(output_values)))


@settings(max_examples=80)
@given(graph=draw_graph(), fold=st.booleans())
def test_any_graph_round_trips(graph, fold, tmp_path_factory):
    model = eliminate_dead(Model(graph, sample_weights(graph)))
    imported = build_spec(
        model, tmp_path_factory.getbasetemp() / "net.onnx", ImportOptions(fold=fold)
    )
    x = np.random.default_rng(0).standard_normal((4, 3, 3), np.float32)
    (expected,) = run(model, [x])
    (actual,) = run(Model(imported.spec.graph, imported.weights), [x])
    assert list(actual) == [o.name for o in graph.outputs]
    assert imported.spec.warnings == ()  # imported networks are not changed
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value)


def test_deep_nesting_is_split(tmp_path):
    add = NetBuilder(4, 3, 3)
    for i in range(40):
        add(f"r{i}", Relu())
    value = "r39"
    for i in range(39, -1, -1):
        value = add(f"s{i}", Add(), value, "image" if i == 0 else f"r{i - 1}")
    graph = add.build()
    imported = build_spec(Model(graph, {}), tmp_path / "net.onnx", ImportOptions())
    assert len(imported.spec.graph.nodes) == 80


@pytest.mark.parametrize("length", [3000])
def test_long_chains_are_imported(length, tmp_path):
    add = NetBuilder(1, 2, 2)
    for i in range(length):
        add(f"r{i}", Relu() if i % 2 else Sigmoid())
    imported = build_spec(Model(add.build(), {}), tmp_path / "net.onnx", ImportOptions())
    assert len(imported.spec.graph.nodes) == length
