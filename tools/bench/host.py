"""Time the target `host` relative to ONNX Runtime on one core: fp32 and exact int8 models.

    python tools/bench/host.py [--spec ddsnet ...] [--precision fp32] [--isa NAME] [--rounds 40]

Prints JSON. Weights and the one noise image are random. tcc's program and ONNX Runtime alternate,
round by round, on one thread of this process, so that other load affects both. Times are CPU time:
`host` and `onnxruntime` are medians in milliseconds, `ratio` is the median of the rounds' ratios,
and `mean` the geometric mean of these. Before timing, the outputs are compared: int8 bit for bit,
fp32 within 1e-4 of the largest value.
"""

import argparse
import ctypes
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from int8 import BACKEND as RUNTIME
from int8 import TARGET as RUNTIME_TARGET
from int8 import compute_value_limits, make_noise_image
from numpy.typing import NDArray

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import INT8
from tcc.backends.onnxruntime.backend import MODEL_FILE, create_session
from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges
from tcc.compiler.support import external_tools
from tcc.compiler.support.cpu import read_features, select_product_types
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.zoo import shipped

ARM = Arm()
HOST = next(target for target in ARM.targets if target.name == "host")
NETWORKS = ("ddsnet", "fastnet", "mobilenet_v2", "resnet18")
PRECISIONS = {precision.name: precision for precision in (FP32, INT8)}
MAX_FLOAT_ERROR = 1e-4
"""The largest allowed difference of fp32 outputs, relative to the largest output."""
Array = NDArray[Any]


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", nargs="+", default=NETWORKS)
    parser.add_argument("--precision", nargs="+", default=tuple(PRECISIONS), choices=PRECISIONS)
    parser.add_argument(
        "--isa", help="the instruction set to use; default: all that the machine has"
    )
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    rows = {name: dict(_measure_network(name, options)) for name in options.spec}
    means = {
        precision: round(statistics.geometric_mean(r[precision]["ratio"] for r in rows.values()), 3)
        for precision in options.precision
    }
    header = {
        "rounds": options.rounds,
        "onnxruntime": external_tools.installed_version("onnxruntime"),
        "products": select_product_types(read_features()).form,
    }
    print(json.dumps({**header, "networks": rows, "mean": means}, indent=2))


def _measure_network(
    name: str, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the results of a network at each precision."""
    graph = load(shipped.find_spec(name, make_file_span(name)), {}).graph
    model = Model(graph, pipeline.create_random_weights(graph).tensors)
    for precision_name in options.precision:
        with tempfile.TemporaryDirectory() as folder:
            yield (
                precision_name,
                _measure_precision(model, PRECISIONS[precision_name], Path(folder), options),
            )


def _measure_precision(
    model: Model, precision: Precision, folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    lowered_model = passes.run(model, ARM.passes(precision))
    if precision.integer:
        lowered_model = quantize(
            lowered_model,
            Calibration(compute_minmax_ranges(lowered_model, compute_value_limits(lowered_model))),
        )
    source = lowered_model.graph.inputs[0]
    tensor = make_noise_image(model.graph)[None].astype(source.type.dtype.value)
    runs = (
        _load_library(lowered_model, precision, folder, tensor, options.isa),
        _open_session(lowered_model, precision, folder, tensor),
    )
    tcc_outputs, peer_outputs = (run() for run in runs)
    difference = float(np.abs(tcc_outputs - peer_outputs).max() / np.abs(peer_outputs).max())
    if difference > (0 if precision.integer else MAX_FLOAT_ERROR):
        raise SystemExit(f"{model.graph.name}, {precision.name}: outputs differ by {difference}")
    times = [[_measure_milliseconds(run) for run in runs] for _ in range(options.rounds)]
    host, runtime = (statistics.median(column) for column in zip(*times, strict=True))
    low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
    row = {"host": host, "onnxruntime": runtime, "ratio": ratio, "low": low, "high": high}
    return {key: round(figure, 3) for key, figure in row.items()}


def _measure_milliseconds(run: Callable[[], Array]) -> float:
    begin = time.process_time()
    run()
    return (time.process_time() - begin) * 1e3


def _load_library(
    model: Model, precision: Precision, folder: Path, tensor: Array, isa: str | None
) -> Callable[[], Array]:
    """Return a function that runs tcc's library on an input."""
    artifact = ARM.emit(HOST, model, precision)
    (path,) = (p for p in artifact.files if p.endswith(".so"))
    (folder / path).write_bytes(artifact.files[path])
    library, name = ctypes.CDLL(str(folder / path)), path[len("lib") : -len(".so")]
    assert artifact.memory
    arena = ctypes.create_string_buffer(artifact.memory.arena)
    create, run_library = library[f"{name}_create"], library[f"{name}_run"]
    create.restype, create.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t)
    run_library.argtypes = (ctypes.c_void_p,) * 3
    if isa and library[f"{name}_set_isa"](isa.encode()):
        raise SystemExit(f"{isa}: this machine does not have these instructions")
    instance = create(arena, len(arena))
    sizes = [model.graph.types[o.value].elements for o in model.graph.outputs]
    outputs = np.zeros(sum(sizes), np.float32)

    def run(_alive: object = arena) -> Array:
        if run_library(instance, tensor.ctypes.data, outputs.ctypes.data):
            raise SystemExit(f"{name}: the library returned an error")
        return outputs

    return run


def _open_session(
    model: Model, precision: Precision, folder: Path, tensor: Array
) -> Callable[[], Array]:
    """Return a function that runs ONNX Runtime on an input."""
    # Each backend has its own precisions; match them by name.
    peer_precision = next(
        precision_kind
        for precision_kind in RUNTIME_TARGET.precisions
        if precision_kind.name == precision.name
    )
    artifact = RUNTIME.emit(RUNTIME_TARGET, model, peer_precision)
    (folder / MODEL_FILE).write_bytes(artifact.files[MODEL_FILE])
    ort_session, name = create_session(folder / MODEL_FILE), model.graph.inputs[0].name
    return lambda: np.concatenate([y.ravel() for y in ort_session.run(None, {name: tensor})])


if __name__ == "__main__":
    main()
