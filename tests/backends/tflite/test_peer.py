"""Full int8 beside an independent quantiser, which is given the same float file and ranges."""

from dataclasses import replace

import flatbuffers
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra `dev`")

from ai_edge_quantizer import quantizer, recipe
from lite import opened
from lite_int8 import file, run

from tcc.backends.tflite.description import describe_floats
from tcc.backends.tflite.writer import pack
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ops import Add, Concat, Conv, DepthwiseConv, MaxPool, Relu
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder, build_chain
from tcc.testing.op_cases import sample_weights


def residual() -> Graph:
    """A stem, a pool, a residual block and a concat, without linear layers."""
    add = NetBuilder(3, 16, 16, name="residual")
    add("stem", Conv(8, (3, 3), (2, 2), 1))
    add("relu", Relu())
    skip = add("pool", MaxPool((3, 3), (1, 1), 1))
    add("depthwise", DepthwiseConv((3, 3), padding=1))
    add("depthwise_relu", Relu())
    add("point", Conv(8, (1, 1)))
    total = add("sum", Add(), skip, "point")
    add("joined", Concat(), total, "point")
    add("last", Conv(5, (1, 1)))
    return add.build()


def peer(model: Model, found: Calibration) -> bytes:
    """Return the peer's int8 file of a ready model; it wants a name for every tensor."""
    lite = opened(pack(describe_floats(model)))
    body = lite.subgraphs[0]
    ranges = {}
    for number, tensor in enumerate(body.tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
        name = tensor.name.decode()
        value = name if name in found.ranges else name.rpartition("/")[0]
        if value in found.ranges:
            kept = found.ranges[value]
            low, high = (np.full((1,) * len(tensor.shape), b * kept.scale, np.float32)
                         for b in kept.limits)  # fmt: skip
            ranges[name] = {"min": low, "max": high}
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(lite.Pack(builder), file_identifier=b"TFL3")
    made = quantizer.Quantizer(bytearray(builder.Output()), recipe.static_wi8_ai8())
    return bytes(made.quantize(ranges).quantized_model)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("graph", [build_chain(30), residual()], ids=lambda g: g.name)
def test_it_is_the_peers_network_and_hardly_larger(graph: Graph) -> None:
    model = lower_for_int8(graph, sample_weights(graph))
    found = calibrate_on_input(model, sample_input(model.graph))
    theirs = peer(model, found)
    ours = file(quantize(model, replace(found, float_io=False)))
    assert len(ours) <= len(theirs) + 64
    for seed in range(3):
        x = sample_input(model.graph, seed)
        (mine,), (other,) = (run(data, x).values() for data in (ours, theirs))
        assert mine[1:] == pytest.approx(other[1:], rel=1e-6)
        assert np.array_equal(mine[0], other[0])
