"""Time int8 relative to fp32 on the runtimes of x86, for every network of the zoo.

    python tools/bench/x86.py [NETWORK ...] [--rounds 15] [--docs]

Prints JSON. `--docs` writes the results to the table of docs/measuring.md; the columns of the other
kind of processor and the rows of other networks do not change. Both forms of a network alternate,
round by round, on one thread. Times are CPU times of this process, and a ratio is the median of the
rounds' ratios, so that other load has little effect. Weights are random, and one noise image
calibrates.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import int8
import tflite

from tcc.backends.onnxruntime import precisions
from tcc.backends.onnxruntime.backend import MODEL_FILE, create_session
from tcc.backends.tflite.backend import FILE as LITE_FILE
from tcc.backends.tflite.precisions import INT8
from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges
from tcc.compiler.support.cpu import read_features, select_product_types
from tcc.compiler.zoo import shipped

PAGE = Path(__file__).resolve().parents[2] / "docs" / "measuring.md"
BEGIN, END = "<!-- x86: measured -->", "<!-- x86: end -->"
RUNTIMES = {"onnxruntime": "ONNX Runtime", "tflite": "TFLite"}
KINDS = ("VNNI", "no VNNI")
"""Processors with instructions for sums of products of bytes, and others."""
COLUMNS = tuple(f"{runtime}, {kind}" for kind in KINDS for runtime in RUNTIMES.values())
InferenceRun = Callable[[], object]


def main() -> int:
    """Measure, print, and update the page's table with `--docs`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    network_names = sorted(shipped.list_specs())
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args()
    figures = {}
    for name in options.networks or network_names:
        print(name, file=sys.stderr, flush=True)
        figures[name] = measure_network(name, options.rounds)
    header = {
        "rounds": options.rounds,
        "onnxruntime": version("onnxruntime"),
        "ai-edge-litert": version("ai-edge-litert"),
        "processor": sorted(read_features()),
        "products": select_product_types(read_features()).form,
    }
    print(json.dumps({**header, "networks": figures}, indent=2))
    if options.docs:
        PAGE.write_text(
            update_page(
                PAGE.read_text(), figures, KINDS[select_product_types(read_features()).unsigned]
            )
        )
    return 0


def update_page(page: str, figures: Mapping[str, Any], kind: str) -> str:
    """Return the page with the results for one kind of processor in its table."""
    head, _, text_below = page.partition(BEGIN)
    old_table, _, behind = text_below.partition(END)
    titles, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in old_table.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    )
    cells_by_network = {name: dict(zip(titles[1:], cells, strict=True)) for name, *cells in rows}
    for name, row in figures.items():
        new_cells = {
            f"{runtime_title}, {kind}": f"{row[runtime]['ratio']:.2f}"
            for runtime, runtime_title in RUNTIMES.items()
        }
        cells_by_network[name] = {**cells_by_network.get(name, {}), **new_cells}
    return f"{head}{BEGIN}\n\n{format_table(cells_by_network)}\n{END}{behind}"


def measure_network(name: str, rounds: int) -> dict[str, Any]:
    """Return times and their ratio for each runtime."""
    graph = load(shipped.list_specs()[name]).graph
    model = Model(graph, pipeline.create_random_weights(graph).tensors)
    lowered_model = passes.run(model, passes.INT8)
    ranges = Calibration(
        compute_minmax_ranges(lowered_model, int8.compute_value_limits(lowered_model))
    )
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "onnxruntime": dict(
                _make_onnxruntime_runs(model, quantize(lowered_model, ranges), Path(folder))
            ),
            "tflite": dict(
                _make_tflite_runs(model, quantize(lowered_model, replace(ranges, float_io=False)))
            ),
        }
        for runtime, forms in runs.items():
            figures[runtime] = _measure_times(forms, rounds)
    return figures


def _make_onnxruntime_runs(
    model: Model, program: Model, folder: Path
) -> Iterator[tuple[str, InferenceRun]]:
    backend, (target,) = int8.BACKEND, int8.BACKEND.targets
    for precision, emitted_model in (
        (FP32, _make_float_model(backend, model)),
        (precisions.INT8, program),
    ):
        path = folder / f"{precision.name}.onnx"
        path.write_bytes(backend.emit(target, emitted_model, precision).files[MODEL_FILE])
        source = emitted_model.graph.inputs[0]
        feed = {
            source.name: int8.make_noise_image(emitted_model.graph)[None].astype(
                source.type.dtype.value
            )
        }
        yield precision.name, partial(create_session(path).run, None, feed)


def _make_tflite_runs(model: Model, program: Model) -> Iterator[tuple[str, InferenceRun]]:
    backend, (target,) = tflite.BACKEND, tflite.BACKEND.targets
    for precision, emitted_model in ((FP32, _make_float_model(backend, model)), (INT8, program)):
        content = backend.emit(target, emitted_model, precision).files[LITE_FILE]
        yield precision.name, tflite._load_interpreter(content).invoke


def _make_float_model(backend: Any, model: Model) -> Model:
    return passes.run(model, backend.passes(FP32))


def _measure_times(runs: Mapping[str, InferenceRun], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each form, and the ratio of int8 to fp32."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            if number > 1:  # the first rounds are a warm-up
                times[name].append((time.process_time() - begin) * 1e3)
    pairs = zip(times["int8"], times["fp32"], strict=True)
    row = {name: statistics.median(milliseconds) for name, milliseconds in times.items()}
    return {name: round(figure, 3) for name, figure in row.items()} | {
        "ratio": round(statistics.median(a / b for a, b in pairs), 3)
    }


def format_table(cells_by_network: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page's table, of cells by network and column; missing cells have a dash."""
    lines = [f"| int8 over fp32 | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, row in sorted(cells_by_network.items()):
        lines.append(f"| {name} | {' | '.join(row.get(column, '-') for column in COLUMNS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
