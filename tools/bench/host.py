"""Time of the target `host` beside ONNX Runtime's, on one core: floats, and exact integers.

    python tools/bench/host.py [--spec ddsnet ...] [--precision fp32] [--isa NAME] [--rounds 40]

Prints JSON. Weights and the one noise image are random. Ours and ONNX Runtime's run in turn, round
by round, on one thread of this process, so that what disturbs one disturbs both. Times are CPU
time: `host` and `onnxruntime` are medians in milliseconds, `ratio` the median of each round's
ratio, and `mean` the geometric mean of these. Before it times, it holds one's outputs against the
other's: integers to the bit, floats within 1e-4 of the largest.
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
from int8 import picture, value_limits
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
PRECISIONS = {each.name: each for each in (FP32, INT8)}
NEAR = 1e-4
"""How far floats of two programs may be apart, of the largest."""
Array = NDArray[Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", nargs="+", default=NETWORKS)
    parser.add_argument("--precision", nargs="+", default=tuple(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--isa", help="instructions to use, in place of all that there are")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    rows = {name: dict(_rows(name, given)) for name in given.spec}
    means = {
        precision: round(statistics.geometric_mean(r[precision]["ratio"] for r in rows.values()), 3)
        for precision in given.precision
    }
    about = {
        "rounds": given.rounds,
        "onnxruntime": external_tools.installed_version("onnxruntime"),
        "products": select_product_types(read_features()).form,
    }
    print(json.dumps({**about, "networks": rows, "mean": means}, indent=2))


def _rows(name: str, given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the figures of a network at each precision."""
    graph = load(shipped.find_spec(name, make_file_span(name)), {}).graph
    model = Model(graph, pipeline.create_random_weights(graph).tensors)
    for word in given.precision:
        with tempfile.TemporaryDirectory() as folder:
            yield word, _measured(model, PRECISIONS[word], Path(folder), given)


def _measured(
    model: Model, precision: Precision, folder: Path, given: argparse.Namespace
) -> dict[str, float]:
    ready = passes.run(model, ARM.passes(precision))
    if precision.integer:
        ready = quantize(ready, Calibration(compute_minmax_ranges(ready, value_limits(ready))))
    source = ready.graph.inputs[0]
    x = picture(model.graph)[None].astype(source.type.dtype.value)
    runs = _library(ready, precision, folder, x, given.isa), _session(ready, precision, folder, x)
    ours, theirs = (run() for run in runs)
    apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    if apart > (0 if precision.integer else NEAR):
        raise SystemExit(f"{model.graph.name}, {precision.name}: outputs are {apart} apart")
    times = [[_milliseconds(run) for run in runs] for _ in range(given.rounds)]
    host, runtime = (statistics.median(column) for column in zip(*times, strict=True))
    low, ratio, high = statistics.quantiles([a / b for a, b in times], n=4)
    row = {"host": host, "onnxruntime": runtime, "ratio": ratio, "low": low, "high": high}
    return {key: round(value, 3) for key, value in row.items()}


def _milliseconds(run: Callable[[], Array]) -> float:
    begin = time.process_time()
    run()
    return (time.process_time() - begin) * 1e3


def _library(
    model: Model, precision: Precision, folder: Path, x: Array, isa: str | None
) -> Callable[[], Array]:
    """Return a run of our library on an input."""
    made = ARM.emit(HOST, model, precision)
    (path,) = (p for p in made.files if p.endswith(".so"))
    (folder / path).write_bytes(made.files[path])
    library, name = ctypes.CDLL(str(folder / path)), path[len("lib") : -len(".so")]
    assert made.memory
    arena = ctypes.create_string_buffer(made.memory.arena)
    create, call = library[f"{name}_create"], library[f"{name}_run"]
    create.restype, create.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_size_t)
    call.argtypes = (ctypes.c_void_p,) * 3
    if isa and library[f"{name}_set_isa"](isa.encode()):
        raise SystemExit(f"{isa}: this machine has no such instructions")
    instance = create(arena, len(arena))
    sizes = [model.graph.types[o.value].elements for o in model.graph.outputs]
    y = np.zeros(sum(sizes), np.float32)

    def run(_alive: object = arena) -> Array:
        if call(instance, x.ctypes.data, y.ctypes.data):
            raise SystemExit(f"{name}: the library failed")
        return y

    return run


def _session(model: Model, precision: Precision, folder: Path, x: Array) -> Callable[[], Array]:
    """Return a run of ONNX Runtime on an input."""
    # Each backend has precisions of its own, which their names have in common.
    own = next(each for each in RUNTIME_TARGET.precisions if each.name == precision.name)
    made = RUNTIME.emit(RUNTIME_TARGET, model, own)
    (folder / MODEL_FILE).write_bytes(made.files[MODEL_FILE])
    ready, name = create_session(folder / MODEL_FILE), model.graph.inputs[0].name
    return lambda: np.concatenate([y.ravel() for y in ready.run(None, {name: x})])


if __name__ == "__main__":
    main()
