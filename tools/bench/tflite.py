"""Size and latency of TFLite files beside ai-edge-quantizer's of the same network, in one run.

    python tools/bench/tflite.py [--spec ddsnet] [--set NAME=VALUE] [--rounds 30]

Prints JSON. The peer is given our float file and our ranges. All files run in turn, round by round,
in LiteRT with XNNPACK on one thread; `ratio` is the median of each round's time over fp32's in that
round, `against` the same over the peer's file of that form. Weights are random.
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
"""The peer's files, and which of ours have the same form."""
Array = NDArray[Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", default="ddsnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    settings = dict(item.split("=", 1) for item in given.set)
    graph = load(shipped.find_spec(given.spec, make_file_span(given.spec)), settings).graph
    files = made(Model(graph, pipeline.create_random_weights(graph).tensors))
    about = {"spec": given.spec, "rounds": given.rounds}
    print(json.dumps({**about, "files": measured(files, given.rounds)}, indent=2))


def made(model: Model) -> Mapping[str, bytes]:
    """Return our file of each form, and the peer's."""
    ready = passes.run(model, passes.INT8)
    found = Calibration(compute_minmax_ranges(ready, _limits(ready)))
    # the peer gives constants that are joined to a map no scale, so its input has no border
    plain = passes.run(model, [one for one in passes.INT8 if one.name != "raw_input"])
    lean = {each: passes.run(model, BACKEND.passes(each)) for each in (FP32, FP16, DYNAMIC)}
    lean[INT8] = quantize(ready, replace(found, float_io=False))
    ours = {each.name: BACKEND.emit(TARGET, m, each).files[FILE] for each, m in lean.items()}
    dynamic = quantizer.Quantizer(
        bytearray(_packed(_named(ours["fp32"]))), recipe.dynamic_wi8_afp32()
    )
    return {
        **ours,
        "peer dynamic": bytes(dynamic.quantize().quantized_model),
        "peer int8": peer(plain, Calibration(compute_minmax_ranges(plain, _limits(plain)))),
    }


def peer(model: Model, found: Calibration) -> bytes:
    """Return the peer's int8 file of a ready model."""
    lite = _named(pack(describe_floats(model)))
    given = {}
    for tensor in lite.subgraphs[0].tensors:
        name = tensor.name.decode()
        value = name if name in found.ranges else name.rpartition("/")[0]
        if value in found.ranges:
            own = found.ranges[value]
            low, high = (
                np.full((1,) * len(tensor.shape), bound * own.scale, np.float32)
                for bound in own.limits
            )
            given[name] = {"min": low, "max": high}
    theirs = quantizer.Quantizer(bytearray(_packed(lite)), recipe.static_wi8_ai8())
    return bytes(theirs.quantize(given).quantized_model)


def _named(data: bytes) -> Any:
    """Return a file's objects with a name for every tensor, as the peer wants it."""
    lite = schema.ModelT.InitFromPackedBuf(data)
    for number, tensor in enumerate(lite.subgraphs[0].tensors):
        tensor.name = tensor.name or f"constant{number}".encode()
    return lite


def _packed(lite: Any) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(lite.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _limits(ready: Model) -> Mapping[str, tuple[float, float]]:
    """Return the least and greatest number of each value on one noise image."""
    graph = ready.graph
    outputs = tuple(Output(f"{node.name}!", node.name) for node in graph.nodes)
    x = _noise(graph)
    (found,) = float_program.run(Model(replace(graph, outputs=outputs), ready.weights), [x])
    values = {graph.inputs[0].name: x, **{name[:-1]: y for name, y in found.items()}}
    return {
        name: (float(values[name].min()), float(values[name].max()))
        for name in list_unfused_values(graph)
    }


def _noise(graph: Graph) -> Array:
    (source,) = graph.inputs
    levels = np.random.default_rng(0).integers(0, 256, source.type.shape).astype(np.float32)
    raw = source.preprocess is not None and source.preprocess.raw
    return levels if raw else levels / np.float32(127.5) - 1


def measured(files: Mapping[str, bytes], rounds: int) -> dict[str, Any]:
    """Return size and times of each file."""
    runs = {name: _loaded(data) for name, data in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for number in range(rounds + 1):
        for name, interpreter in runs.items():
            begin = time.perf_counter()
            interpreter.invoke()
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - begin) * 1e3)
    rows: dict[str, Any] = {}
    for name, data in files.items():
        rows[name] = {
            "bytes": len(data),
            "ms": round(statistics.median(times[name]), 3),
            "ratio": _ratio(times[name], times["fp32"]),
        }
    for theirs, ours in PEERS.items():
        rows[ours]["against"] = _ratio(times[ours], times[theirs])
        rows[ours]["size against"] = round(len(files[ours]) / len(files[theirs]), 3)
    return rows


def _loaded(data: bytes) -> Any:
    made = Interpreter(model_content=data, num_threads=1)
    made.allocate_tensors()
    for detail in made.get_input_details():
        made.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    return made


def _ratio(times: list[float], others: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(times, others, strict=True)), 3)


if __name__ == "__main__":
    main()
