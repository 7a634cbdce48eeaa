"""Every `tcc` command in a typical successful use, as one user session.

The uses run in this order in one folder. Later ones read files of earlier ones. `needs` names the
extras of pyproject.toml that a use requires. Uses without extras run with the base package.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from drawn_slides import PINK, PURPLE, draw_pixels, write
from PIL import Image
from safetensors.numpy import save_file

from tcc.compiler.cli import app
from tcc.compiler.cli.help import FORMER_NAMES
from tcc.compiler.cli.plot import KINDS

SPEC = """\
tcc: 1
name: tiny
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}}
graph:
  - conv: {filters: 6, kernel: 3, padding: 1}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output: {logits: {activation: softmax, labels: [normal, tumour]}}
"""
SPLITS = {"train": 24, "val": 8, "test": 8}
"""Number of images per class in each split."""
STATE = {
    "conv.weight": (6, 3, 3, 3), "conv.bias": (6,),
    "norm.weight": (6,), "norm.bias": (6,), "norm.running_mean": (6,), "norm.running_var": (6,),
    "head.weight": (2, 6), "head.bias": (2,),
}  # fmt: skip
"""Names and shapes in a PyTorch checkpoint of the network."""
SWEEP = "tcc_sweep: 1\nseeds: [1, 2]\n"
TISSUE, CANCER = (64, 128, 320, 416), (128, 192, 232, 320)
"""Left, top, right and bottom, in pixels of the slide."""
ANNOTATION = """\
{"type": "FeatureCollection", "features": [{"type": "Feature",
"geometry": {"type": "Polygon",
"coordinates": [[[128, 192], [232, 192], [232, 320], [128, 320], [128, 192]]]},
"properties": {"classification": {"name": "Tumor"}}}]}
"""
PAIRS = (("private.pem", "public.pem"), ("theirs.pem", "other.pem"), ("lost.pem", "gone.pem"))
"""Private keys with their public keys."""
IMAGES = "set/test/tumour"


@dataclass(frozen=True, slots=True)
class CommandUse:
    """A command line, without `tcc`.

    Attributes:
        needs: The extras that it requires.
        programs: External programs that it requires. Without them it exits with 3.
        loopback: Whether its processes use the local network, also with a browser.
        serves: Whether it runs until a signal ends it.
        outputs: Files that it writes once and does not replace.
        repeat_options: Options to add when the command has succeeded before.
    """

    line: str
    needs: frozenset[str] = frozenset()
    programs: tuple[str, ...] = ()
    loopback: bool = False
    serves: bool = False
    outputs: tuple[str, ...] = ()
    repeat_options: str = ""

    @property
    def arguments(self) -> list[str]:
        """The arguments of the command line."""
        return self.line.split()

    @property
    def repeat_arguments(self) -> list[str]:
        """The arguments for running the command again after it succeeded."""
        return [*self.arguments, *self.repeat_options.split()]

    def __str__(self) -> str:
        return self.line


def use(
    line: str, *needs: str, programs: str = "", output: str = "", **extra_arguments: str | bool
) -> CommandUse:
    """Return a use that needs these extras. Programs and outputs are separated by spaces."""
    return CommandUse(
        line,
        frozenset(needs),
        tuple(programs.split()),
        outputs=tuple(output.split()),
        **extra_arguments,
    )


USES = (
    use("init mine", output="mine"),
    use("fmt tiny.yaml"),
    use("check tiny.yaml"),
    use("check tiny.yaml --target arm-a7,host,tflite,web,onnxruntime,ax620 --precision int8"),
    use("show tiny.yaml --format onnx -o model.onnx"),
    use("train tiny.yaml --data set --epochs 2 -o run", "train", repeat_options="--resume"),
    use(
        "train tiny.yaml --data set --epochs 2 -o events --tensorboard",
        "train",
        "tensorboard",
        repeat_options="--resume",
    ),
    use(
        "train tiny.yaml --data set --epochs 1 -o swept --sweep sweep.yaml --dask local",
        "train",
        "sweep",
        loopback=True,
    ),
    use("calibrate tiny.yaml --data set/train --weights run/weights.safetensors -o scales.json"),
    use("build tiny.yaml --weights run/weights.safetensors --target onnxruntime"),
    use(
        "build tiny.yaml --weights run/weights.safetensors --target onnxruntime --precision int8"
        " --calibration scales.json --data set/train --report --probes"
    ),
    use("build tiny.yaml --weights run/weights.safetensors --target host", "arm"),
    use(
        "build tiny.yaml --weights run/weights.safetensors --target arm-a7",
        "arm",
        programs="qemu-arm",
    ),
    use("build tiny.yaml --weights run/weights.safetensors --target tflite", "tflite"),
    use("build tiny.yaml --weights run/weights.safetensors --target web", programs="node"),
    use(
        "build tiny.yaml --weights run/weights.safetensors --target ax620 --precision int8"
        " --calibration scales.json --data set/train"
    ),
    use(f"run build/tiny-onnxruntime-int8 {IMAGES}"),
    use(f"run build/tiny-host-fp32 {IMAGES}"),
    use(f"run build/tiny-arm-a7-fp32 {IMAGES}", programs="qemu-arm"),
    use(f"run build/tiny-tflite-fp32 {IMAGES}", "tflite"),
    use(f"run build/tiny-web-fp32 {IMAGES}", programs="node"),
    use("serve build/tiny-web-fp32 --port 0", loopback=True, serves=True),
    use("verify build/tiny-onnxruntime-fp32 build/tiny-onnxruntime-int8"),
    use("verify build/tiny-onnxruntime-fp32 --spec tiny.yaml --weights run/weights.safetensors"),
    use("verify build/tiny-host-fp32"),
    use("verify build/tiny-arm-a7-fp32", programs="qemu-arm"),
    use("verify build/tiny-tflite-fp32", "tflite"),
    use("verify build/tiny-web-fp32", programs="node"),
    use("eval build/tiny-onnxruntime-fp32 --data set"),
    use("eval tiny.yaml --weights run/weights.safetensors --data set"),
    use("bench build/tiny-onnxruntime-fp32 --runs 3"),
    use("bench build/tiny-arm-a7-fp32", "arm", programs="qemu-arm"),
    # Separate from the others: signed bundles run only with a trusted key.
    use("build tiny.yaml --weights run/weights.safetensors --target onnxruntime -o signed"),
    use("sign signed/tiny-onnxruntime-fp32 --key private.pem", "sign"),
    use("verify signed/tiny-onnxruntime-fp32 --key public.pem", "sign"),
    # From here on, unsigned bundles of this network would not run.
    use("trust add other.pem --for another", "sign"),
    use("trust list"),
    use("trust require off"),
    use("trust folder mine"),
    use("trust revoke gone.pem", "sign"),
    use("trust"),
    use(
        "import model.onnx -o imported.yaml --weights imported.safetensors",
        "import",
        output="imported.yaml imported.safetensors",
    ),
    use("import state.safetensors --spec tiny.yaml -o brought.safetensors"),
    use("import-weights tiny.yaml state.safetensors -o former.safetensors"),
    use("targets"),
    use("doctor"),
    use("dev doctor"),
    use("dev passes"),
    use("passes"),
    use("help E0607"),
    use(
        "plot gradcam tiny.yaml --weights run/weights.safetensors --data set --images 4"
        " -o plots/seen.svg",
        "plot",
        "train",
    ),
    use(
        f"plot features tiny.yaml {IMAGES}/0.png --weights run/weights.safetensors"
        " --calibration scales.json -o plots/maps.svg",
        "plot",
    ),
    use("plot curves run -o plots/curves.png", "plot"),
    use(
        "plot confusion tiny.yaml --weights run/weights.safetensors --data set -o plots/confusion.png",
        "plot",
    ),
    use(
        "plot reliability tiny.yaml --weights run/weights.safetensors --data set -o plots/rel.png",
        "plot",
    ),
    use(
        "plot decision-curve tiny.yaml --weights run/weights.safetensors --data set"
        " -o plots/curve.png",
        "plot",
    ),
    use(
        "plot tsne tiny.yaml --weights run/weights.safetensors --data set -o plots/tsne.png", "plot"
    ),
    use(
        f"plot gradcam tiny.yaml {IMAGES} --weights run/weights.safetensors -o plots/gradcam.png",
        "plot",
        "train",
    ),
    use(
        f"plot cam tiny.yaml {IMAGES} --weights run/weights.safetensors -o plots/cam.png",
        "plot",
        "train",
    ),
    use(
        "plot features tiny.yaml --weights run/weights.safetensors --data set/train"
        " -o plots/features.png",
        "plot",
    ),
    use(
        "plot filters tiny.yaml --weights run/weights.safetensors --data set/train"
        " -o plots/filters.png",
        "plot",
    ),
    use(
        "plot weights tiny.yaml --weights run/weights.safetensors --data set/train"
        " -o plots/weights.png",
        "plot",
    ),
    use(
        "plot scatter tiny.yaml build/tiny-onnxruntime-int8 --weights run/weights.safetensors"
        " --data set -o plots/scatter.png",
        "plot",
    ),
    use(
        "plot errors tiny.yaml --weights run/weights.safetensors --data set/train"
        " -o plots/errors.png",
        "plot",
    ),
    use("plot cosines scales.json -o plots/cosines.svg"),
    use("plot cosines scales.json -o plots/cosines.png", "plot"),
    use("show tiny.yaml --format pdf -o plots/net.pdf", "plot"),
    use("slide mask slides/s.tif -o mask.png --rule wide", "slides"),
    use(
        "slide run build/tiny-onnxruntime-int8 slides/s.tif --at 0.5 --patch 32 --rule wide"
        " --workers 2 -o results",
        "slides",
    ),
    use(
        "slide run build/tiny-onnxruntime-int8 slides/s.tif --at 0.5 --patch 32 --rule wide"
        " --dask local -o spread",
        "slides",
        "sweep",
        loopback=True,
    ),
    use("serve results/s slides/s.tif --port 0", "slides", loopback=True, serves=True),
    use("serve results/s slides/s.tif -o viewer", "slides"),
    use("slide view results/s slides/s.tif", "slides"),
    use("slide eval results/s --truth slides", "slides"),
    use("slide patches slides/s.tif --at 0.5 --patch 32 --rule wide -o patches", "slides"),
    use("zoo"),
    use("dev table fastnet-8"),
    use("zoo table fastnet-8"),
    use("dev cache"),
    use("cache"),
    use("dev cache clear"),
    use("cache clear kernels"),
)


def list_command_names() -> Iterator[str]:
    """Yield every command as it is typed, with the names of groups.

    Includes the kinds of plots and former names of commands.
    """
    yield from _walk_commands(typer.main.get_command(app), "")
    yield from (f"plot {kind}" for kind in KINDS)
    yield from map(" ".join, FORMER_NAMES)


def _walk_commands(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        if not inner or command.invoke_without_command:
            yield f"{prefix}{name}"
        if inner:
            yield from _walk_commands(command, f"{prefix}{name} ")


def write_inputs(folder: Path) -> None:
    """Write the input files of the session: a spec, images, a checkpoint, keys and a slide."""
    (folder / "tiny.yaml").write_text(SPEC)
    (folder / "sweep.yaml").write_text(SWEEP)
    random = np.random.default_rng(3)
    for split, count in SPLITS.items():
        for label, channel in (("normal", 2), ("tumour", 0)):
            class_folder = folder / "set" / split / label
            class_folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 150, (9, 10, 3))
                pixels[:, :, channel] += 80
                Image.fromarray(pixels.astype(np.uint8)).save(class_folder / f"{number}.png")
    for name in ("plots", "slides"):
        (folder / name).mkdir()
    pixels = draw_pixels(512, 480, (*TISSUE, PINK), (*CANCER, PURPLE))
    write(folder / "slides/s.tif", pixels, levels=2)
    (folder / "slides/s.geojson").write_text(ANNOTATION)
    state = {name: random.random(shape, np.float32) for name, shape in STATE.items()}
    save_file(state, folder / "state.safetensors")
    _write_keys(folder)


def _write_keys(folder: Path) -> None:
    new = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")
    for private, public in PAIRS:
        half = ("openssl", "ec", "-in", private, "-pubout", "-out", public)
        for command in ((*new, private), half):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
