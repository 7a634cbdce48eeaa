"""Measure what `tcc train --qat` recovers of the accuracy that int8 loses.

    python tools/bench/qat.py [--seeds 3] [--epochs 20] [--more 4] [--gains 8] [--data DIR]

Prints JSON. The network is a small MobileNetV2 with hard-swish. The gains of its expansions start
far apart: one channel in eight at 1, the others between 2 ** -(gains - 2) and 2 ** -gains. Without
`--data`, the images are synthetic: 32 x 32 pixels, gratings of six orientations and frequencies
under a second grating and noise, in classes of unequal size. `--data` names a folder with `train`,
`val` and `test`; without that folder, the tool says so and measures nothing.

For each seed:

- `float`: trained for `epochs`, then for `more` epochs with the recipe `qat`, but in floats;
- `ptq`: the int8 model of these weights, calibrated by the default method;
- `qat_start`: the int8 model after `epochs`, from which the following start;
- `qat_fixed_ranges`: `more` epochs with `--qat` and the recipe `qat`, with `range_rate: 0`;
- `qat`: the same, with learned ranges.

So `float` and `qat` are trained equally long, on the same images with the same recipe. Each has its
accuracy, balanced accuracy and mean cross-entropy on the test images, which nothing else uses. int8
models are measured by running the bundle's ONNX file. `recovered` is the share of the drop from
`float` to `ptq` that `qat` recovers: of the means over the seeds, and of each seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import tcc
from tcc.compiler.reference import onnxruntime_session

SHARES = (0.34, 0.24, 0.16, 0.12, 0.08, 0.06)
"""Shares of the synthetic classes."""
COUNTS = {"train": 1200, "val": 800, "test": 4000}
SIZE = 32
ROOT = Path(__file__).resolve().parents[2]
SPEC = """\
tcc: 1
name: apart
params: {labels: {type: names, default: []}}
use: [blocks/conv.yaml]
input:
  image: {shape: [3, 32, 32], preprocess: {resize: {size: [32, 32], mode: stretch}}}
blocks:
  inverted_residual:
    params: {filters: int, stride: int}
    body:
      - when:
          if: stride == 1 and C == filters
          then: [add: [[], [bottleneck: {wide: C * 4, filters: filters, stride: stride}]]]
          else: [bottleneck: {wide: C * 4, filters: filters, stride: stride}]
  bottleneck:
    params: {wide: int, filters: int, stride: int}
    body:
      - conv_bn: {filters: wide, kernel: 1, act: hard_swish}
      - conv_bn: {filters: wide, stride: stride, groups: wide, act: hard_swish}
      - conv_bn: {filters: filters, kernel: 1, act: none}
graph:
  - conv_bn: {filters: 8, stride: 2, act: hard_swish}
  - inverted_residual: {filters: 8, stride: 1}
  - inverted_residual: {filters: 8, stride: 1}
  - inverted_residual: {filters: 16, stride: 2}
  - inverted_residual: {filters: 16, stride: 1}
  - conv_bn: {filters: 48, kernel: 1, act: hard_swish}
  - classify: {classes: len(labels)}
output:
  logits: {activation: softmax, labels: labels}
"""
RECIPE = """\
tcc_recipe: 1
epochs: 1
batch: 32
loss: {label_smoothing: 0.1}
optimizer: {kind: sgd, momentum: 0.9, nesterov: true, weight_decay: 0.0005}
learning_rate: {peak: 0.05, schedule: cosine, warmup_epochs: 1}
precision: fp32
"""
Metrics = dict[str, float]


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("seeds", 3), ("epochs", 20), ("more", 4), ("gains", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    if options.data is not None and not options.data.is_dir():
        print(json.dumps({"skipped": f"there are no images in {options.data}"}))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = options.data or _draw_images(folder / "images")
        seeds = [_measure_seed(folder, images, seed, options) for seed in range(options.seeds)]
    print(json.dumps(_summarize(options, images, seeds), indent=1))


def _summarize(
    options: argparse.Namespace, images: Path, seeds: Sequence[Mapping[str, Metrics]]
) -> dict[str, Any]:
    means = {
        kind: {m: float(np.mean([s[kind][m] for s in seeds])) for m in seeds[0][kind]}
        for kind in seeds[0]
    }
    return {
        "data": "synthetic gratings" if options.data is None else images.name,
        "images": {side: len(list((images / side).glob("*/*"))) for side in COUNTS},
        "epochs": options.epochs,
        "more": options.more,
        "gains": options.gains,
        "recovered": _compute_recovered(means),
        "recovered_by_seed": [_compute_recovered(seed) for seed in seeds],
        "means": means,
        "seeds": list(seeds),
    }


def _compute_recovered(figures: Mapping[str, Metrics]) -> dict[str, float | None]:
    """Return the recovered share by metric; None where int8 lost nothing."""
    shares: dict[str, float | None] = {}
    for metric, float_figure in figures["float"].items():
        lost = float_figure - figures["ptq"][metric]
        has_lost = lost < 0 if metric == "loss" else lost > 0
        gained = figures["qat"][metric] - figures["ptq"][metric]
        shares[metric] = gained / lost if has_lost else None
    return shares


def _draw_images(folder: Path) -> Path:
    """Draw the synthetic images; each depends only on its split, class and number."""
    for side_index, (side, count) in enumerate(COUNTS.items()):
        for label, share in enumerate(SHARES):
            class_folder = folder / side / f"class{label}"
            class_folder.mkdir(parents=True)
            for number in range(round(count * share)):
                pixels = _draw_image(np.random.default_rng([side_index, label, number]), label)
                Image.fromarray(pixels).save(class_folder / f"{number:04}.png")
    return folder


def _draw_image(random: np.random.Generator, label: int) -> NDArray[np.uint8]:
    """Return an image: a grating in a spot, whose angle and frequency are the class."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)

    def draw_grating(angle: float, frequency: float, contrast: float) -> NDArray[np.float64]:
        color = random.normal(0, 1, 3)
        phase = random.uniform(0, 2 * np.pi)
        wave = np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        grating: NDArray[np.float64] = (
            contrast * (color / np.linalg.norm(color))[:, None, None] * wave
        )
        return grating

    angle = np.pi * (label % 3) / 3 + random.normal(0, 0.12)
    frequency = (0.55, 0.85)[label // 3] * np.exp(random.normal(0, 0.07))
    center_x, center_y = random.uniform(8, SIZE - 8, 2)
    distances = (x - center_x) ** 2 + (y - center_y) ** 2
    spot = np.exp(-distances / (2 * random.uniform(5, 9) ** 2))
    image = random.uniform(70, 180, 3)[:, None, None] + spot * draw_grating(
        angle, frequency, random.uniform(25, 70)
    )
    image = image + draw_grating(
        random.uniform(0, np.pi), random.uniform(0.3, 1.2), random.uniform(5, 18)
    )
    image = image + random.normal(0, random.uniform(4, 14), image.shape)
    pixels: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels


def _measure_seed(
    folder: Path, images: Path, seed: int, options: argparse.Namespace
) -> dict[str, Metrics]:
    """Train, calibrate and build for one seed, and return the metrics of each model."""
    work = folder / str(seed)
    work.mkdir()
    labels = sorted(path.name for path in (images / "train").iterdir())
    (work / "apart.yaml").write_text(SPEC.replace("default: []", f"default: {json.dumps(labels)}"))
    (work / "float.yaml").write_text(RECIPE)
    recipe = (ROOT / "zoo/recipes/qat.yaml").read_text()
    (work / "fixed.yaml").write_text(recipe.replace("range_rate: 0.1", "range_rate: 0"))
    spec = tcc.load(work / "apart.yaml")
    _write_initial_weights(spec, work / "start.safetensors", seed, options.gains)
    x, truth = _read_images(images / "test")

    def run(*arguments: object) -> None:
        _run_tcc(work, *arguments)

    def train(name: str, weights: str, epochs: int, recipe: str, *qat_options: object) -> str:
        run(
            "train", "apart.yaml", "--data", images, "--weights", weights, "--epochs", epochs,
            "--recipe", recipe, "--seed", seed, "--threads", 1, "--device", "cpu", "-o", name,
            *qat_options,
        )  # fmt: skip
        return f"{name}/weights.safetensors"

    def calibrate(weights: str, file: str) -> str:
        run("calibrate", "apart.yaml", "--weights", weights, "--data", images, "-o", file)
        return file

    def measure_int8(name: str, weights: str, calibration: str) -> Metrics:
        run(
            "build", "apart.yaml", "--target", "onnxruntime", "--precision", "int8",
            "--data", images,
            "--weights", weights, "--calibration", calibration, "--floor", "max_drop=1",
            "--floor", "min_cosine=0", "--floor", "min_correlation=0", "-o", f"bundle-{name}",
        )  # fmt: skip
        (file,) = (work / f"bundle-{name}").rglob("model.onnx")
        session = onnxruntime_session.create_session(file.read_bytes(), exact_products=True)
        input_name = session.get_inputs()[0].name
        rows = [session.run(["logits"], {input_name: image[None]})[0][0] for image in x]
        return _compute_metrics(torch.tensor(np.stack(rows)), truth)

    trained = train("trained", "start.safetensors", options.epochs, "float.yaml")
    longer = train("longer", trained, options.more, "qat")
    scales = calibrate(trained, "trained.json")
    figures = {
        "float": _measure_float(spec, work / longer, x, truth),
        "ptq": measure_int8("ptq", longer, calibrate(longer, "longer.json")),
        "qat_start": measure_int8("start", trained, scales),
    }
    for name, recipe_name in (("qat_fixed_ranges", "fixed.yaml"), ("qat", "qat")):
        weights = train(name, trained, options.more, recipe_name, "--qat", scales)
        figures[name] = measure_int8(name, weights, f"{name}/calibration.json")
    print(json.dumps({"seed": seed, **figures}), file=sys.stderr, flush=True)
    return figures


def _run_tcc(folder: Path, *arguments: object) -> None:
    """Run a command in a folder, with its output only if it fails."""
    command = [str(Path(sys.executable).parent / "tcc"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        raise SystemExit(f"{' '.join(command)}\n{completed.stdout}{completed.stderr}")


def _write_initial_weights(spec: Any, path: Path, seed: int, gains: int) -> None:
    """Write PyTorch's initial weights, with the gains of the expansions far apart."""
    torch.manual_seed(seed)
    network = tcc.torch(spec)
    random = np.random.default_rng([seed, 77])
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "bottleneck/conv_bn_1/batch_norm" in name and name.endswith(".weight"):
                count = len(tensor)
                is_small = np.arange(count) % 8 != 0
                gain = np.where(is_small, np.exp2(-random.uniform(gains - 2, gains, count)), 1.0)
                tensor.mul_(torch.tensor(gain, dtype=torch.float32))
    tcc.save_weights(network, path)


def _read_images(folder: Path) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Return the pixels uint8 (images, 3, 32, 32), and the classes."""
    pixels, truth = [], []
    for label, class_folder in enumerate(sorted(folder.iterdir())):
        for path in sorted(class_folder.iterdir()):
            with Image.open(path) as image:
                pixels.append(
                    np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                )
            truth.append(label)
    return np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2)), torch.tensor(truth)


def _measure_float(spec: Any, weights: Path, x: NDArray[np.uint8], truth: torch.Tensor) -> Metrics:
    network = tcc.torch(spec, weights).eval()
    with torch.no_grad():
        parts = (torch.tensor(x[i : i + 256] / np.float32(255)) for i in range(0, len(x), 256))
        return _compute_metrics(torch.cat([network(part)["logits"] for part in parts]), truth)


def _compute_metrics(logits: torch.Tensor, truth: torch.Tensor) -> Metrics:
    is_correct = (logits.argmax(dim=1) == truth).double()
    recalls = [is_correct[truth == label].mean() for label in sorted(set(truth.tolist()))]
    return {
        "accuracy": float(is_correct.mean()),
        "balanced_accuracy": float(torch.stack(recalls).mean()),
        "loss": float(torch.nn.functional.cross_entropy(logits, truth)),
    }


if __name__ == "__main__":
    main()
