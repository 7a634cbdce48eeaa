"""Measure latency and size of a network at every precision of the target `onnxruntime`.

    python tools/bench/int8.py [--spec ddsnet] [--weights FILE] [--set NAME=VALUE] [--rounds 60]

Prints JSON. The precisions alternate, round by round, on one thread, so that other load affects
all. `ms` is the median of a run, `low` and `high` its quartiles, `ratio` the median of each round's
time relative to fp32 in that round. `cosine` compares the first output with fp32's on the one noise
image that also calibrates. Without `--weights`, the weights are random.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.onnxruntime.backend import MODEL_FILE, OnnxRuntime, create_session
from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ir.preprocess import normalize
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.reference import float_program
from tcc.compiler.support import external_tools
from tcc.compiler.support.cpu import read_features, select_product_types
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.zoo import shipped

BACKEND = OnnxRuntime()
(TARGET,) = BACKEND.targets
Array = NDArray[Any]


def main() -> None:
    """Run the benchmark and print the result."""
    options = _parse_arguments()
    settings = dict(setting.split("=", 1) for setting in options.set)
    graph = load(shipped.find_spec(options.spec, make_file_span(options.spec)), settings).graph
    weight_source = pipeline.read_weights(options.weights, graph) if options.weights else None
    weights = (weight_source or pipeline.create_random_weights(graph)).tensors
    models = _make_models(Model(graph, weights))
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure_models(models, Path(folder), options.rounds)
    header = {
        "spec": options.spec,
        "rounds": options.rounds,
        "onnxruntime": external_tools.installed_version("onnxruntime"),
        "products": select_product_types(read_features()).form,
    }
    print(json.dumps({**header, "precisions": figures}, indent=2))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", default="ddsnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    return parser.parse_args()


def _make_models(model: Model) -> Mapping[str, Model]:
    """Return the model that the backend gets at each precision."""
    lowered_model = passes.run(model, passes.INT8)
    program = quantize(
        lowered_model,
        Calibration(compute_minmax_ranges(lowered_model, compute_value_limits(lowered_model))),
    )
    return {
        precision.name: program
        if precision.integer
        else passes.run(model, BACKEND.passes(precision))
        for precision in TARGET.precisions
    }


def compute_value_limits(lowered_model: Model) -> Mapping[str, tuple[float, float]]:
    """Return the minimum and maximum of each value on the noise image."""
    graph = lowered_model.graph
    outputs = tuple(Output(f"{node.name}!", node.name) for node in graph.nodes)
    tensor = make_noise_image(graph)
    (node_values,) = float_program.run(
        Model(replace(graph, outputs=outputs), lowered_model.weights), [tensor]
    )
    all_values = {graph.inputs[0].name: tensor, **{name[:-1]: y for name, y in node_values.items()}}
    return {
        name: (float(all_values[name].min()), float(all_values[name].max()))
        for name in list_unfused_values(graph)
    }


def make_noise_image(graph: Graph) -> Array:
    """Return one noise image as an input tensor of the graph."""
    source = graph.inputs[0]
    channels, *size = source.type.shape
    levels = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
    if source.preprocess is None:
        return (levels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)
    return normalize(source.preprocess, levels)


def _measure_models(models: Mapping[str, Model], folder: Path, rounds: int) -> dict[str, Any]:
    """Return size, cosine to fp32, and times of each precision."""
    sessions, feeds, sizes = {}, {}, {}
    for precision in TARGET.precisions:
        name, model = precision.name, models[precision.name]
        path = folder / f"{name}-{MODEL_FILE}"
        path.write_bytes(BACKEND.emit(TARGET, model, precision).files[MODEL_FILE])
        source = model.graph.inputs[0]
        feeds[name] = {
            source.name: make_noise_image(model.graph)[None].astype(source.type.dtype.value)
        }
        sessions[name], sizes[name] = create_session(path), path.stat().st_size
    logits = {name: s.run(None, feeds[name])[0].ravel() for name, s in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, ort_session in sessions.items():
            begin = time.perf_counter()
            ort_session.run(None, feeds[name])
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {
        name: {
            "bytes": sizes[name],
            "cosine": _compute_cosine(logits[name], logits["fp32"]),
            **_summarize_times(times, name),
        }
        for name in models
    }


def _summarize_times(times: Mapping[str, list[float]], name: str) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times[name], n=4)
    ratios = [a / b for a, b in zip(times[name], times["fp32"], strict=True)]
    row = {"ms": middle, "low": low, "high": high, "ratio": statistics.median(ratios)}
    return {key: round(figure, 3) for key, figure in row.items()}


def _compute_cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b))), 7)


if __name__ == "__main__":
    main()
