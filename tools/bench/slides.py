"""What `tcc slide run` costs beside its parts: decoding, resizing and inference, each by itself.

    python tools/bench/slides.py SLIDE... [--bundle DIR ...] [--at 0.5] [--rule wide] [--rounds 3]

Prints JSON. Without --bundle it builds the zoo's `fastnet-lung` for ONNX Runtime in fp32 and int8.
Times are seconds of CPU, user and system, all threads together, medians of the rounds; wall time is
beside them, since the machine may have other work. Of each slide and bundle:

- `run` is the whole command in a process of its own, with its start, mask, pictures and files, and
  `start` the same command on a slide of one white pixel: what any command costs;
- `parts` are what cannot be left out: reading the tiles under the kept patches, each block once;
  scaling these to the patches' size; the network's input of each; and the runtime by itself, one
  thread, on these;
- `ratio` is `run` less `start`, by the sum of the parts; `busy` CPU by wall time of the run, where
  each of --workers can have a core; `memory` the run's largest resident size in megabytes.

`background` is the share of the grid's patches that the mask leaves out, and `saved` the seconds of
parts that these would have cost.
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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tcc.backends.onnxruntime.backend import FILE, session
from tcc.compiler.cli import devices
from tcc.compiler.ir import preprocess
from tcc.compiler.slides import patch_grid, patch_reader, slide_file, tissue_mask
from tcc.compiler.slides.patch_reader import PatchReader
from tcc.compiler.slides.tissue_mask import TissueChoices
from tcc.compiler.support.progress import silent

PRECISIONS = ("fp32", "int8")
TUMOUR = ("lung_aca", "lung_scc")
"""What is tumour of `fastnet-lung`, where no other bundle is named."""
MASK_MPP = 4.0
TCC = (sys.executable, "-c", "from tcc.compiler.cli import main; main()")


def main() -> None:
    """Measure and print."""
    given = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = given.bundle or [_built(folder, precision) for precision in PRECISIONS]
        rows = [
            {
                "slide": slide.name,
                **_tissue(slide, given),
                "bundles": dict(_each(slide, bundles, folder, given)),
            }
            for slide in given.slide
        ]
    print(json.dumps({"rounds": given.rounds, "workers": given.workers, "at": given.at,
                      "load": os.getloadavg()[0], "slides": rows}, indent=2))  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("slide", type=Path, nargs="+")
    parser.add_argument("--bundle", type=Path, nargs="*")
    parser.add_argument("--tumour", nargs="*", default=TUMOUR, help="its classes of tumour")
    parser.add_argument("--at", type=float, default=0.5, help="micrometres of a patch's pixel")
    parser.add_argument("--mpp", type=float, help="those of the slide's")
    parser.add_argument("--patch", type=int, default=256, help="pixels of a patch's side")
    parser.add_argument("--rule", default="paper", choices=("paper", "wide"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _built(folder: Path, precision: str) -> Path:
    words = ("build", "fastnet-lung", "--target", "onnxruntime", "--precision", precision, "-q")
    subprocess.run([*TCC, *words], cwd=folder, check=True)
    return folder / f"build/fastnet-lung-onnxruntime-{precision}"


def _tissue(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return what of a slide is background, by area and by patches."""
    reader, kept = _cut(path, given)
    grid = reader.grid
    seconds, _ = _cpu(lambda: _cut(path, given))
    return {
        "size": [grid.width, grid.height],
        "patches": int(kept.sum()),
        "background": round(1 - float(kept.mean()), 4),
        "mask": round(seconds, 3),
    }


def _cut(path: Path, given: argparse.Namespace) -> "tuple[PatchReader, np.ndarray[Any, Any]]":
    """Return the reader of a slide's patches, and which are kept."""
    with slide_file.opened(path, given.mpp) as slide:
        mpp = slide_file.resolution(slide)
        mask = tissue_mask.find(slide, mpp, TissueChoices(MASK_MPP, given.rule), silent).mask
        span = max(1, round(given.patch * given.at / mpp))
        grid = patch_grid.grid(slide, span, span)
        return PatchReader(slide, grid, given.patch), patch_grid.kept(grid, mask, 0.5)


def _each(
    path: Path, bundles: list[Path], folder: Path, given: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the figures of a slide with each bundle."""
    white = folder / "white.png"
    Image.new("RGB", (1, 1), (255, 255, 255)).save(white)
    for bundle in bundles:
        runs, starts, parts = [], [], []
        for number in range(given.rounds):
            starts.append(_command(bundle, white, folder / f"start{number}", given, mpp=0.5))
            runs.append(_command(bundle, path, folder / f"run{number}", given, mpp=given.mpp))
            parts.append(_parts(bundle, path, given))
        yield bundle.name, _figures(runs, starts, parts)


def _figures(
    runs: list[dict[str, float]],
    starts: list[dict[str, float]],
    parts: list[dict[str, float]],
) -> dict[str, Any]:
    middle: dict[str, float] = {
        name: statistics.median(one[name] for one in parts) for name in parts[0]
    }
    run, start = (statistics.median(one["cpu"] for one in each) for each in (runs, starts))
    wall = statistics.median(one["wall"] for one in runs)
    return {
        "run": round(run, 3),
        "start": round(start, 3),
        "wall": round(wall, 3),
        "parts": {name: round(value, 3) for name, value in middle.items()},
        "ratio": round((run - start) / sum(middle.values()), 3),
        "busy": round(statistics.median(one["cpu"] / one["wall"] for one in runs), 3),
        "memory": round(max(one["memory"] for one in runs) / 1e6, 1),
    }


def _command(
    bundle: Path, slide: Path, out: Path, given: argparse.Namespace, mpp: float | None
) -> dict[str, float]:
    """Run `tcc slide run` in a process of its own; return what it took."""
    named = [word for one in given.tumour for word in ("--tumour", one)]
    words = ["slide", "run", bundle, slide, "--at", given.at, "--patch", given.patch, *named,
             "--rule", given.rule, "--workers", given.workers, "-o", out, "-q"]  # fmt: skip
    if mpp:
        words += ["--mpp", mpp]
    began = time.perf_counter()
    child = subprocess.Popen([*TCC, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit("`tcc slide run` failed")
    return {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "memory": used.ru_maxrss * 1024}


def _parts(bundle: Path, path: Path, given: argparse.Namespace) -> dict[str, float]:
    """Return the CPU seconds of what no run can leave out."""
    found, _ = devices.load(bundle)
    contract, shape = found.input.preprocess, found.input.type.shape
    loaded = session(found.model / FILE)
    seconds = dict.fromkeys(("decode", "resize", "contract", "infer"), 0.0)
    _, kept = _cut(path, given)
    with slide_file.opened(path, given.mpp) as slide:
        span = max(1, round(given.patch * given.at / slide_file.resolution(slide)))
        reader = PatchReader(slide, patch_grid.grid(slide, span, span), given.patch)
        for block in patch_reader.blocks(reader, kept):
            for name, work in _steps(reader, block, contract, shape, loaded, found.input):
                seconds[name] += _cpu(work)[0]
    return seconds


def _steps(
    reader: PatchReader, block: Any, contract: Any, shape: Any, loaded: Any, source: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the parts of a block's work, in order."""
    state: dict[str, Any] = {}
    names = [output.name for output in loaded.get_outputs()]

    def decode() -> None:
        state["pixels"] = reader.region(block)

    def resize() -> None:
        state["patches"] = list(reader.cut(block, state["pixels"]))

    def prepare() -> None:
        state["tensors"] = [
            preprocess.apply(contract, one, shape)[None].astype(source.type.dtype.value)
            for one in state["patches"]
        ]

    def infer() -> None:
        for tensor in state["tensors"]:
            loaded.run(names, {source.name: tensor})

    yield from (("decode", decode), ("resize", resize), ("contract", prepare), ("infer", infer))


def _cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of all threads that some work takes, and what it gives."""
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


if __name__ == "__main__":
    main()
