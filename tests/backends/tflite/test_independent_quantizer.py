"""Full int8 against an independent quantizer with the same float file and ranges."""

from dataclasses import replace

import flatbuffers
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra `dev`")

from ai_edge_quantizer import quantizer, recipe
from lite import parse_tflite
from lite_int8 import emit_int8, run

from tcc.backends.tflite.description import describe_floats
from tcc.backends.tflite.writer import pack
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ops import Add, Concat, Conv, DepthwiseConv, MaxPool, Relu
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder, build_chain
from tcc.testing.op_cases import sample_weights


def build_residual() -> Graph:
    """Return a stem, a pool, a residual block and a concat, without linear layers."""
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


def quantize_with_peer(model: Model, calibration: Calibration) -> bytes:
    """Return the int8 file of the other quantizer. It needs a name for every tensor."""
    lite = parse_tflite(pack(describe_floats(model)))
    body = lite.subgraphs[0]
    ranges = {}
    for number, tensor in enumerate(body.tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
        name = tensor.name.decode()
        value_name = name if name in calibration.ranges else name.rpartition("/")[0]
        if value_name in calibration.ranges:
            value_range = calibration.ranges[value_name]
            low, high = (np.full((1,) * len(tensor.shape), b * value_range.scale, np.float32)
                         for b in value_range.limits)  # fmt: skip
            ranges[name] = {"min": low, "max": high}
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(lite.Pack(builder), file_identifier=b"TFL3")
    peer_quantizer = quantizer.Quantizer(bytearray(builder.Output()), recipe.static_wi8_ai8())
    return bytes(peer_quantizer.quantize(ranges).quantized_model)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("graph", [build_chain(30), build_residual()], ids=lambda g: g.name)
def test_file_matches_the_independent_quantizer_and_is_hardly_larger(graph: Graph) -> None:
    model = lower_for_int8(graph, sample_weights(graph))
    calibration = calibrate_on_input(model, sample_input(model.graph))
    peer_file = quantize_with_peer(model, calibration)
    our_file = emit_int8(quantize(model, replace(calibration, float_io=False)))
    assert len(our_file) <= len(peer_file) + 64
    for seed in range(3):
        x = sample_input(model.graph, seed)
        (our_output,), (peer_output,) = (run(data, x).values() for data in (our_file, peer_file))
        assert our_output[1:] == pytest.approx(peer_output[1:], rel=1e-6)
        assert np.array_equal(our_output[0], peer_output[0])
