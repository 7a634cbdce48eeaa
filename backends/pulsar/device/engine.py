"""Run an .axmodel file on an AX650N or AX630C: python3 classify.py compiled.axmodel input.

`input` is a raw file with exactly the bytes of the network's input, or an image of the network's
size, which needs Pillow. `contract.json`, next to this file, describes the input and the outputs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import axengine  # type: ignore[import-not-found]  # PyAXEngine, installed on the boards
import numpy as np

CONTRACT = json.loads(Path(__file__).with_name("contract.json").read_text("utf-8"))


def read_input(path: Path, shape: tuple[int, ...]) -> Any:
    """Return the input from a file, as a batch of one."""
    # 8-bit pixel values where the network reads images: the compiled model normalizes them.
    kind = np.dtype(np.uint8 if CONTRACT["image"] else np.float32)
    if path.suffix.lower() == ".bin":
        return np.fromfile(path, kind).reshape(shape)
    from PIL import Image

    gray = CONTRACT["color"] == "gray"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if gray else "RGB"))
    if CONTRACT["color"] == "bgr":
        pixels = pixels[:, :, ::-1]
    if pixels.size != np.prod(shape):
        sys.exit(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, but the network needs the"
            f" shape {shape}: resize the image"
        )
    return np.ascontiguousarray(pixels.reshape(shape))


def activate(values: Any, activation: str) -> Any:
    """Return the probabilities for raw values."""
    if activation == "softmax":
        # Subtract the largest value, so that no exponential overflows.
        shares = np.exp(values - values.max())
        return shares / shares.sum()
    return 1 / (1 + np.exp(-values)) if activation == "sigmoid" else values


def main(model: str, path: str) -> None:
    """Print the values of each output, the largest first."""
    session = axengine.InferenceSession(model)
    (source,) = session.get_inputs()
    outputs = session.get_outputs()
    raw_outputs = session.run(None, {source.name: read_input(Path(path), tuple(source.shape))})
    for output, raw in zip(outputs, raw_outputs, strict=True):
        contract = CONTRACT["outputs"].get(output.name, {"activation": "none", "labels": []})
        values = activate(np.asarray(raw, np.float64).reshape(-1), contract["activation"])
        labels = contract["labels"]
        order = np.argsort(-values, kind="stable") if labels else range(len(values))
        for index in order:
            print(output.name, labels[index] if labels else index, f"{values[index]:.6g}", sep="\t")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 classify.py compiled.axmodel input")
    main(sys.argv[1], sys.argv[2])
