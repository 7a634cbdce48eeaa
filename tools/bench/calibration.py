"""Calibrate a network by every method and by every peer, on the same images in one run.

    python tools/bench/calibration.py --weights FILE --data FOLDER [--spec NAME] [--set NAME=VALUE]
                                      [--images 64] [--judge 128] [--runs 3] [--only NAME ...]

Prints JSON. Quality is that of the 8-bit model against the float one on `--judge` images that no
method saw: mean and least cosine of the logits, share of equal top classes, largest difference of
a probability; `loss` is 1 - mean cosine, in ten thousandths. Cost is the time from decoded images
to an 8-bit model, and the process's peak memory; each run has a process of its own: medians. The
peers, onnxruntime's `quantize_static` and nncf, get the ONNX model that tcc builds in fp32. `ratio`
is a time over that of onnxruntime's MinMax. Where `--images` asks for more than there are, images
are used again: for cost alone.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peers
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.data.dataset import DataSet, read
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.quant.calibrate import calibrate, known
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import METHODS, candidate_selection
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import output_comparison, output_quality
from tcc.compiler.support.diagnostics import whole_file
from tcc.compiler.zoo import shipped

OURS = (*(method.name for method in METHODS), "moments")
BASE = "onnxruntime MinMax u8"
"""The peer whose time others' are compared with."""

Rows = NDArray[np.float32]
Judged = Callable[[DataSet], Rows]
"""Gives a model's logits (images, classes)."""


def main() -> None:
    """Measure and print."""
    given = _arguments()
    if given.worker:
        _work(given)
        return
    names = [n for n in (*OURS, *peers.NAMES) if not given.only or n in (*given.only, BASE)]
    found = {name: _measured(name, given.runs) for name in names}
    base = found[BASE].get("seconds")
    for one in found.values():
        if base and "seconds" in one:
            one["ratio"] = round(one["seconds"] / base, 3)
    about = {"spec": given.spec, "images": given.images, "judged": given.judge, "runs": given.runs}
    print(json.dumps({**about, "methods": found}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", default="ddsnet")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--judge-data", type=Path, help="images to judge by; else some of --data")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--judge", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", help="a method or peer; may be repeated")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(name: str, runs: int) -> dict[str, Any]:
    """Return the quality of the first run and the medians of all runs' costs."""
    missing = peers.absent(name)
    if missing:
        return {"absent": missing}
    found = []
    for _ in range(runs):
        command = [sys.executable, *sys.argv, "--worker", name]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            return {"failed": why[0]}
        found.append(json.loads(done.stdout.splitlines()[-1]))
    costs = ("seconds", "peak_mb")
    medians = {key: round(statistics.median(one[key] for one in found), 3) for key in costs}
    return {**found[0], **medians}


def _work(given: argparse.Namespace) -> None:
    """Calibrate by one method; print what it cost and how good the result is."""
    settings = dict(item.split("=", 1) for item in given.set)
    graph = load(shipped.find_spec(given.spec, whole_file(given.spec)), settings).graph
    model = Model(graph, pipeline.read_weights(given.weights, graph).tensors)
    learn, judged = _parts(given)
    quantized = _ours if given.worker in OURS else _peer
    begin = time.perf_counter()
    rows = quantized(given.worker, model, learn)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    output = output_comparison.judged_outputs(model)[0]
    expected = output_comparison.all_outputs(model, judged)[output.name]
    quality = output_quality.quality(output, expected, rows(judged).reshape(expected.shape), None)
    result = {
        "cosine": quality.cosine,
        "loss": round(quality.loss * 1e4, 4),
        "correlation": quality.correlation,
        "least_cosine": quality.least_cosine,
        "agreement": quality.agreement,
        "difference": quality.difference,
        "seconds": seconds,
        "peak_mb": peak,
    }
    print(json.dumps(result))


def _parts(given: argparse.Namespace) -> tuple[DataSet, DataSet]:
    """Return the images to learn from and others to judge by, all decoded."""
    every = read(given.data)
    if given.judge_data:
        judged, learn = read(given.judge_data).first(given.judge), every
    else:
        judged = every.first(given.judge)
        learn = DataSet(every.items[given.judge :], every.array)
    if not len(learn):
        sys.exit(f"--judge {given.judge} leaves no image of {len(every)} to learn from")
    items = learn.items * -(-given.images // len(learn))
    return DataSet(items[: given.images], learn.array), judged


def _ours(name: str, model: Model, learn: DataSet) -> Judged:
    ready = passes.run(model, passes.INT8)
    program = quantize(ready, _calibration(name, ready, learn))
    first = output_comparison.judged_outputs(ready)[0].name
    return lambda judged: output_comparison.all_outputs(program, judged)[first]


def _calibration(name: str, ready: Model, learn: DataSet) -> Calibration:
    if name == "moments":  # what `best` mostly ends with, without the other candidates
        return candidate_selection.by_moments(
            ready, observe(ready, learn), candidate_selection.LARGE[0]
        ).calibration
    return calibrate(ready, learn, known(name, whole_file(name))).calibration


def _peer(name: str, model: Model, learn: DataSet) -> Judged:
    (source,) = model.graph.inputs
    images = [learn.tensor(index, source) for index in range(len(learn))]
    found = peers.quantized(name, lower(pipeline.fused(model)), images)
    session = onnxruntime.InferenceSession(found, providers=["CPUExecutionProvider"])

    def rows(judged: DataSet) -> Rows:
        tensors = (judged.tensor(index, source) for index in range(len(judged)))
        outputs = [session.run(None, {source.name: t[None]})[0].reshape(-1) for t in tensors]
        return np.array(outputs, np.float32)

    return rows


if __name__ == "__main__":
    main()
