"""Compare the cost of `tcc slide run` with its parts: decoding, resizing and inference.

    python tools/bench/slides.py SLIDE... [--bundle DIR ...] [--workers 1 2] [--rounds 3] [--whole]

Prints JSON. Without `--bundle`, it builds the zoo's `fastnet-lung` for ONNX Runtime in fp32 and
int8. Times are CPU seconds, user and system, of all threads and processes. They are medians of the
rounds; each round runs every case once. `load` is the machine's load at the start and at the end.
For each slide and bundle:

- `parts` are the steps that every run needs: reading the tiles under the kept patches, each block
  once; scaling these to the patches' size; computing the network's inputs; and running the network
  on them in one thread;
- `start` is the command on a slide of one white pixel, which is the fixed cost of a command;
- for each number of `--workers`, `run` is the complete command, with its start, mask, images and
  files; `ratio` is `run` less `start`, relative to the sum of the parts; `least` and `most` are the
  least and largest ratio of a round; `wall` is the elapsed time in seconds, `memory` the largest
  resident size of a process in megabytes;
- `classify` is the stage that reads and classifies patches: elapsed seconds, `busy` its CPU time
  relative to these and the number of cores (with the start of the workers), and `idle` the share of
  the cores' time in which they were idle. If other programs run on the machine, `busy` is less than
  1 although no core is `idle`.

`background` is the share of the grid's patches that the mask excludes. With `--whole`, `saved` is
the CPU time of a run that classifies these too, less that of the run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tcc.backends.onnxruntime.backend import MODEL_FILE, create_session
from tcc.compiler.ir import preprocess
from tcc.compiler.slides import patch_grid, slide_file, tissue_mask
from tcc.compiler.slides.patch_grid import PatchReader
from tcc.compiler.slides.tissue_mask import TissueChoices
from tcc.compiler.support.progress import silent
from tcc.compiler.targets import devices

PRECISIONS = ("fp32", "int8")
TUMOUR = ("lung_aca", "lung_scc")
"""The tumour classes of `fastnet-lung`, the default bundle."""
MASK_MPP = 4.0
TCC = (sys.executable, "-c", "from tcc.compiler.cli import main; main()")
MEASURING_PROGRAM = """
import json, os, sys, time
from tcc.compiler.cli import main
from tcc.compiler.slides import slide_job
classify, path = slide_job.classify, sys.argv.pop(1)
def now():
    with open("/proc/stat") as file:
        ticks = [int(n) for n in file.readline().split()[1:]]
    idle = (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), sum(os.times()[:4]), idle
def measure_classify(*arguments):
    start = now()
    finished_patches = classify(*arguments)
    seconds = [after - before for before, after in zip(start, now())]
    with open(path, "w") as file:
        json.dump(dict(zip(("wall", "cpu", "idle"), seconds)), file)
    return finished_patches
slide_job.classify = measure_classify
main()
"""
"""The command, with a measurement of CPU time and elapsed time around its patch stage."""
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}
"""The commands' environment: imported files are compiled once, as in an installation."""


def main() -> None:
    """Run the benchmark and print the result."""
    options = _parse_arguments()
    initial_load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        options.folder = Path(name)
        bundles = options.bundle or [
            _build_bundle(options.folder, precision) for precision in PRECISIONS
        ]
        options.white = options.folder / "white.png"
        Image.new("RGB", (1, 1), (255, 255, 255)).save(options.white)
        rows = [
            {
                "slide": slide.name,
                **_measure_tissue(slide, options),
                "bundles": _measure_slide(slide, bundles, options),
            }
            for slide in options.slide
        ]
    header = {name: getattr(options, name) for name in ("rounds", "at", "patch", "rule")}
    load = [round(initial_load, 2), round(os.getloadavg()[0], 2)]
    print(json.dumps({**header, "cores": os.cpu_count(), "load": load, "slides": rows}, indent=2))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("slide", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path, nargs="*")
    parser.add_argument("--tumour", nargs="*", default=TUMOUR, help="tumour classes of the bundle")
    parser.add_argument("--at", type=float, default=0.5, help="micrometres per patch pixel")
    parser.add_argument(
        "--mpp", type=float, help="micrometres per slide pixel; default: those in the slide's file"
    )
    parser.add_argument("--patch", type=int, default=256, help="pixels per side of a patch")
    parser.add_argument("--rule", default="any", choices=("any", "wide", "paper"))
    parser.add_argument("--workers", type=int, nargs="*", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--whole", action="store_true", help="measure a run that classifies the background too"
    )
    return parser.parse_args()


def _build_bundle(folder: Path, precision: str) -> Path:
    arguments = ("build", "fastnet-lung", "--target", "onnxruntime", "--precision", precision, "-q")
    subprocess.run([*TCC, *arguments], cwd=folder, check=True)
    return folder / f"build/fastnet-lung-onnxruntime-{precision}"


def _measure_tissue(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the background's share of a slide, by area and by patches."""
    reader, selected = _select_patches(path, options)
    grid = reader.grid
    seconds, _ = _measure_cpu(lambda: _select_patches(path, options))
    return {
        "size": [grid.width, grid.height],
        "patches": int(selected.sum()),
        "background": round(1 - float(selected.mean()), 4),
        "mask": round(seconds, 3),
    }


def _select_patches(
    path: Path, options: argparse.Namespace
) -> "tuple[PatchReader, np.ndarray[Any, Any]]":
    """Return the reader of a slide's patches, and the kept patches."""
    with slide_file.open_slide(path, options.mpp) as slide:
        mpp = slide_file.get_resolution(slide)
        mask = tissue_mask.find_tissue(
            slide, mpp, TissueChoices(MASK_MPP, options.rule), silent
        ).mask
        span = max(1, round(options.patch * options.at / mpp))
        grid = patch_grid.build_grid(slide, span, span)
        return PatchReader(slide, grid, options.patch), patch_grid.select_patches(grid, mask, 0.5)


def _measure_slide(path: Path, bundles: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Return the results of a slide with each bundle; each round runs every case once."""
    everything = options.folder / "everything.png"
    with slide_file.open_slide(path, options.mpp) as slide:
        side = tissue_mask.choose_side(slide, slide_file.get_resolution(slide), MASK_MPP)
        rows, columns = tissue_mask.compute_shape(slide, side)
    Image.new("L", (columns, rows), 255).save(everything)
    run = partial(_run_command, slide=path, options=options, mpp=options.mpp)
    cases: dict[str, Callable[[Path], dict[str, float]]] = {
        "start": partial(_run_command, slide=options.white, options=options, mpp=0.5),
        "parts": partial(_measure_parts, path=path, options=options),
    }
    cases |= {f"workers {workers}": partial(run, workers=workers) for workers in options.workers}
    if options.whole:
        cases["whole"] = partial(run, extra_options=("--mask", everything))
    for bundle in bundles:  # compile imported files before the rounds
        run(bundle, workers=max(options.workers))
    rounds_by_bundle: dict[Path, list[dict[str, dict[str, float]]]] = {
        bundle: [] for bundle in bundles
    }
    for _ in range(options.rounds):
        for bundle, rounds in rounds_by_bundle.items():
            rounds.append({name: case(bundle) for name, case in cases.items()})
    return {
        bundle.name: _summarize_rounds(rounds, options)
        for bundle, rounds in rounds_by_bundle.items()
    }


def _summarize_rounds(
    rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace
) -> Any:
    """Return the medians of the rounds."""

    def compute_median(case: str, name: str) -> float:
        return round(statistics.median(round_figures[case][name] for round_figures in rounds), 3)

    figures: dict[str, Any] = {
        "parts": {name: compute_median("parts", name) for name in rounds[0]["parts"]},
        "start": compute_median("start", "cpu"),
    }
    for workers in options.workers:
        case = f"workers {workers}"
        by_round = [
            (round_figures[case]["cpu"] - round_figures["start"]["cpu"])
            / sum(round_figures["parts"].values())
            for round_figures in rounds
        ]
        run, parts_seconds = compute_median(case, "cpu"), sum(figures["parts"].values())
        figures[case] = {
            "run": run,
            "ratio": round((run - figures["start"]) / parts_seconds, 3),
            "least": round(min(by_round), 3),
            "most": round(max(by_round), 3),
            "wall": compute_median(case, "wall"),
            "memory": round(
                max(round_figures[case]["memory"] for round_figures in rounds) / 1e6, 1
            ),
            "classify": {name: compute_median(case, name) for name in ("seconds", "busy", "idle")},
        }
    if options.whole:
        base_seconds = compute_median(f"workers {options.workers[0]}", "cpu")
        figures["saved"] = round(compute_median("whole", "cpu") - base_seconds, 3)
    return figures


def _run_command(
    bundle: Path, slide: Path, options: argparse.Namespace, *, mpp: float | None,
    workers: int = 1, extra_options: tuple[Any, ...] = (),
) -> dict[str, float]:  # fmt: skip
    """Run `tcc slide run` in its own process; return its cost."""
    tumour_options = [option for label in options.tumour for option in ("--tumour", label)]
    # A mask file replaces the rule.
    rule = () if "--mask" in extra_options else ("--rule", options.rule)
    with tempfile.TemporaryDirectory(dir=options.folder) as out:
        stage = Path(out) / "stage.json"
        # fmt: off
        arguments = [stage, "slide", "run", bundle, slide, "--at", options.at,
                     "--patch", options.patch, *tumour_options, *rule,
                     "--workers", workers, *extra_options, "-q", "-o", out]
        # fmt: on
        if mpp:
            arguments += ["--mpp", mpp]
        started = time.perf_counter()
        program = [sys.executable, "-c", MEASURING_PROGRAM, *map(str, arguments)]
        child = subprocess.Popen(program, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        if status:
            raise SystemExit("`tcc slide run` failed; its messages are above")
        stage_figures = json.loads(stage.read_bytes())
    available_seconds = stage_figures["wall"] * (os.cpu_count() or 1)
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "wall": wall,
        "memory": used.ru_maxrss * 1024,
        "seconds": stage_figures["wall"],
        "busy": stage_figures["cpu"] / available_seconds,
        "idle": stage_figures["idle"] / available_seconds,
    }


def _measure_parts(bundle: Path, path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU seconds of the steps that every run needs."""
    bundle_file, _ = devices.load_bundle(bundle, devices.create_signature_policy())
    contract, shape = bundle_file.input.preprocess, bundle_file.input.type.shape
    ort_session = create_session(bundle_file.model / MODEL_FILE)
    seconds = dict.fromkeys(("decode", "resize", "contract", "infer"), 0.0)
    _, selected = _select_patches(path, options)
    with slide_file.open_slide(path, options.mpp) as slide:
        span = max(1, round(options.patch * options.at / slide_file.get_resolution(slide)))
        reader = PatchReader(slide, patch_grid.build_grid(slide, span, span), options.patch)
        for block in patch_grid.split_into_blocks(reader, selected):
            for name, work in _list_steps(
                reader, block, contract, shape, ort_session, bundle_file.input
            ):
                seconds[name] += _measure_cpu(work)[0]
    return seconds


def _list_steps(
    reader: PatchReader, block: Any, contract: Any, shape: Any, ort_session: Any, source: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the steps of a block's work, in order."""
    state: dict[str, Any] = {}
    names = [output.name for output in ort_session.get_outputs()]

    def decode() -> None:
        state["pixels"] = reader.read_region(block)

    def resize() -> None:
        state["patches"] = list(reader.crop_patches(block, state["pixels"]))

    def prepare_tensors() -> None:
        state["tensors"] = [
            preprocess.apply(contract, patch, shape)[None].astype(source.type.dtype.value)
            for patch in state["patches"]
        ]

    def infer() -> None:
        for tensor in state["tensors"]:
            ort_session.run(names, {source.name: tensor})

    yield from (
        ("decode", decode),
        ("resize", resize),
        ("contract", prepare_tensors),
        ("infer", infer),
    )


def _measure_cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of all threads for a function call, and its result."""
    started = time.process_time()
    returned = work()
    return time.process_time() - started, returned


if __name__ == "__main__":
    main()
