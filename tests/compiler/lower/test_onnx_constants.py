"""Constants of ONNX files: equal ones are shared, and uniform ones are not stored."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from quantised import LEVELS, Array, open_session
from zoo_nets import shrink_network

from tcc.backends.onnxruntime.precision_conversion import (
    CONVERSIONS,
    EXPANDED_PRECISIONS,
    encode_onnx,
)
from tcc.backends.onnxruntime.precisions import INT8
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.onnx_constants import MIN_FILL_BYTES, merge_constants
from tcc.compiler.ops import AvgPool, Conv, GlobalAvgPool, Relu
from tcc.compiler.passes import INFERENCE, PLAIN, run
from tcc.compiler.zoo import shipped
from tcc.testing.int8_models import build_int8_model, sample_input
from tcc.testing.nets import NetBuilder, build_gated
from tcc.testing.op_cases import sample_weights

SLOW = pytest.mark.slow
SMALLER = pytest.mark.parametrize(
    "form", [form for form in CONVERSIONS if not form.full], ids=lambda form: form.name
)


def build_pooled_graph() -> Graph:
    add = NetBuilder(3, 24, 24, name="pooled")
    add("conv", Conv(64, (3, 3)))
    add("relu", Relu())
    add("pool", AvgPool((3, 3), (2, 2)))
    add("again", Conv(64, (1, 1)))
    add("clamp", Relu())
    add("pool_again", AvgPool((3, 3), (1, 1), 1))
    add("clamp_again", Relu())
    add("mean", GlobalAvgPool())
    add("last", Conv(3, (1, 1)))
    return add.build()


@cache
def build_model(name: str, integers: bool) -> Model:
    if name in ("gated", "pooled"):
        graph = {"gated": build_gated, "pooled": build_pooled_graph}[name]()
        values: Mapping[str, Array] = sample_weights(graph)
    else:
        graph = shrink_network(load(shipped.list_specs()[name]).graph)
        values = weights.initialize_random(graph, 0)
    return build_int8_model(graph, values) if integers else run(Model(graph, values), INFERENCE)


@SMALLER
@pytest.mark.parametrize(
    "name", ["gated", "pooled", "shufflenet_v2", pytest.param("googlenet", marks=SLOW)]
)
def test_a_compact_file_is_bit_exact(name: str, form: Precision) -> None:
    source_model = build_model(name, form.integer)
    plain_file, compact_file = (
        lower(CONVERSIONS[form](source_model)),
        onnx.load_from_string(encode_onnx(source_model, form, 17)),
    )
    onnx.checker.check_model(compact_file, full_check=True)
    assert compact_file.graph.ByteSize() <= plain_file.graph.ByteSize()
    source = source_model.graph.inputs[0]
    feeds = {source.name: sample_input(source_model.graph)[None].astype(source.type.dtype.value)}
    for level in LEVELS:
        for exact in (False, True) if form.integer else (False,):
            expected_outputs, actual_outputs = (
                open_session(p, level, exact=exact).run(None, feeds)
                for p in (plain_file, compact_file)
            )
            for expected, got in zip(expected_outputs, actual_outputs, strict=True):
                np.testing.assert_array_equal(got, expected)


@SMALLER
def test_large_constants_are_neither_repeated_nor_uniform(form: Precision) -> None:
    compact_file = onnx.load_from_string(
        encode_onnx(build_model("shufflenet_v2", form.integer), form, 17)
    )
    constant_keys = set()
    for tensor in compact_file.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.nbytes < MIN_FILL_BYTES or form in EXPANDED_PRECISIONS:
            continue
        assert len(np.unique(values)) > 1, tensor.name
        key = (values.dtype, values.shape, values.tobytes())
        assert key not in constant_keys, tensor.name
        constant_keys.add(key)


def test_a_pooling_kernel_is_not_stored() -> None:
    """The window kernel is 64 x 3 x 3 times 127, that of the global mean 10 x 10 ones."""
    compact_file = onnx.load_from_string(encode_onnx(build_model("pooled", True), INT8, 17))
    filled = {
        node.output[0] for node in compact_file.graph.node if node.op_type == "ConstantOfShape"
    }
    assert "pool.weight" in filled
    assert "pool_again.weight" not in filled  # ONNX Runtime would merge both
    sizes = [
        numpy_helper.to_array(t).nbytes for t in compact_file.graph.initializer if "mean" in t.name
    ]
    assert max(sizes) == 10 * 10


def test_float32_files_contain_every_weight_by_name() -> None:
    graph = load(shipped.list_specs()["ddsnet"]).graph
    source_model = run(Model(graph, weights.initialize_random(graph, 0)), PLAIN)
    file = onnx.load_from_string(encode_onnx(source_model, FP32, 17))
    assert {t.name for t in file.graph.initializer} >= set(source_model.graph.params)


def test_constants_with_different_bits_are_not_merged() -> None:
    values = np.zeros(MIN_FILL_BYTES, np.float32)
    values[7] = -0.0
    tensors = [numpy_helper.from_array(values, "a"), numpy_helper.from_array(np.abs(values), "b")]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    compact_graph = merge_constants(onnx.helper.make_model(graph), fill=True).graph
    assert [t.name for t in compact_graph.initializer if t.data_type == onnx.TensorProto.FLOAT] == [
        "a"
    ]
    assert [node.output[0] for node in compact_graph.node] == ["b"]
