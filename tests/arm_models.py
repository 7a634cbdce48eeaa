"""A small network from an image to two outputs, and its artifact files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.target import Artifact
from tcc.compiler.ops import Concat, Conv, Flatten, GlobalAvgPool, Linear, Relu, Sigmoid
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

LABELS = ("adipose", 'quo"ted \\ ??/', "naïve", "stroma")


def make_small_model(name: str = "small") -> Model:
    """A network on images with a vector output and a map output."""
    add = NetBuilder(3, 20, 24, name=name)
    skip = add("stem", Conv(8, (3, 3), (2, 2), 1))
    add("relu", Relu())
    add("grow", Conv(8, (3, 3), padding=1))
    joined = add("join", Concat(), skip, "grow")
    add("mask", Conv(2, (1, 1)), joined)
    mask = add("mask_end", Sigmoid())
    add("gap", GlobalAvgPool(), joined)
    add("flat", Flatten())
    add("fc", Linear(4))
    graph = add.build(Output("logits", "fc", "softmax", LABELS), Output("mask", mask))
    pre = Preprocess("rgb", PixelResize((20, 24), "cover"), None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=pre),))
    return Model(graph, sample_weights(graph))


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    for name, content in artifact.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name in artifact.executable else 0o644)
    return folder


def make_random_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode_ppm(pixels: NDArray[np.uint8], comment: str = "") -> bytes:
    height, width, _ = pixels.shape
    return f"P6{comment}\n{width} {height}\n255\n".encode() + pixels.tobytes()
