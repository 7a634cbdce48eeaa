"""Run TFLite twice in the emulated Python: a warm-up, and a run between opened marker files.

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
    """Load the network, warm up, run once more and exit at once."""
    model, width, height, pixels = sys.argv[1:5]
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    (input_details,), (output_details, *_) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    image = np.fromfile(pixels, np.uint8).reshape(1, int(height), int(width), CHANNELS)
    statistics = [[float(number) for number in argument.split(",")] for argument in sys.argv[5:7]]
    for mark in (skip_mark, open_mark):
        mark()
        mean, std = statistics or ([0.0] * CHANNELS, [float(image.max())] * CHANNELS)
        source = quantize_input(image, mean, std, input_details)
        mark()
        interpreter.set_tensor(input_details["index"], source)
        interpreter.invoke()
        raw_output = interpreter.get_tensor(output_details["index"])
        mark()
        shares = dequantize_output(raw_output, output_details)
        shares = np.exp(shares - shares.max())
        shares /= shares.sum()
        mark()
    print(0, *dequantize_output(raw_output, output_details).reshape(-1)[:8])
    sys.stdout.flush()
    os._exit(0)


def quantize_input(image: Any, mean: list[float], std: list[float], details: Any) -> Any:
    """Return the input: quantized by a table of 256 values if the file's input has a scale."""
    scale, zero = details["quantization"]
    pixel_values = np.arange(256, dtype=np.float32)[:, None]
    table = (pixel_values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    if scale:
        limits = np.iinfo(details["dtype"])
        table = np.clip(np.rint(table / np.float32(scale)) + zero, limits.min, limits.max)
    table = table.astype(details["dtype"])
    return np.stack([table[:, channel][image[..., channel]] for channel in range(CHANNELS)], -1)


def dequantize_output(raw_output: Any, details: Any) -> Any:
    """Return an output in float32."""
    scale, zero = details["quantization"]
    return (raw_output.astype(np.float32) - zero) * np.float32(scale) if scale else raw_output


def skip_mark() -> None:
    """Replace `open_mark` in the warm-up run."""


def open_mark() -> None:
    """Open a file; the counting plugin treats this as a marker."""
    os.close(os.open(os.devnull, os.O_RDONLY))


main()
