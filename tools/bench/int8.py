"""Latency and size of a network at every precision of the target `onnxruntime`, in one run.

    python tools/bench/int8.py [--spec ddsnet] [--weights FILE] [--set NAME=VALUE] [--rounds 60]

Prints JSON. The forms run in turn, round by round, on one thread, so that what disturbs one
disturbs all: `ms` is the median of a run, `low` and `high` its quartiles, `ratio` the median of
each round's time over fp32's in that round. `cosine` is that of the first output to fp32's, on the
one noise image that the ranges come from; without `--weights` they are random.
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
    """Measure and print."""
    given = _arguments()
    settings = dict(item.split("=", 1) for item in given.set)
    graph = load(shipped.find_spec(given.spec, make_file_span(given.spec)), settings).graph
    read = pipeline.read_weights(given.weights, graph) if given.weights else None
    weights = (read or pipeline.create_random_weights(graph)).tensors
    models = _models(Model(graph, weights))
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(models, Path(folder), given.rounds)
    about = {
        "spec": given.spec,
        "rounds": given.rounds,
        "onnxruntime": external_tools.installed_version("onnxruntime"),
        "products": select_product_types(read_features()).form,
    }
    print(json.dumps({**about, "precisions": found}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", default="ddsnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    return parser.parse_args()


def _models(model: Model) -> Mapping[str, Model]:
    """Return what the backend is given at each precision."""
    ready = passes.run(model, passes.INT8)
    program = quantize(ready, Calibration(compute_minmax_ranges(ready, value_limits(ready))))
    return {
        each.name: program if each.integer else passes.run(model, BACKEND.passes(each))
        for each in TARGET.precisions
    }


def value_limits(ready: Model) -> Mapping[str, tuple[float, float]]:
    """Return the least and greatest number of each value on the noise image."""
    graph = ready.graph
    outputs = tuple(Output(f"{node.name}!", node.name) for node in graph.nodes)
    x = picture(graph)
    (found,) = float_program.run(Model(replace(graph, outputs=outputs), ready.weights), [x])
    values = {graph.inputs[0].name: x, **{name[:-1]: y for name, y in found.items()}}
    return {
        name: (float(values[name].min()), float(values[name].max()))
        for name in list_unfused_values(graph)
    }


def picture(graph: Graph) -> Array:
    """Return one noise image as the graph takes it."""
    source = graph.inputs[0]
    channels, *size = source.type.shape
    levels = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
    if source.preprocess is None:
        return (levels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)
    return normalize(source.preprocess, levels)


def _measured(models: Mapping[str, Model], folder: Path, rounds: int) -> dict[str, Any]:
    """Return size, nearness to fp32, and times of each precision."""
    sessions, feeds, sizes = {}, {}, {}
    for precision in TARGET.precisions:
        name, model = precision.name, models[precision.name]
        path = folder / f"{name}-{MODEL_FILE}"
        path.write_bytes(BACKEND.emit(TARGET, model, precision).files[MODEL_FILE])
        source = model.graph.inputs[0]
        feeds[name] = {source.name: picture(model.graph)[None].astype(source.type.dtype.value)}
        sessions[name], sizes[name] = create_session(path), path.stat().st_size
    logits = {name: s.run(None, feeds[name])[0].ravel() for name, s in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, made in sessions.items():
            begin = time.perf_counter()
            made.run(None, feeds[name])
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {
        name: {
            "bytes": sizes[name],
            "cosine": _cosine(logits[name], logits["fp32"]),
            **_row(times, name),
        }
        for name in models
    }


def _row(times: Mapping[str, list[float]], name: str) -> dict[str, float]:
    low, middle, high = statistics.quantiles(times[name], n=4)
    ratios = [a / b for a, b in zip(times[name], times["fp32"], strict=True)]
    row = {"ms": middle, "low": low, "high": high, "ratio": statistics.median(ratios)}
    return {key: round(value, 3) for key, value in row.items()}


def _cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return round(float(a @ b / np.sqrt((a @ a) * (b @ b))), 7)


if __name__ == "__main__":
    main()
