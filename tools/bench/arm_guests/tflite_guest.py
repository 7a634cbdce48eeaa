"""Runs in the emulated Python: one run of TFLite that warms up, and one between opened files.

    tflite_guest.py MODEL WIDTH HEIGHT PIXELS [MEAN STD]

The arguments are those of `ncnn_guest.py`.
"""

import os
import sys
from typing import Any

import numpy as np
from tflite_runtime.interpreter import Interpreter

CHANNELS = 3


def main() -> None:
    """Load, warm up, run and end without a word more."""
    model, width, height, pixels = sys.argv[1:5]
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    image = np.fromfile(pixels, np.uint8).reshape(1, int(height), int(width), CHANNELS)
    words = [[float(each) for each in word.split(",")] for word in sys.argv[5:7]]
    for mark in (nothing, opened):
        mark()
        mean, std = words or ([0.0] * CHANNELS, [float(image.max())] * CHANNELS)
        source = stored(image, mean, std, taken)
        mark()
        interpreter.set_tensor(taken["index"], source)
        interpreter.invoke()
        values = interpreter.get_tensor(given["index"])
        mark()
        shares = plain(values, given)
        shares = np.exp(shares - shares.max())
        shares /= shares.sum()
        mark()
    print(0, *plain(values, given).reshape(-1)[:8])
    sys.stdout.flush()
    os._exit(0)


def stored(image: Any, mean: list[float], std: list[float], about: Any) -> Any:
    """Return the input: levels where the file has a scale, by a table of the 256 values."""
    scale, zero = about["quantization"]
    values = np.arange(256, dtype=np.float32)[:, None]
    table = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    if scale:
        limits = np.iinfo(about["dtype"])
        table = np.clip(np.rint(table / np.float32(scale)) + zero, limits.min, limits.max)
    table = table.astype(about["dtype"])
    return np.stack([table[:, each][image[..., each]] for each in range(CHANNELS)], -1)


def plain(values: Any, about: Any) -> Any:
    """Return an output in float."""
    scale, zero = about["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale) if scale else values


def nothing() -> None:
    """Stand for a mark in the run that warms up."""


def opened() -> None:
    """Open a file, which the counting plugin takes for a mark."""
    os.close(os.open(os.devnull, os.O_RDONLY))


main()
