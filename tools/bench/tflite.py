"""Compare size and latency of TFLite files with ai-edge-quantizer's for the same network.

    python tools/bench/tflite.py [--spec ddsnet] [--set NAME=VALUE] [--rounds 30]

Prints JSON. The peer gets tcc's fp32 file and tcc's ranges. All files alternate, round by round, in
LiteRT with XNNPACK on one thread. `ratio` is the median of each round's time relative to fp32's in
that round, `against` the same relative to the peer's file of that form. Weights are random.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from numpy.typing import NDArray

from tcc.backends.tflite.backend import FILE, TfLite
from tcc.backends.tflite.description import describe_floats
from tcc.backends.tflite.precisions import DYNAMIC, FP16, INT8
from tcc.backends.tflite.writer import pack
from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.precision import FP32
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.zoo import shipped

BACKEND = TfLite()
(TARGET,) = BACKEND.targets
PEERS = {"peer dynamic": "dynamic", "peer int8": "int8"}
"""The peer's files, and tcc's form that each is compared with."""
Array = NDArray[Any]


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", default="ddsnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.set)
    graph = load(shipped.find_spec(options.spec, make_file_span(options.spec)), settings).graph
    files = make_files(Model(graph, pipeline.create_random_weights(graph).tensors))
    header = {"spec": options.spec, "rounds": options.rounds}
    print(json.dumps({**header, "files": measure_files(files, options.rounds)}, indent=2))


def make_files(model: Model) -> Mapping[str, bytes]:
    """Return tcc's file of each form, and the peer's."""
    lowered_model = passes.run(model, passes.INT8)
    calibration = Calibration(compute_minmax_ranges(lowered_model, _compute_limits(lowered_model)))
    # the peer sets no scale for constants concatenated to a map, so omit the input's border
    float_model = passes.run(
        model, [graph_pass for graph_pass in passes.INT8 if graph_pass.name != "raw_input"]
    )
    models = {
        precision: passes.run(model, BACKEND.passes(precision))
        for precision in (FP32, FP16, DYNAMIC)
    }
    models[INT8] = quantize(lowered_model, replace(calibration, float_io=False))
    tcc_files = {
        precision.name: BACKEND.emit(TARGET, m, precision).files[FILE]
        for precision, m in models.items()
    }
    dynamic_quantizer = quantizer.Quantizer(
        bytearray(_pack_model(_name_tensors(tcc_files["fp32"]))), recipe.dynamic_wi8_afp32()
    )
    return {
        **tcc_files,
        "peer dynamic": bytes(dynamic_quantizer.quantize().quantized_model),
        "peer int8": make_peer_file(
            float_model,
            Calibration(compute_minmax_ranges(float_model, _compute_limits(float_model))),
        ),
    }


def make_peer_file(model: Model, calibration: Calibration) -> bytes:
    """Return the peer's int8 file of a lowered model."""
    lite = _name_tensors(pack(describe_floats(model)))
    tensor_ranges = {}
    for tensor in lite.subgraphs[0].tensors:
        name = tensor.name.decode()
        ranged_value = name if name in calibration.ranges else name.rpartition("/")[0]
        if ranged_value in calibration.ranges:
            value_range = calibration.ranges[ranged_value]
            low, high = (
                np.full((1,) * len(tensor.shape), bound * value_range.scale, np.float32)
                for bound in value_range.limits
            )
            tensor_ranges[name] = {"min": low, "max": high}
    peer_quantizer = quantizer.Quantizer(bytearray(_pack_model(lite)), recipe.static_wi8_ai8())
    return bytes(peer_quantizer.quantize(tensor_ranges).quantized_model)


def _name_tensors(content: bytes) -> Any:
    """Return the objects of a file with a name for every tensor, as the peer requires."""
    lite = schema.ModelT.InitFromPackedBuf(content)
    for number, tensor in enumerate(lite.subgraphs[0].tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
    return lite


def _pack_model(lite: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(lite.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _compute_limits(lowered_model: Model) -> Mapping[str, tuple[float, float]]:
    """Return the minimum and maximum of each value on one noise image."""
    graph = lowered_model.graph
    outputs = tuple(Output(f"{node.name}!", node.name) for node in graph.nodes)
    tensor = _make_noise(graph)
    (node_values,) = float_program.run(
        Model(replace(graph, outputs=outputs), lowered_model.weights), [tensor]
    )
    all_values = {graph.inputs[0].name: tensor, **{name[:-1]: y for name, y in node_values.items()}}
    return {
        name: (float(all_values[name].min()), float(all_values[name].max()))
        for name in list_unfused_values(graph)
    }


def _make_noise(graph: Graph) -> Array:
    (source,) = graph.inputs
    levels = np.random.default_rng(0).integers(0, 256, source.type.shape).astype(np.float32)
    raw = source.preprocess is not None and source.preprocess.raw
    return levels if raw else levels / np.float32(127.5) - 1


def measure_files(files: Mapping[str, bytes], rounds: int) -> dict[str, Any]:
    """Return the size and the times of each file."""
    runs = {name: _load_interpreter(content) for name, content in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for number in range(rounds + 1):
        for name, interpreter in runs.items():
            begin = time.perf_counter()
            interpreter.invoke()
            if number:  # the first round is a warm-up
                times[name].append((time.perf_counter() - begin) * 1e3)
    rows: dict[str, Any] = {}
    for name, content in files.items():
        rows[name] = {
            "bytes": len(content),
            "ms": round(statistics.median(times[name]), 3),
            "ratio": _compute_ratio(times[name], times["fp32"]),
        }
    for peer_name, tcc_name in PEERS.items():
        rows[tcc_name]["against"] = _compute_ratio(times[tcc_name], times[peer_name])
        rows[tcc_name]["size against"] = round(len(files[tcc_name]) / len(files[peer_name]), 3)
    return rows


def _load_interpreter(content: bytes) -> Any:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    return interpreter


def _compute_ratio(times: list[float], other_times: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(times, other_times, strict=True)), 3)


if __name__ == "__main__":
    main()
